"""Writes shards of videos with features and labels, and the files next to them.

  <output_dir>/{video,frame}/{train,validate,test}NNNN.tfrecord   as in the dataset; the same videos in the same order
  <output_dir>/{video,frame}/data.yaml   the `data` section of a configuration that reads them
  <output_dir>/vocabulary.csv            the names of the classes, in the dataset's format
  <output_dir>/shards.json               what was written, and from what

The shard of a video, and its place there, depend only on the ids of all videos. The order is pseudo-random and
reproducible, so that each shard is a random sample of the videos. The same videos give the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from yt8m_tf import files, schema
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.data import TargetsConfig
from yt8m_tf.console.progress import Progress
from yt8m_tf.conversion.encoding import Encoded, Storage
from yt8m_tf.conversion.tables import SPLITS, VOCABULARY, LabelTable, position_of, write_vocabulary
from yt8m_tf.data.record_writing import VideoRecord, clip_example, video_example, write_shard
from yt8m_tf.errors import InputError

RECORD = "shards.json"
DATA_SECTION = "data.yaml"
# Lists what was left out; written by the code that makes the features.
REPORT = "report.csv"


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of the shards to write.

    Attributes:
      levels: the levels to write.
      videos_per_shard: the most videos in a shard; the shards of a split differ by at most one video.
      sizes: feature name to D.
      storage: storage format of the frames.
    """

    levels: Sequence[schema.Level]
    videos_per_shard: int
    sizes: Mapping[str, int]
    storage: Storage


@dataclasses.dataclass(frozen=True)
class Written:
    """Summary of a directory of shards.

    Attributes:
      fingerprint: fingerprint of all its inputs.
      is_whole: whether writing was completed.
      num_videos: number of videos by split.
      shards: path relative to the directory to the number of records.
    """

    fingerprint: str
    is_whole: bool
    num_videos: Mapping[str, int]
    shards: Mapping[str, int]


def check_inputs(directory: Path, table: LabelTable | None, read: Iterable[str]) -> None:
    """Checks that no input, and no vocabulary from elsewhere, would be overwritten.

    Args:
      directory: the directory of the shards; need not exist.
      table: the table of labels, if there is one.
      read: the files that features are made from.

    Raises:
      InputError: the directory has such a file under a name that will be written.
    """
    flag, vocabulary = f"--output_dir={directory}", directory / VOCABULARY
    tables = [str(table.path)] if table is not None and table.path is not None else []
    files.check_no_input([directory / RECORD, directory / REPORT, vocabulary], [*read, *tables], flag)
    if table is None or not table.class_names or (directory / RECORD).exists() or not vocabulary.exists():
        return
    if table.vocabulary is None or not vocabulary.samefile(table.vocabulary):
        raise InputError(
            f"{flag}: {vocabulary} was not written by this command; name another directory, or give the file as"
            " --vocabulary"
        )


def check_output(directory: Path, fingerprint: str, overwrite: bool) -> Written | None:
    """Checks the contents of an output directory, before anything is made for it.

    Args:
      directory: need not exist.
      fingerprint: fingerprint of what will be written there.
      overwrite: whether to replace shards that were made from something else.

    Returns:
      What is there, if it is complete and the same as would be written; otherwise None.

    Raises:
      InputError: the directory has other shards, or shards from elsewhere.
    """
    path = directory / RECORD
    if path.exists():
        found: Written = strict_yaml.read_json(path, Written, "name another directory")
        if found.fingerprint == fingerprint:
            there = found.is_whole and all((directory / shard).exists() for shard in found.shards)
            return found if there else None
        if not overwrite and found.is_whole:
            raise InputError(
                f"--output_dir={directory}: contains shards that were made from other input or with other options; name"
                " another directory, or add --overwrite to replace them"
            )
    elif strangers := [*directory.glob("video/*.tfrecord"), *directory.glob("frame/*.tfrecord")]:
        raise InputError(
            f"--output_dir={directory}: {strangers[0]} was not written by this command; name another directory"
        )
    return None


def write_dataset(
    directory: Path,
    table: LabelTable,
    videos: Iterable[str],
    load: Callable[[str], Encoded],
    layout: Layout,
    fingerprint: str,
) -> Written:
    """Writes the shards of videos and the files next to them, and replaces those made from something else.

    Args:
      directory: where to write.
      table: the labels and splits of the videos.
      videos: the ids of the videos, all of which are in the table, in any order.
      load: returns the features of a video, by its id; called once for each level.
      layout: the layout of the shards.
      fingerprint: fingerprint of all inputs of the shards.

    Raises:
      InputError: a file cannot be written.
    """
    dealt = _deal(table, videos, layout)
    counts = Counter(table.rows[video_id].split for ids in dealt.values() for video_id in ids)
    shards = {f"{level}/{name}": len(ids) for level in layout.levels for name, ids in dealt.items()}
    written = Written(fingerprint, False, {split: counts[split] for split in SPLITS}, shards)
    before = set[str]()
    if (directory / RECORD).exists():
        before = set(strict_yaml.read_json(directory / RECORD, Written, "name another directory").shards)
    _record(directory, dataclasses.replace(written, shards={**dict.fromkeys(before, 0), **shards}))
    longest = 0
    with Progress(total=sum(shards.values()), desc="shards", unit="video") as bar:
        for level in layout.levels:
            for name, ids in dealt.items():
                longest = max(longest, _write(directory / level / name, level, ids, table, load))
                bar.update(len(ids))
    for name in sorted(before - shards.keys()):
        (directory / name).unlink(missing_ok=True)
    if table.class_names:
        write_vocabulary(directory / VOCABULARY, table, [video_id for ids in dealt.values() for video_id in ids])
    for level in layout.levels:
        with files.whole_file(directory / level / DATA_SECTION) as temporary:
            section = {"data": _data_section(level, layout, table, dealt, longest)}
            temporary.write_text(
                yaml.safe_dump(section, sort_keys=False, default_flow_style=None, width=110), encoding="utf-8"
            )
    written = dataclasses.replace(written, is_whole=True)
    _record(directory, written)
    return written


def _data_section(
    level: schema.Level, layout: Layout, table: LabelTable, dealt: Mapping[str, Sequence[str]], longest: int
) -> dict[str, Any]:
    """Returns the `data` section of a configuration that reads the shards; `longest` is in frames."""
    data: dict[str, Any] = {"level": level}
    frame_level = level == "frame"
    data["features"] = {
        name: layout.storage.config(size) if frame_level else size for name, size in layout.sizes.items()
    }
    if table.class_names:
        data["num_classes"] = len(table.class_names)
        data["vocabulary"] = f"../{VOCABULARY}"  # relative to --data_dir, the directory of the level
    rows = [table.rows[video_id] for ids in dealt.values() for video_id in ids]
    most = max((len(row.labels or ()) for row in rows), default=0)
    if most > TargetsConfig.max_labels:
        data["max_labels"] = most
    if frame_level and longest > schema.MAX_FRAMES:
        data["max_frames"] = longest
    return data


def read_data_section(directory: Path, level: schema.Level) -> str:
    """Returns the `data` section that `write_dataset` wrote for a level, in one line, for `--set=data=...`."""
    section = yaml.safe_load((directory / level / DATA_SECTION).read_text(encoding="utf-8"))["data"]
    return yaml.safe_dump(section, sort_keys=False, default_flow_style=True, width=float("inf")).strip()


def _deal(table: LabelTable, videos: Iterable[str], layout: Layout) -> dict[str, list[str]]:
    """Returns the ids of the videos of each shard, in order, by the shard's name."""
    dealt: dict[str, list[str]] = {}
    by_split: dict[str, list[str]] = {split: [] for split in SPLITS}
    for video_id in videos:
        by_split[table.rows[video_id].split].append(video_id)
    for split, ids in by_split.items():
        ids.sort(key=lambda video_id: (position_of(video_id, "shard"), video_id))
        num_shards = -(-len(ids) // layout.videos_per_shard)
        for number in range(num_shards):
            first, last = (len(ids) * edge // num_shards for edge in (number, number + 1))
            dealt[f"{split}{number:04d}.tfrecord"] = ids[first:last]
    return dealt


def _write(
    path: Path, level: schema.Level, ids: Sequence[str], table: LabelTable, load: Callable[[str], Encoded]
) -> int:
    """Writes a shard, and returns the number of frames of its longest clip."""
    longest = 0

    def records() -> Iterator[bytes]:
        nonlocal longest
        for video_id in ids:
            encoded = load(video_id)
            longest = max(longest, encoded.num_frames)
            record = VideoRecord(video_id.encode(), table.rows[video_id].labels, encoded.means)
            yield video_example(record) if level == "video" else clip_example(record, encoded.frames)

    write_shard(str(path), records())
    return longest


def _record(directory: Path, written: Written) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    files.write_json(directory / RECORD, strict_yaml.to_dict(written))
