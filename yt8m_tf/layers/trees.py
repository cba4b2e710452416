"""Gradient-boosted trees as plain tensors: LightGBM's decisions in TensorFlow's own operations.

A tree is not traversed. A split excludes leaves of its tree: the leaves on its left if the row goes right. A table has,
for each value of an input, the leaves that are left by all splits on this input, one bit for each leaf, for all trees
side by side. A row looks up one table row for each input, and combines them by a bitwise AND. The leaf that a row
reaches is then the first one left. Lookups of adjacent memory are several times as fast as the gathers that a traversal
needs, two for each level (docs/BENCHMARKS.md).

Reference: C. Lucchese et al., "QuickScorer: a Fast Algorithm to Rank Documents with Additive Ensembles of Regression
Trees", SIGIR 2015. There a row goes through the splits that exclude leaves; here their masks are combined beforehand.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Pairs of a row and a tree that are computed together. With fewer, the overhead of calls exceeds the gain from caches.
_PAIRS = 1 << 19
_ZERO = np.float32(1e-35)  # LightGBM treats absolute values up to this as 0
NEVER_MISSING, ZERO_IS_MISSING, NAN_IS_MISSING = 0, 1, 2
LOWEST, HIGHEST = -(2**31), 2**31 - 1
WORD = 32  # leaves in a word of a mask


@dataclasses.dataclass(frozen=True)
class ForestShape:
    """The sizes of a `Forest`.

    Attributes:
      boosters: number of boosters.
      trees: T, the number of trees of all boosters.
      words: W, int32 words in a tree's mask, for 32 leaves each.
      columns: V, the number of inputs of numeric splits: pairs of a feature and a treatment of missing values.
      thresholds: the largest number of distinct thresholds of a column.
      mask_rows: rows of the table `masks`.
      categories: rows of the table `category_masks`, without the last row, which is for all other values.
    """

    boosters: int
    trees: int
    words: int
    columns: int
    thresholds: int
    mask_rows: int
    categories: int

    @property
    def table_bytes(self) -> int:
        """The size of both tables of masks, in bytes."""
        return 4 * self.words * self.trees * (self.mask_rows + self.categories + 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Forest:
    """Trees as tables of masks; bit number i of a tree's mask, counted over its words, is its i-th leaf from the left.

    Attributes:
      shape: sizes of these arrays.
      booster: [T] int32, the number of each tree's booster.
      leaf_values: [T, 32 * W] float64, 0 after a tree's last leaf.
      features: [V] int32, the number of the feature.
      missing: [V] int32: `NEVER_MISSING`, `ZERO_IS_MISSING` (NaN, too) or `NAN_IS_MISSING`.
      missing_left: [V] int32, 1 if missing values go left.
      thresholds: [V, thresholds] int32, the ordered bits of each column's thresholds, ascending; then `HIGHEST`.
      masks: [mask_rows, W * T] int32, for each column and each number of thresholds below the value.
      first_rows: [V] int32, the first of each column's rows in `masks`.
      category_masks: [categories + 1, W * T] int32.
    """

    shape: ForestShape
    booster: np.ndarray
    leaf_values: np.ndarray
    features: np.ndarray
    missing: np.ndarray
    missing_left: np.ndarray
    thresholds: np.ndarray
    masks: np.ndarray
    first_rows: np.ndarray
    category_masks: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all arrays by name; the variables of `BoostedTrees` have the same names."""
        return {name: value for name, value in vars(self).items() if name != "shape"}


def ordered_bits(values: np.ndarray) -> np.ndarray:
    """Maps float32 values to int32 with the same order; -0 is mapped as 0."""
    bits = (np.asarray(values, np.float32) + np.float32(0)).view(np.int32)
    return bits ^ ((bits >> 31) & np.int32(HIGHEST))


class BoostedTrees(keras.layers.Layer):
    """Computes the probabilities of boosters of binary log-loss: [R, F] float32 features -> [R, boosters] float64.

    The result is that of `lightgbm.Booster.predict`: leaves are summed, and probabilities computed, in float64. Feature
    0 may be a category, an integer in float32. Memory: about 20 MB for any R, in addition to the tables. XLA cannot
    compile the layer, because the number of rows varies.

    Args:
      shape: shape of the forest to assign.
      name: name of the layer.
    """

    def __init__(self, shape: ForestShape, name: str | None = None):
        super().__init__(name=name, trainable=False)
        self.shape, self.supports_jit = shape, False
        width = shape.words * shape.trees
        sizes = {
            "booster": [shape.trees],
            "leaf_values": [shape.trees, WORD * shape.words],
            **{of_column: [shape.columns] for of_column in ("features", "missing", "missing_left", "first_rows")},
            "thresholds": [shape.columns, shape.thresholds],
            "masks": [shape.mask_rows, width],
            "category_masks": [shape.categories + 1, width],
        }
        self._variables = {
            name: self.add_weight(
                shape=size,
                dtype="float64" if name == "leaf_values" else "int32",
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
        indices = _mask_rows(rows, arrays)
        categories = _categories(rows[:, 0], self.shape.categories)
        of_booster = tf.one_hot(arrays["booster"], self.shape.boosters, dtype=tf.float64)  # [T, boosters]
        size = max(1, _PAIRS // (self.shape.words * self.shape.trees))

        def step(number: tf.Tensor, done: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            part = slice(number * size, (number + 1) * size)
            masks = tf.gather(arrays["category_masks"], categories[part])  # [r, W * T]
            for column in range(self.shape.columns):
                masks = tf.bitwise.bitwise_and(masks, tf.gather(arrays["masks"], indices[column, part]))
            leaves = self._first_leaves(masks) + WORD * self.shape.words * tf.range(self.shape.trees)
            values = tf.gather(tf.reshape(arrays["leaf_values"], [-1]), leaves)
            return number + 1, done.write(number, tf.matmul(values, of_booster))

        # At least one step, even without rows: an empty TensorArray could not be concatenated.
        steps = tf.maximum(1, (tf.shape(rows)[0] + size - 1) // size)
        empty = tf.TensorArray(tf.float64, steps, infer_shape=False, element_shape=[None, self.shape.boosters])
        _, done = tf.while_loop(lambda number, _: number < steps, step, (0, empty), parallel_iterations=2)
        return 1 / (1 + tf.exp(-done.concat()))

    def _first_leaves(self, masks: tf.Tensor) -> tf.Tensor:
        """Maps masks [r, W * T] to the index of each tree's first leaf whose bit is set, [r, T] int32."""
        found = None
        for word in reversed(tf.split(masks, self.shape.words, axis=1)):
            below_lowest = tf.bitwise.bitwise_and(tf.bitwise.invert(word), word - 1)  # all bits if none is set
            first = tf.cast(tf.raw_ops.PopulationCount(x=below_lowest), tf.int32)
            found = first if found is None else tf.where(word != 0, first, WORD + found)
        return found


def _mask_rows(rows: tf.Tensor, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
    """Maps [R, F] float32 to [V, R] int32, the row of the table `masks` for each column."""
    values = tf.gather(tf.transpose(rows), arrays["features"])
    missing, missing_left = arrays["missing"][:, None], arrays["missing_left"][:, None]
    is_nan = tf.math.is_nan(values)
    values = tf.where(is_nan | (tf.abs(values) <= _ZERO), tf.zeros_like(values), values)
    is_missing = (is_nan & (missing != NEVER_MISSING)) | ((values == 0) & (missing == ZERO_IS_MISSING))
    bits = tf.bitcast(values, tf.int32)
    ordered = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, 31) & HIGHEST)
    ordered = tf.where(is_missing, tf.where(missing_left == 1, LOWEST, HIGHEST), ordered)
    below = tf.searchsorted(arrays["thresholds"], ordered, side="left")  # the number of thresholds below the value
    return arrays["first_rows"][:, None] + below


def _categories(values: tf.Tensor, last: int) -> tf.Tensor:
    """Maps [R] float32 categories to [R] int32 below `last`; NaN, negative and unknown values are `last`."""
    known = (values > -1) & (values < last)  # False for NaN; LightGBM drops the fraction
    return tf.where(known, tf.cast(tf.where(known, values, 0.0), tf.int32), last)
