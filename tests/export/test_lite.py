import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_models import FEATURES, NUM_CLASSES, tiny_data, tiny_model
from tiny_options import OPTIONS

from yt8m_tf import models
from yt8m_tf.data.clips import model_inputs
from yt8m_tf.errors import InputError
from yt8m_tf.export.lite import LITE_FILE, Runner, convert
from yt8m_tf.export.precision import parse_precision
from yt8m_tf.export.trained import export_trained
from yt8m_tf.layers import masking
from yt8m_tf.layers.attention import PositionedSelfAttention
from yt8m_tf.training import checkpoints

# The largest difference of scores caused by rounding weights to float16.
CLOSE = 1e-3
FRAME_LEVEL = (
    *("dbof", "soft_dbof", "time_distributed_dense_max", "transformer", "linear_combinations"),
    *("time_distributed_conv", "vlad_bow"),
)
SMALL = {
    "logistic": {},
    "moe": {},
    "fcn": {"hidden_sizes": [32, 16]},
    "resnet_like": {"inner_size": 32},
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ("moe", "fcn"))) for n in SMALL])
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


def test_the_file_is_half_of_float32(rng):
    data = tiny_data("video", features={"rgb": 256}, num_classes=200)
    model = tiny_model(data, rng)
    content = convert(model, data)
    assert 0.5 < len(content) / sum(4 * int(np.prod(v.shape)) for v in model.weights) < 0.65


def _check_clips(model, data, rng):
    """Checks that the converted model gives the scores of `model` for padded clips of several lengths."""
    for variable in model.weights:
        if variable.dtype.startswith("float") and "moving_variance" not in variable.path:
            variable.assign(variable + rng.normal(0.0, 0.05, variable.shape))
    clips = {name: rng.integers(0, 256, (3, 12, size), dtype=np.uint8) for name, size in FEATURES.items()}
    clips["num_frames"] = np.array([12, 5, 1], np.int32)
    inputs = model_inputs({name: tf.constant(values) for name, values in clips.items()}, data.spec)
    expected = tf.sigmoid(model(inputs, training=False))
    np.testing.assert_allclose(Runner(convert(model, data))(**clips), expected, atol=CLOSE, rtol=0)


def test_maxima_over_frames_and_attention_convert(rng):
    data = tiny_data("frame")
    inputs = models.registry.model_inputs(data.spec)
    mask = masking.clip_mask(inputs)
    x = PositionedSelfAttention(6, 2, 9)(inputs["rgb"], mask)
    outputs = keras.layers.Dense(NUM_CLASSES)(masking.masked_max(x, mask))
    _check_clips(keras.Model(inputs, outputs, name="attention_and_maximum"), data, rng)


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAME_LEVEL)
def test_frame_level_families_convert(name, rng):
    data = tiny_data("frame")
    _check_clips(models.build_model({"name": name, **OPTIONS[name]}, data.spec), data, rng)


def test_recurrent_layers_give_a_one_line_error(tmp_path):
    data = tiny_data("frame")
    inputs = models.registry.model_inputs(data.spec)
    x = keras.layers.GRU(8)(inputs["rgb"])
    model = keras.Model(inputs, keras.layers.Dense(NUM_CLASSES)(x), name="gru")
    with pytest.raises(InputError, match=r"--tflite: model 'gru' does not convert.*lists of tensors") as raised:
        convert(model, data)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_export_of_a_run_with_lite_model(learnable_shards, tmp_path, rng):
    from yt8m_tf.models.registry import parse_experiment

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
    assert report.lite is not None and 0 < report.lite.max_difference < CLOSE
    assert [line for line in report.lines() if line.startswith("LiteRT model: GAP@20")]
    features = {"rgb": rng.normal(size=(5, 8)).astype(np.float32), "audio": rng.normal(size=(5, 4)).astype(np.float32)}
    found = Runner((tmp_path / "m" / "1" / LITE_FILE).read_bytes())(**features)
    np.testing.assert_allclose(found, tf.sigmoid(model(features, training=False)), atol=CLOSE, rtol=0)
    written = json.loads((tmp_path / "m" / "1" / "assets.extra" / "export_report.json").read_text())
    assert written["lite"]["gap"] == report.lite.gap
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["1"]
