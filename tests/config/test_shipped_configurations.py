"""The configurations that ship with the project are valid, and are found from any directory."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import yaml

from yt8m_tf.config import strict_yaml
from yt8m_tf.config.configurations import load_yaml
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.pipelines.settings import PipelineConfig
from yt8m_tf.stacking.settings import StackConfig

_CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"
_PATHS = [str(path.relative_to(_CONFIG_DIR)) for path in sorted(_CONFIG_DIR.rglob("*.yaml"))]


def test_configurations_of_the_project_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load((_CONFIG_DIR / "first_level" / "logistic.yaml").read_text())
    assert load_yaml("first_level/logistic.yaml") == content
    assert load_yaml("configs/first_level/logistic.yaml") == content
    assert load_yaml("second_level/small_nets.yaml:a").keys() > {"model", "labels"}
    (tmp_path / "variants.yaml").write_text("mine: 1\n", encoding="utf-8")
    assert load_yaml("variants.yaml") == {"mine": 1}  # the user's own file takes precedence
    with pytest.raises(InputError, match=r"no such file; did you mean 'first_level/logistic\.yaml'\?"):
        load_yaml("first_level/logistik.yaml")
    with pytest.raises(InputError, match=r"no such file; known ones: .*first_level/logistic\.yaml"):
        load_yaml("0123456789")
    with pytest.raises(InputError, match="no such file"):
        load_yaml(str(tmp_path))


@pytest.mark.parametrize("path", _PATHS)
def test_configurations_of_the_project_are_valid(path: str) -> None:
    content = yaml.load((_CONFIG_DIR / path).read_text(encoding="utf-8"), yaml.CSafeLoader)
    bases = content.get("bases", {})
    for name, changes in content.get("configurations", {"": content}).items():
        values = strict_yaml.merge(bases.get(changes.get("base"), {}), changes)
        values.pop("base", None)
        if path.startswith("pipelines/") or path == "second_level/lightgbm.yaml":
            kind = PipelineConfig if path.startswith("pipelines/") else StackConfig
            settings = strict_yaml.parse(kind, values, "")
            assert strict_yaml.parse(kind, strict_yaml.to_dict(settings), "") == settings
        else:
            experiment = parse_experiment(values)
            assert parse_experiment(strict_yaml.to_dict(experiment)) == experiment, name
    assert values == load_yaml(f"{path}:{name}" if name else path)  # the last one, as a command reads it


@pytest.mark.parametrize("directory", ["first_level", "segments"])
def test_heads_have_a_command_and_the_cost(directory: str) -> None:
    for path in sorted((_CONFIG_DIR / directory).glob("*.yaml")):
        head = "\n".join(itertools.takewhile(lambda line: line.startswith("#"), path.read_text().split("\n")))
        assert f"--config={directory}/{path.name}" in head, path.name
        assert re.search(r"Cost: at most [\d,]+ updates of|minutes on two\n?#? ?cores|busy CPU cores", head), path.name
