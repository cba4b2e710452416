"""Labels that are not classes are refused in the same words by every command that reads labels without features."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from shards import frame_record, video_record, write_shard

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.labels import LabelRule
from yt8m_tf.data.record_check import Reader
from yt8m_tf.data.records import parse_ids
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.saved_models import evaluate_scorer
from yt8m_tf.evaluation.submissions import read_shard_labels
from yt8m_tf.report.clip_records import read_annotations
from yt8m_tf.scoring.embeddings import Embedder, embed
from yt8m_tf.stacking.inputs import _ids_and_labels

_CLASSES = 6


class _Scorer:
    """A model without metadata that gives every video class 0."""

    path, data, num_classes, id_keys, num_scores = "m", None, _CLASSES, schema.ID_KEYS, 1

    def __call__(self, serialized: tf.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = len(serialized)
        return parse_ids(serialized).numpy(), np.zeros((count, 1), np.int64), np.ones((count, 1), np.float32)


def _evaluate(shard: str) -> Any:
    return evaluate_scorer(_Scorer(), [shard], faults=Faults(), progress=False)  # type: ignore[arg-type]


_READERS = {
    "stack": lambda shard: _ids_and_labels(shard, _CLASSES, False, {}),
    "score-submission": lambda shard: read_shard_labels(shard, _CLASSES),
    "evaluate": _evaluate,
}


@pytest.mark.parametrize("read", _READERS.values(), ids=list(_READERS))
@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([1, -1], "label -1 is negative; write the shard again"),
        ([1, -2], "label -2 is negative; write the shard again"),
        ([_CLASSES], f"label {_CLASSES} is not below .*{_CLASSES}.*; .*give (other shards|shards of these classes)"),
        (np.ones(1, np.float32), "'labels' is a list of 1 float value, not int64; write the shard again"),
    ],
    ids=["-1", "-2", "too high", "floats"],
)
def test_wrong_labels(read: Any, labels: Any, problem: str, tmp_path: Path) -> None:
    means = {"rgb": np.zeros(2, np.float32)}
    shard = write_shard(
        tmp_path / "x.tfrecord", [video_record(b"a", [1], **means), video_record(b"b", labels, **means)]
    )
    with pytest.raises(InputError, match=f"x.tfrecord: record 1, video 'b': {problem}$"):
        read(str(shard))


def test_labels_of_a_timeline() -> None:
    clip = frame_record(b"a", [-1], rgb=np.zeros((2, 2), np.uint8))
    floats = frame_record(b"a", np.ones(1, np.float32), rgb=np.zeros((2, 2), np.uint8))  # type: ignore[arg-type]
    for record, problem in ((clip, "label -1 is negative"), (floats, "'labels' is a list of 1 float value")):
        with pytest.raises(InputError, match=problem):
            read_annotations("x", record, _CLASSES)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [([-1], "label -1 is negative"), (np.ones(1, np.float32), "'labels' is a list of 1 float value")],
    ids=["negative", "floats"],
)
def test_labels_that_are_copied_beside_embeddings(labels: Any, problem: str, tmp_path: Path) -> None:
    """The labels may be those of another data set, with any number of classes, but must be labels."""
    data = DataConfig(features={"rgb": 2}, num_classes=_CLASSES)
    embedder = Embedder(tmp_path / "m", data, "f", 2, lambda batch: batch["rgb"])
    means = {"rgb": np.zeros(2, np.float32)}
    shard = str(write_shard(tmp_path / "x.tfrecord", [video_record(b"a", [77], **means)]))
    assert embed(embedder, [shard], tmp_path / "out", progress=False).manifest.shards["x.tfrecord"].num_videos == 1
    write_shard(tmp_path / "x.tfrecord", [video_record(b"a", [77], **means), video_record(b"b", labels, **means)])
    with pytest.raises(InputError, match=f"x.tfrecord: record 1, video 'b': {problem}"):
        embed(embedder, [shard], tmp_path / "other", progress=False)


def test_the_rule_names_the_flag_or_the_model() -> None:
    record = video_record(b"a", [7], rgb=np.zeros(2, np.float32))
    for reader, remedy in (
        (Reader(), "data.num_classes: 6; raise data.num_classes"),
        (Reader(model="the model in x"), "6, the classes of the model in x; give shards"),
        (Reader(model="the model in x", classes_flag="--num_classes"), "--num_classes=6; raise that"),
    ):
        assert remedy in (LabelRule(_CLASSES, reader=reader).problem(record) or "")
    other = dataclasses.replace(LabelRule(_CLASSES), id_keys=("vid",), reader=Reader(model="the model in x"))
    problem = other.problem(record) or ""
    assert "its id is under 'id'" in problem and "the model in x was trained with data.keys.id=vid" in problem
