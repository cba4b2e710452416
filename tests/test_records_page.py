"""Every `data` section in docs/RECORDS.md is valid, and the page names every key of a feature."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from yt8m_tf.config import configurations, strict_yaml
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.features import FeatureConfig

_PAGE = (Path(__file__).resolve().parents[1] / "docs" / "RECORDS.md").read_text(encoding="utf-8")
_SECTIONS = re.findall(r"^(data:\n(?:  .*\n)+)", _PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("text", _SECTIONS, ids=range(len(_SECTIONS)))
def test_sections_are_configurations(text: str) -> None:
    data = strict_yaml.parse(DataConfig, yaml.safe_load(text)["data"], "data")
    assert data.level == "frame" and data.stored


def test_the_page_is_whole() -> None:
    assert len(_SECTIONS) == 5
    assert re.findall(r"^\| `(\w+)` \|", _PAGE, flags=re.MULTILINE) == [
        f.name for f in dataclasses.fields(FeatureConfig)
    ]
    shipped = strict_yaml.parse(DataConfig, configurations.load_yaml("first_level/audioset.yaml")["data"], "data")
    shown = strict_yaml.parse(DataConfig, yaml.safe_load(_SECTIONS[1])["data"], "data")
    assert shown.records == shipped.records and shown.num_classes == shipped.num_classes
