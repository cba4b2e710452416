"""Makes shards in the dataset's format from features that you have, and from your own labels.

Features are read from

  features.pb            of MediaPipe's extractor (YouTube-8M's features of your videos): one file for each video
  NAME=PATTERN.npy       an array for each video, [frames, size] or [size]; several names for several features
  PATTERN.npz            the same with several features in each file, by name
  TABLE.parquet, .csv    a row for each video: columns of lists, or of numbers (clip_0, clip_1, ...)

and labels from a table with the columns id, labels (names or numbers of classes, separated by ;) and optionally split
(train, validate or test). A video's id is the name of its file without the suffix. Without a table, all videos are test
videos without labels.

  <output_dir>/{video,frame}/{train,validate,test}NNNN.tfrecord   the shards, and data.yaml, the section to read them
  <output_dir>/vocabulary.csv    the names of the classes
  <output_dir>/report.csv        what was left out, and why

Pickles are never read. After an interruption, the same command resumes. The same input gives the same bytes.

Example:

  yt8m-convert --input='features/*/features.pb' --labels=labels.csv --output_dir=shards
  yt8m-convert --input='clip=clip/*.npy' --dtype=float16 --labels=labels.csv --output_dir=shards --jobs=8
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from yt8m_tf.bin import table_flags
from yt8m_tf.bin.launch import launch

if TYPE_CHECKING:
    from yt8m_tf.conversion.convert import Summary

_INPUT = flags.DEFINE_list("input", None, "Patterns of the files of features, separated by commas.", required=True)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Directory for the shards.", required=True)
_FEATURES = flags.DEFINE_list("features", None, "Names of the features to take; the default is all.")
_LEVELS = flags.DEFINE_list("levels", None, "video, frame or both; the default is what the features have.")
_DTYPE = flags.DEFINE_enum(
    "dtype",
    "uint8",
    ["uint8", "float16", "float32"],
    "Storage of frames: one byte per value, as in the dataset, or floats.",
)
_RANGE = flags.DEFINE_list("range", ["-2", "2"], "The values LOW,HIGH that the bytes 0 and 255 stand for.")
_VIDEOS_PER_SHARD = flags.DEFINE_integer("videos_per_shard", 1000, "Videos in a shard, at most.", lower_bound=1)
_JOBS = flags.DEFINE_integer("jobs", 1, "Processes that read features.", lower_bound=1)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace shards that were made from something else.")
flags.adopt_module_key_flags(table_flags)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.conversion.convert import Options, convert
    from yt8m_tf.conversion.encoding import Storage
    from yt8m_tf.conversion.sources import open_source
    from yt8m_tf.errors import InputError, Interrupted

    if wrong := [level for level in _LEVELS.value or () if level not in ("video", "frame")]:
        raise InputError(f"--levels={wrong[0]}: must be video, frame or both")
    options = Options(
        _FEATURES.value,
        _LEVELS.value,
        Storage.parse(_DTYPE.value, _RANGE.value, "--range"),
        _VIDEOS_PER_SHARD.value,
        _JOBS.value,
        _OVERWRITE.value,
    )
    directory = files.local_path(_OUTPUT_DIR.value, "--output_dir")
    id_column = table_flags.ID_COLUMN.value
    other_columns = (table_flags.LABELS_COLUMN.value, table_flags.SPLIT_COLUMN.value)
    reader, chunks = open_source(_INPUT.value, _FEATURES.value, id_column, other_columns)
    table = table_flags.read_labels()
    try:
        summary = convert(reader, chunks, table, directory, options)
    except KeyboardInterrupt as error:
        raise Interrupted.like(error, "interrupted; run the same command again to continue") from error
    print(_report(summary, directory, options.storage.low, options.storage.high))
    print(table_flags.next_step(directory, summary.levels[0], summary.written.num_videos["train"]))


def _report(summary: Summary, directory: Path, low: float, high: float) -> str:
    written = summary.written
    counts = ", ".join(f"{split} {count:,}" for split, count in written.num_videos.items() if count)
    num_videos = sum(written.num_videos.values())
    num_shards = len(written.shards) // len(summary.levels)
    levels = " and ".join(summary.levels)
    there = "" if summary.is_new else " (already there)"
    lines = [f"{directory}: {num_videos:,} videos ({counts}) in {num_shards:,} shards at {levels} level{there}"]
    if summary.num_problems:
        lines.append(f"left out: {summary.num_problems:,} videos; {directory / 'report.csv'} says why")
    for name, (count, num_values) in summary.outside.items():
        lines.append(
            f"{name}: {count:,} of {num_values:,} values were outside [{low:g}, {high:g}] and were clipped;"
            " --range=LOW,HIGH or --dtype=float16 keeps them"
        )
    return "\n".join(lines)


def run() -> None:
    """Runs the console script."""
    launch(main)


if __name__ == "__main__":
    run()
