"""The page of all configuration keys is up to date with the code."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from yt8m_tf import reference
from yt8m_tf.errors import InputError

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "CONFIGURATION.md"


def test_the_page_is_up_to_date() -> None:
    is_current = _PAGE.read_text(encoding="utf-8") == reference.markdown()
    assert is_current, "run: yt8m-models --reference=docs/CONFIGURATION.md"


@pytest.mark.parametrize(
    "key",
    [
        *("train.prior_bias", "data.shuffle_records", "train.target_reweighting", "data.frames.sampling.count"),
        *("labels.weight", "stack.cat_smooth", "all_of", "model.cluster_size", "data.segments.context", "final.trunks"),
    ],
)
def test_keys_of_every_kind_are_on_the_page(key: str) -> None:
    assert f"| `{key}` |" in _PAGE.read_text(encoding="utf-8")


def test_descriptions_are_those_of_the_docstring() -> None:
    @dataclasses.dataclass
    class Base:
        """A base.

        Attributes:
          first: of the base.
        """

        first: int = 1

    @dataclasses.dataclass
    class Derived(Base):
        """One more.

        Attributes:
          second, third: of both, on
            two lines.

        Example:
          fourth: is not a key.
        """

        second: Literal["a", "b"] = "a"
        third: tuple[int, ...] | None = None
        fourth: int = 0

    assert reference.description(Derived, "first") == "of the base."
    assert reference.description(Derived, "third") == "of both, on two lines."
    with pytest.raises(InputError, match=r"Derived: its docstring does not describe 'fourth'"):
        reference.description(Derived, "fourth")
