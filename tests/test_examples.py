"""The programs of examples/ run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.end_to_end
def test_fit_learns(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("fit", _EXAMPLES / "fit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reached, best = module.fit(str(tmp_path), num_train=2_000, epochs=4)
    assert 0.5 * best < reached < best


@pytest.mark.end_to_end
def test_the_tour_runs_and_draws() -> None:
    import nbclient
    import nbformat

    notebook = nbformat.read(_EXAMPLES / "tour.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit the notebook without outputs"
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=_EXAMPLES)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
