"""What a configuration says of the data, out of range."""

from __future__ import annotations

from typing import Any

import pytest

from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.strict_yaml import parse
from yt8m_tf.errors import InputError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features": {}}, r"'data': data\.features must name at least one"),
        ({"features": {"rgb": 0}}, r"data\.features\.rgb must be positive, got 0"),
        ({"keys": {"rgb2": "x"}}, r"data\.keys names 'rgb2'"),
        ({"features": {"id": 8}}, r"data\.features\.id: batches hold something else under that name"),
        ({"features": {"rgb": 8, "soft_classes": 8}}, r"data\.features\.soft_classes: batches hold"),
        ({"keys": {"rgb": "labels"}}, r"data\.keys\.rgb: 'labels' is no feature"),
        ({"shuffle_records": -1}, "shuffle_records must not be negative"),
        ({"max_labels": 0}, "max_labels must be positive"),
    ],
)
def test_data_out_of_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse(DataConfig, values, "data")
    assert "\n" not in str(caught.value)
