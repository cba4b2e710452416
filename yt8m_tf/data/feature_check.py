"""Checks the features of one record against a configuration: their size, dtype, values and lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.config.data import RecordsConfig
from yt8m_tf.config.features import FeatureConfig

if TYPE_CHECKING:
    from yt8m_tf.data.record_check import Reader

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64", None: "empty"}
_FINITE_SHOWN = 6  # digits of a value


def check_vector(context: Mapping[str, tf.train.Feature], name: str, data: RecordsConfig, reader: Reader) -> str | None:
    """Returns what is wrong with a feature of a video-level record; None if nothing is."""
    key, feature = data.key_of(name), data.stored[name]
    if key not in context:
        return _missing(key, name, context, reader)
    return _check_one(context[key], f"'{key}'", name, feature, reader) or _check_values(
        [context[key]], [f"'{key}'"], name, feature, reader
    )


def check_clip(
    context: Mapping[str, tf.train.Feature],
    lists: Mapping[str, tf.train.FeatureList],
    data: RecordsConfig,
    need_frames: bool,
    reader: Reader,
) -> str | None:
    """Returns what is wrong with the features of a frame-level record; None if nothing is."""
    lengths: dict[str, int] = {}
    skip = reader.flag_hint("--on_empty=skip leaves such clips out")
    for name, feature in data.stored.items():
        key = data.key_of(name)
        if feature.in_context:
            problem, length = _check_in_context(context, name, data, reader)
        elif not lists:
            return f"no frames at all{skip}" if need_frames else None
        elif key not in lists:
            return _missing(key, name, lists, reader)
        else:
            frames = lists[key].feature
            problem, length = _check_frames(frames, key, name, feature, reader), len(frames)
        if problem:
            return problem
        if not length:
            return f"no frames at all in '{key}'{skip}" if need_frames else None
        if length > 1 or not feature.in_context:
            lengths[key] = length
    return _check_lengths(lengths, data.max_frame_difference, reader)


def _check_frames(
    frames: Sequence[tf.train.Feature], key: str, name: str, feature: FeatureConfig, reader: Reader
) -> str | None:
    titles = [f"frame {number} of '{key}'" for number in range(len(frames))]
    for title, frame in zip(titles, frames, strict=True):
        if problem := _check_one(frame, title, name, feature, reader):
            return problem
    return _check_values(frames, titles, name, feature, reader)


def _check_in_context(
    context: Mapping[str, tf.train.Feature], name: str, data: RecordsConfig, reader: Reader
) -> tuple[str | None, int]:
    """Returns the problem of a feature in the context (frames, or one vector for all), and the number of vectors."""
    key, feature = data.key_of(name), data.stored[name]
    if key not in context:
        return (None, 1) if feature.mean_of else (_missing(key, name, context, reader), 0)
    values, kind = context[key], context[key].WhichOneof("kind")
    wanted = "float_list" if feature.dtype == "float_list" else "bytes_list"
    if kind not in (wanted, None):
        return f"'{key}' is {describe(values)}, not {_KINDS[wanted]}; {reader.key_hint(name)}", 0
    if feature.dtype == "float_list":
        found, each = len(values.float_list.value), feature.size
    else:
        found, each = sum(map(len, values.bytes_list.value)), feature.num_bytes
    if found % each:
        unit = "values" if feature.dtype == "float_list" else "bytes"
        return f"'{key}' has {found:,} {unit}, not a multiple of {each:,}; {reader.key_hint(name)}", 0
    if feature.mean_of and found != each:
        return f"'{key}' has {found:,} values, not the {each:,} of one mean; {reader.key_hint(name)}", 0
    return _check_values([values], [f"'{key}'"], name, feature, reader), found // each


def _check_one(values: tf.train.Feature, title: str, name: str, feature: FeatureConfig, reader: Reader) -> str | None:
    """Checks the kind and the size of one vector."""
    kind = values.WhichOneof("kind")
    if feature.dtype == "float_list":
        if kind not in ("float_list", None):
            length = len(values.bytes_list.value[0]) if len(values.bytes_list.value) == 1 else 0
            hint = reader.dtype_hint(name, _fitting(feature.size, length))
            return f"{title} is {describe(values)}, not float; {hint}"
        if (found := len(values.float_list.value)) != feature.size:
            return f"{title} has {found} values, {reader.size_hint(name, feature.size, found)}"
        return None
    if len(values.bytes_list.value) != 1:
        fits = kind == "float_list" and len(values.float_list.value) == feature.size
        return f"{title} is {describe(values)}, not one of bytes; {reader.dtype_hint(name, 'float_list' * fits)}"
    if (found := len(values.bytes_list.value[0])) == feature.num_bytes:
        return None
    if other := _fitting(feature.size, found):
        return (
            f"{title} has {found} bytes, not {feature.num_bytes} of {feature.dtype}; {reader.dtype_hint(name, other)}"
        )
    size, rest = divmod(found, schema.ITEM_BYTES[str(feature.dtype)])
    if rest:
        return f"{title} has {found} bytes, not a whole number of {feature.dtype}; {reader.dtype_hint(name, '')}"
    return f"{title} has {found} bytes, {reader.size_hint(name, feature.size, size)}"


def _fitting(size: int, num_bytes: int) -> str:
    """Returns the dtype in which `size` numbers take `num_bytes` bytes; "" if there is none."""
    dtypes = (dtype for dtype in ("uint8", "float16", "float32") if size * schema.ITEM_BYTES[dtype] == num_bytes)
    return next(dtypes, "")


def _check_values(
    vectors: Sequence[tf.train.Feature], titles: Sequence[str], name: str, feature: FeatureConfig, reader: Reader
) -> str | None:
    """Reports floats that are not finite or out of range: the first one, and how many there are."""
    if feature.dtype == "uint8" or not vectors:
        return None
    rows = [np.concatenate([*_floats(vector, feature)] or [np.zeros(0, np.float32)]) for vector in vectors]
    for what, hint, is_right in (
        ("are not finite", "write the shard again", np.isfinite),
        (f"lie outside {_interval(feature)}", reader.range_hint(name), lambda values: _is_within(values, feature)),
    ):
        right = [is_right(row) for row in rows]
        if (count := sum(int(np.sum(~own)) for own in right)) == 0:
            continue
        number = next(number for number, own in enumerate(right) if not own.all())
        first = int(np.argmin(right[number]))
        total = sum(map(len, rows))
        value = f"{rows[number][first]:.{_FINITE_SHOWN}g}"
        return f"{titles[number]} contains {value} at {first}, {count:,} of {total:,} values {what}; {hint}"
    return None


def _floats(vector: tf.train.Feature, feature: FeatureConfig) -> Iterator[np.ndarray]:
    if feature.dtype == "float_list":
        yield np.array(vector.float_list.value, np.float32)
    for value in vector.bytes_list.value:
        yield np.frombuffer(value, "<f2" if feature.dtype == "float16" else "<f4")


def _is_within(values: np.ndarray, feature: FeatureConfig) -> np.ndarray:
    if feature.range is None:
        return np.ones(len(values), bool)
    low, high = np.array(feature.range, values.dtype)
    return (values >= low) & (values <= high)


def _interval(feature: FeatureConfig) -> str:
    return f"[{', '.join(f'{limit:g}' for limit in feature.range or ())}]"


def _check_lengths(lengths: Mapping[str, int], most: int | None, reader: Reader) -> str | None:
    if most is None or not lengths or max(lengths.values()) - min(lengths.values()) <= most:
        return None
    counts = ", ".join(f"{length} in '{key}'" for key, length in lengths.items())
    return f"features of different numbers of frames: {counts}; {reader.length_hint(most)}"


def _missing(key: str, name: str, fields: Mapping[str, Any], reader: Reader) -> str:
    features = reader.features_flag or ("" if reader.model else "data.features")
    leave_out = f", or leave {name} out of {features}" if features else ""
    return f"no '{key}' ({keys_of(fields)}); {reader.key_hint(name)}{leave_out}"


def keys_of(fields: Mapping[str, Any]) -> str:
    """Lists the keys of a record, for a message."""
    return f"it has: {', '.join(sorted(fields)) or 'nothing'}"


def describe(feature: tf.train.Feature) -> str:
    """Describes a feature of a record, for a message."""
    kind = feature.WhichOneof("kind")
    count = len(getattr(feature, kind).value) if kind else 0
    return f"a list of {count} {_KINDS[kind]} value{'' if count == 1 else 's'}" if kind else "an empty feature"
