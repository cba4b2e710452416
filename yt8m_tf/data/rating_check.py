"""Checks the segment ratings of one record against a configuration."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.feature_check import describe

if TYPE_CHECKING:
    from yt8m_tf.data.record_check import Reader

_KINDS = {
    schema.SEGMENT_STARTS_KEY: "int64",
    schema.SEGMENT_CLASSES_KEY: "int64",
    schema.SEGMENT_SCORES_KEY: "float",
    schema.SEGMENT_ENDS_KEY: "int64",  # not used, and a record may omit them
}
_AGAIN = "write the shard again"


def check_ratings(context: Mapping[str, tf.train.Feature], data: DataConfig, reader: Reader) -> str | None:
    """Returns what is wrong with the ratings of a clip; None if nothing is, or it has no ratings.

    Args:
      context: the context of the record.
      data: gives `num_classes` and `max_labels`.
      reader: decides the remedy.
    """
    lists: dict[str, Sequence[Any]] = {}
    for key, kind in _KINDS.items():
        feature = context.get(key, tf.train.Feature())
        if feature.WhichOneof("kind") not in (f"{kind}_list", None):
            return f"'{key}' is {describe(feature)}, not {kind}; {_AGAIN}"
        lists[key] = getattr(feature, f"{kind}_list").value
    counts = {key: len(values) for key, values in lists.items() if values or key != schema.SEGMENT_ENDS_KEY}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} in '{key}'" for key, count in counts.items())
        return f"lists of ratings of different lengths: {listed}; {_AGAIN}"
    starts, classes, scores, _ = lists.values()
    for start, label, score in zip(starts, classes, scores, strict=True):
        if start < 0:
            return f"'{schema.SEGMENT_STARTS_KEY}' contains {start}, which is negative; {_AGAIN}"
        if label < 0:
            return f"'{schema.SEGMENT_CLASSES_KEY}' contains {label}, which is negative; {_AGAIN}"
        if label >= data.num_classes:
            return f"class {label}, rated at second {start}, is {reader.classes_hint(label, data.num_classes)}"
        if not 0 <= score <= 1:
            return f"the rating of class {label} at second {start} is {score:g}, not in [0, 1]; {_AGAIN}"
    rated = collections.Counter(start for start, _ in set(zip(starts, classes, strict=True)))
    if rated and (most := max(rated.items(), key=lambda item: item[1]))[1] > data.max_labels:
        hint = f"{reader.model} reads no more" if reader.model else "raise data.max_labels"
        return f"{most[1]} classes are rated at second {most[0]}, more than data.max_labels: {data.max_labels}; {hint}"
    return None
