"""The rules of the layout: imports go one way, flags are read in bin/ alone, no file grows without a second look."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).resolve().parent.parent / "yt8m_tf"
_FILES = sorted(_PACKAGE.rglob("*.py"))

# From what everything rests on to what rests on everything. A module imports from its own level and those above it.
_LEVELS = (
    ("checks", "errors", "files", "frames", "operations", "quiet", "schema", "tables"),
    ("config",),
    ("experiment", "vocabulary"),
    ("run_dir", "layers", "losses", "ranking_losses", "batch_statistics", "metrics"),
    ("data", "scores", "centroids", "clustering"),
    ("models",),
    ("memory",),
    ("training", "evaluation", "export", "catalogue", "submission", "inference", "projector"),
    ("ensembles", "predictors", "scoring", "stacking"),
    ("packing", "pipelines"),
    ("report",),
    ("bin",),
)
_LEVEL_OF = {name: level for level, names in enumerate(_LEVELS) for name in names}


def _part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _imports(path: Path) -> set[str]:
    """The modules of the package that a file imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("yt8m_tf"):
            whole = node.module == "yt8m_tf"
            found |= {f"{node.module}.{alias.name}" if whole else node.module for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("yt8m_tf.")}
    return found


@pytest.mark.parametrize("path", _FILES, ids=lambda path: str(path.relative_to(_PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(_PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for module in _imports(path):
        assert _LEVEL_OF[_part(module)] <= _LEVEL_OF[own], f"{own} imports {module}"


@pytest.mark.parametrize("path", _FILES, ids=lambda path: str(path.relative_to(_PACKAGE)))
def test_flags_are_read_in_bin_alone(path: Path) -> None:
    if path.parent.name != "bin":
        assert "absl" not in path.read_text()


def test_no_file_grows_without_a_second_look() -> None:
    long = {str(path.relative_to(_PACKAGE)): len(path.read_text().splitlines()) for path in _FILES}
    assert {name: lines for name, lines in long.items() if lines > 310} == {}
    assert not list(_PACKAGE.rglob("utils.py"))


def test_importing_the_package_imports_no_framework() -> None:
    import subprocess
    import sys

    code = "import sys, yt8m_tf, yt8m_tf.config, yt8m_tf.experiment; print({'tensorflow', 'keras'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
