"""The `data` section of a configuration: defaults, and values out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.features import FeatureConfig
from yt8m_tf.config.strict_yaml import parse
from yt8m_tf.errors import InputError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features": {}}, r"'data': data\.features must name at least one"),
        ({"features": {"rgb": 0}}, r"data\.features\.rgb must be positive, got 0"),
        ({"keys": {"rgb2": "x"}}, r"data\.keys names 'rgb2'"),
        ({"features": {"id": 8}}, r"data\.features\.id: batches use that name for something else"),
        ({"features": {"rgb": 8, "soft_classes": 8}}, r"data\.features\.soft_classes: batches use that name"),
        ({"keys": {"rgb": "labels"}}, r"data\.keys\.rgb: 'labels' is the key of the id or the labels; name"),
        ({"features": {"clip": {"dtype": "float16"}}}, r"'data\.features\.clip\.size' is missing; it has no default"),
        ({"features": {"clip": {"size": 0}}}, r"'data\.features\.clip': size must be positive, got 0"),
        (
            {"features": {"clip": {"size": 4, "dtype": "int8"}}},
            r"clip\.dtype': 'int8' is not one of uint8, float16, float32",
        ),
        (
            {"features": {"clip": {"size": 4, "range": [1, 1]}}},
            r"clip': range must be \[lowest, highest\], got \[1\.0, 1\.0\]",
        ),
        ({"features": {"clip": "512 floats"}}, r"'data\.features\.clip': '512 floats' is not a whole number"),
        ({"keys": {"id": "x", "rgb": "x"}}, r"data\.keys\.rgb: 'x' is the key of the id or the labels; name"),
        ({"max_frame_difference": -1}, "max_frame_difference must be at least 0"),
        ({"shuffle_records": -1}, "shuffle_records must not be negative"),
        ({"max_labels": 0}, "max_labels must be positive"),
    ],
)
def test_data_out_of_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse(DataConfig, values, "data")
    assert "\n" not in str(caught.value)


def test_a_feature_given_as_a_size() -> None:
    values: dict[str, Any] = {"features": {"rgb": 8, "clip": {"size": 4, "dtype": "uint8", "range": [0, 6]}}}
    video, frame = (parse(DataConfig, {**values, "level": level}, "data") for level in ("video", "frame"))
    codes = FeatureConfig(4, "uint8", (0.0, 6.0))
    assert video.stored == {"rgb": FeatureConfig(8, "float_list"), "clip": codes}
    assert frame.stored == {"rgb": FeatureConfig(8, "uint8", (-2.0, 2.0)), "clip": codes}
    assert video.spec.features == frame.spec.features == {"rgb": 8, "clip": 4}
    assert dict(frame.spec.ranges) == {"clip": (0.0, 6.0)}  # only what differs from YouTube-8M


@pytest.mark.parametrize(
    ("keys", "id_keys", "labels"), [({}, ("id", "video_id"), "labels"), ({"id": "a", "labels": "b"}, ("a",), "b")]
)
def test_keys_of_ids_and_labels(keys: dict[str, str], id_keys: tuple[str, ...], labels: str) -> None:
    data = DataConfig(keys={**keys, "rgb": "c"})
    assert (data.id_keys, data.labels_key, data.key_of("rgb"), data.key_of("audio")) == (
        id_keys,
        labels,
        "c",
        "mean_audio",
    )
    assert data.other_keys == keys


def test_codes_of_any_range_decode_by_the_same_formula() -> None:
    """Codes decode in steps of (b - a) / 255 from a plus half of (b - a) / 256; YouTube-8M's range is [-2, 2]."""
    codes = np.array([0, 255], np.uint8)
    np.testing.assert_allclose(schema.dequantise(codes), [-1.9921875, 2.0078125], rtol=1e-7)
    np.testing.assert_allclose(schema.dequantise(codes, (0.0, 51.2)), [0.1, 51.3], rtol=1e-6)


def test_a_fold_that_does_not_exist_is_refused() -> None:
    assert DataConfig(num_folds=5, fold=4).fold == 4
    for fold in (5, -1):
        with pytest.raises(ValueError, match="fold"):
            DataConfig(num_folds=5, fold=fold)
