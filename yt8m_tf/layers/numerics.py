"""Variants of functions with finite gradients."""

from __future__ import annotations

from typing import Any

from keras import ops


def square_root(x: Any) -> Any:
    """Computes square roots of numbers that are at least 0, any shape; the gradient at 0 is 0 instead of infinite."""
    positive = x > 0
    # `where` differentiates both branches, so the inner `where` is needed to keep gradients finite.
    return ops.where(positive, ops.sqrt(ops.where(positive, x, 1.0)), 0.0)
