"""Fixtures: a quiet TensorFlow with two logical CPU devices, tiny shards, and real records if there are any."""

from __future__ import annotations

import functools
import gc
import os
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    import tensorflow as tf

_ROOT = Path(__file__).resolve().parent.parent

_LONG = tuple(
    f"tests/{name}.py"
    for name in (
        *("pipelines/test_pipelines", "training/test_loop", "models/test_contract", "ensembling/packing/test_pack"),
        *("test_odd_paths", "training/test_segments", "ensembling/test_weighted_mean", "stacking/test_stack"),
        *("test_mutated_inputs", "test_examples", "test_old_runs", "training/test_tags", "test_own_videos"),
        *("bin/test_commands", "stacking/test_sizes"),
    )
)


def pytest_configure(config: pytest.Config) -> None:
    """Draws the seed of a run with fresh random numbers, which test processes inherit, and sets TensorFlow up."""
    if os.environ.get("YT8M_TEST_SEED") == "random":
        os.environ["YT8M_TEST_SEED"] = str(int.from_bytes(os.urandom(4), "little"))
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Each of several test processes has one core: several OpenMP threads (of LightGBM) would busy-wait.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    elif config.getoption("numprocesses", None):
        return  # This process only starts the others: they need not wait until it has imported TensorFlow.
    _set_up_tensorflow()


def _set_up_tensorflow() -> None:
    """Imports TensorFlow without its log noise, as commands do, with two logical CPU devices."""
    from yt8m_tf.console.quiet import import_quietly

    import_quietly()
    import keras  # noqa: F401
    import tensorflow as tf

    from yt8m_tf.export import measure

    # Exports measure their rates, which no test checks: a moment is enough.
    measure._RATE_SECONDS, measure._RATE_CALLS = 0.01, 1
    # Imported objects stay alive, so the garbage collector need not scan them. Tests trace large graphs, so it should
    # look for cycles less often than by default.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    # A shell script starts background processes with SIGINT ignored, and commands keep that; but tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the seed, so that a failure can be reproduced."""
    terminalreporter.write_line(f"random inputs: YT8M_TEST_SEED={os.environ.get('YT8M_TEST_SEED', '0')}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that `make fuzz` runs, and puts the slowest files first."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))  # a stable sort: otherwise the order stays
    for item in items:
        if "rng" in getattr(item, "fixturenames", ()):
            item.add_marker("random")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A random generator, also for Keras: it differs between tests, and depends on YT8M_TEST_SEED, by default 0."""
    base = os.environ.get("YT8M_TEST_SEED", "0")
    seed = zlib.crc32(f"{base} {request.node.nodeid}".encode())
    import keras

    keras.utils.set_random_seed(seed)
    return np.random.default_rng(seed)


@pytest.fixture
def learnable_shards(tmp_path: Path, make_learnable_shards: Callable[..., Path]) -> Callable[..., Path]:
    """Creates a directory of small video- or frame-level shards whose labels follow from the features."""
    return functools.partial(make_learnable_shards, tmp_path)


@pytest.fixture(scope="session")
def make_learnable_shards() -> Callable[..., Path]:
    """Like `learnable_shards`, below a given directory."""
    from shards import frame_record, video_record, write_shard

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
    """A `sample_world.Sample`, created once."""
    from sample_world import make_sample

    return make_sample(tmp_path_factory.mktemp("sample") / "data")


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """A MirroredStrategy on two devices, shared because TensorFlow mixes up the collectives of several strategies."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The directory of the real records, which contains yt8m_2018/; without it, the test is skipped."""
    for candidate in (os.environ.get("YT8M_DATA_DIR"), _ROOT.parent / "shared" / "data"):
        if candidate and (Path(candidate) / "yt8m_2018" / "validate").is_dir():
            return Path(candidate)
    pytest.skip("no real YouTube-8M records: set YT8M_DATA_DIR to the directory that contains yt8m_2018/")
