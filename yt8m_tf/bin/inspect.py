"""Prints what shards contain, at any level and of any version, without a configuration.

There is a row per shard, then the totals: records, bytes, level, the key of the video id, features with their sizes,
labels per labelled video (min/mean/max), share of videos without labels, range of label ids, frames per clip
(min/mean/max), and damage. Then comes the data section of a configuration that reads these records, ready to paste:
names, sizes and dtypes of features, keys that are not YouTube-8M's, frames of the longest clip, classes by the highest
label. Damaged shards are described up to the first damage, and --salvage_to saves their good records. The exit status
is 0 for sound shards, 1 for damage, 2 for invalid arguments.

Example:

  yt8m-inspect 'DATA/2/video/train*.tfrecord'
  yt8m-inspect 'DATA/2/video/train*.tfrecord' --salvage_to=salvaged --json=shards.json
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from yt8m_tf.bin.launch import launch

_JSON = flags.DEFINE_string("json", None, "Also write the report to this file, as JSON.")
_SALVAGE_TO = flags.DEFINE_string("salvage_to", None, "Write the good records of damaged shards to this directory.")


def main(arguments: Sequence[str]) -> int:
    from yt8m_tf import files
    from yt8m_tf.data import inspection

    json_path, salvage_to = (
        None if flag.value is None else str(files.local_path(flag.value, f"--{flag.name}"))
        for flag in (_JSON, _SALVAGE_TO)
    )
    return inspection.run(arguments[1:], json_path, salvage_to)


def run() -> None:
    """Runs the console script."""
    launch(main, positional="patterns of shards", failure=2)


if __name__ == "__main__":
    run()
