"""Assertions in graphs, as one operation each."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def require(right: tf.Tensor, message: str) -> Any:
    """Fails with `message` where a condition does not hold, eagerly or in a graph.

    `tf.debugging.Assert` makes a conditional of two functions in a graph, so that it formats its message only where it
    fails. The message is a constant here, and a conditional took most of the time of tracing a parser.

    Args:
      right: scalar bool.
      message: without a value of the record: who catches the error looks for the record.

    Returns:
      What belongs into `tf.control_dependencies`.

    Raises:
      tf.errors.InvalidArgumentError: when run, if `right` is false.
    """
    return tf.raw_ops.Assert(condition=right, data=[tf.constant(message)], summarize=3)
