"""Assertions in graphs, as one operation each."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def require(right: tf.Tensor, message: str) -> Any:
    """Fails with `message` if a condition does not hold, eagerly or in a graph.

    `tf.debugging.Assert` makes a conditional of two functions in a graph, so that it formats its message only if it
    fails. The message is a constant here, for which a conditional only costs time when the graph is traced.

    Args:
      right: scalar bool.
      message: without a value of the record: who catches the error looks for the record.

    Returns:
      What belongs into `tf.control_dependencies`.

    Raises:
      tf.errors.InvalidArgumentError: when run, if `right` is false.
    """
    return tf.raw_ops.Assert(condition=right, data=[tf.constant(message)], summarize=3)
