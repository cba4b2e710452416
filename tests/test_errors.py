"""Error messages are one printable line, whatever they quote."""

from __future__ import annotations

import pytest

from yt8m_tf.errors import InputError


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u2028\ufeff", r"\u2028\ufeff"),
        ("\udcff", r"\udcff"),
        (r"a\b", r"a\b"),
        ("vidéo 視頻", "vidéo 視頻"),
    ],
)
def test_quoted_text_does_not_break_a_message_into_lines(quoted: str, shown: str) -> None:
    assert str(InputError(f"video '{quoted}' occurs twice")) == f"video '{shown}' occurs twice"
