"""A mean of several runs in one graph, and the final network over trained trunks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.config.strict_yaml import merge
from yt8m_tf.data.faults import Faults
from yt8m_tf.ensembling import weighted_mean
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.runs import evaluate_trained
from yt8m_tf.export.trained import export_trained
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import checkpoints, loop
from yt8m_tf.training.checkpoints import load_trained

_BASE: dict[str, Any] = {
    "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 10, "shuffle_shards": 2, "shuffle_records": 50},
    "optimizer": {"learning_rate": 0.03},
    "train": {"batch_size": 32, "steps_per_epoch": 10, "epochs": 3},
}
_RESNET = {"name": "resnet_like", "inner_size": 8, "av_blocks": 0, "concat_blocks": 0}
_SMALL = {"name": "small_net", "width": 0.02, "momentum": 0.9}


def _train(
    data_dir: Path, workdir: Path, model: dict[str, Any], init: Any = (), exclude: Any = (), **changes: Any
) -> Path:
    experiment = parse_experiment(merge(_BASE, changes) | {"model": model})
    options = loop.RunOptions(
        str(data_dir), workdir, xla=False, progress=False, init_from=tuple(init), init_exclude=tuple(exclude)
    )
    loop.train(experiment, options, tf.distribute.get_strategy(), Faults())
    return workdir


@dataclasses.dataclass(frozen=True)
class World:
    """Records, and runs that are trained on first use."""

    root: Path
    data_dir: Path

    def run(self, name: str, model: dict[str, Any], **changes: Any) -> Path:
        if not (self.root / name).exists():
            _train(self.data_dir, self.root / name, model, **changes)
        return self.root / name

    def logistic(self) -> Path:
        return self.run("logistic", {"name": "logistic"})

    def trunk(self, variant: str) -> Path:
        return self.run(variant, _SMALL | {"variant": variant})


@pytest.fixture(scope="module")
def world(make_learnable_shards: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    return World(root, make_learnable_shards(root))


@pytest.mark.end_to_end
def test_the_mean_of_runs_is_a_run(world: World, tmp_path: Path) -> None:
    data_dir = world.data_dir
    runs = [
        world.run("moe", {"name": "moe", "num_mixtures": 2}),
        world.run("resnet", _RESNET, train={"ema_decay": 0.9}),
        world.logistic(),
    ]
    experiment = weighted_mean.combine(runs, [1.0, 3.0, 0.0], tmp_path / "both")
    assert [member["name"] for member in experiment.model["members"]] == ["moe", "resnet_like"]
    combined = load_trained(tmp_path / "both")
    rng = np.random.default_rng(0)
    inputs = {"rgb": rng.normal(size=(5, 8)).astype("float32"), "audio": rng.normal(size=(5, 4)).astype("float32")}
    scores = [tf.sigmoid(load_trained(run).model(inputs, training=False)).numpy() for run in runs[:2]]
    found = tf.sigmoid(combined.model(inputs, training=False)).numpy()
    np.testing.assert_allclose(found, (scores[0] + 3 * scores[1]) / 4, rtol=1e-5, atol=1e-6)
    metrics = evaluate_trained(combined, ["validate*"], str(data_dir), faults=Faults(), xla=False, progress=False)
    assert metrics.gap > 0.6
    report = export_trained(tmp_path / "both", tmp_path / "exported", data_dir=str(data_dir))
    assert report.comparison.gap == pytest.approx(metrics.gap, abs=1e-4)


@pytest.mark.end_to_end
def test_members_of_other_features(world: World, tmp_path: Path) -> None:
    data_dir = world.data_dir
    alone = parse_experiment(
        merge(_BASE, {"model": {"name": "logistic"}}) | {"data": {**_BASE["data"], "features": {"audio": 4}}}
    )
    options = loop.RunOptions(str(data_dir), tmp_path / "audio", xla=False, progress=False)
    loop.train(alone, options, tf.distribute.get_strategy(), Faults())
    both = world.logistic()
    experiment = weighted_mean.combine([tmp_path / "audio", both], [1.0, 1.0], tmp_path / "mean")
    assert dict(experiment.data.features) == {"audio": 4, "rgb": 8}
    assert experiment.model["members"][0]["features"] == ["audio"]
    rng = np.random.default_rng(0)
    inputs = {"rgb": rng.normal(size=(5, 8)).astype("float32"), "audio": rng.normal(size=(5, 4)).astype("float32")}
    scores = [
        tf.sigmoid(load_trained(tmp_path / "audio").model({"audio": inputs["audio"]})),
        tf.sigmoid(load_trained(both).model(inputs)),
    ]
    found = tf.sigmoid(load_trained(tmp_path / "mean").model(inputs))
    np.testing.assert_allclose(found, (scores[0] + scores[1]) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.end_to_end
def test_runs_that_cannot_be_combined(world: World, tmp_path: Path) -> None:
    run = world.logistic()
    other = _train(
        world.data_dir, tmp_path / "other", {"name": "logistic"}, data={"num_classes": 11}, train={"epochs": 1}
    )
    with pytest.raises(InputError, match=r"other and .*logistic have different data\.num_classes"):
        weighted_mean.combine([run, other], [1.0, 1.0], tmp_path / "mean")
    with pytest.raises(InputError, match=r"--members: .*logistic and .*logistic are the same run; name it once, with"):
        weighted_mean.combine(
            [run, other, run.parent / "." / other.name / ".." / run.name], [1.0] * 3, tmp_path / "mean"
        )
    with pytest.raises(InputError, match="all are 0"):
        weighted_mean.combine([run], [0.0], tmp_path / "mean")
    with pytest.raises(InputError, match=r"--members: .*none is not a run directory of yt8m-train \(it has no config"):
        weighted_mean.combine([tmp_path / "none"], [1.0], tmp_path / "out")
    with pytest.raises(InputError, match="contains a run already"):
        weighted_mean.combine([run], [1.0], other)
    weights = tmp_path / "weights.json"
    weights.write_text(json.dumps({"logistic": 0.25}))
    assert weighted_mean.read_weights(weights, ["logistic"]) == [0.25]
    with pytest.raises(InputError, match="no weight of 'x'; it has logistic"):
        weighted_mean.read_weights(weights, ["x"])
    weights.write_text("[")
    with pytest.raises(InputError, match=r"weights\.json: cannot be read"):
        weighted_mean.read_weights(weights, ["logistic"])


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("trunks", "train_trunks", "epochs", "reached"),
    [
        (("a",), False, 1, 0.3),
        pytest.param(("a", "c"), False, 6, 0.75, marks=pytest.mark.slow),
        pytest.param(("a", "c"), True, 6, 0.75, marks=pytest.mark.slow),
    ],
)
def test_final_network_starts_with_trained_trunks(
    trunks: tuple[str, ...], train_trunks: bool, epochs: int, reached: float, world: World, tmp_path: Path
) -> None:
    data_dir = world.data_dir
    small = {name: world.trunk(name) for name in trunks}
    final = {"name": "final_network", "trunks": list(trunks), "width": 0.02, "momentum": 0.9}
    model = final | {"hidden_sizes": [800, 600], "train_trunks": train_trunks}
    run = _train(data_dir, tmp_path / "final", model, small.values(), ("hidden*", "logits/*"), train={"epochs": epochs})
    found = {variable.path: variable.numpy() for variable in load_trained(run, "last").model.weights}
    for name, workdir in small.items():
        for variable in load_trained(workdir).model.weights:
            if variable.path.startswith(f"{name}_"):
                same = np.array_equal(found[variable.path], variable.numpy())
                assert same == (not train_trunks), variable.path
    best = checkpoints.latest_state(run)
    assert best is not None and best.plateau.best_gap > reached


@pytest.mark.end_to_end
def test_a_variable_that_no_source_has(world: World, tmp_path: Path) -> None:
    data_dir, small = world.data_dir, world.trunk("a")
    final = {"name": "final_network", "trunks": ["a", "c"], "hidden_sizes": [8], "width": 0.02}
    with pytest.raises(InputError, match="is of another model: 'model/c_rgb1_dense/kernel'"):
        _train(data_dir, tmp_path / "final", final, [small], ("hidden*", "logits/*"))


@pytest.mark.parametrize("weight", ["NaN", "Infinity", '"nan"', "1" + "0" * 400, "null", "[" * 100_000])
def test_weights_that_are_not_numbers_are_refused(weight: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text(f'{{"a": {weight}}}')
    with pytest.raises(InputError, match=r"weights\.json: cannot be read .*give weights\.json of yt8m-stack"):
        weighted_mean.read_weights(path, ["a"])
