"""Kills a training run within this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from yt8m_tf.training.step import TrainStep


class _KilledError(Exception):
    """An error that nothing in the package handles."""


@contextlib.contextmanager
def killed_at(step: int) -> Iterator[None]:
    """A context that ends training at its first call from `step` on, which it must reach."""
    original = TrainStep.train

    def train(self: TrainStep, batches: Any, at: int, *more: Any) -> Any:
        if at >= step:
            raise _KilledError
        return original(self, batches, at, *more)

    with mock.patch.object(TrainStep, "train", train), pytest.raises(_KilledError):
        yield
