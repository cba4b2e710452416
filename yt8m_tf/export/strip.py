"""What a training checkpoint holds beside the weights, in bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping

import tensorflow as tf

from yt8m_tf.errors import InputError


def checkpoint_bytes(prefix: str | os.PathLike[str]) -> dict[str, int]:
    """The bytes of a checkpoint's variables by the first part of their key (`model/...`, `slots/...`, `ema/...`).

    Args:
      prefix: of a TensorFlow checkpoint, without `.index`.

    Returns:
      First part of the key to bytes, largest first. Strings, which bookkeeping is kept in, are left out.

    Raises:
      InputError: there is no checkpoint of this name, or it is damaged.
    """
    try:
        reader = tf.train.load_checkpoint(os.fspath(prefix))
    except (ValueError, tf.errors.OpError) as error:
        raise InputError(f"checkpoint '{prefix}': cannot be read; give the prefix, without .index") from error
    dtypes = reader.get_variable_to_dtype_map()
    kinds: dict[str, int] = {}
    for key, shape in reader.get_variable_to_shape_map().items():
        if dtypes[key] != tf.string:
            kind = key.split("/")[0]
            kinds[kind] = kinds.get(kind, 0) + tf.TensorShape(shape).num_elements() * dtypes[key].size
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def strip_report(before: Mapping[str, int], after: int) -> list[str]:
    """Lines that set a checkpoint against what was exported from it.

    Args:
      before: `checkpoint_bytes`.
      after: bytes of the exported model.
    """
    total = sum(before.values())
    lines = [f"checkpoint {kind:<12}{size:>16,} bytes" for kind, size in before.items()]
    share = f" ({after / total:.1%})" if total else ""
    return [*lines, f"checkpoint {'in all':<12}{total:>16,} bytes", f"{'exported':<23}{after:>16,} bytes{share}"]
