"""Gradients with recomputation: the backward pass recomputes intermediate results, trading time for memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def map_recomputed(
    function: Callable[..., Sequence[Any]], rows: Sequence[Any], shared: Sequence[Any], dtypes: Sequence[Any]
) -> list[Any]:
    """Applies a function row by row, and recomputes each row for its gradients.

    Only the intermediate results of one row are in memory, even in training. The loops are part of the graph: XLA
    compiles their body once, and cannot merge the recomputation with the first computation.

    Args:
      function: maps (*row, *shared) to a sequence of tensors. It must give the same results both times: it must use no
        other variables, and draw random numbers only from seeds among its arguments.
      rows: tensors [B, ...]; those that are not floating-point get no gradients.
      shared: floating-point tensors that are the same for all rows.
      dtypes: dtypes of the results.

    Returns:
      The results, each [B, ...].
    """
    rows, shared = [tf.convert_to_tensor(x) for x in rows], [tf.convert_to_tensor(x) for x in shared]

    @tf.custom_gradient
    def run(*arguments: Any) -> Any:
        rows, shared = arguments[: len(arguments) - num_shared], arguments[len(arguments) - num_shared :]
        results = tf.map_fn(lambda row: tuple(function(*row, *shared)), rows, fn_output_signature=tuple(dtypes))
        return results, lambda *upstream: _gradients(function, rows, shared, upstream)

    num_shared = len(shared)
    return list(run(*rows, *shared))


def _gradients(
    function: Callable[..., Sequence[Any]], rows: Sequence[Any], shared: Sequence[Any], upstream: Sequence[Any]
) -> list[Any]:
    """Returns the gradients of the rows, None for rows that are not floating-point, and of the shared tensors."""
    number = tf.shape(rows[0])[0] if rows[0].shape[0] is None else rows[0].shape[0]
    floating = [i for i, values in enumerate(rows) if values.dtype.is_floating]

    def step(i: Any, sums: list[Any], parts: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        row = [values[i] for values in rows]
        sources = [row[j] for j in floating] + list(shared)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            results = function(*row, *shared)
        gradients = tape.gradient(
            results, sources, [values[i] for values in upstream], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        parts = [part.write(i, gradient) for part, gradient in zip(parts, gradients[: len(floating)], strict=True)]
        return i + 1, [a + b for a, b in zip(sums, gradients[len(floating) :], strict=True)], parts

    zeros = [tf.zeros_like(values) for values in shared]
    parts = [tf.TensorArray(rows[i].dtype, size=number, element_shape=rows[i].shape[1:]) for i in floating]
    _, sums, parts = tf.while_loop(
        lambda i, *_: i < number, step, (tf.constant(0), zeros, parts), maximum_iterations=number
    )
    of_rows = dict(zip(floating, (part.stack() for part in parts), strict=True))
    return [of_rows.get(i) for i in range(len(rows))] + list(sums)
