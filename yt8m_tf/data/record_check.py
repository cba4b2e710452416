"""Checks one record against a configuration, by plain protobuf parsing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_tf import schema
from yt8m_tf.config.data import RecordsConfig, TargetsConfig, ratings_of, targets_of
from yt8m_tf.data.feature_check import check_clip, check_vector, describe, keys_of
from yt8m_tf.data.rating_check import check_ratings

ON_UNLABELLED_HINT = "--on_unlabelled=skip leaves such videos out, negative treats them as videos of no class"


@dataclasses.dataclass(frozen=True)
class Reader:
    """The reader of records: decides which remedies messages name.

    Attributes:
      has_flags: whether the command has --on_damaged, --on_empty and --on_unlabelled.
      model: the name of the trained model that decides what records must contain; "" if the `data` section of a
        configuration does.
      features_flag: the flag that says which features are read, if there is neither a model nor a configuration.
      id_flag: the flag that names the key of the ids; "" if the command has none.
      classes_flag: the flag that gives the number of classes; "" if a model or a configuration does.
    """

    has_flags: bool = False
    model: str = ""
    features_flag: str = ""
    id_flag: str = ""
    classes_flag: str = ""

    @property
    def damage_hint(self) -> str:
        """Returns the remedy for a damaged shard."""
        if self.has_flags:
            return "--on_damaged=skip continues with the next shard"
        return "fetch the shard again, or salvage its good records with yt8m-inspect"

    def flag_hint(self, advice: str) -> str:
        """Returns advice about one of the flags, to append to a message; "" if the command does not have them."""
        return f"; {advice}" if self.has_flags else ""

    def level_hint(self, found: schema.Level, wanted: schema.Level) -> str:
        """Returns the remedy for records of the other level."""
        if self.model:
            return f"{self.model} reads {wanted}-level shards: give those"
        return f"set data.level: {found}, or give {wanted}-level shards"

    def key_hint(self, name: str) -> str:
        """Returns the remedy for a feature that is not under its key."""
        if self.model:
            return f"{self.model} reads it: give shards that have it"
        return f"name the right key in data.keys.{name}"

    def size_hint(self, name: str, size: int, found: int) -> str:
        """Returns the remedy for a feature of another size."""
        if self.features_flag:
            return f"{self.features_flag} says {size}; give {name}:{found} there, or other shards"
        if self.model:
            return f"{self.model} reads {size}; give shards of the features that it was trained on"
        return f"data.features says {name}: {size}; set data.features.{name}: {found}, or give other shards"

    def dtype_hint(self, name: str, fitting: str) -> str:
        """Returns the remedy for a feature of another storage type; `fitting` is the dtype that would fit, or ""."""
        if self.model or self.features_flag or not fitting:
            return self.key_hint(name)
        return f"set data.features.{name}.dtype: {fitting}, or {self.key_hint(name)}"

    def range_hint(self, name: str) -> str:
        """Returns the remedy for values out of range."""
        if self.model:
            return f"{self.model} reads no others: give shards of the features that it was trained on"
        return f"change data.features.{name}.range, or write the shard again"

    def length_hint(self, most: int) -> str:
        """Returns the remedy for features that differ by more than `most` frames."""
        if self.model:
            return f"{self.model} reads clips whose features differ by {most} at most: write the shard again"
        return (
            f"they may differ by data.max_frame_difference: {most}; raise it if the shorter one is to count, or write"
            " the shard again"
        )

    def id_hint(self, id_keys: Sequence[str]) -> str:
        """Returns the remedy for an id under another key than `id_keys`."""
        if self.id_flag:
            return f"name its key with {self.id_flag}, or give YouTube-8M shards"
        if not self.model:
            return "name its key in data.keys.id, or give YouTube-8M shards"
        if tuple(id_keys) == schema.ID_KEYS:
            return f"{self.model} reads ids under no other key: give YouTube-8M shards"
        return f"{self.model} was trained with data.keys.id={id_keys[0]}: give shards with ids under that key"

    def classes_hint(self, label: int, num_classes: int) -> str:
        """Returns the remedy for a label beyond the last class."""
        versions = "the 2018 version has 3862 classes, 2017 has 4716"
        if self.classes_flag:
            return f"not below {self.classes_flag}={num_classes}; raise that ({versions}), or give other shards"
        if self.model:
            return f"not below {num_classes}, the classes of {self.model}; give shards of these classes"
        return f"not below data.num_classes: {num_classes}; raise data.num_classes ({versions})"


def parse_record(serialized: bytes) -> tf.train.SequenceExample | None:
    """Parses a record of either level; returns None if it is neither.

    `Example` and `SequenceExample` share their first field on the wire, so a video-level record also parses as a
    `SequenceExample`, with its features in `context`.
    """
    try:
        return tf.train.SequenceExample.FromString(serialized)
    except DecodeError:
        return None


def record_level(record: tf.train.SequenceExample) -> schema.Level | None:
    """Returns the level of a record; None if it has features of neither level.

    The presence of the second field does not decide: video-level files of 2018 have it, but empty.
    """
    if record.feature_lists.feature_list:
        return "frame"
    return "video" if any(f.HasField("float_list") for f in record.context.feature.values()) else None


def video_id(serialized: bytes, id_keys: Sequence[str] = schema.ID_KEYS) -> str | None:
    """Returns the id of a video, with bytes that are not UTF-8 escaped; None if there is none under `id_keys`."""
    record = parse_record(serialized)
    if record is None:
        return None
    for key in id_keys:
        values = record.context.feature[key].bytes_list.value  # a missing key reads as an empty list
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
    """Returns what is wrong with a record.

    Args:
      serialized: a `tf.train.Example` (video level) or `tf.train.SequenceExample` (frame level).
      data: what it should contain; with a plain `RecordsConfig`, labels are not checked.
      need_labels: having no labels is wrong.
      need_frames: having no frames is wrong (frame level).
      reader: decides the remedy; by default, a command without flags that reads a configuration.

    Returns:
      The field, the value found and the remedy, for the first problem; None if there is none.
    """
    record, reader = parse_record(serialized), reader or Reader()
    if record is None:
        return f"{len(serialized)} bytes that are not a tf.train.Example or SequenceExample; give YouTube-8M shards"
    context, lists = record.context.feature, record.feature_lists.feature_list
    found, rated = record_level(record), ratings_of(data)
    if found and found != data.level and not _has_features(record, data):
        hint = "give frame-level shards with ratings" if rated else reader.level_hint(found, data.level)
        return f"a {found}-level record; {hint}"
    problem = check_id(context, data.id_keys, reader)
    if not problem and (targets := targets_of(data)):
        problem = check_labels(context, data.labels_key, targets, need_labels, reader)
    if not problem and rated:
        problem = check_ratings(context, rated, reader)
    if problem:
        return problem
    if data.level == "video":
        return _first(check_vector(context, name, data, reader) for name in data.features)
    return check_clip(context, lists, data, need_frames, reader)


def _has_features(record: tf.train.SequenceExample, data: RecordsConfig) -> bool:
    """Returns whether all features are where `data` says: a record may have features of both levels."""
    lists, context = record.feature_lists.feature_list, record.context.feature
    return all(
        data.key_of(name) in (context if data.level == "video" or feature.in_context else lists)
        for name, feature in data.stored.items()
        if not feature.mean_of
    )


def check_id(context: Mapping[str, tf.train.Feature], id_keys: Sequence[str], reader: Reader) -> str | None:
    """Returns what is wrong with the id of a record; None if nothing is."""
    given = [key for key in id_keys if key in context]
    if not given:
        none = f"no '{id_keys[0]}'" if len(id_keys) == 1 else f"neither '{id_keys[0]}' nor '{id_keys[1]}'"
        return f"{none} ({keys_of(context)}{_other_id(context)}); {reader.id_hint(id_keys)}"
    ids = {key: context[key].bytes_list.value for key in given}
    # An id without a value does not count if the record has another one.
    wrong = [key for key in given if len(ids[key]) != 1 and (context[key].WhichOneof("kind") or len(given) == 1)]
    if wrong:
        return f"'{wrong[0]}' is {describe(context[wrong[0]])}, not one of bytes; write the shard again"
    if not any(values and values[0] for values in ids.values()):
        return f"'{given[0]}' is empty ({keys_of(context)}); write the shard again, with an id for every video"
    return None


def check_labels(
    context: Mapping[str, tf.train.Feature], key: str, targets: TargetsConfig, need_labels: bool, reader: Reader
) -> str | None:
    """Returns what is wrong with the labels of a record; None if nothing is."""
    feature = context.get(key)
    if feature is not None and feature.WhichOneof("kind") not in ("int64_list", None):
        return f"'{key}' is {describe(feature)}, not int64; write the shard again"
    labels = list(dict.fromkeys(feature.int64_list.value)) if feature is not None else []
    if not labels:
        hint = f"a test shard? give labelled ones{reader.flag_hint(ON_UNLABELLED_HINT)}"
        return f"no labels, which training and evaluation need ({keys_of(context)}); {hint}" if need_labels else None
    if min(labels) < 0:
        return f"label {min(labels)} is negative; write the shard again"
    if max(labels) >= targets.num_classes:
        return f"label {max(labels)} is {reader.classes_hint(max(labels), targets.num_classes)}"
    if len(labels) > targets.max_labels:
        hint = f"{reader.model} reads no more" if reader.model else "raise data.max_labels"
        return f"{len(labels)} labels, more than data.max_labels: {targets.max_labels}; {hint}"
    return None


def _other_id(context: Mapping[str, tf.train.Feature]) -> str:
    """Returns where a record has its id if that is a key of YouTube-8M, for a message."""
    own = [key for key in schema.ID_KEYS if key in context]
    return f"; its id is under '{own[0]}'" if own else ""


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)
