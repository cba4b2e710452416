"""Converts features from any source, with a table of labels, to shards."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from yt8m_tf import files, locks, schema
from yt8m_tf.console.progress import Progress
from yt8m_tf.conversion.encoding import Storage
from yt8m_tf.conversion.staging import STAGING, StagedPart, StagedVideo, Staging
from yt8m_tf.conversion.tables import LabelTable, Row
from yt8m_tf.conversion.videos import Chunk, Problem, Reader
from yt8m_tf.conversion.writing import REPORT, Layout, Written, check_inputs, check_output, write_dataset
from yt8m_tf.errors import InputError

_SAMPLED = 16  # first videos; all others must have their most frequent features and sizes


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a conversion.

    Attributes:
      features: names in the order in which models take them; None: rgb and audio first, the others by name.
      levels: levels of the shards; None: both if there are frames, otherwise "video".
      storage: storage format of frames.
      videos_per_shard: the largest number of videos in a shard.
      jobs: number of processes.
      overwrite: replace shards that were made from other inputs.
    """

    features: Sequence[str] | None
    levels: Sequence[schema.Level] | None
    storage: Storage
    videos_per_shard: int
    jobs: int
    overwrite: bool


@dataclasses.dataclass(frozen=True)
class Summary:
    """Summary of a conversion.

    Attributes:
      written: the shards.
      levels: levels of the shards.
      num_problems: number of videos that were left out; the report names them.
      outside: for each feature with values outside the range of the codes, the number of these, and of all its values.
      is_new: whether shards were written.
    """

    written: Written
    levels: Sequence[schema.Level]
    num_problems: int
    outside: Mapping[str, tuple[int, int]]
    is_new: bool


def convert(
    reader: Reader, chunks: Sequence[Chunk], table: LabelTable | None, directory: Path, options: Options
) -> Summary:
    """Writes shards; after an interruption, the same call continues with the missing parts.

    Args:
      reader: the reader of the features.
      chunks: the parts that it reads.
      table: labels and splits; videos that are not in it are left out. None: all videos are "test", without labels.
      directory: the directory to write.
      options: the options of the conversion.

    Raises:
      InputError: there is nothing to write, the directory has other shards, a source cannot be read, or frame-level
        shards are wanted without frames.
    """
    check_inputs(directory, table, (path for chunk in chunks for path in chunk.paths))
    with locks.exclusive(directory, "--output_dir", "writes shards"):
        found_sizes, has_frames = _typical(reader, chunks)
        sizes = {name: found_sizes[name] for name in sorted(found_sizes, key=lambda name: _place(name, options))}
        levels = options.levels or (("video", "frame") if has_frames else ("video",))
        if "frame" in levels and not has_frames:
            raise InputError("--levels=frame: the features have no frames, but a vector for each video; take video")
        layout = Layout(levels, options.videos_per_shard, sizes, options.storage)
        staging = Staging(directory / STAGING, reader, sizes, options.storage)
        keys = {staging.key(chunk): chunk for chunk in chunks}
        fingerprint = _fingerprint(keys, table, layout)
        if (there := check_output(directory, fingerprint, options.overwrite)) is not None:
            return Summary(there, levels, 0, {}, is_new=False)
        staging.folder.mkdir(exist_ok=True)
        parts = _make_parts(staging, keys, options.jobs)
        found, problems = _merge(parts, table)
        _write_report(directory / REPORT, problems)
        if not found:
            first = f"{problems[0].source or problems[0].id}: {problems[0].problem}" if problems else "no video at all"
            raise InputError(f"--input: nothing to write: no video can be used: {first}")
        known = table or LabelTable({video_id: Row(None, "test") for video_id in found}, [])
        written = write_dataset(
            directory, known, found, lambda video_id: staging.load(*found[video_id]), layout, fingerprint
        )
        shutil.rmtree(staging.folder)
    return Summary(written, levels, len(problems), _outside(parts.values()), is_new=True)


def _typical(reader: Reader, chunks: Sequence[Chunk]) -> tuple[dict[str, int], bool]:
    """Returns the most frequent names and sizes of features among the first videos, and whether there are frames.

    Raises:
      InputError: no video can be read.
    """
    videos = itertools.chain.from_iterable(map(reader.read, chunks))
    kinds: Counter[tuple[tuple[str, int], ...]] = Counter()
    ranks: Counter[int] = Counter()
    problem: Problem | None = None
    for found in videos:
        if isinstance(found, Problem):
            problem = problem or found
            continue
        if found.features and all(values.ndim in (1, 2) and values.shape[-1] for values in found.features.values()):
            kinds[tuple(sorted((name, values.shape[-1]) for name, values in found.features.items()))] += 1
            ranks.update(values.ndim for values in found.features.values())
        if kinds.total() == _SAMPLED:
            break
    if not kinds:
        why = f"; {problem.source}: {problem.problem}" if problem else ""
        raise InputError(f"--input: no features in any of the files{why}")
    return dict(kinds.most_common(1)[0][0]), ranks.most_common(1)[0][0] == 2


def _place(name: str, options: Options) -> tuple[int, str]:
    """Returns the sort key of a feature: the order of the options or the schema first, then the name."""
    first = list(options.features or schema.FEATURE_SIZES)
    return first.index(name) if name in first else len(first), name


def _make_parts(staging: Staging, chunks: Mapping[str, Chunk], jobs: int) -> dict[str, StagedPart]:
    counts = [chunk.num_videos for chunk in chunks.values()]
    total = None if None in counts else sum(count or 0 for count in counts)
    parts: dict[str, StagedPart] = {}
    with Progress(total=total, desc="features", unit="video") as bar:
        for key in staging.make_missing(chunks, jobs):
            part = parts[key] = staging.read(key)
            bar.update(len(part.videos) + len(part.problems) if total is None else chunks[key].num_videos or 0)
    return {key: parts[key] for key in chunks}


def _merge(
    parts: Mapping[str, StagedPart], table: LabelTable | None
) -> tuple[dict[str, tuple[str, StagedVideo]], list[Problem]]:
    """Returns the part and entry of each usable video, and the problems of the others."""
    found: dict[str, tuple[str, StagedVideo]] = {}
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for key, part in parts.items():
        problems += [Problem(*row) for row in part.problems]
        seen |= {video_id: source for source, video_id, _ in part.problems}
        for video_id, video in part.videos.items():
            if video_id in found:
                problems.append(Problem(video.source, video_id, f"{seen[video_id]} has this id, too"))
                continue
            seen[video_id] = video.source
            if table is not None and video_id not in table.rows:
                problems.append(Problem(video.source, video_id, "not in the table of labels"))
            else:
                found[video_id] = key, video
    if table is not None:
        problems += [Problem("", video_id, "no features") for video_id in table.rows if video_id not in seen]
    return found, problems


def _outside(parts: Iterable[StagedPart]) -> dict[str, tuple[int, int]]:
    outside, num_values = Counter[str](), Counter[str]()
    for part in parts:
        outside.update(part.outside)
        num_values.update(part.num_values)
    return {name: (count, num_values[name]) for name, count in outside.items() if count}


def _write_report(path: Path, problems: Sequence[Problem]) -> None:
    """Writes a row for each video that was left out; removes the file if there is none."""
    if not problems:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Problem._fields)
    writer.writerows(problems)
    with files.whole_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def _fingerprint(keys: Mapping[str, Chunk], table: LabelTable | None, layout: Layout) -> str:
    digest = hashlib.sha256()
    for key in keys:
        digest.update(key.encode())
    if table is not None:
        rows = [[video_id, row.labels, row.split] for video_id, row in table.rows.items()]
        vocabulary = table.vocabulary.read_text(encoding="utf-8-sig") if table.vocabulary else None
        digest.update(json.dumps([rows, list(table.class_names), vocabulary]).encode())
    digest.update(json.dumps([list(layout.levels), layout.videos_per_shard]).encode())
    return digest.hexdigest()
