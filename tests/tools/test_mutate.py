"""The list of mutants matches the code, and the tests that cover a module are found in any layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutation import lists as mutants

from yt8m_tf.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = mutants.load()


@pytest.fixture(scope="module")
def places() -> dict[str, Path]:
    """The file of each mutant's snippet, which occurs nowhere else."""
    return {mutant.name: mutants.find(ROOT, mutant.snippet) for mutant in MUTANTS}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = {
        "yt8m_tf/__init__.py": "",
        "yt8m_tf/losses.py": "def loss(a, b):\n    return a - b\n",
        "yt8m_tf/bin/train.py": "x = 1\n",
        "yt8m_tf/metrics/__init__.py": "from yt8m_tf.metrics.accumulator import Metrics\n",
        "yt8m_tf/metrics/accumulator.py": "from yt8m_tf.metrics import inner\ny = 1\nx = 1\n",
        "yt8m_tf/metrics/inner.py": "z = 2\n",
        "yt8m_tf/nobody.py": "",
        "yt8m_tf/metrics/mirrored.py": "",
        "tests/conftest.py": "",
        "tests/helper.py": "from yt8m_tf import losses\nimport yt8m_tf.metrics.mirrored\n",
        "tests/test_losses.py": "import yt8m_tf.losses\n",
        "tests/bin/test_commands.py": 'def test_it(command):\n    run(f"yt8m_tf.bin.{command}")\n',
        "tests/metrics/test_a.py": "def test_it():\n    from yt8m_tf.metrics import Metrics\n",
        "tests/metrics/test_accumulator.py": "from yt8m_tf.metrics.accumulator import Metrics\n",
        "tests/metrics/test_mirrored.py": "import something\n",
        "tests/training/test_loop.py": "from helper import something\nfrom yt8m_tf.metrics import Metrics\n",
        "tests/tools/test_mutate.py": "import yt8m_tf.losses\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_snippet_occurs_exactly_once(checkout: Path) -> None:
    assert mutants.find(checkout, "a - b") == Path("yt8m_tf/losses.py")
    with pytest.raises(
        InputError, match=r"occurs 2 times, not once \(yt8m_tf/bin/train.py, yt8m_tf/metrics/accumulator.py\)"
    ):
        mutants.find(checkout, "x = 1")
    with pytest.raises(InputError, match=r"occurs 0 times, not once$"):
        mutants.find(checkout, "a + b")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("losses", ["test_losses", "training/test_loop"]),  # the second by a helper
        ("bin/train", ["bin/test_commands"]),  # in a string
        ("metrics/accumulator", ["metrics/test_accumulator", "metrics/test_a", "training/test_loop"]),  # by the package
        ("metrics/inner", ["metrics/test_a", "metrics/test_accumulator", "training/test_loop"]),  # by its only user
        ("metrics/mirrored", ["metrics/test_mirrored", "training/test_loop"]),  # by its name; by a helper
        ("nobody", ["test_losses", "bin/test_commands", "metrics/test_a"]),
    ],
)
def test_covering_tests(module: str, expected: list[str], checkout: Path) -> None:
    found = mutants.covering_tests(checkout, Path(f"yt8m_tf/{module}.py"), most=3)
    assert found == [f"tests/{name}.py" for name in expected]


def test_outcomes() -> None:
    text = "..F\nFAILED tests/a/test_b.py::test_c[d e] - assert 1 == 2\nERROR tests/test_f.py - ImportError: g\n"
    caught = mutants.read_outcome(1, text)
    assert caught == mutants.Outcome("caught", ("tests/a/test_b.py::test_c[d", "tests/test_f.py"))
    assert caught.files() == ["tests/a/test_b.py", "tests/test_f.py"]
    assert mutants.read_outcome(0, "1 passed") == mutants.Outcome("survived")
    assert mutants.read_outcome(-11, "..") == mutants.Outcome("caught", ("signal 11",))
    assert mutants.read_outcome(4, "ERROR: usage\nno such option\n") == mutants.Outcome("error", ("no such option",))


def test_table() -> None:
    fault = {"area": "a", "kind": "sign", "why": "w", "snippet": "s", "replacement": "r"}
    several = [mutants.Mutant(name, **fault) for name in ("one", "two", "three")]
    results = {
        "one": {"file": "f.py", "result": "caught", "by": ["tests/test_b.py::test_c"]},
        "two": {"file": "f.py", "result": "caught", "by": ["timeout"]},
        "three": {"file": "f.py", "result": "survived", "by": []},
    }
    lines = mutants.table(several, results).splitlines()
    assert lines[2:5] == [
        "| one | f.py | sign | tests/test_b.py |",
        "| two | f.py | sign | timeout |",
        "| three | f.py | sign | **survived** |",
    ]
    assert lines[-1] == "2 of 3 mutants caught (67%)"


def test_every_mutant_changes_one_place_of_the_package_and_compiles(places: dict[str, Path]) -> None:
    assert len(MUTANTS) >= 48 and all(mutant.why for mutant in MUTANTS)
    texts: dict[Path, str] = {}
    for mutant in MUTANTS:
        path = ROOT / places[mutant.name]
        whole = path.read_text(encoding="utf-8")
        compile(whole.replace(mutant.snippet, mutant.replacement), str(path), "exec")
        # All of them together, as survivors are tried.
        assert texts.setdefault(path, whole).count(mutant.snippet) == 1, mutant.name
        texts[path] = texts[path].replace(mutant.snippet, mutant.replacement)
    for path, text in texts.items():
        compile(text, str(path), "exec")


def test_every_package_has_mutants(places: dict[str, Path]) -> None:
    own = {path.parent.name for path in (ROOT / mutants.PACKAGE).rglob("*.py")} - {mutants.PACKAGE}
    assert own <= {path.parent.name for path in places.values()}
