"""Models with the starter code's interface for MediaPipe: frames of rgb and audio in, scores of all classes out."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from foreign_models import save_frames_model
from tiny_models import empty_clip, tiny_data, tiny_records, write_shard

from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.saved_models import evaluate_scorer
from yt8m_tf.serving.inference import infer
from yt8m_tf.serving.scorer import load_scorer

_CLASSES, _LENGTH = 25, 9


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Weights [1152, 25], a shard of clips of 1 to 8 frames, its records, and scores [N, C] from plain NumPy."""
    rng = np.random.default_rng(5)
    data = tiny_data("frame", features={"rgb": 1024, "audio": 128}, num_classes=_CLASSES, max_frames=_LENGTH - 3)
    records = tiny_records(data, rng, 11)
    weights = rng.normal(size=(1152, _CLASSES)).astype(np.float32) * 0.2
    scores = []
    for record in records:
        lists = tf.train.SequenceExample.FromString(record).feature_lists.feature_list
        clip = [
            np.stack([np.frombuffer(f.bytes_list.value[0], np.uint8) for f in lists[name].feature]).astype(np.float64)
            for name in ("rgb", "audio")
        ]
        mean = np.concatenate(clip, axis=1).mean(axis=0) * (4 / 255) + (4 / 512 - 2)
        scores.append(1 / (1 + np.exp(-mean @ weights.astype(np.float64))))
    root = tmp_path_factory.mktemp("frames")
    return weights, write_shard(root / "0.tfrecord", records), records, np.array(scores)


@pytest.mark.parametrize(("batch", "length"), [(None, None), (4, _LENGTH)])
def test_such_models_are_inferred_and_evaluated(world, tmp_path, batch, length):
    weights, shard, records, expected = world
    path = save_frames_model(tmp_path / "m", weights, batch, length)
    infer(path, [shard], tmp_path / "out.csv", batch_size=8, progress=False)
    for line, scores in zip((tmp_path / "out.csv").read_text().splitlines()[1:], expected, strict=True):
        words = line.split(",")[1].split()
        best = np.argsort(-scores)[:20]
        assert [int(word) for word in words[::2]] == best.tolist()
        np.testing.assert_allclose([float(word) for word in words[1::2]], scores[best], atol=1e-5, rtol=0)

    labels = [
        {*tf.train.SequenceExample.FromString(record).context.feature["labels"].int64_list.value} for record in records
    ]
    scorer = load_scorer(path, 1)
    assert (scorer.num_classes, scorer.data.level) == (_CLASSES, "frame")
    metrics = evaluate_scorer(scorer, [shard], batch_size=8, faults=Faults(), progress=False)
    hits = [int(scores.argmax()) in own for scores, own in zip(expected, labels, strict=True)]
    assert metrics.hit_at_1 == pytest.approx(np.mean(hits)) and metrics.num_videos == len(records)


def test_clips_without_frames_are_left_out(world, tmp_path):
    weights, _, records, _ = world
    path = save_frames_model(tmp_path / "m", weights)
    shard = write_shard(tmp_path / "0.tfrecord", [records[0], empty_clip(b"none"), records[1]])
    with pytest.raises(InputError, match=r"record 1, video 'none': no frames at all"):
        infer(path, [shard], tmp_path / "out.csv", progress=False)
    faults = Faults(on_empty="skip")
    assert infer(path, [shard], tmp_path / "out.csv", faults=faults, progress=False).num_rows == 2
    assert faults.num_empty == 1


@pytest.mark.parametrize(
    ("size", "changes", "message"),
    [
        (64, {}, r"rgb_and_audio is float32 \(None, None, 64\), not float32 \(B, T, 1152\)"),
        (
            1152,
            {"frames": tf.TensorSpec([None, None, 1152], tf.uint8, "rgb_and_audio")},
            r"rgb_and_audio is uint8 \(None, None, 1152\), not float32",
        ),
        (1152, {"counts": tf.TensorSpec([None, 1], tf.float32, "num_frames")}, r"num_frames is float32 .*, not int32"),
        (1152, {"output": "scores"}, r"gives scores: float32 \(None, 25\), not predictions of \(B, C\)"),
    ],
)
def test_other_interfaces_are_refused(size, changes, message, tmp_path):
    path = save_frames_model(tmp_path / "m", np.zeros((size, _CLASSES), np.float32), **changes)
    with pytest.raises(InputError, match=rf"^--saved_model=.*: {message}") as error:
        load_scorer(path)
    assert "\n" not in str(error.value)


def test_another_number_of_classes_is_refused(world, tmp_path):
    path = save_frames_model(tmp_path / "m", world[0])
    with pytest.raises(InputError, match=r"gives predictions: float32 \(None, 25\), not .* of \(B, 30\)"):
        load_scorer(path, 1, num_classes=30)
