"""Assertions in graphs, as one operation each."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def require(right: tf.Tensor, message: str) -> Any:
    """Fails with `message` if a condition does not hold, eagerly or in a graph.

    In a graph, `tf.debugging.Assert` builds a conditional of two functions, so that it formats its message only on
    failure. Here the message is a constant, so a conditional would only take time when the graph is traced.

    Args:
      right: scalar bool.
      message: without values of the record: whoever catches the error searches for the record.

    Returns:
      An operation for `tf.control_dependencies`.

    Raises:
      tf.errors.InvalidArgumentError: when run, if `right` is false.
    """
    return tf.raw_ops.Assert(condition=right, data=[tf.constant(message)], summarize=3)
