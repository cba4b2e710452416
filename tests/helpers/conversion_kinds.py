"""Kinds of files that the download and the conversion open; `input_kinds` has those of the other commands."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf
from input_kinds import Input, Kind
from pyarrow import parquet

from yt8m_tf.conversion.encoding import Storage
from yt8m_tf.conversion.sources import open_source
from yt8m_tf.conversion.staging import Staging
from yt8m_tf.conversion.tables import read_table, write_vocabulary
from yt8m_tf.download.known import RECORD, KnownFiles
from yt8m_tf.download.plan import Partition, parse_plan

_SIZES = {"rgb": 3, "audio": 2}


def _frames(count: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {name: rng.normal(size=[count, size]).astype(np.float32) for name, size in _SIZES.items()}


def _features(path: Path, pattern: str) -> Input:
    """Returns an input of features: any file must give videos that can be stored, or problems of one line."""

    def call() -> None:
        reader, chunks = open_source([pattern], None, "id", ("labels", "split"))
        with tempfile.TemporaryDirectory() as folder:
            staging = Staging(Path(folder), reader, _SIZES, Storage())
            for number, chunk in enumerate(chunks):
                staging.make(chunk, str(number))
                part = staging.read(str(number))
                assert all(text.isprintable() for problem in part.problems for text in problem)
                for video in part.videos.values():
                    encoded = staging.load(str(number), video)
                    assert encoded.means.keys() == _SIZES.keys()
                    assert all(np.isfinite(mean).all() for mean in encoded.means.values())

    return Input(path, call, (path.name,))


def _arrays(directory: Path) -> Input:
    np.savez(directory / "x.npz", **_frames())
    return _features(directory / "x.npz", str(directory / "x.npz"))


def _array(directory: Path) -> Input:
    np.save(directory / "x.npy", _frames()["rgb"])
    return _features(directory / "x.npy", f"rgb={directory}/x.npy")


def _mediapipe(directory: Path) -> Input:
    lists = {
        f"{name.upper()}/feature/floats": tf.train.FeatureList(
            feature=[tf.train.Feature(float_list=tf.train.FloatList(value=row)) for row in frames]
        )
        for name, frames in _frames().items()
    }
    clip = tf.train.SequenceExample(feature_lists=tf.train.FeatureLists(feature_list=lists))
    (directory / "x.pb").write_bytes(clip.SerializeToString())
    return _features(directory / "x.pb", str(directory / "x.pb"))


def _parquet(directory: Path) -> Input:
    lists = {name: [frames.tolist()] * 3 for name, frames in _frames().items()}
    parquet.write_table(pa.table({"id": ["a", "b", "c"], **lists}), directory / "x.parquet", row_group_size=2)
    return _features(directory / "x.parquet", str(directory / "x.parquet"))


def _csv_features(directory: Path) -> Input:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "labels", "rgb", "audio_0", "audio_1"])
    writer.writerows([video, "x", json.dumps([0.5, 1.0, -1.0]), 0.25, 4] for video in ("a", "b", "c"))
    (directory / "x.csv").write_text(text.getvalue())
    return _features(directory / "x.csv", str(directory / "x.csv"))


def _labels(directory: Path) -> Input:
    path = directory / "labels.csv"
    path.write_text("id,labels,split\na,cat;dog,train\nb,dog,validate\nc,,test\n")

    def call() -> None:
        table = read_table(path)
        for row in table.rows.values():
            assert all(0 <= label < len(table.class_names) for label in row.labels or ())
        write_vocabulary(directory / "vocabulary.csv", table, table.rows)

    return Input(path, call, (path.name,))


def _plan(directory: Path) -> Input:
    path, names = directory / "plan.json", [f"traina{letter}.tfrecord" for letter in "abc"]
    path.write_text(json.dumps({"files": {name: hashlib.md5(name.encode()).hexdigest() for name in names}}))

    def call() -> None:
        for file in parse_plan(path.read_bytes(), Partition("2", "video", "train"), "http://x/plan.json"):
            for names in ("numbered", "original"):
                assert "/" not in file.stored_name(names) and file.stored_name(names)[0] != "."

    return Input(path, call, ("plan.json",))


def _known(directory: Path) -> Input:
    (directory / "a.tfrecord").write_bytes(b"x")
    known = KnownFiles(directory)
    known.add("a.tfrecord", "2/video/train/trainaa.tfrecord", "0" * 32)
    known.write()

    def call() -> None:
        assert isinstance(KnownFiles(directory).md5("a.tfrecord"), str | None)

    return Input(directory / RECORD, call, (RECORD,))


KINDS: Mapping[str, Kind] = {
    "arrays": Kind("npz", _arrays, 4),
    "array": Kind("bytes", _array, 3),
    "MediaPipe's file": Kind("record", _mediapipe, 4),
    "Parquet of features": Kind("bytes", _parquet, 4),
    "CSV of features": Kind("csv", _csv_features, 4),
    "table of labels": Kind("csv", _labels, 4),
    "plan of a partition": Kind("json", _plan, 3),
    "record of a download": Kind("json", _known, 3),
}
