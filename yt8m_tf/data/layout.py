"""Derives the `data` section of a configuration from records, ready to paste."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.config.data import RecordsConfig, TargetsConfig

_LAST_WORDS = (
    "id",
    "video_id",
    "media_id",
    "clip_id",
    "data_path",
    "key",
    "name",
)  # the last part of a key that contains ids, likeliest first
_SUFFIXES = ("_embedding", "_embeddings", "_features", "_feature")
_HIGHEST_OF = {"audio_embedding": (527, "AudioSet")}  # feature key to (number of classes, data set)
_MOST_IDS = 10_000  # distinct ids of a key whose hashes are kept
_LOOKED_AT = 1 << 18  # bytes of a feature that are sampled to guess its dtype
_ENOUGH = 1 << 9
_DIFFERS = 0.4  # total variation distance above which two distributions of nibbles differ


@dataclasses.dataclass
class _Values:
    """Statistics of a key: kinds of its lists, their lengths (for bytes, the length of each value), sampled bytes."""

    kinds: set[str] = dataclasses.field(default_factory=set)
    sizes: set[int] = dataclasses.field(default_factory=set)
    records: int = 0
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((4, 16), np.int64))  # of high nibbles

    def add(self, features: Iterable[tf.train.Feature]) -> None:
        self.records += 1
        for feature in features:
            kind = feature.WhichOneof("kind") or "none"
            self.kinds.add(kind)
            if kind == "bytes_list":
                self.sizes.update(map(len, feature.bytes_list.value))
                for value in feature.bytes_list.value if self.counts.sum() < _LOOKED_AT else ():
                    for place in range(4 if len(value) % 4 == 0 else 0):
                        nibbles = np.frombuffer(value, np.uint8)[place::4] >> 4
                        self.counts[place] += np.bincount(nibbles, minlength=16)
            elif kind == "float_list":
                self.sizes.add(len(feature.float_list.value))

    def merge(self, other: _Values) -> None:
        self.kinds |= other.kinds
        self.sizes |= other.sizes
        self.records += other.records
        self.counts += other.counts

    def dtype(self) -> schema.Dtype | None:
        """Returns the storage type of the vectors; None if the key is not a feature or has several sizes or kinds."""
        if self.kinds == {"float_list"} and len(self.sizes) == 1:
            return "float_list"
        if self.kinds != {"bytes_list"} or len(self.sizes) != 1:
            return None
        # In floats, sign and exponent bytes are distributed differently from mantissa bytes.
        if self.counts.sum() < _ENOUGH:
            return "uint8"
        if _variation(self.counts[1], self.counts[3]) > _DIFFERS:
            return "float32"
        return "float16" if _variation(self.counts[::2].sum(0), self.counts[1::2].sum(0)) > _DIFFERS else "uint8"


def _variation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first / first.sum() - second / second.sum()).sum() / 2)


@dataclasses.dataclass
class Layout:
    """Layout of records: the keys of features, ids and labels."""

    records: int = 0
    levels: set[str] = dataclasses.field(default_factory=set)
    ids: dict[str, set[int]] = dataclasses.field(default_factory=dict)  # hashes of single bytes values
    id_records: dict[str, int] = dataclasses.field(default_factory=dict)
    labels: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)  # most per record, highest
    lists: dict[str, _Values] = dataclasses.field(default_factory=dict)
    context: dict[str, _Values] = dataclasses.field(default_factory=dict)
    longest: int = 0
    difference: int = 0  # in frames, the largest between features of a clip

    def add(self, record: tf.train.SequenceExample, level: str | None) -> None:
        """Adds a record of the given level, as parsed by `record_check.parse_record`."""
        self.records += 1
        self.levels.add(level or "video")  # None: a video-level record whose features are all bytes
        for key, feature in record.context.feature.items():
            values = feature.bytes_list.value
            if len(values) == 1 and values[0]:
                if len(known := self.ids.setdefault(key, set())) < _MOST_IDS:
                    known.add(hash(values[0]))
                self.id_records[key] = self.id_records.get(key, 0) + 1
            if numbers := feature.int64_list.value:
                most, highest = self.labels.get(key, (0, 0))
                self.labels[key] = max(most, len(set(numbers))), max(highest, *numbers)
            self.context.setdefault(key, _Values()).add([feature])
        lengths = []
        for key, frames in record.feature_lists.feature_list.items():
            self.lists.setdefault(key, _Values()).add(frames.feature)
            lengths += [len(frames.feature)] if _is_vector(frames.feature) else []
        if lengths:
            self.longest = max(self.longest, min(lengths))
            self.difference = max(self.difference, max(lengths) - min(lengths))

    def merge(self, other: Layout) -> None:
        """Adds the statistics of another layout."""
        self.records += other.records
        self.levels |= other.levels
        for key, hashes in other.ids.items():
            self.ids.setdefault(key, set()).update(hashes)
            self.id_records[key] = self.id_records.get(key, 0) + other.id_records[key]
        for key, (most, highest) in other.labels.items():
            own = self.labels.get(key, (0, 0))
            self.labels[key] = max(most, own[0]), max(highest, own[1])
        for mine, others in ((self.lists, other.lists), (self.context, other.context)):
            for key, values in others.items():
                mine.setdefault(key, _Values()).merge(values)
        self.longest = max(self.longest, other.longest)
        self.difference = max(self.difference, other.difference)

    def section(self) -> list[str]:
        """Returns the `data` section as lines of YAML, or a comment if no single section can read all records."""
        if not self.records:
            return []
        if len(self.levels) != 1:
            return ["# to get the section 'data' of a configuration, inspect records of a single level"]
        level: schema.Level = "frame" if "frame" in self.levels else "video"
        features, notes = self._features(level)
        if not features:
            return ["# no feature has the same size in all records", *notes]
        keys = self._keys(features)
        for name, (key, _) in features.items():
            if key != RecordsConfig(level, {name: 1}).key_of(name):
                keys[name] = key
        lines = ["data:", *["  level: frame"] * (level == "frame"), "  features:"]
        lines += [f"    {name}: {_feature(values, level)}" for name, (_, values) in features.items()] + notes
        if keys:
            lines.append(f"  keys: {{{', '.join(f'{name}: {_quoted(key)}' for name, key in keys.items())}}}")
        if "id" not in keys and not self._has_standard_id():
            lines.append("  # no key has an id in every record: a record without one cannot be read")
        sizes = {name: {schema.FEATURE_SIZES.get(name)} for name in features}
        is_standard = not keys and sizes == {name: values.sizes for name, (_, values) in features.items()}
        return lines + self._limits(level, keys, is_standard, [key for key, _ in features.values()])

    def _features(self, level: schema.Level) -> tuple[dict[str, tuple[str, _Values]], list[str]]:
        """Returns (key, statistics) of each feature by name, and comments on the features that are left out."""
        found: dict[str, tuple[str, _Values]] = {}
        notes = []
        for key, values in sorted((self.lists if level == "frame" else self.context).items(), key=_standard_first):
            if level == "video" and (key in self._id_like() or values.sizes == {1}):
                continue
            if not values.kinds & {"float_list", "bytes_list"} or values.sizes <= {1}:
                continue
            if values.dtype() is None or values.records < self.records:
                notes.append(f"    # left out: '{key}' ({self._reason(values, level)})")
                continue
            found[_name(key, level, found)] = key, values
        for key, values in sorted(self.context.items()) if level == "frame" else ():
            if (
                values.dtype()
                and values.records == self.records
                and min(values.sizes) > 1
                and key not in self._id_like()
            ):
                stored = _feature(values, "frame", in_context=True)
                notes.append(f"    # in the context, a vector for all frames: {_name(key, 'video', found)}: {stored}")
        return found, notes

    def _reason(self, values: _Values, level: schema.Level) -> str:
        """Returns why a feature is left out."""
        if values.dtype() is not None:
            return f"{self.records - values.records:,} of {self.records:,} records lack it"
        sizes = ", ".join(map(str, sorted(values.sizes)[:4]))
        if level == "video" and len(values.sizes) > 1 and (size := math.gcd(*values.sizes)) > 1:
            return f"sizes {sizes}; frames in one list? then level: frame, and size: {size} with in_context: true"
        return f"sizes {sizes}"

    def _id_like(self) -> set[str]:
        """Returns context keys that look like ids: bytes of several lengths, or under a usual key."""
        return {
            key
            for key, values in self.context.items()
            if values.kinds == {"bytes_list"} and (len(values.sizes) > 1 or key.split("/")[-1] in _LAST_WORDS)
        }

    def _has_standard_id(self) -> bool:
        return sum(self.id_records.get(key, 0) for key in schema.ID_KEYS) >= self.records

    def _keys(self, features: Mapping[str, tuple[str, _Values]]) -> dict[str, str]:
        """Returns `data.keys` for ids and labels that are not under the standard keys."""
        keys = {}
        if not self._has_standard_id():
            taken = {key for key, _ in features.values()}
            candidates = [k for k, count in self.id_records.items() if count == self.records and k not in taken]
            if candidates:
                keys["id"] = min(candidates, key=lambda key: (-len(self.ids[key]), _rank(key), key))
        other_labels = sorted(key for key in self.labels if "label" in key.lower())
        if schema.LABELS_KEY not in self.labels and other_labels:
            keys["labels"] = other_labels[0]
        return keys

    def _limits(self, level: schema.Level, keys: Mapping[str, str], is_standard: bool, own: Sequence[str]) -> list[str]:
        """Returns the configuration lines for the numbers of frames, classes and labels found in the records."""
        lines = []
        if level == "frame" and (self.longest > schema.MAX_FRAMES or not is_standard):
            lines.append(f"  max_frames: {self.longest}  # of the longest clip")
        if level == "frame" and self.difference > 1:
            lines.append(f"  max_frame_difference: {self.difference}  # the largest difference in a clip")
        if (found := self.labels.get(keys.get("labels", schema.LABELS_KEY))) is None:
            return [*lines, "  # no labels: set num_classes yourself"]
        most, highest = found
        known = next((_HIGHEST_OF[key] for key in own if key in _HIGHEST_OF and highest < _HIGHEST_OF[key][0]), None)
        if known:
            lines.append(f"  num_classes: {known[0]}  # of {known[1]}; the highest label is {highest}")
        elif is_standard and highest < schema.NUM_CLASSES and "video_id" not in self.id_records:
            pass
        elif is_standard and highest < _CLASSES_2017:
            lines.append(f"  num_classes: {_CLASSES_2017}  # of the 2017 version; the highest label is {highest}")
        else:
            lines.append(f"  num_classes: {highest + 1}  # the highest label is {highest}")
        if most > TargetsConfig.max_labels:
            lines.append(f"  max_labels: {most}")
        return lines


_CLASSES_2017 = 4716


def _is_vector(frames: Sequence[tf.train.Feature]) -> bool:
    """Returns whether a list of frames contains vectors rather than times."""
    if not frames:
        return True
    return len(frames[0].float_list.value) > 1 or any(len(value) > 1 for value in frames[0].bytes_list.value)


def _standard_first(item: tuple[str, _Values]) -> tuple[int, str]:
    names = [*schema.FEATURE_SIZES]
    own = _name(item[0], "video", {})
    return (names.index(own) if own in names else len(names)), item[0]


def _rank(key: str) -> int:
    last = key.split("/")[-1].lower()
    return _LAST_WORDS.index(last) if last in _LAST_WORDS else len(_LAST_WORDS)


def _name(key: str, level: schema.Level, taken: Mapping[str, Any]) -> str:
    """Returns the name of the feature under a key: rgb for `RGB/feature/floats`, and for `mean_rgb` at video level."""
    name = key.split("/")[0].lower().replace(".", "_")
    name = name.removeprefix("mean_") if level == "video" else name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix) or name
    if not name or name in taken or name in (*schema.ID_KEYS, schema.LABELS_KEY):
        name = key.lower().replace("/", "_").replace(".", "_")
    return name


def _feature(values: _Values, level: schema.Level, in_context: bool = False) -> str:
    """Returns the YAML value of a feature in `data.features`."""
    (size,) = values.sizes
    dtype = values.dtype()
    if dtype == ("float_list" if level == "video" else "uint8") and not in_context:
        return str(size)
    size //= schema.ITEM_BYTES[dtype] if dtype in ("float16", "float32") else 1
    guessed = "" if dtype == "float_list" else f"  # {dtype}, guessed from its bytes"
    return f"{{size: {size}, dtype: {dtype}{', in_context: true' * in_context}}}{guessed}"


def _quoted(key: str) -> str:
    plain = all(character.isalnum() or character in "_/-" for character in key) and key[:1].isalpha()
    return key if plain else "'" + key.replace("'", "''") + "'"
