"""Inspection of shards without a configuration: the implementation of yt8m-inspect."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from yt8m_tf import files, schema
from yt8m_tf.console import tables
from yt8m_tf.console.progress import Progress
from yt8m_tf.data import integrity, record_check
from yt8m_tf.data.layout import Layout
from yt8m_tf.data.salvage import salvage
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError

_COLUMNS = (
    *("shard", "records", "bytes", "level", "id", "features"),
    *("labels/video", "unlabelled", "label ids", "frames", "damage"),
)


@dataclasses.dataclass
class Range:
    """Running minimum, mean and maximum of integers."""

    count: int = 0
    total: int = 0
    low: int | None = None
    high: int | None = None

    def add(self, values: Iterable[int]) -> None:
        """Adds numbers."""
        values = list(values)
        if values:
            self.merge(Range(len(values), sum(values), min(values), max(values)))

    def merge(self, other: Range) -> None:
        """Adds all numbers of another range."""
        if other.low is None or other.high is None:
            return
        self.count, self.total = self.count + other.count, self.total + other.total
        self.low = other.low if self.low is None else min(self.low, other.low)
        self.high = other.high if self.high is None else max(self.high, other.high)

    def to_dict(self) -> dict[str, Any] | None:
        """Returns minimum, mean and maximum; None if there are no numbers."""
        return {"min": self.low, "mean": self.total / self.count, "max": self.high} if self.count else None


@dataclasses.dataclass
class Contents:
    """Contents of one or more shards. `sizes` is in floats, or in bytes for frames that are stored as bytes."""

    records: int = 0
    num_bytes: int = 0
    unreadable: int = 0  # valid TFRecord records that are not tf.train.Examples
    levels: set[str] = dataclasses.field(default_factory=set)
    id_keys: set[str] = dataclasses.field(default_factory=set)
    sizes: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    labels: Range = dataclasses.field(default_factory=Range)
    label_ids: Range = dataclasses.field(default_factory=Range)
    frames: Range = dataclasses.field(default_factory=Range)
    layout: Layout = dataclasses.field(default_factory=Layout)

    def merge(self, other: Contents) -> None:
        """Adds the contents of other shards."""
        self.records, self.num_bytes = self.records + other.records, self.num_bytes + other.num_bytes
        self.unreadable += other.unreadable
        self.levels |= other.levels
        self.id_keys |= other.id_keys
        for key, sizes in other.sizes.items():
            self.sizes.setdefault(key, set()).update(sizes)
        for mine, others in (
            (self.labels, other.labels),
            (self.label_ids, other.label_ids),
            (self.frames, other.frames),
        ):
            mine.merge(others)
        self.layout.merge(other.layout)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return {
            "records": self.records,
            "bytes": self.num_bytes,
            "unparsable_records": self.unreadable,
            "levels": sorted(self.levels),
            "id_keys": sorted(self.id_keys),
            "features": {key: sorted(sizes) for key, sizes in sorted(self.sizes.items())},
            "labels_per_labelled_video": self.labels.to_dict(),
            "share_unlabelled": 1 - self.labels.count / self.records if self.records else None,
            "label_ids": [self.label_ids.low, self.label_ids.high] if self.label_ids.count else None,
            "frames_per_clip": self.frames.to_dict(),
        }


def add_record(contents: Contents, serialized: bytes) -> None:
    """Adds a record to `contents`."""
    contents.records += 1
    record = record_check.parse_record(serialized)
    if record is None:
        contents.unreadable += 1
        return
    context, lists = record.context.feature, record.feature_lists.feature_list
    level = record_check.record_level(record)
    contents.levels.add(level or "none")
    contents.layout.add(record, level)
    contents.id_keys |= {key for key in schema.ID_KEYS if key in context}
    if schema.LABELS_KEY in context:
        labels = context[schema.LABELS_KEY].int64_list.value
        contents.labels.add([len(labels)] if labels else [])
        contents.label_ids.add(labels)
    if level == "video":
        for key, feature in context.items():
            if feature.HasField("float_list"):
                contents.sizes.setdefault(key, set()).add(len(feature.float_list.value))
    if level == "frame":
        contents.frames.add([min(len(frames.feature) for frames in lists.values())])
        for key, frames in lists.items():
            own = contents.sizes.setdefault(key, set())
            for frame in frames.feature:
                own |= {len(value) for value in frame.bytes_list.value}
                own |= {len(frame.float_list.value)} - {0}


def table(report: dict[str, Any]) -> str:
    """Returns the report as left-aligned columns; shards are named by their file names if these are unique."""
    paths = [entry["path"] for entry in report["shards"]]
    names = [os.path.basename(path) for path in paths]
    names = names if len(set(names)) == len(names) else paths
    rows = [_COLUMNS, *map(row, names, report["shards"]), row(f"total ({len(paths)})", report["total"])]
    return tables.aligned(rows, num_left=len(_COLUMNS))


def row(name: str, entry: dict[str, Any]) -> list[str]:
    """Returns the cells of one shard, or of the totals, from a result of `Contents.to_dict`."""
    features = [f"{key}:{','.join(map(str, sizes)) or '?'}" for key, sizes in entry["features"].items()]
    unlabelled, label_ids = entry["share_unlabelled"], entry["label_ids"]
    damage = entry["damage"]
    cells = [
        name,
        f"{entry['records']:,}",
        f"{entry['bytes']:,}",
        "+".join(entry["levels"] + ["unparsable"] * bool(entry["unparsable_records"])),
        "+".join(entry["id_keys"]),
        " ".join(features),
        _range_text(entry["labels_per_labelled_video"]),
        "" if unlabelled is None else f"{unlabelled:.1%}",
        f"{label_ids[0]}..{label_ids[1]}" if label_ids else "",
        _range_text(entry["frames_per_clip"]),
        f"byte {damage['offset']}, record {damage['record']}: {damage['reason']}" if damage else "",
    ]
    return [cell or "-" for cell in cells]


def inspect(paths: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Reads shards, each up to its first damage.

    Returns:
      The report as plain values, and the paths of damaged shards. The report has the contents of each shard, the
      totals, and the `data` section that reads the records, as lines of YAML (`Layout.section`).
    """
    total, shards, damaged = Contents(), [], []
    for path in Progress(paths, unit="shard", disable=len(paths) < 5, file=sys.stderr):
        scan = integrity.scan_shard(path)
        contents = Contents(num_bytes=scan.num_bytes)
        for serialized in integrity.good_records(path):
            add_record(contents, serialized)
        total.merge(contents)
        damage = dataclasses.asdict(scan.damage) if scan.damage else None
        shards.append({"path": path, **contents.to_dict(), "damage": damage})
        damaged += [path] if damage else []
    totals = {"shards": len(paths), "damaged": len(damaged), **total.to_dict(), "damage": None}
    return {"shards": shards, "total": totals, "data": total.layout.section()}, damaged


def salvage_all(damaged: Sequence[str], directory: str) -> None:
    """Writes the good records of the damaged shards to `directory`, under the shards' own names.

    Raises:
      InputError: two of the shards have the same name, or a file of that name exists; see also `salvage`.
    """
    names = [os.path.basename(path) for path in damaged]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(
            f"--salvage_to={directory}: two damaged shards are called {min(twice)}; salvage them one by one"
        )
    outputs = [os.path.join(directory, name) for name in names]
    files.check_no_input(outputs, damaged, f"--salvage_to={directory}")
    if there := [path for path in outputs if os.path.exists(path)]:
        raise InputError(f"--salvage_to={directory}: {there[0]} already exists; name another directory")
    try:
        tf.io.gfile.makedirs(directory)
    except tf.errors.OpError as error:
        raise InputError(f"--salvage_to={directory}: cannot be created: {error.message}; name another") from error
    for path, output in zip(damaged, outputs, strict=True):
        print(f"salvaged {salvage(path, output)}")


def run(patterns: Sequence[str], json_path: str | None, salvage_to: str | None) -> int:
    """Inspects shards, and prints the report.

    Args:
      patterns: glob patterns or paths of shards.
      json_path: also write the report to this file.
      salvage_to: write the good records of damaged shards to this directory.

    Returns:
      The exit status: 0 for sound shards, 1 for damage.

    Raises:
      InputError: there is no pattern, a pattern matches nothing or only a directory, or an output cannot be written or
        is one of the shards.
    """
    if not patterns:
        raise InputError('no shards given; name files or patterns, for example "/data/train*.tfrecord"')
    paths = list_shards(patterns)
    if json_path:
        files.check_no_input([json_path], paths, f"--json={json_path}")
        files.check_writable(Path(json_path), "--json")
    report, damaged = inspect(paths)
    print(table(report))
    if json_path:
        _write_json(json_path, report)
    if report["data"]:
        print("\n".join(["", "to read them:", "", *report["data"], ""]))
    if damaged and salvage_to:
        salvage_all(damaged, salvage_to)
    if damaged:
        has_records = any(shard["damage"] and not shard["damage"]["foreign"] for shard in report["shards"])
        hint = "; --salvage_to=DIR saves their good records" if has_records and not salvage_to else ""
        print(f"{len(damaged)} of {len(paths)} shards are damaged{hint}")
    return 1 if damaged else 0


def _range_text(values: dict[str, Any] | None) -> str:
    return f"{values['min']}/{values['mean']:.2f}/{values['max']}" if values else ""


def _write_json(path: str, report: dict[str, Any]) -> None:
    try:
        with files.whole_file(Path(path)) as temporary:
            temporary.write_text(json.dumps(report, indent=1), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--json={path}: cannot be written: {error.strerror}; name another file") from error
