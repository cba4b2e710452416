"""Flags of commands that take a SavedModel, as a directory or as a bundle.

A command calls `flags.adopt_module_key_flags(model_flags)`, so that its `--help` shows them as its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from absl import flags

from yt8m_tf.pretrained import packaged
from yt8m_tf.serving.limits import SIZE_LIMIT

_SAVED_MODEL = flags.DEFINE_string(
    "saved_model",
    None,
    "Directory of a SavedModel: of yt8m-export, or any with the interface of the starter code's exports; pretrained:"
    " the one that comes with the package.",
)
_BUNDLE = flags.DEFINE_string("bundle", None, "A .tgz archive of such a SavedModel, instead of --saved_model.")
_SIZE_LIMIT = flags.DEFINE_integer("size_limit", SIZE_LIMIT, "Bytes that a bundle may unpack to.", lower_bound=1)


def is_given() -> bool:
    """Returns whether the user named a SavedModel or a bundle."""
    return _SAVED_MODEL.value is not None or _BUNDLE.value is not None


def flag() -> str:
    """Returns the flag, with its value, by which the user named the model."""
    return f"--bundle={_BUNDLE.value}" if _BUNDLE.value is not None else f"--saved_model={_SAVED_MODEL.value}"


def path() -> str:
    """Returns the path of the SavedModel's directory, or of the bundle."""
    return _SAVED_MODEL.value if _BUNDLE.value is None else _BUNDLE.value


@contextlib.contextmanager
def saved_model() -> Iterator[str]:
    """Yields the directory of the SavedModel; a bundle is unpacked for the duration of the block."""
    from yt8m_tf.serving.bundle import unpacked

    if _BUNDLE.value is None:
        yield os.path.expanduser(packaged.saved_model(_SAVED_MODEL.value, "--saved_model"))
    else:
        with unpacked(os.path.expanduser(_BUNDLE.value), _SIZE_LIMIT.value) as directory:
            yield str(directory)
