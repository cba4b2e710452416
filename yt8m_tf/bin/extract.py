"""Extracts features from video files, and writes shards of both levels in the dataset's format.

Each second of a video gets the features of the frame nearest to it, and of the second of sound that begins there.
--features names the features, each with the backbone that computes it:

  inception                  YouTube-8M's visual features; --inception=DIR has the published files
  vggish                     YouTube-8M's audio features; --vggish=DIR has the published files
  log_mel                    the mean log-mel spectrum of the sound, which needs no weights
  keras:FILE.keras[:LAYER]   a Keras model of pictures, or of log-mel examples [96, 64]; LAYER: the layer whose output
                             is taken instead of the model's
  saved_model:DIR[:OUTPUT]   a SavedModel of pictures; OUTPUT: the output to take, if its signature has several
  applications:NAME          a network of keras.applications, with the weights in Keras's own cache

--labels joins a table to the videos, whose ids are their file names without the suffix. A file that cannot be decoded
does not end the run: <output_dir>/report.csv has a row for each file. <output_dir>/extraction.json records how the
features were made. After an interruption, the same command resumes after the last finished video. The output does not
depend on --jobs.

Example:

  yt8m-extract --input=videos --labels=labels.csv --output_dir=mine \\
      --features=rgb=applications:EfficientNetB0,audio=log_mel
  yt8m-extract --input='videos/*.mp4' --output_dir=mine --features=rgb=inception,audio=vggish \\
      --inception=~/inception --vggish=~/vggish
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from yt8m_tf.bin import recipe_flags, table_flags
from yt8m_tf.bin.launch import launch

if TYPE_CHECKING:
    from yt8m_tf.extraction.extract import Extraction

_INPUT = flags.DEFINE_list("input", None, "Directories of videos, files, or patterns of them.", required=True)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Directory for the shards.", required=True)
_FEATURES = flags.DEFINE_list("features", None, "NAME=BACKBONE for each feature, separated by commas.", required=True)
flags.adopt_module_key_flags(recipe_flags)
flags.adopt_module_key_flags(table_flags)
_LEVELS = flags.DEFINE_list("levels", ["video", "frame"], "Levels to write.")
_VIDEOS_PER_SHARD = flags.DEFINE_integer("videos_per_shard", 1024, "Videos in a shard at most.", lower_bound=1)
_JOBS = flags.DEFINE_integer(
    "jobs",
    None,
    "Processes, each with one thread; 0: none but this one; the default is one for each core, 8 at most.",
    0,
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace shards that were made from other videos or with other options."
)
_KEEP_FEATURES = flags.DEFINE_bool(
    "keep_features",
    False,
    "Keep the features of each video in <output_dir>/.features, so that a later run computes only those of new videos.",
)
_MOST_JOBS = 8


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.errors import InputError, Interrupted
    from yt8m_tf.extraction.extract import Options, extract
    from yt8m_tf.extraction.video_files import find_videos

    output_dir = files.local_path(_OUTPUT_DIR.value, "--output_dir")
    if wrong := [level for level in _LEVELS.value if level not in ("video", "frame")]:
        raise InputError(f"--levels={wrong[0]}: must be video or frame")
    recipe = recipe_flags.recipe(_FEATURES.value, "--features")
    table = table_flags.read_labels()
    videos = find_videos(_INPUT.value, table, leave_out=output_dir)
    jobs = min(len(os.sched_getaffinity(0)), _MOST_JOBS) if _JOBS.value is None else _JOBS.value
    options = Options(
        levels=_LEVELS.value,
        videos_per_shard=_VIDEOS_PER_SHARD.value,
        jobs=jobs,
        overwrite=_OVERWRITE.value,
        keep_features=_KEEP_FEATURES.value,
    )
    try:
        result = extract(videos, table, recipe, output_dir, options)
    except KeyboardInterrupt as error:
        raise Interrupted.like(
            error, "interrupted; run the same command again to continue after the last video"
        ) from error
    for line in _summary(result, f"{output_dir}"):
        print(line)
    print(table_flags.next_step(output_dir, _LEVELS.value[0], result.written.num_videos["train"]))


def _summary(result: Extraction, output_dir: str) -> list[str]:
    splits = ", ".join(f"{count:,} {split}" for split, count in result.written.num_videos.items() if count)
    lines = [f"{output_dir}: {splits} videos in {len(result.written.shards):,} shards"]
    if not result.report:
        return [f"{lines[0]} (already there)"]
    said = {
        "failed": "cannot be used",
        "unlisted": "files that the table does not name",
        "missing": "videos of the table without a file",
    }
    counts = Counter[str](row.status for row in result.report)
    lines += [f"{counts[status]:,} {what}" for status, what in said.items() if counts[status]]
    used = [row.outcome for row in result.report if row.status == "written"]
    if silent := sum(outcome.has_sound is False for outcome in used):
        lines.append(f"{silent:,} without sound")
    if noted := sum(bool(outcome.notes) for outcome in used):
        lines.append(f"{noted:,} with notes in the report")
    for name, share in result.outside.items():
        lines.append(
            f"{name}: {share:.1%} of the values lie outside --range and were clipped; --dtype=float16 keeps them"
        )
    lines.append(f"report: {output_dir}/report.csv")
    return lines


def run() -> None:
    """Runs the console script."""
    launch(main)


if __name__ == "__main__":
    run()
