"""Says what is wrong with one record for a configuration, by plain protobuf parsing."""

from __future__ import annotations

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
        if values:
            return values[0].decode("utf-8", "backslashreplace")
    return None


def check_record(serialized: bytes, data: RecordsConfig, *, need_labels: bool, need_frames: bool = True) -> str | None:
    """Says what is wrong with a record.

    Args:
      serialized: a `tf.train.Example` (video level) or `tf.train.SequenceExample` (frame level).
      data: what it should hold; of a mere `RecordsConfig` labels are not looked at.
      need_labels: having no labels is wrong.
      need_frames: having no frames is wrong (frame level).

    Returns:
      The field, the value found and the remedy, for the first thing that is wrong; None where nothing is.
    """
    record = parse_record(serialized)
    if record is None:
        return f"{len(serialized)} bytes that are no tf.train.Example or SequenceExample; give YouTube-8M shards"
    found = record_level(record)
    if found and found != data.level:
        return f"a {found}-level record; set data.level: {found}, or give {data.level}-level shards"
    context = record.context.feature
    targets = targets_of(data)
    problem = _check_id(context) or (_check_labels(context, targets, need_labels) if targets else None)
    if problem:
        return problem
    if data.level == "video":
        return _first(_check_vector(context, name, data) for name in data.features)
    lists = record.feature_lists.feature_list
    return _first(_check_frames(lists, name, data, need_frames) for name in data.features)


def _check_id(context: Mapping[str, tf.train.Feature]) -> str | None:
    key = next((key for key in ID_KEYS if key in context), None)
    if key is None:
        return f"neither '{ID_KEYS[0]}' nor '{ID_KEYS[1]}' ({_keys(context)}); give YouTube-8M shards"
    if len(context[key].bytes_list.value) != 1:
        return f"'{key}' is {_describe(context[key])}, not one of bytes; write the shard again"
    if not context[key].bytes_list.value[0]:
        return f"'{key}' is empty ({_keys(context)}); write the shard again, with an id for every video"
    return None


def _check_labels(context: Mapping[str, tf.train.Feature], targets: TargetsConfig, need_labels: bool) -> str | None:
    feature = context.get(LABELS_KEY)
    if feature is not None and feature.WhichOneof("kind") not in ("int64_list", None):
        return f"'{LABELS_KEY}' is {_describe(feature)}, not int64; write the shard again"
    labels = list(dict.fromkeys(feature.int64_list.value)) if feature is not None else []
    if not labels:
        hint = "a test shard? give labelled ones"
        return f"no labels, which training and evaluation need ({_keys(context)}); {hint}" if need_labels else None
    if min(labels) < 0:
        return f"label {min(labels)} is negative; write the shard again"
    if max(labels) >= targets.num_classes:
        hint = "the 2018 version has 3862 classes, 2017 has 4716"
        return (
            f"label {max(labels)} is not below data.num_classes: {targets.num_classes}; raise data.num_classes ({hint})"
        )
    if len(labels) > targets.max_labels:
        return f"{len(labels)} labels, more than data.max_labels: {targets.max_labels}; raise data.max_labels"
    return None


def _check_vector(context: Mapping[str, tf.train.Feature], name: str, data: RecordsConfig) -> str | None:
    key, size = record_key(data, name), data.features[name]
    if key not in context:
        return _missing(key, name, context)
    if context[key].WhichOneof("kind") not in ("float_list", None):
        return f"'{key}' is {_describe(context[key])}, not float; {_key_hint(name)}"
    values = np.array(context[key].float_list.value, np.float32)  # [D]
    if len(values) != size:
        return f"'{key}' has {len(values)} values, {_size_hint(name, size, len(values))}"
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        count = f"{int(np.sum(~finite))} of {size} values"
        return f"'{key}' holds {values[first]} at {first}, {count} are not finite; write the shard again"
    return None


def _check_frames(
    lists: Mapping[str, tf.train.FeatureList], name: str, data: RecordsConfig, need_frames: bool
) -> str | None:
    key, size = record_key(data, name), data.features[name]
    if not lists:
        return "no frames at all; --on_empty=skip leaves such clips out" if need_frames else None
    if key not in lists:
        return _missing(key, name, lists)
    frames = lists[key].feature
    if not frames:
        return f"no frames at all in '{key}'; --on_empty=skip leaves such clips out" if need_frames else None
    for number, frame in enumerate(frames):
        values = frame.bytes_list.value
        if len(values) != 1:
            return f"frame {number} of '{key}' is {_describe(frame)}, not one of bytes; {_key_hint(name)}"
        if len(values[0]) != size:
            return f"frame {number} of '{key}' has {len(values[0])} bytes, {_size_hint(name, size, len(values[0]))}"
    return None


def _missing(key: str, name: str, fields: Mapping[str, Any]) -> str:
    return f"no '{key}' ({_keys(fields)}); {_key_hint(name)}, or leave {name} out of data.features"


def _keys(fields: Mapping[str, Any]) -> str:
    return f"it has: {', '.join(sorted(fields)) or 'nothing'}"


def _key_hint(name: str) -> str:
    return f"name the right key in data.keys.{name}"


def _size_hint(name: str, size: int, found: int) -> str:
    return f"data.features says {name}: {size}; set data.features.{name}: {found}, or give other shards"


def _describe(feature: tf.train.Feature) -> str:
    kind = feature.WhichOneof("kind")
    count = len(getattr(feature, kind).value) if kind else 0
    return f"a list of {count} {_KINDS[kind]} value{'' if count == 1 else 's'}" if kind else "an empty feature"


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)
