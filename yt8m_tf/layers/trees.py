"""Gradient-boosted trees as plain tensors: LightGBM's decisions in TensorFlow's own operations.

All trees of all boosters are traversed together, level by level. For each pair of a row and a tree, a level takes two
gathers, of the node and of the value that it tests; trees without splits on the level are left out. Decisions compare
integers: the ordered bits of a float32, or one bit of a category's row in a table.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Pairs of a row and a tree that are traversed together. With fewer, the overhead of calls exceeds the gain from caches.
_PAIRS = 1 << 20
_ZERO = np.float32(1e-35)  # LightGBM treats absolute values up to this as 0
NEVER_MISSING, ZERO_IS_MISSING, NAN_IS_MISSING = 0, 1, 2
LOWEST, HIGHEST = -(2**31), 2**31 - 1


@dataclasses.dataclass(frozen=True)
class ForestShape:
    """The sizes of a `Forest`.

    Attributes:
      boosters: number of boosters.
      nodes: total number of splits and leaves.
      columns: V, the number of inputs of numeric splits: pairs of a feature and a treatment of missing values.
      active: number of trees that have splits on level 0, 1, ...; the deepest trees come first.
      trees: number of trees of all boosters.
      categories: rows of the table of categorical splits, without the last row, which is for all other values.
      words: int32 words in a row of that table, for 32 splits each.
    """

    boosters: int
    nodes: int
    columns: int
    active: tuple[int, ...]
    trees: int
    categories: int
    words: int


@dataclasses.dataclass(frozen=True, eq=False)
class Forest:
    """Trees as arrays; the two children of a node are adjacent, and a leaf is its own left child.

    A node is packed into an int64 (`packed_nodes`), because most of the time is spent in gathers.

    Attributes:
      shape: sizes of these arrays.
      roots: [trees] int32, the root of each tree.
      booster: [trees] int32, the number of each tree's booster.
      nodes: [nodes] int64.
      leaf_values: [nodes] float64, 0 for splits.
      features: [columns] int32, the number of the feature.
      missing: [columns] int32: `NEVER_MISSING`, `ZERO_IS_MISSING` (NaN, too) or `NAN_IS_MISSING`.
      missing_left: [columns] int32, 1 if missing values go left.
      categories: [categories + 1, words] int32 bits.
    """

    shape: ForestShape
    roots: np.ndarray
    booster: np.ndarray
    nodes: np.ndarray
    leaf_values: np.ndarray
    features: np.ndarray
    missing: np.ndarray
    missing_left: np.ndarray
    categories: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all arrays by name; the variables of `BoostedTrees` have the same names."""
        return {name: value for name, value in vars(self).items() if name != "shape"}


def ordered_bits(values: np.ndarray) -> np.ndarray:
    """Maps float32 values to int32 with the same order; -0 is mapped as 0."""
    bits = (np.asarray(values, np.float32) + np.float32(0)).view(np.int32)
    return bits ^ ((bits >> 31) & np.int32(HIGHEST))


def packed_nodes(steps: np.ndarray, columns: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Packs nodes into [N] int64.

    Args:
      steps: [N] distance from each node to its left child; 0 for leaves.
      columns: [N] a column below V for numeric splits; for categorical ones, V plus the word with the split's bit.
      splits: [N] int32, the ordered bits of the threshold, or the bit that is set if a category goes left.

    Raises:
      ValueError: a step of 2**15 or a column of 2**16, or more.
    """
    if steps.max(initial=0) >= 2**15 or columns.max(initial=0) >= 2**16:
        raise ValueError("trees of more than 16,384 leaves, or more than 2,000,000 categorical splits")
    return (splits.astype(np.int64) << 32) | (steps.astype(np.int64) << 16) | columns.astype(np.int64)


class BoostedTrees(keras.layers.Layer):
    """Computes the probabilities of boosters of binary log-loss: [R, F] float32 features -> [R, boosters] float64.

    The result is that of `lightgbm.Booster.predict`: leaves are summed, and probabilities computed, in float64. Feature
    0 may be a category, an integer in float32. Memory: about 40 MB for any R. XLA cannot compile the layer, because the
    number of rows varies.

    Args:
      shape: shape of the forest to assign.
      name: name of the layer.
    """

    def __init__(self, shape: ForestShape, name: str | None = None):
        super().__init__(name=name, trainable=False)
        self.shape, self.supports_jit = shape, False
        sizes = {
            "roots": [shape.trees],
            "booster": [shape.trees],
            "nodes": [shape.nodes],
            "leaf_values": [shape.nodes],
            **{of_column: [shape.columns] for of_column in ("features", "missing", "missing_left")},
            "categories": [shape.categories + 1, shape.words],
        }
        self._variables = {
            name: self.add_weight(
                shape=size,
                dtype={"nodes": "int64", "leaf_values": "float64"}.get(name, "int32"),
                initializer="zeros",
                trainable=False,
                autocast=False,
                name=name,
            )
            for name, size in sizes.items()
        }

    def assign(self, forest: Forest) -> None:
        """Sets the variables to the arrays of a forest, which must have this layer's shape."""
        for name, array in forest.arrays().items():
            self._variables[name].assign(array)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for a copy of the layer."""
        return {"shape": self.shape, "name": self.name}

    def compute_output_spec(self, rows: Any) -> keras.KerasTensor:
        """[R, boosters] float64."""
        return keras.KerasTensor((rows.shape[0], self.shape.boosters), "float64")

    def call(self, rows: tf.Tensor) -> tf.Tensor:
        """[R, F] float32 -> [R, boosters] float64 probabilities."""
        arrays = {name: tf.convert_to_tensor(variable) for name, variable in self._variables.items()}
        values = tf.concat([_numbers(rows, arrays), _category_bits(rows[:, 0], arrays["categories"])], axis=1)
        of_booster = tf.one_hot(arrays["booster"], self.shape.boosters, dtype=tf.float64)  # [trees, boosters]
        size = max(1, _PAIRS // self.shape.trees)

        def step(number: tf.Tensor, done: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            leaves = self._leaves(values[number * size : (number + 1) * size], arrays)
            scores = tf.matmul(tf.gather(arrays["leaf_values"], leaves), of_booster)
            return number + 1, done.write(number, scores)

        # At least one step, even without rows: an empty TensorArray could not be concatenated.
        steps = tf.maximum(1, (tf.shape(rows)[0] + size - 1) // size)
        empty = tf.TensorArray(tf.float64, steps, infer_shape=False, element_shape=[None, self.shape.boosters])
        _, done = tf.while_loop(lambda number, _: number < steps, step, (0, empty))
        return 1 / (1 + tf.exp(-done.concat()))

    def _leaves(self, values: tf.Tensor, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
        """Maps [r, V + words] values to the leaves that they reach, [r, trees] int32 nodes."""
        count, num_columns = tf.shape(values)[0], self.shape.columns
        flat = tf.reshape(values, [-1])
        rows = (tf.range(count) * (num_columns + self.shape.words))[:, None]
        nodes, finished = tf.broadcast_to(arrays["roots"], [count, self.shape.trees]), []
        for active in self.shape.active:
            finished.append(nodes[:, active:])
            nodes = nodes[:, :active]
            packed = tf.gather(arrays["nodes"], nodes)
            split, low = tf.cast(tf.bitwise.right_shift(packed, 32), tf.int32), tf.cast(packed, tf.int32)
            column = low & 0xFFFF
            value = tf.gather(flat, rows + column)
            right = value > split
            if self.shape.words:
                right = tf.where(column < num_columns, right, tf.equal(value & split, 0))
            nodes += tf.bitwise.right_shift(low, 16) + tf.cast(right, tf.int32)
        return tf.concat([nodes, *reversed(finished)], axis=1)


def _numbers(rows: tf.Tensor, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
    """Maps [R, F] float32 to [R, V] int32: the ordered bits of the value that each column tests."""
    values = tf.gather(rows, arrays["features"], axis=1)
    is_nan = tf.math.is_nan(values)
    values = tf.where(is_nan | (tf.abs(values) <= _ZERO), tf.zeros_like(values), values)
    missing = arrays["missing"]
    is_missing = (is_nan & (missing != NEVER_MISSING)) | ((values == 0) & (missing == ZERO_IS_MISSING))
    bits = tf.bitcast(values, tf.int32)
    ordered = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, 31) & HIGHEST)
    return tf.where(is_missing, tf.where(arrays["missing_left"] == 1, LOWEST, HIGHEST), ordered)


def _category_bits(values: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Maps [R] float32 categories to [R, words] int32; NaN, negative and unknown values have no bit set."""
    last = table.shape[0] - 1
    known = (values > -1) & (values < last)  # False for NaN; LightGBM drops the fraction
    return tf.gather(table, tf.where(known, tf.cast(tf.where(known, values, 0.0), tf.int32), last))
