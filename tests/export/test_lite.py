import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_models import FEATURES, NUM_CLASSES, tiny_data, tiny_model

from yt8m_tf import models
from yt8m_tf.errors import InputError
from yt8m_tf.export.lite import LITE_FILE, LiteReport, Runner, convert, write_lite
from yt8m_tf.export.precision import parse_precision
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.export.trained import export_trained
from yt8m_tf.training import checkpoints

# Largest difference of scores by rounding of weights to float16.
CLOSE = 1e-3
SMALL = {
    "logistic": {},
    "moe": {},
    "fcn": {"hidden_sizes": [32, 16]},
    "resnet_like": {"inner_size": 32},
}


@pytest.mark.parametrize("name", SMALL)
def test_video_level_families_convert_for_any_number_of_rows(name, rng, tmp_path):
    data = tiny_data("video")
    model = models.build_model({"name": name, **SMALL[name]}, data.spec)
    for variable in model.weights:
        values = rng.normal(0.0, 1 / np.sqrt(variable.shape[0]), variable.shape)
        variable.assign(np.abs(values) + 0.5 if variable.name == "moving_variance" else values)
    runner = Runner(convert(model, data))
    for rows in (3, 1, 8):
        features = {n: rng.normal(size=(rows, size)).astype(np.float32) for n, size in FEATURES.items()}
        expected = tf.sigmoid(model(features, training=False))
        assert expected.shape == (rows, NUM_CLASSES)
        np.testing.assert_allclose(runner(**features), expected, atol=CLOSE, rtol=0)


def test_the_file_is_half_of_float32_and_is_compared_on_valid_rows_alone(rng, tmp_path):
    data = tiny_data("video", features={"rgb": 256}, num_classes=200)
    model = tiny_model(data, rng)
    export_saved_model(model, data, tmp_path / "m", precision=parse_precision("float32"))
    batches = []
    for valid in ([True] * 4, [True, True, False, False]):
        features = rng.normal(size=(4, 256)).astype(np.float32)
        features[~np.array(valid)] = np.nan
        best = np.argmax(model({"rgb": features}, training=False), axis=1)  # GAP is not 0
        labels = np.stack([best, (best + 1) % 200], axis=1).astype(np.int32)
        batches.append({"rgb": tf.constant(features), "labels": tf.constant(labels), "valid": tf.constant(valid)})
    report = write_lite(model, data, tmp_path / "m", batches)

    content = (tmp_path / "m" / LITE_FILE).read_bytes()
    assert report.num_bytes == len(content)
    assert 0.5 < len(content) / sum(4 * int(np.prod(v.shape)) for v in model.weights) < 0.65
    features = np.concatenate([batch["rgb"].numpy()[batch["valid"].numpy()] for batch in batches])
    difference = np.abs(Runner(content)(rgb=features) - tf.sigmoid(model({"rgb": features}, training=False)).numpy())
    assert report.max_difference == pytest.approx(difference.max(), abs=1e-6)
    assert report.mean_difference == pytest.approx(difference.mean(), abs=1e-6)
    assert 0 < report.max_difference < CLOSE
    assert 0 < report.gap < 1 and abs(report.gap - report.gap_saved_model) < 0.05  # of 12 labels a swap counts


def test_tolerance():
    report = LiteReport(num_bytes=9, gap=0.7001, gap_saved_model=0.7003, max_difference=0.0, mean_difference=0.0)
    report.check(3e-4)
    with pytest.raises(InputError, match=r"--tflite: .*0\.700100.*0\.700300.*--tolerance=0\.0001"):
        report.check(1e-4)


def test_recurrent_layers_are_one_line(tmp_path):
    data = tiny_data("frame")
    inputs = models.registry.model_inputs(data.spec)
    x = keras.layers.GRU(8)(inputs["rgb"])
    model = keras.Model(inputs, keras.layers.Dense(NUM_CLASSES)(x), name="gru")
    with pytest.raises(InputError, match=r"--tflite: model 'gru' does not convert.*lists of tensors") as raised:
        convert(model, data)
    assert "\n" not in str(raised.value)


def test_export_of_a_run_with_lite_model(learnable_shards, tmp_path, rng):
    from yt8m_tf.experiment import parse_experiment

    data_dir = learnable_shards("video", train=1, validate=1, each=40, classes=24)
    values = {"model": {"name": "resnet_like", "inner_size": 64}}
    values["data"] = {"features": {"rgb": 8, "audio": 4}, "num_classes": 24}
    experiment = parse_experiment(values)
    model = models.build_model(experiment.model, experiment.data.spec)
    checkpoints.save_run(tmp_path / "run", experiment, {v.path: v for v in model.weights})
    cluster = parse_precision("cluster")
    report = export_trained(
        tmp_path / "run", tmp_path / "m" / "1", data_dir=str(data_dir), tflite=True, precision=cluster, tolerance=0.1
    )
    assert report.lines[-1].startswith("LiteRT: ")
    written = json.loads((tmp_path / "m" / "1" / "assets.extra" / "export_report.json").read_text())
    assert written["metrics"]["lite"]["num_bytes"] == (tmp_path / "m" / "1" / LITE_FILE).stat().st_size
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["1"]
