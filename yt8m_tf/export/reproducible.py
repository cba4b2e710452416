"""Makes the files of a SavedModel depend only on its model, so that an export can be repeated byte for byte.

In TensorFlow 2.21 the files differ from one export to the next. The names of functions, and of some arguments, contain
a counter of the process. Functions are stored in the order of a hash map of these names. Captured variables are
numbered by Python object, and `fingerprint.pb` contains a random id.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.saved_model import fingerprinting_utils  # `tf.saved_model` reads fingerprints only

_COUNTER = re.compile(r"_(\d+)$")
# An argument of a loop's condition that it does not use, such as "while_cond_12___redundant_placeholder0".
_UNUSED = re.compile(r"_(\d+)(?=___redundant_placeholder\d+$)")
_GIVEN_NAME = "_user_specified_name"


def make_reproducible(directory: str | os.PathLike[str]) -> None:
    """Rewrites `saved_model.pb` with functions numbered from 0 in order of creation, and `fingerprint.pb` to match.

    Args:
      directory: a SavedModel that `tf.saved_model.save` has just written. Layers must have the same names in every
        export, as those of the registered models do.
    """
    path = Path(directory, "saved_model.pb")
    saved = SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        functions = graph.graph_def.library.function
        functions.sort(key=lambda function: (_counter(function.signature.name), function.signature.name))
        for function in functions:
            _forget_numbers(function)
        _rename(graph, _new_name([function.signature.name for function in functions]))
    path.write_bytes(saved.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(os.fspath(directory))
    path = path.with_name("fingerprint.pb")
    fingerprint = FingerprintDef.FromString(path.read_bytes())
    fingerprint.ClearField("uuid")
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))


def _counter(name: str) -> int:
    found = _COUNTER.search(name)
    return int(found[1]) if found else -1


def _forget_numbers(function: Any) -> None:
    """Removes the generated names of a FunctionDef's arguments, which are numbers of captured variables."""
    for argument in function.arg_attr.values():
        if argument.attr[_GIVEN_NAME].s.isdigit() or not argument.attr[_GIVEN_NAME].s:
            del argument.attr[_GIVEN_NAME]


def _new_name(functions: list[str]) -> Callable[[str], str]:
    """Returns the function that maps a string of the graph to its replacement, usually itself."""
    names = {name: f"{_COUNTER.sub('', name)}_{number}" for number, name in enumerate(functions)}
    numbers = {_counter(name): number for number, name in enumerate(functions)}

    def new_name(text: str) -> str:
        if text in names:
            return names[text]
        return _UNUSED.sub(lambda found: f"_{numbers.get(int(found[1]), found[1])}", text)

    return new_name


def _rename(message: Message, new_name: Callable[[str], str]) -> None:
    """Replaces all strings in a message, including keys of maps."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _rename_map(message, field, new_name)
        elif field.type == field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                _rename(inner, new_name)
        elif field.type == field.TYPE_STRING and field.is_repeated:
            value[:] = [new_name(text) for text in value]
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, new_name(value))


def _rename_map(message: Message, field: Any, new_name: Callable[[str], str]) -> None:
    # Refilled from a copy: its keys cannot be changed in place.
    entries = getattr(message, field.name)
    old = type(message)()
    getattr(old, field.name).MergeFrom(entries)
    entries.clear()
    for key, value in getattr(old, field.name).items():
        key = new_name(key) if isinstance(key, str) else key
        if isinstance(value, Message):
            _rename(value, new_name)
            entries[key].CopyFrom(value)
        else:
            entries[key] = new_name(value) if isinstance(value, str) else value
