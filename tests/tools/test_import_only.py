"""A module in a folder of tools/, started by mistake, names the command to run instead, before its long imports."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
MODULES = sorted(path for path in TOOLS.glob("*/*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_module_that_is_no_command_names_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [str(path)])
    with pytest.raises(SystemExit, match=r"^not a command; run python tools/") as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert (TOOLS.parent / str(ended.value).split()[5]).is_file()
