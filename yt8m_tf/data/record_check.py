"""Says what is wrong with one record for a configuration, by plain protobuf parsing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_tf import schema
from yt8m_tf.config.data import RecordsConfig, TargetsConfig, targets_of
from yt8m_tf.data.records import record_key

ID_KEYS = ("id", "video_id")  # 2018 and 2017
LABELS_KEY = "labels"
ON_UNLABELLED_HINT = "--on_unlabelled=skip leaves such videos out, negative takes them for videos of no class"


@dataclasses.dataclass(frozen=True)
class Reader:
    """Who reads records, so that messages advise what can be done there.

    Attributes:
      has_flags: whether the command has --on_damaged, --on_empty and --on_unlabelled.
      model: the trained model that reads, which decides what records must hold; "": the section `data` of a
        configuration does.
      features_flag: the flag that says which features are read, where there is neither model nor configuration.
    """

    has_flags: bool = False
    model: str = ""
    features_flag: str = ""

    @property
    def damage_hint(self) -> str:
        """What to do about a damaged shard."""
        if self.has_flags:
            return "--on_damaged=skip goes on with the next shard"
        return "fetch the shard again, or salvage its good records with yt8m-inspect"

    def flag_hint(self, advice: str) -> str:
        """Advice to give one of the flags, to append to a message; "" where the command does not have them."""
        return f"; {advice}" if self.has_flags else ""

    def level_hint(self, found: schema.Level, wanted: schema.Level) -> str:
        """What to do about records of the other level."""
        if self.model:
            return f"{self.model} reads {wanted}-level shards: give those"
        return f"set data.level: {found}, or give {wanted}-level shards"

    def key_hint(self, name: str) -> str:
        """What to do where a feature is not under its key."""
        if self.model:
            return f"{self.model} reads it: give shards that have it"
        return f"name the right key in data.keys.{name}"

    def size_hint(self, name: str, size: int, found: int) -> str:
        """What to do about a feature of another size."""
        if self.features_flag:
            return f"{self.features_flag} says {size}; give {name}:{found} there, or other shards"
        if self.model:
            return f"{self.model} reads {size}; give shards of the features that it was trained on"
        return f"data.features says {name}: {size}; set data.features.{name}: {found}, or give other shards"

    def classes_hint(self, label: int, num_classes: int) -> str:
        """What to do about a label beyond the last class."""
        if self.model:
            return f"not below {num_classes}, the classes of {self.model}; give shards of these classes"
        hint = "the 2018 version has 3862 classes, 2017 has 4716"
        return f"not below data.num_classes: {num_classes}; raise data.num_classes ({hint})"


_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64", None: "empty"}


def parse_record(serialized: bytes) -> tf.train.SequenceExample | None:
    """Parses a record of either level; None where it is neither.

    `Example` and `SequenceExample` share their first field on the wire, so that a video-level record reads as a
    `SequenceExample` too: what it calls features is `context` here.
    """
    try:
        return tf.train.SequenceExample.FromString(serialized)
    except DecodeError:
        return None


def record_level(record: tf.train.SequenceExample) -> schema.Level | None:
    """The level of a record; None where it holds features of neither.

    The presence of the second field does not tell: the 2018 video-level files have it, empty.
    """
    if record.feature_lists.feature_list:
        return "frame"
    return "video" if any(f.HasField("float_list") for f in record.context.feature.values()) else None


def video_id(serialized: bytes) -> str | None:
    """The id of a video, bytes that are not UTF-8 escaped; None where the record has none."""
    record = parse_record(serialized)
    if record is None:
        return None
    for key in ID_KEYS:
        values = record.context.feature[key].bytes_list.value  # a key that is not there reads as an empty list
        if values and values[0]:
            return values[0].decode("utf-8", "backslashreplace")
    return None


def check_record(
    serialized: bytes,
    data: RecordsConfig,
    *,
    need_labels: bool,
    need_frames: bool = True,
    reader: Reader | None = None,
) -> str | None:
    """Says what is wrong with a record.

    Args:
      serialized: a `tf.train.Example` (video level) or `tf.train.SequenceExample` (frame level).
      data: what it should hold; of a mere `RecordsConfig` labels are not looked at.
      need_labels: having no labels is wrong.
      need_frames: having no frames is wrong (frame level).
      reader: who reads, for the remedy; a command without flags that reads a configuration, unless given.

    Returns:
      The field, the value found and the remedy, for the first thing that is wrong; None where nothing is.
    """
    record, reader = parse_record(serialized), reader or Reader()
    if record is None:
        return f"{len(serialized)} bytes that are no tf.train.Example or SequenceExample; give YouTube-8M shards"
    found = record_level(record)
    if found and found != data.level:
        return f"a {found}-level record; {reader.level_hint(found, data.level)}"
    context = record.context.feature
    targets = targets_of(data)
    problem = _check_id(context) or (_check_labels(context, targets, need_labels, reader) if targets else None)
    if problem:
        return problem
    if data.level == "video":
        return _first(_check_vector(context, name, data, reader) for name in data.features)
    lists = record.feature_lists.feature_list
    return _first(_check_frames(lists, name, data, need_frames, reader) for name in data.features)


def _check_id(context: Mapping[str, tf.train.Feature]) -> str | None:
    given = [key for key in ID_KEYS if key in context]
    if not given:
        return f"neither '{ID_KEYS[0]}' nor '{ID_KEYS[1]}' ({_keys(context)}); give YouTube-8M shards"
    ids = {key: context[key].bytes_list.value for key in given}
    # A feature without a list is none, if the record has another id.
    wrong = [key for key in given if len(ids[key]) != 1 and (context[key].WhichOneof("kind") or len(given) == 1)]
    if wrong:
        return f"'{wrong[0]}' is {_describe(context[wrong[0]])}, not one of bytes; write the shard again"
    if not any(values and values[0] for values in ids.values()):
        return f"'{given[0]}' is empty ({_keys(context)}); write the shard again, with an id for every video"
    return None


def _check_labels(
    context: Mapping[str, tf.train.Feature], targets: TargetsConfig, need_labels: bool, reader: Reader
) -> str | None:
    feature = context.get(LABELS_KEY)
    if feature is not None and feature.WhichOneof("kind") not in ("int64_list", None):
        return f"'{LABELS_KEY}' is {_describe(feature)}, not int64; write the shard again"
    labels = list(dict.fromkeys(feature.int64_list.value)) if feature is not None else []
    if not labels:
        hint = f"a test shard? give labelled ones{reader.flag_hint(ON_UNLABELLED_HINT)}"
        return f"no labels, which training and evaluation need ({_keys(context)}); {hint}" if need_labels else None
    if min(labels) < 0:
        return f"label {min(labels)} is negative; write the shard again"
    if max(labels) >= targets.num_classes:
        return f"label {max(labels)} is {reader.classes_hint(max(labels), targets.num_classes)}"
    if len(labels) > targets.max_labels:
        hint = f"{reader.model} reads no more" if reader.model else "raise data.max_labels"
        return f"{len(labels)} labels, more than data.max_labels: {targets.max_labels}; {hint}"
    return None


def _check_vector(
    context: Mapping[str, tf.train.Feature], name: str, data: RecordsConfig, reader: Reader
) -> str | None:
    key, size = record_key(data, name), data.features[name]
    if key not in context:
        return _missing(key, name, context, reader)
    if context[key].WhichOneof("kind") not in ("float_list", None):
        return f"'{key}' is {_describe(context[key])}, not float; {reader.key_hint(name)}"
    values = np.array(context[key].float_list.value, np.float32)  # [D]
    if len(values) != size:
        return f"'{key}' has {len(values)} values, {reader.size_hint(name, size, len(values))}"
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        count = f"{int(np.sum(~finite))} of {size} values"
        return f"'{key}' holds {values[first]} at {first}, {count} are not finite; write the shard again"
    return None


def _check_frames(
    lists: Mapping[str, tf.train.FeatureList], name: str, data: RecordsConfig, need_frames: bool, reader: Reader
) -> str | None:
    key, size = record_key(data, name), data.features[name]
    skip = reader.flag_hint("--on_empty=skip leaves such clips out")
    if not lists:
        return f"no frames at all{skip}" if need_frames else None
    if key not in lists:
        return _missing(key, name, lists, reader)
    frames = lists[key].feature
    if not frames:
        return f"no frames at all in '{key}'{skip}" if need_frames else None
    for number, frame in enumerate(frames):
        values = frame.bytes_list.value
        if len(values) != 1:
            return f"frame {number} of '{key}' is {_describe(frame)}, not one of bytes; {reader.key_hint(name)}"
        if len(values[0]) != size:
            return (
                f"frame {number} of '{key}' has {len(values[0])} bytes, {reader.size_hint(name, size, len(values[0]))}"
            )
    return None


def _missing(key: str, name: str, fields: Mapping[str, Any], reader: Reader) -> str:
    features = reader.features_flag or ("" if reader.model else "data.features")
    leave_out = f", or leave {name} out of {features}" if features else ""
    return f"no '{key}' ({_keys(fields)}); {reader.key_hint(name)}{leave_out}"


def _keys(fields: Mapping[str, Any]) -> str:
    return f"it has: {', '.join(sorted(fields)) or 'nothing'}"


def _describe(feature: tf.train.Feature) -> str:
    kind = feature.WhichOneof("kind")
    count = len(getattr(feature, kind).value) if kind else 0
    return f"a list of {count} {_KINDS[kind]} value{'' if count == 1 else 's'}" if kind else "an empty feature"


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)
