"""Converts LightGBM's boosters to the tables of `layers.trees`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np

from yt8m_tf.layers.trees import (
    HIGHEST,
    NAN_IS_MISSING,
    NEVER_MISSING,
    WORD,
    ZERO_IS_MISSING,
    Forest,
    ForestShape,
    ordered_bits,
)

_MISSING = {"None": NEVER_MISSING, "Zero": ZERO_IS_MISSING, "NaN": NAN_IS_MISSING}
_OBJECTIVE = "binary sigmoid:1"
_INFINITY = 1e300  # LightGBM writes an infinite threshold, which separates NaN from all numbers, as this one
_Column = tuple[int, int, int]  # feature, treatment of missing values, whether they go left


@dataclasses.dataclass(frozen=True)
class _Split:
    """A split, and the leaves of its left subtree: `first` and those after it, below `end`."""

    tree: int
    node: Mapping[str, Any]
    first: int
    end: int

    @property
    def is_categorical(self) -> bool:
        return bool(self.node["decision_type"] == "==")

    @property
    def column(self) -> _Column:
        node = self.node
        return node["split_feature"], _MISSING[node["missing_type"]], int(node["default_left"])


def make_forest(boosters: Sequence[lightgbm.Booster]) -> Forest:
    """Converts boosters of binary log-loss over the same features, of which only the first may be categorical.

    Raises:
      ValueError: the boosters do not meet these conditions.
    """
    booster: list[int] = []
    leaves: list[list[float]] = []
    splits: list[_Split] = []
    for number, each in enumerate(boosters):
        for root in _roots(each):
            own, values = _splits_and_leaves(len(leaves), root)
            splits += own
            leaves.append(values)
            booster.append(number)
    numeric = [split for split in splits if not split.is_categorical]
    categorical = [split for split in splits if split.is_categorical]
    if any(split.node["split_feature"] for split in categorical):
        raise ValueError("categorical splits of another column than the first one")

    words = -(-max(map(len, leaves)) // WORD)
    leaf_values = np.zeros((len(leaves), WORD * words))
    for row, values in zip(leaf_values, leaves, strict=True):
        row[: len(values)] = values
    columns = sorted({split.column for split in numeric}) or [(0, NEVER_MISSING, 0)]
    thresholds, masks = _numeric_masks(numeric, columns, words, len(leaves))
    first_rows = np.cumsum([0, *map(len, masks[:-1])])
    category_masks = _category_masks(categorical, words, len(leaves))
    shape = ForestShape(
        boosters=len(boosters),
        trees=len(leaves),
        words=words,
        columns=len(columns),
        thresholds=thresholds.shape[1],
        mask_rows=sum(map(len, masks)),
        categories=len(category_masks) - 1,
    )
    features, missing, missing_left = np.array(columns, np.int32).T
    return Forest(
        shape,
        booster=np.array(booster, np.int32),
        leaf_values=leaf_values,
        features=features,
        missing=missing,
        missing_left=missing_left,
        thresholds=thresholds,
        masks=_as_table(np.concatenate(masks)),
        first_rows=first_rows.astype(np.int32),
        category_masks=_as_table(category_masks),
    )


def not_above(thresholds: np.ndarray) -> np.ndarray:
    """Rounds float64 thresholds down to float32, which does not change `x <= threshold` for any float32 x."""
    infinite = np.abs(thresholds) >= _INFINITY
    thresholds = np.where(infinite, np.copysign(np.inf, thresholds), thresholds)
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
        return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _roots(booster: lightgbm.Booster) -> Iterator[Mapping[str, Any]]:
    dumped = booster.dump_model()
    if dumped.get("objective") != _OBJECTIVE:
        raise ValueError(f"the objective '{dumped.get('objective')}' where yt8m-stack makes '{_OBJECTIVE}'")
    if dumped.get("average_output"):
        raise ValueError("a random forest")
    if not dumped["tree_info"]:
        raise ValueError("no trees")
    return (tree["tree_structure"] for tree in dumped["tree_info"])


def _splits_and_leaves(tree: int, root: Mapping[str, Any]) -> tuple[list[_Split], list[float]]:
    """Walks through a tree from left to right; returns its splits and the values of its leaves."""
    splits: list[_Split] = []
    leaves: list[float] = []
    # Nodes to visit; for a split whose left subtree is done, with the number of its first leaf.
    left: list[tuple[Mapping[str, Any], int | None]] = [(root, None)]
    while left:
        node, first = left.pop()
        if "leaf_coeff" in node:
            raise ValueError("trees with linear leaves")
        if "split_feature" not in node:
            leaves.append(node["leaf_value"])
        elif first is None:
            left += [(node, len(leaves)), (node["left_child"], None)]
        else:
            splits.append(_Split(tree, node, first, len(leaves)))
            left.append((node["right_child"], None))
    return splits, leaves


def _numeric_masks(
    splits: Sequence[_Split], columns: Sequence[_Column], words: int, trees: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Makes the thresholds of all columns, and each column's masks, [own thresholds + 1, W, T] uint32."""
    bits = ordered_bits(not_above(np.array([split.node["threshold"] for split in splits], np.float64)))
    numbers = {column: number for number, column in enumerate(columns)}
    of_split = np.array([numbers[split.column] for split in splits], np.int32)
    distinct = [np.unique(bits[of_split == number]) for number in range(len(columns))]
    thresholds = np.full((len(columns), max(map(len, distinct))), HIGHEST, np.int32)
    for row, own in zip(thresholds, distinct, strict=True):
        row[: len(own)] = own
    masks = [_all_leaves(len(own) + 1, words, trees) for own in distinct]
    for split, column, threshold in zip(splits, of_split, bits, strict=True):
        above = np.searchsorted(distinct[column], threshold) + 1
        masks[column][above, :, split.tree] &= ~_left_leaves(split, words)
    return thresholds, [np.bitwise_and.accumulate(of_column, axis=0) for of_column in masks]


def _category_masks(splits: Sequence[_Split], words: int, trees: int) -> np.ndarray:
    """Makes the masks of each category, [categories + 1, W, T] uint32; the last row is for others, which go right."""
    chosen = [[int(category) for category in split.node["threshold"].split("||")] for split in splits]
    masks = _all_leaves(max(map(max, chosen), default=-1) + 2, words, trees)
    for split, goes_left in zip(splits, chosen, strict=True):
        goes_right = np.ones(len(masks), bool)
        goes_right[goes_left] = False
        masks[goes_right, :, split.tree] &= ~_left_leaves(split, words)
    return masks


def _all_leaves(rows: int, words: int, trees: int) -> np.ndarray:
    return np.full((rows, words, trees), 0xFFFFFFFF, np.uint32)


def _as_table(masks: np.ndarray) -> np.ndarray:
    return masks.reshape(len(masks), -1).view(np.int32)


def _left_leaves(split: _Split, words: int) -> np.ndarray:
    """Returns the mask of a split's left subtree, [words] uint32."""
    bits = (1 << split.end) - (1 << split.first)
    return np.frombuffer(bits.to_bytes(words * WORD // 8, "little"), "<u4").astype(np.uint32)
