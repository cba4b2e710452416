"""The profiler trace of some steps of a run, and the run's other summaries, as TensorBoard reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.pr_curve import metadata

from yt8m_tf import run_dir
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import loop
from yt8m_tf.training.loop import RunOptions, TrainResult
from yt8m_tf.training.profile import Profile, parse_steps

_VALUES = {
    "model": {"name": "logistic"},
    "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 10, "shuffle_shards": 2, "shuffle_records": 50},
    "train": {"batch_size": 32, "steps_per_epoch": 10, "epochs": 2},
}


def _train(data_dir: Path, workdir: Path, strategy: Any = None, **options: Any) -> TrainResult:
    run_options = RunOptions(str(data_dir), workdir, progress=False, xla=False, evaluation_batch_size=64, **options)
    return loop.train(parse_experiment(_VALUES), run_options, strategy or tf.distribute.get_strategy(), Faults())


def _traces(workdir: Path) -> list[Path]:
    return list((workdir / "plugins" / "profile").glob("*/*.xplane.pb"))


def _bounds_of_gap(hits: np.ndarray, misses: np.ndarray, num_labels: int) -> tuple[float, float]:
    """Bounds of GAP from the counts above each threshold: within a bin, all misses rank first, or all hits."""
    low = high = 0.0
    for i in range(201):
        above, missed = (hits[i + 1], misses[i + 1]) if i < 200 else (0, 0)
        for found in range(above + 1, hits[i] + 1):
            low += found / (found + misses[i])
            high += found / (found + missed)
    return low / num_labels, high / num_labels


@pytest.mark.end_to_end
def test_a_run_traces_its_steps_and_shows_curves(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir, workdir = learnable_shards(), tmp_path / "run"
    _train(data_dir, workdir, profile=range(5, 7), steps_per_call=4)
    (trace,) = _traces(workdir)
    content = trace.read_bytes()
    assert b"step_num" in content and b"train" in content

    events = EventAccumulator(str(workdir), size_guidance={"tensors": 0})
    events.Reload()
    curves, history = events.Tensors("validation/pr_curves"), run_dir.read_history(workdir)
    assert [curve.step for curve in curves] == [line["step"] for line in history] == [10, 20]
    assert events.SummaryMetadata("validation/pr_curves").plugin_data.plugin_name == metadata.PLUGIN_NAME
    labels = [
        len(tf.train.Example.FromString(record).features.feature["labels"].int64_list.value)
        for shard in sorted(data_dir.glob("validate*"))
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator()
    ]
    for curve, line in zip(curves, history, strict=True):
        table = tf.make_ndarray(curve.tensor_proto)
        hits, misses, others, missed, precision, recall = table
        assert table.shape == (6, 201)
        np.testing.assert_array_equal(table[:4].sum(axis=0), 10 * len(labels))
        np.testing.assert_array_equal(hits + missed, sum(labels))
        # All pairs are above 0, because there are 10 classes and a video keeps 20 predictions.
        assert (hits[0], misses[0], others[0]) == (sum(labels), 10 * len(labels) - sum(labels), 0)
        np.testing.assert_allclose(recall, hits / sum(labels), rtol=1e-6)
        np.testing.assert_allclose(precision, hits / np.maximum(hits + misses, 1), rtol=1e-6)
        low, high = _bounds_of_gap(hits.astype(int), misses.astype(int), sum(labels))
        assert low - 1e-9 <= line["gap_at_20"] <= high + 1e-9 and high - low < 0.2

    # Past the range, nothing more is traced; a finished run is left unchanged.
    _train(data_dir, workdir, profile=range(5, 7))
    assert len(_traces(workdir)) == 1


@pytest.mark.slow
def test_the_curve_of_two_replicas_is_that_of_one(
    learnable_shards: Callable[..., Path], tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    data_dir = learnable_shards()
    tables = []
    for name, strategy in (("one", None), ("two", two_replicas)):
        _train(data_dir, tmp_path / name, strategy, steps_per_call=2)
        events = EventAccumulator(str(tmp_path / name), size_guidance={"tensors": 0})
        events.Reload()
        tables.append(tf.make_ndarray(events.Tensors("validation/pr_curves")[0].tensor_proto))
    # Every pair is counted once; rounding may move scores over a threshold.
    np.testing.assert_array_equal(tables[0][:4, 0], tables[1][:4, 0])
    np.testing.assert_allclose(tables[0][:4], tables[1][:4], atol=3)


@pytest.mark.parametrize("text", ["", "5", "5:", ":5", "7:7", "9:3", "-1:4", "a:b", "1:2:3", "1.5:3"])
def test_an_invalid_range_gives_a_one_line_error(text: str) -> None:
    with pytest.raises(InputError, match=r"^--profile=.*: must be START:STOP with 0 <= START < STOP, such as 100:110$"):
        parse_steps(text)


def test_a_range_beyond_the_run_gives_a_one_line_error() -> None:
    assert parse_steps("3:12") == range(3, 12)
    with pytest.raises(InputError, match=r"--profile=20:30: the run has 20 steps, 0 to 19; begin"):
        Profile(None, range(20, 30), 20)


def test_a_trace_that_cannot_start_gives_a_one_line_error(tmp_path: Path) -> None:
    with Profile(tmp_path / "one", range(2, 9), 10) as one:
        with one.call(0, 2):
            pass
        with one.call(2, 2):
            pass
        other = Profile(tmp_path / "other", range(0, 1), 10)
        with (
            pytest.raises(InputError, match=r"--profile: no trace in '.*other' \(.*\); repair the directory"),
            other.call(0, 1),
        ):
            pass
    assert len(list((tmp_path / "one").rglob("*.xplane.pb"))) == 1  # cut off at the end of the run
