"""Extracts features of videos, and writes shards of both levels with labels, and a report on every file.

  <output_dir>/...               files of `conversion.writing`
  <output_dir>/extraction.json   the recipe of the features, for scoring videos with a model of these features
  <output_dir>/report.csv        the outcome of each file and each video of the table, a row each

The features of each video are kept in `<output_dir>/.features/` until all shards are written, so that an interrupted
run resumes after the last finished video. The shards do not depend on the number of processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from yt8m_tf import files, locks
from yt8m_tf.config import strict_yaml
from yt8m_tf.console.progress import Progress
from yt8m_tf.conversion.tables import LabelTable, Row
from yt8m_tf.conversion.writing import REPORT, Layout, Written, check_inputs, check_output, write_dataset
from yt8m_tf.errors import InputError
from yt8m_tf.extraction.backbones import RECIPE, Recipe, check_recipe
from yt8m_tf.extraction.report import Reported, write_report
from yt8m_tf.extraction.workers import Outcome, Task, loaded, read_part, run_tasks
from yt8m_tf.schema import Level

_PARTS = ".features"


@dataclasses.dataclass(frozen=True)
class Options:
    """Options that do not change the features.

    Attributes:
      levels: levels of the shards.
      videos_per_shard: the largest number of videos in a shard.
      jobs: number of processes; 0: run in this process.
      overwrite: replace shards that were made from something else.
      keep_features: keep the features of each video, so that a later run only extracts those of new videos.
      progress: show a progress bar.
    """

    levels: Sequence[Level] = ("video", "frame")
    videos_per_shard: int = 1024
    jobs: int = 1
    overwrite: bool = False
    keep_features: bool = False
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class Extraction:
    """The results of a run.

    Attributes:
      written: the shards.
      report: a row for each file, and each video of the table.
      outside: feature to the share of its values outside the range of the codes, if there are any.
    """

    written: Written
    report: Sequence[Reported]
    outside: Mapping[str, float]


def extract(
    videos: Mapping[str, Path], table: LabelTable | None, recipe: Recipe, output_dir: Path, options: Options
) -> Extraction:
    """Extracts the features of videos, and writes shards.

    Args:
      videos: files by id (`find_videos`).
      table: labels and splits; None: labels are unknown, and all videos go to the split "test".
      recipe: the recipe of the features.
      output_dir: the directory to write.
      options: all other options.

    Raises:
      InputError: a backbone cannot be loaded, no video can be used, or the directory cannot be written or has other
        shards. Problems of single videos are in the report.
    """
    check_recipe(recipe)
    check_inputs(output_dir, table, map(str, videos.values()))
    table = table or LabelTable({video_id: Row(None, "test") for video_id in videos}, ())
    parts = output_dir / _PARTS
    tasks = {
        video_id: Task(str(path), parts / f"{_part_name(video_id, path, recipe)}.npz")
        for video_id, path in videos.items()
        if video_id in table.rows
    }
    rows = [Reported(v, str(path), "unlisted", Outcome()) for v, path in videos.items() if v not in tasks]
    rows += [Reported(v, "", "missing", Outcome("no such file")) for v in table.rows if v not in videos]
    fingerprint = _fingerprint(tasks, table, recipe, options)
    with locks.exclusive(output_dir, "--output_dir", "writes shards"):
        if (written := check_output(output_dir, fingerprint, options.overwrite)) is not None:
            return Extraction(written, (), {})
        parts.mkdir(parents=True, exist_ok=True)
        try:
            rows += _make_features(tasks, recipe, options)
        finally:
            files.remove_empty([parts])  # removes it if no backbone could be loaded
        parts.mkdir(exist_ok=True)
        write_report(output_dir / REPORT, rows)
        used = {row.video_id: row.outcome for row in rows if row.status == "written"}
        if not used:
            reasons = [f"{row.file}: {row.outcome.problem}" for row in rows if row.status == "failed"]
            reason = reasons[0] if reasons else "the table names none of them"
            raise InputError(
                f"--input: none of the {len(videos):,} files can be used ({reason}); see {output_dir / REPORT}"
            )
        files.write_json(output_dir / RECIPE, strict_yaml.to_dict(recipe))
        layout = Layout(options.levels, options.videos_per_shard, next(iter(used.values())).sizes, recipe.storage)
        written = write_dataset(output_dir, table, used, lambda v: read_part(tasks[v].part)[1], layout, fingerprint)
        if not options.keep_features:
            shutil.rmtree(parts)
    return Extraction(written, rows, _mean_shares([outcome.outside for outcome in used.values()]))


def check_suits(recipe: Recipe, sizes: Mapping[str, int], model: str, flag: str) -> None:
    """Checks, before any video is decoded, that a recipe makes the features that a model takes.

    Args:
      recipe: the recipe of the features.
      sizes: sizes of the features that the model takes, by name.
      model: name of the model for messages.
      flag: the flag that names the recipe.

    Raises:
      InputError: a feature is missing, or has another size.
    """
    made = loaded(recipe).sizes
    for name, size in sizes.items():
        if made.get(name) != size:
            found = f"makes it with {made[name]}" if name in made else f"makes only {', '.join(made)}"
            raise InputError(
                f"{flag}: the model in {model} takes the feature '{name}' with {size:,} values, and the recipe {found};"
                " give the backbones that the model was trained with"
            )


@contextlib.contextmanager
def extracted(videos: Mapping[str, Path], recipe: Recipe, directory: Path, level: Level) -> Iterator[Extraction]:
    """Extracts shards of videos without labels, which are removed when the block ends without an error.

    After an error or a signal, features are kept so that the same call can resume.

    Args:
      videos: files by id (`find_videos`).
      recipe: the recipe of the features.
      directory: a temporary directory for the shards.
      level: level of the shards.

    Raises:
      InputError: see `extract`.
    """
    yield extract(videos, None, recipe, directory, Options(levels=(level,), jobs=0))
    shutil.rmtree(directory)


def _make_features(tasks: Mapping[str, Task], recipe: Recipe, options: Options) -> list[Reported]:
    """Extracts missing features, and returns a row for each video, in the order of `tasks`."""
    outcomes = {video_id: outcome for video_id, task in tasks.items() if (outcome := _made(task)) is not None}
    ids = {task.part: video_id for video_id, task in tasks.items()}
    to_do = [task for video_id, task in tasks.items() if video_id not in outcomes]
    with Progress(
        total=len(tasks), initial=len(outcomes), desc="videos", unit="video", disable=not options.progress
    ) as bar:
        for task, outcome in run_tasks(to_do, recipe, min(options.jobs, len(to_do))):
            outcomes[ids[task.part]] = outcome
            bar.update()
    return [
        Reported(v, task.path, "failed" if outcomes[v].problem else "written", outcomes[v]) for v, task in tasks.items()
    ]


def _made(task: Task) -> Outcome | None:
    """Returns the outcome of a video from an earlier run; None if there is none that can be read."""
    try:
        return read_part(task.part)[0]
    except (OSError, ValueError, KeyError):  # there is no file, or a power cut left half of one
        return None


def _part_name(video_id: str, path: Path, recipe: Recipe) -> str:
    """Returns a hash of everything that determines the features of a video."""
    return _digest([video_id, _stamp(path), strict_yaml.to_dict(recipe), [_stamp(file) for file in recipe.weights]])


def _stamp(path: Path) -> object:
    """Returns values that identify a file, or the files of a directory."""
    if path.is_dir():
        return [_stamp(file) for file in sorted(path.rglob("*")) if file.is_file()]
    try:
        return [path.name, (found := path.stat()).st_size, found.st_mtime_ns]
    except OSError:
        return [path.name]


def _fingerprint(tasks: Mapping[str, Task], table: LabelTable, recipe: Recipe, options: Options) -> str:
    rows = [
        [table.rows[video_id].labels, table.rows[video_id].split, task.part.name] for video_id, task in tasks.items()
    ]
    return _digest([rows, list(table.class_names), list(options.levels), options.videos_per_shard])


def _digest(contents: object) -> str:
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:32]


def _mean_shares(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each feature's shares over videos, without means of 0."""
    totals: Counter[str] = Counter()
    for own in shares:
        totals.update(own)
    return {name: total / len(shares) for name, total in totals.items() if total}
