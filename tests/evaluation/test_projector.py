"""The class weights of every registered model in TensorBoard's projector, as the plugin itself reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from random_metrics import random_metrics
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from tiny_options import FRAME_OPTIONS, NUM_TAGS, OPTIONS
from werkzeug import test as werkzeug_test
from werkzeug import wrappers

from yt8m_tf import models
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.projector import write_projector
from yt8m_tf.models import class_layer
from yt8m_tf.models.registry import registration
from yt8m_tf.vocabulary import load_details

_CLASSES = 17


def class_weights(model: keras.Model, spec: InputSpec) -> np.ndarray:
    return class_layer.class_weights(model, spec, "--projector")


def _build(name: str, num_tags: int = 0) -> tuple[keras.Model, InputSpec]:
    level = registration(name).levels[0]
    spec = InputSpec(level, {"rgb": 12, "audio": 5}, _CLASSES, 9, num_tags or NUM_TAGS.get(name, 0))
    options = OPTIONS[name] | (FRAME_OPTIONS.get(name, {}) if level == "frame" else {})
    return models.build_model({"name": name, **options}, spec), spec


@pytest.mark.parametrize(
    "name", sorted({*models.model_names()} - {"kernel_ridge", "nearest_neighbors", "sparse_kernel_ridge"})
)
def test_every_model_has_a_vector_for_each_class(name: str) -> None:
    model, spec = _build(name)
    weights = class_weights(model, spec)
    assert weights.shape[0] == _CLASSES and weights.shape[1] > 1 and weights.dtype == np.float32
    # Distinct random vectors, not rows of zeros or of only one class.
    assert len(np.unique(weights, axis=0)) == _CLASSES


@pytest.mark.parametrize("num_tags", [0, 3])
def test_columns_of_the_kernel_and_means_of_experts(num_tags: int) -> None:
    model, spec = _build("logistic", num_tags)
    kernel = model.get_layer("logits").kernel.numpy()
    assert kernel.shape[1] == _CLASSES + num_tags
    np.testing.assert_array_equal(class_weights(model, spec), [kernel[:, c] for c in range(_CLASSES)])
    model, spec = _build("moe", num_tags)
    experts = model.get_layer("logits").expert_kernel.numpy()
    expected = [(experts[:, 3 * c] + experts[:, 3 * c + 1] + experts[:, 3 * c + 2]) / 3 for c in range(_CLASSES)]
    np.testing.assert_allclose(class_weights(model, spec), expected, rtol=1e-5, atol=1e-7)


def test_a_member_without_a_class_layer_is_left_out() -> None:
    neighbors = {"name": "nearest_neighbors", "capacity": 9}
    spec = InputSpec("video", {"rgb": 12, "audio": 5}, _CLASSES, 9)
    both_options = {"name": "weighted_mean", "members": [{"name": "logistic"}, neighbors]}
    both = models.build_model(both_options, spec)
    assert class_weights(both, spec).shape == (_CLASSES, 17)
    nested = {"name": "weighted_mean", "members": [{"name": "moe"}, both_options]}
    assert class_weights(models.build_model(nested, spec), spec).shape == (_CLASSES, 34)
    with pytest.raises(
        InputError, match=r"^--projector: model 'nearest_neighbors' has no layer .*; leave the flag out$"
    ):
        class_weights(models.build_model(neighbors, spec), spec)


def test_a_model_without_a_class_layer_gives_a_one_line_error() -> None:
    inputs = keras.Input((4,), name="rgb")
    model = keras.Model({"rgb": inputs}, keras.ops.tile(inputs, (1, 5))[:, :_CLASSES], name="odd")
    with pytest.raises(InputError, match=r"^--projector: model 'odd' has no layer .* 17 classes; leave the flag out$"):
        class_weights(model, InputSpec("video", {"rgb": 4}, _CLASSES, 9))


def _plugin(logdir: Path) -> werkzeug_test.Client:
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    plugin = ProjectorPlugin(base_plugin.TBContext(data_provider=provider, logdir=str(logdir)))
    apps = plugin.get_plugin_apps()
    return werkzeug_test.Client(lambda environ, start: apps[environ["PATH_INFO"]](environ, start), wrappers.Response)


def test_the_plugin_shows_the_written_vectors(tmp_path: Path, rng: np.random.Generator) -> None:
    metrics = random_metrics(rng, classes=25)
    names = ['Rock "n" roll', "tab\tand  spaces", "", *(f"name {c}" for c in range(3, 25))]
    lines = ["Index,TrainVideoCount,Name,Vertical1"]
    lines += [f'{c},{1000 - c},"{name.replace(chr(34), chr(34) * 2)}",vertical {c % 3}' for c, name in enumerate(names)]
    (tmp_path / "vocabulary.csv").write_text("\n".join(lines) + "\n")
    directory = tmp_path / "first" / "run" / "projector"
    for size in (9, 6):  # the second replaces the first
        weights = rng.normal(size=(25, size)).astype(np.float32)
        write_projector(directory, weights, metrics, load_details(tmp_path / "vocabulary.csv", 25))
    shutil.move(tmp_path / "first", tmp_path / "moved")
    client = _plugin(tmp_path / "moved")
    assert client.get("/runs").json == ["run/projector"]
    query = "?run=run/projector&name=class_weights"
    (embedding,) = client.get("/info" + query).json["embeddings"]
    assert embedding["tensorName"] == "class_weights" and embedding["tensorShape"] == [25, 6]
    shown = np.frombuffer(client.get("/tensor" + query).data, np.float32).reshape(25, 6)
    np.testing.assert_array_equal(shown, weights)
    header, *rows = [line.split("\t") for line in client.get("/metadata" + query).text.splitlines()]
    assert header == ["name", "class", "vertical", "training_videos", "positives", "average_precision"]
    names[1:3] = "tab and spaces", "class 2"
    for c, row in enumerate(rows):
        precision = metrics.average_precision[c]
        shown_precision = "" if np.isnan(precision) else f"{precision:.4f}"
        counts = [f"{1000 - c}", f"{metrics.num_positives[c]}"]
        assert row == [names[c], f"{c}", f"vertical {c % 3}", *counts, shown_precision]
    assert len(rows) == 25 and json.dumps(embedding)


def test_without_a_vocabulary_classes_are_numbered(tmp_path: Path, rng: np.random.Generator) -> None:
    write_projector(tmp_path, np.ones((25, 2), np.float32), random_metrics(rng, classes=25))
    header, first, *_ = (tmp_path / "class_weights.tsv").read_text().splitlines()
    assert header == "name\tclass\tpositives\taverage_precision" and first.startswith("class 0\t0\t")
    tensor = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path))).get_tensor("class_weights")
    assert tensor.shape == (25, 2)


def test_an_unwritable_directory_gives_a_one_line_error(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(InputError, match=r"^--projector: '.*' cannot be written"):
        write_projector(tmp_path / "file" / "run", np.ones((25, 2), np.float32), random_metrics(rng))


def test_the_guide_shows_embeddings_of_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """The script in docs/INFERENCE.md, on files in the format of yt8m-score and yt8m-infer."""
    guide = (Path(__file__).resolve().parents[2] / "docs" / "INFERENCE.md").read_text(encoding="utf-8")
    (script,) = [block.partition("\n```")[0] for block in guide.split("```python\n")[1:] if "projector" in block]
    vectors = rng.normal(size=[5, 3]).astype(np.float16)
    (tmp_path / "arrays").mkdir()
    lines = []
    for name, rows in (("a", range(2)), ("b", range(2, 5))):
        np.save(tmp_path / "arrays" / f"{name}.npy", vectors[rows])
        (tmp_path / "arrays" / f"{name}.ids.txt").write_text("".join(f"v{row}\n" for row in rows))
        lines += [f"v{row}: Game 0.9, Car: red 0.{row}" for row in rows]
    (tmp_path / "names.txt").write_text("\n".join(reversed(lines)) + "\n")
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    client = _plugin(tmp_path / "projector")
    (run,) = client.get("/runs").json
    tensor = client.get("/tensor", query_string={"run": run, "name": "videos"})
    np.testing.assert_allclose(np.frombuffer(tensor.data, np.float32).reshape(5, 3), vectors, rtol=1e-4)
    metadata = client.get("/metadata", query_string={"run": run, "name": "videos"}).data.decode().splitlines()
    assert metadata[0] == "id\tnames" and metadata[3] == "v2\tGame 0.9, Car: red 0.2" and len(metadata) == 6
