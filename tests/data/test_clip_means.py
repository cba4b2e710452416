"""Means over whole clips as features (`mean_of`): for whole clips, segments and windows; invalid ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from segments import rated_record
from shards import write_shard

from yt8m_tf.config import strict_yaml
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.record_check import check_record
from yt8m_tf.data.records import parse_records
from yt8m_tf.data.segments import parse_segments
from yt8m_tf.ensembling.weighted_mean import common_data
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.models.registry import build_model, build_without_weights, load_experiment, model_inputs
from yt8m_tf.serving.segment_inference import infer_segments
from yt8m_tf.serving.windows import Windows

_FEATURES = {"rgb": 3, "audio": {"size": 2, "range": [0.0, 1.0]}}
_MEANS = {"clip_rgb": {"size": 3, "mean_of": "rgb"}, "clip_audio": {"size": 2, "mean_of": "audio"}}


def _data(**changes) -> DataConfig:
    values = {"level": "frame", "features": {**_FEATURES, **_MEANS}, "num_classes": 6, "max_frames": 14, **changes}
    return strict_yaml.parse(DataConfig, values, "data")


def _clip(rng: np.random.Generator, name: bytes, length: int) -> tuple[bytes, dict[str, np.ndarray]]:
    """A rated clip whose audio ends a frame earlier, and the means of the first 14 frames that both features have."""
    frames = {"rgb": rng.integers(0, 256, (length + 1, 3)), "audio": rng.integers(0, 256, (length, 2))}
    record = rated_record(
        name, [(0, 1, 1.0), (10, 2, 0.0)], **{key: own.astype(np.uint8) for key, own in frames.items()}
    )
    used = min(length, 14)
    means = {
        "clip_rgb": (frames["rgb"][:used] * (4 / 255) + (4 / 512 - 2)).mean(axis=0),
        "clip_audio": (frames["audio"][:used] / 255 + 1 / 512).mean(axis=0),
    }
    return record, means


def test_every_frame_has_the_mean_of_its_clip(rng: np.random.Generator) -> None:
    found = [_clip(rng, b"%d" % length, length) for length in (1, 12, 20)]
    parsed = parse_records(tf.constant([record for record, _ in found]), _data())
    assert parsed["num_frames"].numpy().tolist() == [1, 12, 14]
    for row, (record, means) in enumerate(found):
        assert check_record(record, _data(), need_labels=True) is None
        for name, mean in means.items():
            np.testing.assert_allclose(parsed[name][row], np.tile(mean, (14, 1)), atol=1e-5)


def test_a_mean_in_the_context_is_used_and_checked(rng: np.random.Generator) -> None:
    given = [tf.train.SequenceExample.FromString(_clip(rng, b"x", 8)[0]) for _ in range(2)]
    given[0].context.feature["clip_rgb"].float_list.value.extend([1.0, 2.0, 3.0])
    parsed = parse_records(tf.constant([own.SerializeToString() for own in given]), _data())
    np.testing.assert_array_equal(parsed["clip_rgb"][0, :8], np.tile([1.0, 2.0, 3.0], (8, 1)))
    assert not np.isclose(parsed["clip_rgb"][1], parsed["clip_rgb"][0]).all()
    given[1].context.feature["clip_rgb"].float_list.value.extend([1.0] * 6)
    wrong = given[1].SerializeToString()
    with pytest.raises(tf.errors.InvalidArgumentError):
        parse_records(tf.constant([wrong]), _data())
    assert "'clip_rgb' has 6 values, not the 3 of one mean" in str(check_record(wrong, _data(), need_labels=True))


def test_a_segment_has_the_mean_of_the_whole_clip(rng: np.random.Generator) -> None:
    record, means = _clip(rng, b"x", 13)
    found = parse_segments(tf.constant([record]), _data(segments={"size": 5}), Faults())
    assert found["num_frames"].numpy().tolist() == [5, 3]
    for name, mean in means.items():
        np.testing.assert_allclose(found[name], np.tile(mean, (2, 5, 1)), atol=1e-5)


def test_windows_are_scored_with_the_mean_of_the_whole_clip(tmp_path: Path, rng: np.random.Generator) -> None:
    """The SavedModel's logits are the first frame of rgb and the mean of the clip."""
    data = _data()
    inputs = model_inputs(data.spec)
    logits = ops.concatenate([inputs["rgb"][:, 0], inputs["clip_rgb"][:, 0]], axis=1)
    export_saved_model(keras.Model(inputs, logits), data, tmp_path / "m", precision=FLOAT32)
    found = [_clip(rng, name, length) for name, length in ((b"a", 13), (b"b", 20))]
    shard = write_shard(tmp_path / "x.tfrecord", [record for record, _ in found])
    infer_segments(str(tmp_path / "m"), [str(shard)], tmp_path / "out", Windows(), layout="jsonl", progress=False)
    for line, (_, means) in zip((tmp_path / "out").read_text().splitlines(), found, strict=True):
        segments = json.loads(line)["segments"]
        assert len(segments) >= 3
        for segment in segments:
            scores = dict(zip(segment["ids"], segment["scores"], strict=True))
            expected = 1 / (1 + np.exp(-means["clip_rgb"]))
            np.testing.assert_allclose([scores[3], scores[4], scores[5]], expected, atol=1e-5)


def test_a_member_of_a_mean_takes_the_clip(rng: np.random.Generator) -> None:
    """`weighted_mean` with one member on the segment and one on the whole clip."""
    members = [
        {"name": "logistic", "features": ["rgb", "audio"]},
        {"name": "logistic", "features": ["clip_rgb", "clip_audio"]},
    ]
    data = _data()
    model = build_model({"name": "weighted_mean", "members": members, "average": "logits"}, data.spec)
    batch = {name: rng.normal(size=(2, 5, size)).astype(np.float32) for name, size in data.sizes.items()}
    batch["num_frames"] = np.array([5, 5], np.int32)
    kernels = {variable.path: variable.numpy() for variable in model.weights if "kernel" in variable.path}
    assert sorted(kernels) == ["member_0_logits/kernel", "member_1_logits/kernel"]
    parts = [
        np.concatenate([batch[name].mean(axis=1) for name in member["features"]], axis=1) @ kernels[path]
        for member, path in zip(members, sorted(kernels), strict=True)
    ]
    biases = [variable.numpy() for variable in model.weights if "bias" in variable.path]
    np.testing.assert_allclose(model(batch), (sum(parts) + sum(biases)) / 2, atol=1e-5)
    frames, clip = (_data(features=own) for own in (_FEATURES, {"rgb": 3, "clip_rgb": _MEANS["clip_rgb"]}))
    assert list(common_data([Path("a"), Path("b")], [frames, clip]).features) == ["rgb", "audio", "clip_rgb"]


def test_the_shipped_model_with_two_inputs_starts_from_two_runs_on_videos() -> None:
    """`--init_from` finds every weight in the mean of the two runs."""
    tuned = load_experiment("segments/nextvlad_whole_clip.yaml")
    videos = [load_experiment(f"first_level/{name}.yaml") for name in ("nextvlad", "frame_logistic")]
    data = common_data([Path("a"), Path("b")], [own.data for own in videos])
    mean = {"name": "weighted_mean", "members": [own.model for own in videos], "average": "logits"}
    models = [build_without_weights(*own) for own in ((mean, data.spec), (tuned.model, tuned.data.spec))]
    started, found = ({weight.path: tuple(weight.shape) for weight in model.weights} for model in models)
    assert started == found and len(found) > 10
    assert list(tuned.data.sizes) == ["rgb", "audio", "clip_rgb", "clip_audio"]


@pytest.mark.parametrize(
    ("features", "level", "message"),
    [
        (
            {"rgb": 3, "clip": {"size": 3, "mean_of": "audio"}},
            "frame",
            "'audio' is not a frame-level feature of the same size, 3",
        ),
        (
            {"rgb": 3, "clip": {"size": 4, "mean_of": "rgb"}},
            "frame",
            "'rgb' is not a frame-level feature of the same size, 4",
        ),
        (
            {"rgb": 3, "clip": {"size": 3, "mean_of": "clip"}},
            "frame",
            "'clip' is not a frame-level feature of the same size, 3",
        ),
        ({"rgb": 3, "clip": {"size": 3, "mean_of": "rgb"}}, "video", "mean_of is for clips: leave it out"),
        ({"rgb": 3, "clip": {"size": 3, "dtype": "uint8", "mean_of": "rgb"}}, "frame", "dtype of a mean is float_list"),
    ],
)
def test_invalid_means(features: dict, level: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _data(features=features, level=level)
