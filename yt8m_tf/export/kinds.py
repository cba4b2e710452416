"""Distinguishes a checkpoint's weights from optimizer slots and other variables that inference does not read.

Variables of our own checkpoints are classified by the first part of the name. Those of TensorFlow 1 are classified by
`_NAMED`, where a suffix counts only if the variable that it belongs to exists, too (`tower/w/Adam` with `tower/w`). A
variable that matches no rule is a weight.

Checkpoints of TensorFlow 2 and Keras have an object graph. A variable is a weight if a path from the root leads to it
that does not pass through an optimizer, metrics, a random generator or a counter, whatever its name (Keras 3 may save a
model's weights as `optimizer/_trainable_variables/0/...`). Rules only determine the kinds of the others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

WEIGHTS = "weights"
SLOTS = "optimizer slots"
AVERAGES = "moving averages"
COUNTERS = "counters and rates"
METRICS = "metrics"
SEEDS = "random seeds"
LOSS_SCALE = "loss scale"

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # the key of the object graph

# By the first part of the name; see training/state.py.
_OURS = {"model": WEIGHTS, "slots": SLOTS, "ema": AVERAGES, "loss_scale": LOSS_SCALE, "step": COUNTERS}

# TensorFlow 1: kind, pattern of the name; `of` is the variable that must exist, too.
_OPTIMIZERS = "Adam|AdaMax|Adadelta|Adagrad|AdagradDA|Ftrl|LARSOptimizer|Momentum|Nadam|ProximalAdagrad|RMSProp"
_NAMED = (
    (SLOTS, rf"(?P<of>.+)/(?:{_OPTIMIZERS}|adam_m|adam_v)(?:_\d+)?"),
    (AVERAGES, r"(?P<of>.+)/ExponentialMovingAverage"),
    (COUNTERS, r"(?:.+/)?(?:beta[12]_power(?:_\d+)?|global_step|save_counter)"),
)

# In the object graph: names of edges that do not lead to weights. An optimizer is a node with slots, or with all the
# attributes of one of the sets below.
_NO_WEIGHTS = {
    "save_counter": COUNTERS,
    "keras_api": METRICS,
    "metrics": METRICS,
    "_metrics": METRICS,
    "compiled_metrics": METRICS,
    "_compile_metrics": METRICS,
    "_loss_tracker": METRICS,
    "seed_generator": SEEDS,
    "_seed_generators": SEEDS,
}
_OPTIMIZER_ATTRIBUTES = ({"_iterations", "_variables"}, {"iter", "decay"}, {"iter", "learning_rate"})
_OPTIMIZERS_WEIGHTS = "_trainable_variables"
# The kinds of an optimizer's attributes.
_OF_OPTIMIZER = {"_model_variables_moving_average": AVERAGES, "_variables": SLOTS}
_LOSS_SCALE_ATTRIBUTES = {"loss_scale", "_loss_scale", "dynamic_scale", "step_counter"}


def kinds_by_name(names: Collection[str]) -> dict[str, str]:
    """Returns the kinds of the variables of a checkpoint without an object graph, by name."""
    if is_ours(names):
        return {name: _OURS[name.split("/")[0]] for name in names}
    known = set(names)
    return {name: _kind_of(name, known) for name in names}


def is_ours(names: Collection[str]) -> bool:
    """Returns whether a checkpoint with variables of these names was written by `training.checkpoints`."""
    parts = {name.split("/")[0] for name in names}
    return "model" in parts and parts <= set(_OURS)


def averaged_weight(name: str) -> str:
    """Returns the name of the weight whose moving average has this name."""
    if name.startswith("ema/"):
        return name.replace("ema/", "model/", 1)
    return name.removesuffix("/ExponentialMovingAverage")


def _kind_of(name: str, known: Collection[str]) -> str:
    for kind, pattern in _NAMED:
        match = re.fullmatch(pattern, name)
        if match and match.groupdict().get("of", name) in known:
            return kind
    return WEIGHTS


def kinds_in_graph(graph: Any) -> dict[str, str]:
    """Returns the kinds of the variables in an object graph, by checkpoint key.

    Args:
      graph: a `TrackableObjectGraph`.
    """
    optimizers = {number for number, node in enumerate(graph.nodes) if _is_optimizer(node)}
    slots = {slot.slot_variable_node_id for number in optimizers for slot in graph.nodes[number].slot_variables}
    kinds = dict.fromkeys(slots, SLOTS)
    # A node may be reached by several paths. Later kinds take precedence: weights over all others, and all others over
    # slots, the default for everything in an optimizer.
    found = list(_reached(graph, optimizers))
    for kind in (SLOTS, COUNTERS, LOSS_SCALE, METRICS, SEEDS, AVERAGES, WEIGHTS):
        kinds |= {node: kind for node, as_kind in found if as_kind == kind}
    return {
        attribute.checkpoint_key: kinds.get(number, WEIGHTS)
        for number, node in enumerate(graph.nodes)
        for attribute in node.attributes
    }


def _reached(graph: Any, optimizers: Collection[int]) -> Iterator[tuple[int, str]]:
    """Yields every node with every kind of path from the root to it."""
    waiting, seen = [(0, WEIGHTS)], {(0, WEIGHTS)}
    while waiting:
        number, kind = waiting.pop()
        yield number, kind
        for child in graph.nodes[number].children:
            reached = child.node_id, _kind_of_edge(kind, number in optimizers, child.local_name)
            if reached not in seen:
                seen.add(reached)
                waiting.append(reached)


def _kind_of_edge(kind: str, from_optimizer: bool, name: str) -> str:
    if from_optimizer:
        if name == _OPTIMIZERS_WEIGHTS:
            return WEIGHTS
        if name in _LOSS_SCALE_ATTRIBUTES:
            return LOSS_SCALE
        return _OF_OPTIMIZER.get(name, COUNTERS if _is_counter(name) else SLOTS)
    return _NO_WEIGHTS.get(name, kind) if kind == WEIGHTS else kind


def _is_counter(name: str) -> bool:
    return name in {"_iterations", "_learning_rate", "iter", "learning_rate", "beta_1", "beta_2", "decay", "momentum"}


def _is_optimizer(node: Any) -> bool:
    names = {child.local_name for child in node.children}
    return bool(node.slot_variables) or any(attributes <= names for attributes in _OPTIMIZER_ATTRIBUTES)


def bytes_by_kind(kinds: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Sums the bytes of each kind, largest first.

    Args:
      kinds: kinds by name.
      sizes: bytes by name; a name without a kind is that of a weight.
    """
    found: dict[str, int] = {}
    for name, size in sizes.items():
        kind = kinds.get(name, WEIGHTS)
        found[kind] = found.get(kind, 0) + size
    return dict(sorted(found.items(), key=lambda item: -item[1]))
