"""Everything the package imports is declared, and everything it reads is packaged."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_FILES = sorted((_ROOT / "yt8m_tf").rglob("*.py"))
# Modules imported only with an extra, and the name of the extra.
_EXTRAS = {"dask": "cluster", "distributed": "cluster", "av": "video", "pyarrow": "parquet"}


def _imported() -> set[str]:
    found: set[str] = set()
    for path in _FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"yt8m_tf"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _declared() -> tuple[set[str], set[str]]:
    """The distributions that setup.py requires, and the names of its extras, read from the source."""
    (call,) = (
        node
        for node in ast.walk(ast.parse((_ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setup"
    )
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    requirements = ast.literal_eval(given["install_requires"])
    names = {_normal(re.split(r"[ <>=!~;\[]", line)[0]) for line in requirements}
    return names, set(ast.literal_eval(given["extras_require"]))


def test_dependencies_are_declared() -> None:
    declared, extras = _declared()
    owners = importlib.metadata.packages_distributions()
    for name in sorted(_imported()):
        if name in _EXTRAS:
            assert _EXTRAS[name] in extras
        else:
            assert declared & {_normal(owner) for owner in owners[name]}, f"{name} is imported and not declared"


def test_every_package_has_an_init_module() -> None:
    """A directory of modules without `__init__.py` would be left out of the wheel."""
    assert {path.parent for path in _FILES} == {path.parent for path in _FILES if path.name == "__init__.py"}
