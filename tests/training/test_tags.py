"""Verticals as targets beside the classes, from the vocabulary to training, evaluation and export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from shards import video_record, write_shard

from yt8m_tf import run_dir
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.strict_yaml import merge
from yt8m_tf.data import statistics
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.runs import evaluate_trained
from yt8m_tf.export.trained import export_trained
from yt8m_tf.losses import losses
from yt8m_tf.models import build_model
from yt8m_tf.models.registry import parse_experiment, set_output_bias
from yt8m_tf.training import checkpoints, loop
from yt8m_tf.training.loop import RunOptions, TrainResult

_CLASSES = 10
# Class c of the vocabulary below belongs to vertical c % 3; class 4 belongs to two verticals, class 9 to none.
_MEMBERSHIP = np.array([[v == c % 3 or (c, v) == (4, 2) for v in range(3)] for c in range(9)] + [[False] * 3])


def _random_membership(rng: np.random.Generator, classes: int, tags: int) -> np.ndarray:
    membership = rng.uniform(size=(classes, tags)) < 0.3
    membership[rng.integers(classes, size=tags), np.arange(tags)] = True
    return membership.astype("float32")


@pytest.mark.parametrize("jit", [False, True])
def test_with_tags_computed_by_hand(jit: bool) -> None:
    membership = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.float32)
    targets = tf.constant([[0.0, 1, 0, 1], [0.25, 0, 0.5, 0], [0, 0, 0, 1]])
    result = tf.function(lambda t: losses.with_tags(t, membership), jit_compile=jit)(targets)
    np.testing.assert_array_equal(result, [[0, 1, 0, 1, 0, 1], [0.25, 0, 0.5, 0, 0.5, 0.5], [0, 0, 0, 1, 0, 0]])


def test_with_tags_takes_the_highest_target_of_a_tags_classes(rng: np.random.Generator) -> None:
    membership, targets = _random_membership(rng, 40, 6), rng.uniform(size=(7, 40)).astype("float32")
    expected = [[max(row[c] for c in range(40) if membership[c, v]) for v in range(6)] for row in targets]
    result = losses.with_tags(tf.constant(targets), membership).numpy()
    np.testing.assert_array_equal(result[:, :40], targets)
    np.testing.assert_array_equal(result[:, 40:], expected)


def test_prior_counts_a_video_once_for_each_tag(tmp_path: Path, rng: np.random.Generator) -> None:
    membership = _random_membership(rng, 8, 3)
    labels = [sorted(rng.choice(8, rng.integers(0, 5), replace=False).tolist()) for _ in range(300)]
    records = [video_record(b"abcd", ids, rgb=np.zeros(2, "float32")) for ids in labels]
    shard = str(write_shard(tmp_path / "train0.tfrecord", records))
    data = DataConfig(features={"rgb": 2}, num_classes=8)
    prior = statistics.class_prior([shard], data, 1000, Faults(), membership)
    classes = statistics.class_prior([shard], data, 1000, Faults())
    np.testing.assert_array_equal(prior[:8], classes)
    for v in range(3):
        own = {c for c in range(8) if membership[c, v]}
        count = sum(bool(own & set(ids)) for ids in labels)
        assert prior[8 + v] == pytest.approx((count + 1 - (1 - 3 / 8) ** len(own)) / 301, rel=1e-12)
    np.testing.assert_allclose(statistics.uniform_prior(8, membership)[:8], 3 / 8)
    assert statistics.uniform_prior(2, np.ones((2, 1))) == pytest.approx([0.5, 0.5, 0.75])


@pytest.mark.parametrize("name", ["logistic", "resnet_ff_hierarchy", "resnet_rnn_hierarchy"])
def test_a_new_model_predicts_the_prior_of_classes_and_tags(name: str, rng: np.random.Generator) -> None:
    data = DataConfig(features={"rgb": 4}, num_classes=_CLASSES, verticals=3)
    model, prior = build_model({"name": name}, data.spec), rng.uniform(0.01, 0.9, _CLASSES + 3)
    set_output_bias(model, prior)
    for variable in model.trainable_variables:
        if variable.path.endswith("kernel"):
            variable.assign(np.zeros(variable.shape))
    scores = tf.sigmoid(model({"rgb": np.ones((1, 4), "float32")}))[0]
    np.testing.assert_allclose(scores, prior, rtol=1e-5)


def _vocabulary(directory: Path) -> None:
    rows = []
    for c, row in enumerate(_MEMBERSHIP):
        verticals = [f"vertical {v}" for v in np.flatnonzero(row)]
        rows.append(",".join([str(c), f"class {c}", *verticals, *[""] * (3 - len(verticals))]))
    text = "\n".join(["Index,Name,Vertical1,Vertical2,Vertical3", *rows])
    (directory / "vocabulary.csv").write_text(text + "\n")


_SMALL = {"inner_size": 16, "av_blocks": 0, "concat_blocks": 0}  # few variables, for fast tracing
_BASE = {
    "model": {"name": "resnet_ff_hierarchy", "inner_size": 16, "resnet": _SMALL | {"dropout": 0.0}},
    "data": {
        "features": {"rgb": 8, "audio": 4},
        "num_classes": _CLASSES,
        "verticals": 3,
        "shuffle_shards": 2,
        "shuffle_records": 50,
    },
    "optimizer": {"learning_rate": 0.01},
    "train": {"batch_size": 32, "steps_per_epoch": 20, "epochs": 3, "seed": 3},
}


_HIERARCHY = {"loss": {"name": "bce_labels_tags"}, "train": {"mixup_alpha": 0.2, "ema_decay": 0.9}}


def _train(values: dict[str, Any], data_dir: Path, workdir: Path, xla: bool = False) -> TrainResult:
    options = RunOptions(str(data_dir), workdir, progress=False, xla=xla, evaluation_batch_size=64)
    return loop.train(parse_experiment(values), options, tf.distribute.get_strategy(), Faults())


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("changes", "xla"),
    [
        (_HIERARCHY, False),
        pytest.param(_HIERARCHY, True, marks=pytest.mark.slow),
        pytest.param(
            {"model": {"name": "resnet_like", "inner_size": 16, "dropout": 0.0}}, False, marks=pytest.mark.slow
        ),
    ],
    ids=["hierarchy", "hierarchy by XLA", "another model"],
)
def test_training_with_tags_evaluates_and_exports_only_classes(
    changes: dict[str, Any], xla: bool, learnable_shards: Callable[..., Path], tmp_path: Path
) -> None:
    data_dir, workdir = learnable_shards(), tmp_path / "run"
    _vocabulary(data_dir)
    values = merge(_BASE, changes) | {"model": changes.get("model", _BASE["model"])}
    result = _train(values, data_dir, workdir, xla)
    history = run_dir.read_history(workdir)
    assert result.best_gap > 0.75 and result.best_gap > history[0]["gap_at_20"]

    (data_dir / "vocabulary.csv").unlink()  # from here on, the run's configuration suffices
    trained = checkpoints.load_trained(workdir)
    assert trained.model.output_shape == (None, _CLASSES)
    whole = build_model(trained.experiment.model, trained.experiment.data.spec)
    weights = {variable.path: variable for variable in trained.model.weights}
    assert list(weights) == [variable.path for variable in whole.weights]
    for variable in whole.weights:
        variable.assign(weights[variable.path])
    features = {"rgb": tf.random.normal([5, 8]), "audio": tf.random.normal([5, 4])}
    np.testing.assert_array_equal(trained.model(features), whole(features)[:, :_CLASSES])

    metrics = evaluate_trained(
        trained, ["validate*"], str(data_dir), batch_size=64, faults=Faults(), xla=False, progress=False
    )
    best = next(line for line in history if line["step"] == result.best_step)
    assert metrics.gap == pytest.approx(best["gap_at_20"], abs=1e-4)
    report = export_trained(workdir, tmp_path / "exported", data_dir=str(data_dir))
    assert report.comparison.gap == pytest.approx(metrics.gap, abs=1e-3)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    assert exported.signatures["features"](**features)["predictions"].shape == (5, _CLASSES)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"verticals": 0},
            r"'data\.verticals': model 'resnet_ff_hierarchy' predicts verticals, too; set it to their number",
        ),
        (
            {"verticals": 4},
            r"'data\.vocabulary': .*vocabulary\.csv: its classes have 3 verticals, .* is 4; set it to 3",
        ),
        ({"vocabulary": "words.csv"}, r"'data\.vocabulary': .*words\.csv: cannot be read \(no such file\)"),
    ],
)
def test_missing_input_gives_a_one_line_error(
    data: dict[str, Any], message: str, learnable_shards: Callable[..., Path], tmp_path: Path
) -> None:
    data_dir = learnable_shards(train=1, validate=1)
    _vocabulary(data_dir)
    with pytest.raises(InputError, match=message) as error:
        _train(merge(_BASE, {"data": data}), data_dir, tmp_path / "run")
    assert "\n" not in str(error.value)
