"""Kills a training in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from yt8m_tf.training.step import TrainStep


class _KilledError(Exception):
    """Nothing in the package expects it."""


@contextlib.contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Ends a training within at its first update from `step` on, which it must reach."""
    original = TrainStep.train

    def train(self: TrainStep, batches: Any, at: int, *more: Any) -> Any:
        if at >= step:
            raise _KilledError
        return original(self, batches, at, *more)

    with mock.patch.object(TrainStep, "train", train), pytest.raises(_KilledError):
        yield
