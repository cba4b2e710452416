"""From a folder of videos and a table of their labels to shards of both levels, with a report on every file.

  <output_dir>/...               as `conversion.writing` has it
  <output_dir>/extraction.json   how the features were made, for videos that are to be scored with a model of them
  <output_dir>/report.csv        a row for each file and each video of the table: what became of it

The features of each video are kept in `<output_dir>/.features/` until all shards are written, so that a run that was
interrupted goes on behind the last video. What the shards hold does not depend on how many processes make them.
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
      levels: of the shards.
      videos_per_shard: at most.
      jobs: processes; 0: this one.
      overwrite: replace shards that were made from something else.
      keep_features: keep the features of each video, so that a later run with more videos makes those of the new ones.
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
      outside: feature to the share of its values that the codes of its range could not say, where there are any.
    """

    written: Written
    report: Sequence[Reported]
    outside: Mapping[str, float]


def extract(
    videos: Mapping[str, Path], table: LabelTable | None, recipe: Recipe, output_dir: Path, options: Options
) -> Extraction:
    """Makes the features of videos, and writes shards.

    Args:
      videos: their files, by id (`find_videos`).
      table: their labels and splits; None: nothing is known, and all go to the split "test".
      recipe: how features are made.
      output_dir: where to write.
      options: the rest.

    Raises:
      InputError: a backbone cannot be loaded; not one video can be used; the directory cannot be written, or holds
        other shards. What is wrong with a single video is in the report.
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
            files.remove_empty([parts])  # where no backbone could be loaded
        parts.mkdir(exist_ok=True)
        write_report(output_dir / REPORT, rows)
        used = {row.video_id: row.outcome for row in rows if row.status == "written"}
        if not used:
            reasons = [f"{row.file}: {row.outcome.problem}" for row in rows if row.status == "failed"]
            reason = reasons[0] if reasons else "the table names none of them"
            raise InputError(
                f"--input: not one of {len(videos):,} files can be used ({reason}); see {output_dir / REPORT}"
            )
        files.write_json(output_dir / RECIPE, strict_yaml.to_dict(recipe))
        layout = Layout(options.levels, options.videos_per_shard, next(iter(used.values())).sizes, recipe.storage)
        written = write_dataset(output_dir, table, used, lambda v: read_part(tasks[v].part)[1], layout, fingerprint)
        if not options.keep_features:
            shutil.rmtree(parts)
    return Extraction(written, rows, _mean_shares([outcome.outside for outcome in used.values()]))


def check_suits(recipe: Recipe, sizes: Mapping[str, int], model: str, flag: str) -> None:
    """Refuses a recipe that does not make what a model takes, before any video is decoded.

    Args:
      recipe: how features are made.
      sizes: of the features that the model takes, by name.
      model: what messages call it.
      flag: that names the recipe.

    Raises:
      InputError: a feature is missing, or has another size.
    """
    made = loaded(recipe).sizes
    for name, size in sizes.items():
        if made.get(name) != size:
            found = f"makes it with {made[name]}" if name in made else f"makes {', '.join(made)} alone"
            raise InputError(
                f"{flag}: the model in {model} takes the feature '{name}' with {size:,} values, and the recipe {found};"
                " give the backbones that the model was trained with"
            )


@contextlib.contextmanager
def extracted(videos: Mapping[str, Path], recipe: Recipe, directory: Path, level: Level) -> Iterator[Extraction]:
    """Shards of videos without labels, which are removed when the block ends well.

    After an error, or a signal, features are kept for the same call.

    Args:
      videos: their files, by id (`find_videos`).
      recipe: how features are made.
      directory: where the shards are in the meantime.
      level: of the shards.

    Raises:
      InputError: see `extract`.
    """
    yield extract(videos, None, recipe, directory, Options(levels=(level,), jobs=0))
    shutil.rmtree(directory)


def _make_features(tasks: Mapping[str, Task], recipe: Recipe, options: Options) -> list[Reported]:
    """Makes the features that are not there yet; a row for each video, in the order of `tasks`."""
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
    except (OSError, ValueError, KeyError):  # there is none, or a power cut left half of one
        return None


def _part_name(video_id: str, path: Path, recipe: Recipe) -> str:
    """Of all that the features of a video follow from."""
    return _digest([video_id, _stamp(path), strict_yaml.to_dict(recipe), [_stamp(file) for file in recipe.weights]])


def _stamp(path: Path) -> object:
    """Tells a file, or the files of a directory, from others."""
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
    """The mean of each feature's shares over videos; without those that are 0."""
    totals: Counter[str] = Counter()
    for own in shares:
        totals.update(own)
    return {name: total / len(shares) for name, total in totals.items() if total}
