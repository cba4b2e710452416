"""Converts LightGBM's boosters to the arrays of `layers.trees`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np

from yt8m_tf.layers.trees import (
    HIGHEST,
    NAN_IS_MISSING,
    NEVER_MISSING,
    ZERO_IS_MISSING,
    Forest,
    ForestShape,
    ordered_bits,
    packed_nodes,
)

_MISSING = {"None": NEVER_MISSING, "Zero": ZERO_IS_MISSING, "NaN": NAN_IS_MISSING}
_OBJECTIVE = "binary sigmoid:1"


@dataclasses.dataclass
class _Tree:
    """A tree's nodes, in breadth-first order, so that the two children of a node are adjacent."""

    booster: int
    depth: int
    nodes: list[Mapping[str, Any]]
    left: list[int]


def make_forest(boosters: Sequence[lightgbm.Booster]) -> Forest:
    """Converts boosters of binary log-loss over the same features, of which only the first may be categorical.

    Raises:
      ValueError: the boosters do not meet these conditions.
    """
    trees = [tree for number, booster in enumerate(boosters) for tree in _trees(number, booster)]
    trees.sort(key=lambda tree: -tree.depth)  # stable: trees of equal depth stay in the order of the boosters
    depths = [tree.depth for tree in trees]
    nodes = [node for tree in trees for node in tree.nodes]
    sizes = [len(tree.nodes) for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]])
    steps = np.concatenate([np.array(tree.left) - np.arange(len(tree.left)) for tree in trees])

    is_split = np.array(["split_feature" in node for node in nodes])
    is_category = np.array([node.get("decision_type") == "==" for node in nodes])
    if any(node["split_feature"] for node in nodes if node.get("decision_type") == "=="):
        raise ValueError("categorical splits of another column than the first one")
    columns = [
        (node["split_feature"], _MISSING[node["missing_type"]], int(node["default_left"]))
        for node, numeric in zip(nodes, is_split & ~is_category, strict=True)
        if numeric
    ]
    distinct = sorted({*columns}) or [(0, NEVER_MISSING, 0)]  # at least one, because leaves test the first column
    numbers = {column: number for number, column in enumerate(distinct)}
    column, split = np.zeros(len(nodes), np.int32), np.full(len(nodes), HIGHEST, np.int32)
    column[is_split & ~is_category] = [numbers[found] for found in columns]
    thresholds = np.array([node["threshold"] for node in nodes if node.get("decision_type") == "<="], np.float64)
    split[is_split & ~is_category] = ordered_bits(not_above(thresholds))

    chosen = [[int(c) for c in node["threshold"].split("||")] for node in nodes if node.get("decision_type") == "=="]
    table, words, bits = _category_table(chosen)
    column[is_category], split[is_category] = len(distinct) + words, bits
    shape = ForestShape(
        boosters=len(boosters),
        nodes=len(nodes),
        columns=len(distinct),
        active=tuple(sum(depth > level for depth in depths) for level in range(depths[0])),
        trees=len(trees),
        categories=len(table) - 1,
        words=table.shape[1],
    )
    return Forest(
        shape,
        roots=roots.astype(np.int32),
        booster=np.array([tree.booster for tree in trees], np.int32),
        nodes=packed_nodes(steps, column, split),
        leaf_values=np.array([node.get("leaf_value", 0.0) for node in nodes], np.float64),
        features=np.array([feature for feature, _, _ in distinct], np.int32),
        missing=np.array([missing for _, missing, _ in distinct], np.int32),
        missing_left=np.array([goes_left for _, _, goes_left in distinct], np.int32),
        categories=table,
    )


def not_above(thresholds: np.ndarray) -> np.ndarray:
    """Rounds float64 thresholds down to float32, which does not change `x <= threshold` for any float32 x."""
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
        return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _trees(number: int, booster: lightgbm.Booster) -> list[_Tree]:
    dumped = booster.dump_model()
    if dumped.get("objective") != _OBJECTIVE:
        raise ValueError(f"the objective '{dumped.get('objective')}' where yt8m-stack makes '{_OBJECTIVE}'")
    if dumped.get("average_output"):
        raise ValueError("a random forest")
    found = []
    for tree in dumped["tree_info"]:
        nodes, left, level, depth = [tree["tree_structure"]], [], [tree["tree_structure"]], 0
        while level:
            below: list[dict[str, Any]] = []
            for node in level:
                if "leaf_coeff" in node:
                    raise ValueError("trees with linear leaves")
                if "split_feature" in node:
                    left.append(len(nodes) + len(below))
                    below += [node["left_child"], node["right_child"]]
                else:
                    left.append(len(left))  # itself
            nodes += below
            level, depth = below, depth + bool(below)
        found.append(_Tree(number, depth, nodes, left))
    if not found:
        raise ValueError("no trees")
    return found


def _category_table(chosen: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encodes as bits which categories go left at splits.

    Returns:
      [categories + 1, words] int32, with no bits in the last row; and the word and the bit of each split, int32.
    """
    numbers = np.arange(len(chosen))
    table = np.zeros((max(map(max, chosen), default=-1) + 2, -(-len(chosen) // 32)), np.uint32)
    bits = np.uint32(1) << (numbers % 32).astype(np.uint32)
    for number, categories in enumerate(chosen):
        table[categories, number // 32] |= bits[number]
    return table.view(np.int32), (numbers // 32).astype(np.int32), bits.view(np.int32)
