"""Benchmark of reading: our streams against parsing one record at a time, and against raw reading."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from benchmarks import memory, workload
from benchmarks.harness import Measurement, Options, Target, Variant, measure
from benchmarks.report import Result, Table
from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.batch_stream import BatchStream
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import evaluation_stream, training_stream

# A batch of 64 padded clips in float32 takes 88 MB.
_BATCH_SIZES = {"video": 512, "frame": 64}
# The required ratios: to one record at a time, to the same in parallel, and to raw reading in batches.
_TARGETS = {"video": (5.0, None, 0.5), "frame": (None, 2.2, 0.75)}
_TRAINING, _EVALUATION = "training_stream", "evaluation_stream"
_PLAIN, _PLAIN_PARALLEL = "one record at a time", "one record at a time, in parallel"
_RAW, _RAW_RECORDS = "raw, in batches", "raw, record by record"
_MEMORY_PASSES = (1, 2, 4, 8, 1)  # the last one shows how much runs of equal length differ


def run(options: Options) -> Result:
    """Measures both levels, and the memory of reading."""
    sources = (
        (workload.video_data(), workload.video_shards(options)),
        (workload.frame_data(), workload.frame_shards(options)),
    )
    measurements, memory_rows, facts = [], [], {}
    for data, shards in sources:
        num_records = workload.count_records(shards)
        facts[f"{data.level}-level records"] = f"{num_records:,} in {len(shards)} shards"
        measurements.append(measure_level(shards, num_records, data, options))
        memory_rows += _memory_rows(shards, num_records, data) if memory.available() else []
    header = ("stream", *(f"{passes}x" for passes in _MEMORY_PASSES[:-1]), "1x again", "growth")
    tables = (
        [Table("Memory while reading the shards 1, 2, 4, 8 times: highest VmRSS, MB", header, memory_rows)]
        if memory_rows
        else []
    )
    remarks = [
        "Memory: after the timings of the level, one process reads the list of shards once as a warm-up, then 1, 2, 4,"
        " 8 and 1 times. VmRSS is sampled after every batch. Growth: the peak of 8 times minus the mean of the single"
        " passes."
    ]
    return Result(measurements, tables, facts, remarks)


def measure_level(shards: Sequence[str], num_records: int, data: DataConfig, options: Options) -> Measurement:
    """Times the reading of shards with `num_records` records in total; batches are awaited and dropped."""
    size = 16 if options.quick else _BATCH_SIZES[data.level]
    shards = list(shards)

    def read_all(make: Callable[[list[str]], Iterable[Any]]) -> Callable[[int], int]:
        def run_passes(passes: int) -> int:
            for _ in make(shards * passes):
                pass
            return num_records * passes

        return run_passes

    def train(passes: int) -> int:
        stream, batches = ours_training(shards, data, size), max(1, num_records * passes // size)
        for _ in range(batches):
            next(stream)
        return batches * size

    def raw_records(passes: int) -> int:
        return workload.count_records(shards * passes)

    ours = f"batches of {size}, labels as padded ids, features as they are stored"
    labels = f"labels [{data.num_classes}] multi-hot"
    plain = (
        "tf.io.parse_single_example" if data.level == "video" else "parse_single_sequence_example, decoded to float32"
    )
    padded = "" if data.level == "video" else f", padded to {data.max_frames} frames"
    ways = [
        Variant(_TRAINING, f"shuffled as in training, {ours}; from opening the shards on", train),
        Variant(_EVALUATION, f"in order, {ours}; from opening the shards on",
            read_all(lambda s: ours_evaluation(s, data, size))),
        Variant(_PLAIN, f"{plain}{padded}, {labels}, then batches of {size}; not shuffled",
            read_all(lambda s: plain_dataset(s, data, size))),
        Variant(_PLAIN_PARALLEL, "the same with num_parallel_calls=AUTOTUNE",
            read_all(lambda s: plain_dataset(s, data, size, tf.data.AUTOTUNE))),
        Variant(_RAW, f"TFRecordDataset.batch({size}): serialized records, not parsed",
            read_all(lambda s: tf.data.TFRecordDataset(s).batch(size))),
        Variant(_RAW_RECORDS, "TFRecordDataset, records counted inside tf.data", raw_records),
    ]  # fmt: skip
    against_plain, against_parallel, against_raw = _TARGETS[data.level]
    targets = [
        Target(name, *demand)
        for name in (_TRAINING, _EVALUATION)
        for demand in (
            (_PLAIN, against_plain),
            (_PLAIN_PARALLEL, against_parallel),
            (_RAW, against_raw),
            (_RAW_RECORDS, None),
        )
    ]
    return measure(f"{data.level}-level reading", "records/s", ways, targets, options)


def ours_training(shards: Sequence[str], data: DataConfig, batch_size: int) -> BatchStream:
    """Returns the stream of `yt8m-train`."""
    return training_stream(shards, data, batch_size, seed=0, faults=Faults())


def ours_evaluation(shards: Sequence[str], data: DataConfig, batch_size: int) -> BatchStream:
    """Returns the stream of `yt8m-evaluate`."""
    return evaluation_stream(shards, data, batch_size, faults=Faults())


def plain_dataset(
    shards: Sequence[str], data: DataConfig, batch_size: int, parallel: int | None = None
) -> tf.data.Dataset:
    """Returns a simple dataset: each record is parsed separately and completely, and batches are made of the results.

    Returns:
      Batches of "id" [B], "labels" [B, C] bool, and the features: [B, D], or [B, T, D] float32 and "num_frames" [B].
    """
    parse = _parse_video if data.level == "video" else _parse_clip
    dataset = tf.data.TFRecordDataset(shards).map(lambda record: parse(record, data), num_parallel_calls=parallel)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _parse_video(serialized: tf.Tensor, data: DataConfig) -> dict[str, tf.Tensor]:
    features = {data.key_of(name): tf.io.FixedLenFeature([size], tf.float32) for name, size in data.sizes.items()}
    parsed = tf.io.parse_single_example(serialized, _context() | features)
    return _id_and_labels(parsed, data) | {name: parsed[data.key_of(name)] for name in data.features}


def _parse_clip(serialized: tf.Tensor, data: DataConfig) -> dict[str, tf.Tensor]:
    lists = {data.key_of(name): tf.io.FixedLenSequenceFeature([], tf.string) for name in data.features}
    context, frames = tf.io.parse_single_sequence_example(serialized, _context(), lists)
    clip = _id_and_labels(context, data)
    lengths = []
    for name, size in data.sizes.items():
        codes = tf.reshape(tf.io.decode_raw(frames[data.key_of(name)], tf.uint8), [-1, size])  # [T, D]
        values = schema.QUANTISATION_STEP * tf.cast(codes, tf.float32) + schema.QUANTISATION_OFFSET
        values = values[: data.max_frames]
        lengths.append(tf.shape(values)[0])
        padded = tf.pad(values, [[0, data.max_frames - lengths[-1]], [0, 0]])
        clip[name] = tf.ensure_shape(padded, [data.max_frames, size])
    return clip | {"num_frames": tf.reduce_min(tf.stack(lengths))}


def _context() -> dict[str, Any]:
    return {"id": tf.io.FixedLenFeature([], tf.string, ""), "labels": tf.io.VarLenFeature(tf.int64)}


def _id_and_labels(parsed: dict[str, Any], data: DataConfig) -> dict[str, tf.Tensor]:
    labels = tf.sparse.to_indicator(parsed["labels"], data.num_classes)
    return {"id": parsed["id"], "labels": tf.ensure_shape(labels, [data.num_classes])}


def _memory_rows(shards: Sequence[str], num_records: int, data: DataConfig) -> list[list[str]]:
    """Measures the highest VmRSS of both streams while they read the shards `_MEMORY_PASSES` times."""
    size = _BATCH_SIZES[data.level]

    def highest(make: Callable[..., BatchStream], passes: int) -> float:
        stream, seen = make(list(shards) * passes, data, size), 0
        for _ in range(-(-num_records * passes // size)):  # the training stream is infinite
            next(stream)
            seen = max(seen, memory.resident_bytes())
        return seen / 1e6

    rows = []
    for name, make in ((_TRAINING, ours_training), (_EVALUATION, ours_evaluation)):
        highest(make, 1)
        peaks = [highest(make, passes) for passes in _MEMORY_PASSES]
        growth = peaks[-2] - (peaks[0] + peaks[-1]) / 2
        rows.append([f"{data.level} level, {name}", *(f"{peak:,.0f}" for peak in peaks), f"{growth:+,.0f}"])
    return rows
