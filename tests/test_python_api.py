"""The names that `yt8m_tf` exports: their examples run, and so do those of docs/PYTHON.md."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from api_world import make_world

import yt8m_tf

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "PYTHON.md"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sample: Any) -> Path:
    directory = tmp_path_factory.mktemp("api")
    make_world(directory, sample.directory)
    return directory


def test_importing_the_package_imports_no_framework() -> None:
    code = "import sys, yt8m_tf; yt8m_tf.InputSpec(); print({'tensorflow', 'keras'} & set(sys.modules), dir(yt8m_tf))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("set()") and "make_dataset" in done.stdout


def test_type_checkers_see_the_names_that_exist() -> None:
    text = Path(yt8m_tf.__file__).read_text(encoding="utf-8")
    seen = text.partition("if TYPE_CHECKING:")[2].partition("\n\n")[0]
    pairs = {
        name.strip(): module.removeprefix("yt8m_tf.")
        for module, names in re.findall(r"from (\S+) import (.+)", seen)
        for name in names.split(",")
    }
    assert pairs == yt8m_tf._MODULES
    assert sorted(yt8m_tf.__all__) == sorted(pairs)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        yt8m_tf.nothing  # noqa: B018


@pytest.mark.parametrize("name", [name for name in yt8m_tf.__all__ if name != "ExportedModel"])
def test_examples_of_docstrings_run(name: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(getattr(yt8m_tf, name)) or "", {}, name, None, 0)
    assert found.examples, f"yt8m_tf.{name} has no example"
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(found, out=report.append).failed == 0, "".join(report)


@pytest.mark.end_to_end
def test_the_page_names_everything_and_its_examples_run(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    page = _PAGE.read_text(encoding="utf-8")
    assert [name for name in yt8m_tf.__all__ if name not in page] == []
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 7
    names: dict[str, Any] = {}
    for block in blocks:  # in order, as the reader runs them
        exec(compile(block, _PAGE.name, "exec"), names)
