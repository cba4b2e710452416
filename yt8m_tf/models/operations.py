"""The number of floating-point operations in the matrix products and convolutions of a traced function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_LOOPS = ("While", "StatelessWhile")


def matrix_operations(function: Callable[..., Any], *arguments: Any) -> float:
    """Counts the multiplications and additions in the matrix products and convolutions of one call.

    Args:
      function: is traced with `arguments`, whose shapes must be known; a loop counts as its maximum number of
        iterations.
      *arguments: tensors, or nests of them.

    Raises:
      ValueError: the graph does not state the number of iterations of a loop.
    """
    return _of_graph(tf.function(function, autograph=False).get_concrete_function(*arguments).graph)


def _of_graph(graph: Any) -> float:
    return sum(_of_operation(operation) for operation in graph.get_operations())


def _of_operation(operation: Any) -> float:
    kind = operation.type
    if kind in _CALLS:
        return _of_graph(_function_graph(operation, "f"))
    if kind in _LOOPS:
        return _iterations(operation) * _of_graph(_function_graph(operation, "body"))
    if kind == "MatMul":
        rows = operation.inputs[0].shape[0 if operation.get_attr("transpose_a") else 1]
        return 2.0 * rows * _size(operation.outputs[0])
    if kind == "BatchMatMulV2":
        inner = operation.inputs[0].shape[-2 if operation.get_attr("adj_x") else -1]
        return 2.0 * inner * _size(operation.outputs[0])
    if kind == "Einsum":
        return _of_einsum(operation)
    if kind == "Conv2D":
        return 2.0 * float(np.prod(operation.inputs[1].shape[:3])) * _size(operation.outputs[0])
    if kind == "Conv2DBackpropInput":
        return 2.0 * float(np.prod(operation.inputs[1].shape[:3])) * _size(operation.inputs[2])
    if kind == "Conv2DBackpropFilter":
        return 2.0 * float(np.prod(operation.outputs[0].shape[:3])) * _size(operation.inputs[2])
    return 0.0


def _of_einsum(operation: Any) -> float:
    """Counts one multiplication and one addition for every combination of the equation's indices."""
    terms = operation.get_attr("equation").decode().partition("->")[0].split(",")
    if len(terms) == 1:
        return 0.0  # a transpose or a sum
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, operation.inputs, strict=True):
        sizes |= dict(zip(term, tensor.shape, strict=True))
    return 2.0 * float(np.prod(list(sizes.values())))


def _iterations(operation: Any) -> int:
    """Returns the constant that `tf.while_loop(maximum_iterations=...)` passes to its loop as the second input."""
    tensor = operation.inputs[1]
    while tensor.op.type == "Max":  # Keras takes the maximum of a single length
        tensor = tensor.op.inputs[0]
    bound = tf.get_static_value(tensor)
    if bound is None or bound.shape != ():
        raise ValueError(f"the loop '{operation.name}' has no constant maximum of iterations")
    return int(bound)


def _function_graph(operation: Any, attribute: str) -> Any:
    name = operation.get_attr(attribute).name
    return operation.graph._get_function(name).graph  # there is no public way to a nested function's graph


def _size(tensor: Any) -> float:
    return float(np.prod(tensor.shape))
