"""Fixtures: a quiet TensorFlow with two logical CPU devices, tiny shards, the real records where there are any."""

from __future__ import annotations

import functools
import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT / "tools"))

from yt8m_tf.bin.launch import import_quietly  # noqa: E402

import_quietly()
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

gc.freeze()  # what was imported stays, and need not be looked through in every collection

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def _feature(values: np.ndarray | Sequence[bytes] | Sequence[int]) -> tf.train.Feature:
    if isinstance(values, np.ndarray) and values.dtype == np.float32:
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    if len(values) and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def video_record(video_id: bytes, labels: Sequence[int] | None, **means: np.ndarray) -> bytes:
    """A serialized video-level record; labels None leaves the field out."""
    features = {"id": _feature([video_id])} | {f"mean_{name}": _feature(value) for name, value in means.items()}
    if labels is not None:
        features["labels"] = _feature(labels)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def frame_record(video_id: bytes, labels: Sequence[int] | None, **frames: np.ndarray) -> bytes:
    """A serialized frame-level record of uint8 [T, D] frames."""
    context = {"id": _feature([video_id])} | ({} if labels is None else {"labels": _feature(labels)})
    lists = {
        name: tf.train.FeatureList(feature=[_feature([frame.tobytes()]) for frame in value])
        for name, value in frames.items()
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context), feature_lists=tf.train.FeatureLists(feature_list=lists)
    ).SerializeToString()


def write_shard(path: Path, serialized: Sequence[bytes]) -> Path:
    """Writes records into one TFRecord file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record)
    return path


def start_workers(number: int, *flags: str) -> list[subprocess.Popen[str]]:
    """Starts yt8m-train as the workers of one cluster on this machine."""
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{probe.getsockname()[1]}" for probe in probes]
    for probe in probes:
        probe.close()
    processes = []
    for worker in range(number):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "yt8m_tf.bin.train", *flags],
                env=os.environ | {"TF_CONFIG": json.dumps(cluster)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return processes


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Fresh random numbers, Keras' too; the seed is in the report of a failed test, YT8M_TEST_SEED repeats it."""
    seed = int(os.environ.get("YT8M_TEST_SEED") or int.from_bytes(os.urandom(4), "little"))
    keras.utils.set_random_seed(seed)
    request.node.add_report_section("setup", "seed", f"rng seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture
def learnable_shards(tmp_path: Path, make_learnable_shards: Callable[..., Path]) -> Callable[..., Path]:
    """Makes a directory of small video- or frame-level shards whose labels follow from the features."""
    return functools.partial(make_learnable_shards, tmp_path)


@pytest.fixture(scope="session")
def make_learnable_shards() -> Callable[..., Path]:
    """`learnable_shards`, below a given directory."""

    def make(
        root: Path, level: str = "video", train: int = 4, validate: int = 2, each: int = 64, classes: int = 10
    ) -> Path:
        fixed = np.random.default_rng(1)
        prototypes = fixed.normal(size=(classes, 12)).astype(np.float32)
        for split, count in (("train", train), ("validate", validate)):
            for shard in range(count):
                serialized = []
                for i in range(each):
                    labels = sorted(fixed.choice(classes, size=int(fixed.integers(1, 4)), replace=False).tolist())
                    mean = prototypes[labels].sum(0) * 0.3 + fixed.normal(size=12).astype(np.float32) * 0.1
                    mean = np.clip(mean, -1.9, 1.9).astype(np.float32)
                    video_id = f"{split[0]}{shard}{i:03d}".encode()
                    if level == "video":
                        serialized.append(video_record(video_id, labels, rgb=mean[:8], audio=mean[8:]))
                    else:
                        length = int(fixed.integers(3, 9))
                        frames = mean + fixed.normal(size=(length, 12)) * 0.1
                        codes = np.clip(np.round((frames - (4 / 512 - 2)) * 255 / 4), 0, 255).astype(np.uint8)
                        serialized.append(frame_record(video_id, labels, rgb=codes[:, :8], audio=codes[:, 8:]))
                write_shard(root / level / f"{split}{shard:04d}.tfrecord", serialized)
        return root / level

    return make


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`sample_world.Sample`, made once."""
    from sample_world import make_sample

    return make_sample(tmp_path_factory.mktemp("sample") / "data")


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """A MirroredStrategy on two devices; one for all tests, because TensorFlow mixes up the collectives of several."""
    return tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The directory of the real records, which holds yt8m_2018/; the test is skipped where there are none."""
    for candidate in (os.environ.get("YT8M_DATA_DIR"), _ROOT.parent / "shared" / "data"):
        if candidate and (Path(candidate) / "yt8m_2018" / "validate").is_dir():
            return Path(candidate)
    pytest.skip("no real YouTube-8M records: set YT8M_DATA_DIR to the directory that contains yt8m_2018/")
