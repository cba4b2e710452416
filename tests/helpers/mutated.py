"""Mutates sound inputs as disks, networks, editors and other people's programs damage files.

Each form of file has its own mutations: those of bytes, and those that keep the form and change the contents.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import math
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import yaml

from yt8m_tf.data import crc32c

Mutation = Callable[[np.random.Generator, bytes], bytes]

_ODD_TEXT = (
    *("", " ", "\n", "\t", "\r\n", "a\nb", "\x00", "\x1b[31m", "\u2028", "\ufeff", "é", "視頻", "\U0001f3ac", "null"),
    *(
        "true",
        "-1",
        "0",
        "1",
        "1e400",
        "nan",
        "inf",
        "-0.0",
        "0x10",
        "1_000",
        "9" * 400,
        "9" * 5000,
        "[1]",
        "*",
        "../x",
    ),
    *("%s", "{}", "a" * 3000, ",", '"', "'", ";", "٣", "2001-13-45", "step_00000000"),
)
_ODD_NUMBERS = (0, -1, 1, 2, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**400)
_ODD_FLOATS = (math.nan, math.inf, -math.inf, 1e-320, 1e308, -0.5, 0.5, 1.5)
_ODD_VALUES: tuple[Any, ...] = (
    *_ODD_NUMBERS,
    *_ODD_FLOATS,
    *_ODD_TEXT,
    *(None, True, False, [], {}, [[]], [None], {"": None}, [{}], {"a": {"b": {"c": []}}}, list(range(50))),
)
# Texts that YAML interprets, and features of YAML beyond JSON.
_ODD_YAML = (
    *("!!python/object:os.system x", "!!timestamp x", "2001-13-45", "!!bool x", "!!int x", "!!float x", "!!binary é"),
    *(
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!pairs [a: 1]",
        "&a [*a]",
        "*nothing",
        "? [1]\n: 2",
        "{? {a: 1} : 2}",
        "<<: 1",
    ),
    *("<<: [1]", "<<: {a: 1}", "---\na: 1\n---\nb: 2", "%YAML 9.9\n---\na: 1", "a: b: c", "\ta: 1", "{[1]: 2}", "~: 1"),
    *("[" * 3000, "{a: " * 3000, "- " * 3000, "1:30:00", "0o17", "!!null x", "!foo bar", "a: 1\na: 2", "yes: no"),
    *("&a {<<: *a}", "&a {b: *a}", ": ", "-", "? ", "!!merge x", "= : 1", "!!str", "!!seq x", "!!map x", "1: 2"),
)


def mutate(form: str, rng: np.random.Generator, sound: bytes) -> bytes:
    """Returns the contents of a file after one to three mutations of its form, mostly one."""
    mutations = FORMS[form]
    result = sound
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        result = mutations[rng.integers(len(mutations))](rng, result)
    return result


def _pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[rng.integers(len(choices))]


def _span(rng: np.random.Generator, size: int) -> tuple[int, int]:
    """Draws the start and end of a part, with short and long parts equally likely."""
    start = int(rng.integers(size + 1))
    longest = max(size - start, 1)
    return start, min(size, start + int(longest ** rng.random()))


# --- bytes -----------------------------------------------------------------------------------------------------------


def flip_bits(rng: np.random.Generator, data: bytes) -> bytes:
    """Flips a few bits at random places."""
    values = bytearray(data)
    for _ in range(int(_pick(rng, (1, 1, 2, 8))) if values else 0):
        values[rng.integers(len(values))] ^= 1 << int(rng.integers(8))
    return bytes(values)


def replace_run(rng: np.random.Generator, data: bytes) -> bytes:
    """Replaces a part with zeros, ones or noise of the same length."""
    start, end = _span(rng, len(data))
    fill = _pick(rng, (b"\x00", b"\xff", None))
    part = rng.bytes(end - start) if fill is None else fill * (end - start)
    return data[:start] + part + data[end:]


def truncate(rng: np.random.Generator, data: bytes) -> bytes:
    """Cuts off the end; sometimes the start, or everything."""
    cut = int(_pick(rng, (0, 1, 8, 12, len(data) - 1, *rng.integers(len(data) + 1, size=8))))
    return data[cut:] if rng.random() < 0.1 else data[: max(cut, 0)]


def duplicate(rng: np.random.Generator, data: bytes) -> bytes:
    """Duplicates a part."""
    start, end = _span(rng, len(data))
    return data[:end] + data[start:end] + data[end:]


def remove(rng: np.random.Generator, data: bytes) -> bytes:
    """Removes a part."""
    start, end = _span(rng, len(data))
    return data[:start] + data[end:]


def insert(rng: np.random.Generator, data: bytes) -> bytes:
    """Inserts noise, or a part of the file, at a random place."""
    at, (start, end) = int(rng.integers(len(data) + 1)), _span(rng, len(data))
    part = _pick(rng, (data[start:end], rng.bytes(int(rng.integers(1, 64)))))
    return data[:at] + part + data[at:]


def swap_numbers(rng: np.random.Generator, data: bytes) -> bytes:
    """Swaps two aligned numbers, such as lengths and offsets."""
    size = int(_pick(rng, (2, 4, 8)))
    if len(data) < 2 * size:
        return data
    first, second = (size * int(rng.integers(len(data) // size)) for _ in range(2))
    values = bytearray(data)
    values[first : first + size], values[second : second + size] = (
        data[second : second + size],
        data[first : first + size],
    )
    return bytes(values)


def set_number(rng: np.random.Generator, data: bytes) -> bytes:
    """Replaces a few bytes with a number from the edge of their range."""
    size = int(_pick(rng, (1, 2, 4, 8)))
    if len(data) < size:
        return data
    at = int(rng.integers(len(data) - size + 1))
    value = int(_pick(rng, _ODD_NUMBERS[:-1])) % (1 << 8 * size)
    return data[:at] + value.to_bytes(size, _pick(rng, ("little", "big"))) + data[at + size :]


def other_file(rng: np.random.Generator, data: bytes) -> bytes:
    """Replaces the whole file with something else."""
    return _pick(
        rng, (b"", b"\n", b"<html>\n<body>404</body>", b"PK\x03\x04", gzip.compress(data[:1000]), rng.bytes(300))
    )


_BYTES: tuple[Mutation, ...] = (
    *(flip_bits, flip_bits, replace_run, truncate, duplicate, remove, insert, swap_numbers, set_number, other_file),
)

# --- text ------------------------------------------------------------------------------------------------------------


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def recode(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes the encoding or line ends, or adds a byte order mark."""
    text = data.decode("utf-8", "replace")
    kind = _pick(rng, ("utf-16", "utf-32", "latin-1", "utf-8-sig", "crlf", "cr", "utf-7"))
    if kind in ("crlf", "cr"):
        return text.replace("\n", "\r\n" if kind == "crlf" else "\r").encode("utf-8")
    return text.encode(kind, "replace")


def change_lines(rng: np.random.Generator, data: bytes) -> bytes:
    """Removes, duplicates, swaps, indents or empties a line."""
    lines = data.split(b"\n")
    first, second = (int(rng.integers(len(lines))) for _ in range(2))
    line = lines[first]
    kind = int(rng.integers(5))
    if kind == 0:
        del lines[first]
    elif kind == 1:
        lines.insert(second, line)
    elif kind == 2:
        lines[first], lines[second] = lines[second], line
    elif kind == 3:
        lines[first] = b"  " + line
    else:
        lines[first] = b""
    return b"\n".join(lines)


def change_word(rng: np.random.Generator, data: bytes) -> bytes:
    """Replaces a word with an odd one, or inserts an odd one before it."""
    text = _text(data)
    words = _word_spans(text)
    odd = str(_pick(rng, _ODD_TEXT))
    if not words:
        return _bytes(odd)
    start, end = _pick(rng, words)
    return _bytes(text[: _pick(rng, (start, end))] + odd + text[end:])


def _word_spans(text: str) -> list[tuple[int, int]]:
    spans, start = [], None
    for at, character in enumerate([*text, " "]):
        if character.isalnum() or character in "._-+":
            start = at if start is None else start
        elif start is not None:
            spans.append((start, at))
            start = None
    return spans


_TEXT: tuple[Mutation, ...] = (recode, change_lines, change_lines, change_word, change_word, *_BYTES)

# --- trees: JSON and YAML --------------------------------------------------------------------------------------------


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns the paths of all values of a tree."""
    items: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(below for key, value in items for below in _paths(value, (*path, key)))]


def _change_tree(rng: np.random.Generator, tree: Any) -> Any:
    """Removes, adds or renames a key, or replaces a value with an odd, nested or other key's value."""
    tree = copy.deepcopy(tree)
    paths = _paths(tree)
    path = _pick(rng, paths)
    if not path:
        return _pick(rng, (*_ODD_VALUES, [tree], {"a": tree}))
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    key, value = path[-1], parent[path[-1]]
    kind = int(rng.integers(7))
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[str(_pick(rng, (*_ODD_TEXT, f"{key}s", key.upper() if isinstance(key, str) else "")))] = parent.pop(key)
    elif kind == 2 and isinstance(parent, dict):
        parent[str(_pick(rng, _ODD_TEXT))] = _pick(rng, _ODD_VALUES)
    elif kind == 3:
        parent[key] = _pick(rng, ([value], {"a": value}, str(value), [value, value]))
    elif kind == 4:
        other = tree
        for step in _pick(rng, paths):
            other = other[step]
        parent[key] = copy.deepcopy(other)
    else:
        parent[key] = _pick(rng, _ODD_VALUES)
    return tree


def _dump_json(tree: Any) -> bytes:
    return json.dumps(tree, indent=1, ensure_ascii=True).encode()


def change_json(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes the contents of valid JSON."""
    try:
        return _dump_json(_change_tree(rng, json.loads(data)))
    except (ValueError, RecursionError):
        return truncate(rng, data)


def change_json_lines(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes the contents of one of the lines, each of which is JSON."""
    lines = data.split(b"\n")
    at = int(rng.integers(len(lines)))
    try:
        lines[at] = json.dumps(_change_tree(rng, json.loads(lines[at]))).encode()
    except (ValueError, RecursionError):
        return change_lines(rng, data)
    return b"\n".join(lines)


def odd_json(rng: np.random.Generator, data: bytes) -> bytes:
    """Inserts JSON that parsers treat differently: duplicate keys, deep nesting, huge numbers."""
    text = _text(data)
    at = int(rng.integers(len(text) + 1))
    odd = _pick(rng, ('{"a": ' * 3000, "[" * 100_000, "9" * 5000, "NaN", "-Infinity", '"\\ud800"', "1e999", ","))
    return _bytes(_pick(rng, (text[:at] + odd + text[at:], text.replace(": ", f": {odd}, ", 1), odd)))


def change_yaml(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes the contents of valid YAML."""
    try:
        tree = _change_tree(rng, yaml.safe_load(data))
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=bool(rng.integers(2))).encode("utf-8", "replace")
    except Exception:  # an earlier mutation broke it
        return truncate(rng, data)


def odd_yaml(rng: np.random.Generator, data: bytes) -> bytes:
    """Inserts features of YAML beyond JSON as a value, a line, or the whole file."""
    text, odd = _text(data), str(_pick(rng, _ODD_YAML))
    colons = [at for at in range(len(text)) if text.startswith(": ", at)]
    kind = int(rng.integers(4))
    if kind == 0 or not colons:
        return _bytes(odd)
    if kind == 1:
        lines = text.split("\n")
        lines.insert(int(rng.integers(len(lines) + 1)), odd)
        return _bytes("\n".join(lines))
    at = int(_pick(rng, colons)) + 2
    end = text.find("\n", at)
    return _bytes(text[:at] + odd + (text[end:] if end >= 0 else ""))


# --- CSV -------------------------------------------------------------------------------------------------------------


def change_cells(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes, quotes, removes or duplicates a cell, or reverses the columns."""
    rows = [line.split(",") for line in _text(data).split("\n")]
    row = _pick(rng, rows)
    at = int(rng.integers(len(row)))
    kind = int(rng.integers(6))
    if kind == 0:
        row[at] = str(_pick(rng, _ODD_TEXT))
    elif kind == 1:
        row[at] = '"' + row[at] + _pick(rng, ('"', "", '""', '\n"'))
    elif kind == 2:
        del row[at]
    elif kind == 3:
        row.insert(at, row[at])
    elif kind == 4:
        rows = [cells[::-1] for cells in rows]
    else:
        rows[0][int(rng.integers(len(rows[0])))] = str(_pick(rng, _ODD_TEXT))
    separator = ";" if rng.random() < 0.05 else ","
    return _bytes("\n".join(separator.join(cells) for cells in rows))


def change_number(rng: np.random.Generator, data: bytes) -> bytes:
    """Replaces a number with an odd one."""
    text = _text(data)
    spans = [(start, end) for start, end in _word_spans(text) if text[start:end].replace(".", "").isdigit()]
    if not spans:
        return data
    start, end = _pick(rng, spans)
    return _bytes(text[:start] + str(_pick(rng, (*_ODD_NUMBERS, *_ODD_FLOATS))) + text[end:])


# --- records ---------------------------------------------------------------------------------------------------------


def framed(records: Sequence[bytes]) -> bytes:
    """Returns records as a TFRecord file, with correct checksums."""
    return b"".join(map(_frame, records))


def _frame(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return b"".join(
        (length, struct.pack("<I", crc32c.masked_crc(length)), record, struct.pack("<I", crc32c.masked_crc(record)))
    )


def unframed(data: bytes) -> list[bytes]:
    """Returns the records of a TFRecord file, as far as its lengths make sense."""
    found, at = [], 0
    while at + 12 <= len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        if at + 16 + length > len(data):
            break
        found.append(data[at + 12 : at + 12 + length])
        at += 16 + length
    return found


def change_framed(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes, removes, empties or duplicates one of the records, and writes correct checksums."""
    records = unframed(data)
    if not records:
        return data
    kind = rng.random()
    at = int(rng.integers(len(records)))
    if kind < 0.05:
        records[at] = b""
    elif kind < 0.1:
        records.insert(int(rng.integers(len(records))), records[at])
    elif kind < 0.15:
        del records[at]
    elif kind < 0.35:
        records[at] = _pick(rng, _BYTES)(rng, records[at])
    else:
        records[at] = change_record(rng, records[at])
    return framed(records)


def change_record(rng: np.random.Generator, record: bytes) -> bytes:
    """Changes a feature of a serialized `Example` or `SequenceExample`."""
    try:
        parsed = tf.train.SequenceExample.FromString(record)
    except Exception:  # an earlier mutation broke the record
        return flip_bits(rng, record)
    lists = parsed.feature_lists.feature_list
    if lists and rng.random() < 0.6:
        _change_lists(rng, lists)
        return parsed.SerializeToString()
    features = parsed.context.feature
    if not features:
        return flip_bits(rng, record)
    key = _pick(rng, sorted(features))
    kind = int(rng.integers(6))
    feature = copy.deepcopy(features[key])
    if kind == 0:
        del features[key]
    elif kind == 1:
        del features[key]
        features[_pick(rng, ("video_id", "mean_rgb", "rgb", "labels", "id", "scores", "x\ny", ""))].CopyFrom(feature)
    elif kind == 2:
        other = _pick(rng, sorted(features))
        features[key].CopyFrom(copy.deepcopy(features[other]))
    else:
        _change_feature(rng, features[key])
    serialized = parsed.SerializeToString()
    if kind == 3:  # the feature twice: the last one counts
        twice = tf.train.Example(features=tf.train.Features(feature={key: feature})).SerializeToString()
        serialized = serialized + twice
    return serialized


def _change_lists(rng: np.random.Generator, lists: Any) -> None:
    key = _pick(rng, sorted(lists))
    frames = copy.deepcopy(lists[key])
    kind = int(rng.integers(6))
    if kind == 0:
        del lists[key]
    elif kind == 1:
        del lists[key]
        lists[_pick(rng, ("rgb", "audio", "mean_rgb", "x\ny", ""))].CopyFrom(frames)
    elif kind == 2:
        del lists[key].feature[int(rng.integers(len(frames.feature) + 1)) :]
    elif kind == 3:
        for frame in frames.feature:
            lists[key].feature.append(frame)
    elif frames.feature:
        _change_feature(rng, lists[key].feature[rng.integers(len(frames.feature))])


def _change_feature(rng: np.random.Generator, feature: Any) -> None:
    """Changes the kind, the values, or the number of values of a feature."""
    kind = feature.WhichOneof("kind")
    values = list(getattr(feature, kind).value) if kind else []
    choice = int(rng.integers(6))
    if choice == 0:
        feature.Clear()
    elif choice == 1:
        other = _pick(rng, ("bytes_list", "float_list", "int64_list"))
        feature.Clear()
        some = {"bytes_list": [b"1"], "float_list": [0.5, 1.5], "int64_list": [1]}[other]
        getattr(feature, other).value.extend(_pick(rng, ([], some, some * max(len(values), 1))))
    elif kind and choice == 2:
        del getattr(feature, kind).value[int(rng.integers(len(values) + 1)) :]
    elif kind and choice == 3:
        getattr(feature, kind).value.extend(values)
    elif kind and values:
        odd: Mapping[str, Sequence[Any]] = {
            "bytes_list": (b"", b"\xff\xfe", b"a\nb", b"a" * 70_000, rng.bytes(6), rng.bytes(7)),
            "float_list": (*_ODD_FLOATS, 0.0),
            "int64_list": [n for n in _ODD_NUMBERS if -(2**63) <= n < 2**63],
        }
        getattr(feature, kind).value[rng.integers(len(values))] = _pick(rng, odd[kind])


_OTHER_ARRAYS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda array: array[..., None],
    lambda array: array.ravel()[:1],
    lambda array: array.ravel()[:0],
    lambda array: array.T,
    lambda array: array.astype("U"),
    lambda array: np.full(array.shape, np.nan),
    lambda array: np.zeros(array.shape, np.complex64),
    lambda array: np.zeros(array.shape, "M8[s]"),
    lambda array: np.zeros(array.shape, "V4"),
)


# --- archives --------------------------------------------------------------------------------------------------------


def change_gzipped(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes compressed content, and compresses it again."""
    try:
        content = gzip.decompress(data)
    except Exception:  # an earlier mutation broke it
        return data
    if rng.random() < 0.7 and len(content) > 512:  # in a header of tar, with the right checksum
        at = 512 * int(rng.integers(len(content) // 512))
        names = [n for n in range(0, len(content) - 511, 512) if content[n + 257 : n + 262] == b"ustar"]
        at = int(_pick(rng, names)) if names else at
        header = bytearray(_pick(rng, _BYTES)(rng, content[at : at + 512])[:512].ljust(512, b"\0"))
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        content = content[:at] + bytes(header) + content[at + 512 :]
    else:
        content = _pick(rng, _BYTES)(rng, content)
    return gzip.compress(content, 1)


def change_arrays(rng: np.random.Generator, data: bytes) -> bytes:
    """Removes, renames, converts, reshapes or damages an array of an `.npz`, and writes a valid archive."""
    members: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # an earlier mutation broke it
        return data
    if not members:
        return data
    name = _pick(rng, sorted(members))
    kind = int(rng.integers(5))
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[_pick(rng, ("x.npy", "x", "centroids.npy", "a\nb.npy", "x.txt"))] = members.pop(name)
    elif kind == 2:
        members[name] = _pick(rng, _BYTES)(rng, members[name])
    elif kind == 3:
        members[name] = members[_pick(rng, sorted(members))]
    else:
        out, change = io.BytesIO(), _pick(rng, _OTHER_ARRAYS)
        try:
            array = np.load(io.BytesIO(members[name]), allow_pickle=False)
            np.save(out, np.asarray(change(array)), allow_pickle=False)
        except Exception:  # an earlier mutation broke it, or the array cannot be changed this way
            return data
        members[name] = out.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return out.getvalue()


FORMS: Mapping[str, Sequence[Mutation]] = {
    "bytes": _BYTES,
    "text": _TEXT,
    "csv": (*(change_cells,) * 12, *(change_number,) * 4, *_TEXT),
    "json": (*(change_json,) * 24, *(odd_json,) * 4, *_TEXT),
    "json lines": (*(change_json_lines,) * 24, *(odd_json,) * 4, *_TEXT),
    "yaml": (*(change_yaml,) * 24, *(odd_yaml,) * 12, *_TEXT),
    "records": (*(change_framed,) * 30, *_BYTES),
    "record": (*(change_record,) * 30, *_BYTES),
    "tgz": (*(change_gzipped,) * 20, *_BYTES),
    "npz": (*(change_arrays,) * 20, *_BYTES),
}
