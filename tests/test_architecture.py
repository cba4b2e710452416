"""The layering rules: each package has a level, imports only go down, and only bin/ reads flags."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).resolve().parent.parent / "yt8m_tf"
_FILES = sorted(path for path in _PACKAGE.rglob("*.py") if path != _PACKAGE / "__init__.py")

# The levels, from the commands down to the packages that all others use, as in BUILD.md. A package may import only
# from lower levels, inside functions too; on the lowest level, only from packages further left.
_LEVELS = (
    ("bin",),
    ("reference",),
    ("catalogue", "pipelines", "report"),
    ("ensembling",),
    ("evaluation", "export", "scoring"),
    ("extraction", "stacking", "training"),
    ("codebook", "conversion", "download", "keras_fit", "sample_data", "score_shards", "serving"),
    ("models",),
    ("data", "layers", "losses", "metrics"),
    (
        "console",
        "errors",
        "regular",
        "csv_rows",
        "files",
        "locks",
        "processes",
        "schema",
        "pretrained",
        "config",
        "vocabulary",
        "run_dir",
    ),
)
_LEVEL_OF = {name: level for level, names in enumerate(_LEVELS) for name in names}
_LOWEST = len(_LEVELS) - 1


def _own(path: Path) -> str:
    return path.relative_to(_PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """The first name below the package of every import from the package, anywhere in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module == "yt8m_tf":
                yield from (alias.name for alias in node.names)
            elif node.module and node.module.startswith("yt8m_tf."):
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("yt8m_tf."))


def _may_import(own: str, other: str) -> bool:
    if own == other or _LEVEL_OF[other] > _LEVEL_OF[own]:
        return True
    lowest = _LEVELS[_LOWEST]
    return own in lowest and other in lowest and lowest.index(other) < lowest.index(own)


def test_every_package_has_a_level() -> None:
    assert sorted(_LEVEL_OF) == sorted({_own(path) for path in _FILES})


def test_imports_go_down() -> None:
    wrong = {(_own(path), other, path.name) for path in _FILES for other in _imports(path)}
    assert [pair for pair in sorted(wrong) if not _may_import(*pair[:2])] == []


def test_flags_are_read_only_in_bin() -> None:
    readers = [path for path in _FILES if path.parent.name != "bin" and "absl" in path.read_text(encoding="utf-8")]
    assert readers == []


def test_no_module_has_a_catch_all_name() -> None:
    assert [path for path in _FILES if path.stem in ("utils", "helpers", "common", "misc")] == []


@pytest.mark.parametrize("module", ["config.experiment", "config.strict_yaml", "run_dir", "files"])
def test_reading_a_configuration_imports_no_framework(module: str) -> None:
    code = f"import sys, yt8m_tf.{module}; print({{'tensorflow', 'keras'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
