"""Checks of users' values.

Checks of ranges are for the `__post_init__` of configurations; their `ValueError` becomes a one-line error.
"""

from __future__ import annotations

import re
from typing import Any

from yt8m_tf.errors import InputError


def at_least(config: Any, minimum: float, *names: str) -> None:
    """Checks that the named numbers, or all numbers of the named tuples, are not below `minimum`.

    Raises:
      ValueError: one is; the message names it and its value.
    """
    for name in names:
        value = getattr(config, name)
        if min(value if isinstance(value, tuple) else (value,), default=minimum) < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")


def positive(config: Any, *names: str) -> None:
    """Checks that the named numbers are above 0; None is not checked.

    Raises:
      ValueError: one is not; the message names it and its value.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be positive, got {value}")


def rates(config: Any, *names: str) -> None:
    """Checks that the named numbers are in [0, 1), as dropout rates must be.

    Raises:
      ValueError: one is not; the message names it and its value.
    """
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {getattr(config, name)}")


def regular_expression(flag: str, value: str) -> re.Pattern[str]:
    """Compiles the value of a flag.

    Raises:
      InputError: the value is not a regular expression.
    """
    try:
        return re.compile(value)
    except re.error as error:
        raise InputError(f"--{flag}={value}: not a regular expression ({error})") from error
