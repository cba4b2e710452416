"""The mutants (mutants.yaml), the tests that cover them, and the outcomes of test runs."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/mutate.py")

import ast
import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from yt8m_tf.errors import InputError

LIST = Path(__file__).with_name("mutants.yaml")
PACKAGE = "yt8m_tf"
# It checks that every snippet exists, and so would catch every mutant.
OWN_TEST = "test_mutate.py"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A fault: `replacement` in place of `snippet`. `why` says what goes wrong for a user."""

    name: str
    area: str
    kind: str
    why: str
    snippet: str
    replacement: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a run of tests.

    Attributes:
      result: "caught", "survived", or "error": pytest itself could not run.
      by: the tests that failed; otherwise a few words on what happened, or nothing.
    """

    result: str
    by: tuple[str, ...] = ()

    def files(self) -> list[str]:
        """Returns the files of the tests that failed."""
        found = (test.partition("::")[0] for test in self.by)
        return list(dict.fromkeys(path for path in found if path.endswith(".py")))


def load(path: Path = LIST) -> list[Mutant]:
    """Reads a list of mutants."""
    try:
        mutants = [Mutant(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    except (TypeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a list of mutants ({' '.join(str(error).split())})") from error
    if len({mutant.name for mutant in mutants}) < len(mutants):
        raise InputError(f"{path}: two mutants have the same name; rename one")
    return mutants


def find(root: Path, snippet: str) -> Path:
    """Returns the file of the package that contains a snippet, relative to the checkout `root`.

    Raises:
      InputError: the snippet does not occur exactly once.
    """
    counts = {path: path.read_text(encoding="utf-8").count(snippet) for path in (root / PACKAGE).rglob("*.py")}
    found = [path.relative_to(root) for path, count in sorted(counts.items()) for _ in range(count)]
    if len(found) != 1:
        where = f" ({', '.join(map(str, found))})" if found else ""
        raise InputError(f"the snippet occurs {len(found)} times, not once{where}")
    return found[0]


def covering_tests(root: Path, module: Path, most: int = 12) -> list[str]:
    """Finds the test files that cover a module, the most direct ones first; files are parsed, not imported.

    A test file covers a module if it is named after the module in the mirrored directory, or if it uses the module:

    - it imports the module, or names it in a string (`-m yt8m_tf.bin.train`);
    - it imports a package that imports the module;
    - it imports a helper of the tests that does one of these.

    If no test file uses the module, those that use a module that imports it are taken; if there are none, all.

    Args:
      root: the checkout.
      module: a file of the package, relative to `root`.
      most: the largest number of files.

    Returns:
      Paths relative to `root`: first files that are named after the module, then those of the mirrored directory, then
      others; within each group, files that mention the module's name come first.
    """
    name, tests_of = _dotted(module), root / "tests" / module.parent.relative_to(PACKAGE)
    modules = {path: _modules(root, path) for path in (root / "tests").rglob("*.py") if path.name != OWN_TEST}
    tests = {path for path in modules if path.name.startswith("test_")}
    found = _importing(tests, modules, {name})
    if not found:
        sources = [path.relative_to(root) for path in (root / PACKAGE).rglob("*.py")]
        users = {_dotted(source) for source in sources if name in _modules(root, root / source)}
        found = _importing(tests, modules, users) or tests

    def directness(path: Path) -> tuple[Any, ...]:
        mentioned = re.search(rf"\b{module.stem}\b", path.read_text(encoding="utf-8"))
        return path.stem != f"test_{module.stem}", path.parent != tests_of, not mentioned, path

    found |= tests & {tests_of / f"test_{module.stem}.py"}
    return [str(path.relative_to(root)) for path in sorted(found, key=directness)[:most]]


def _dotted(module: Path) -> str:
    return ".".join(module.with_suffix("").parts).removesuffix(".__init__")


def _importing(tests: Iterable[Path], modules: Mapping[Path, set[str]], wanted: set[str]) -> set[Path]:
    """Returns the tests that import one of the modules, directly or through a file that is not a test."""
    helpers = [str(path) for path, own in modules.items() if not path.name.startswith("test_") and own & wanted]

    def is_one(path: Path) -> bool:
        endings = tuple(f"/{imported.replace('.', '/')}.py" for imported in modules[path])
        return bool(modules[path] & wanted) or any(helper.endswith(endings) for helper in helpers)

    return set(filter(is_one, tests))


def _modules(root: Path, path: Path, packages: bool = True) -> set[str]:
    """Returns the dotted names that a file imports, even in functions, or has in strings.

    With `packages`, these include the imports of imported packages.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for text in re.findall(rf"\b{PACKAGE}(?:\.\w+)+\.?", node.value):
                # After f"{PACKAGE}.bin." any module of that package may follow.
                rest = (root / text.replace(".", "/")).glob("*.py") if text.endswith(".") else ()
                found |= {text.rstrip("."), *(text + module.stem for module in rest)}
    inits = {root / name.replace(".", "/") / "__init__.py" for name in found if packages and name.startswith(PACKAGE)}
    return found.union(*(_modules(root, init, packages=False) for init in inits if init.is_file()))


def read_outcome(status: int, text: str) -> Outcome:
    """Reads an outcome from the exit status and the output of `pytest -rfE`."""
    failed = tuple(re.findall(r"^(?:FAILED|ERROR) (\S+\.py(?:::\S+)?)", text, re.MULTILINE))
    if status == 0:
        return Outcome("survived")
    if failed or status < 0:
        return Outcome("caught", failed or (f"signal {-status}",))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Outcome("error", (lines[-1] if lines else f"pytest ended with status {status}",))


def table(mutants: Iterable[Mutant], results: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats the results as a Markdown table, with the number of mutants that were caught."""
    lines = ["| mutant | file | kind | caught by |", "|---|---|---|---|"]
    found = [(mutant, results[mutant.name]) for mutant in mutants]
    for mutant, result in found:
        by = ", ".join(Outcome(**{key: result[key] for key in ("result", "by")}).files() or result["by"])
        shown = by if result["result"] == "caught" else f"**{result['result']}**" + (f" ({by})" if by else "")
        lines.append(f"| {mutant.name} | {result['file']} | {mutant.kind} | {shown} |")
    caught = sum(result["result"] == "caught" for _, result in found)
    return "\n".join([*lines, "", f"{caught} of {len(found)} mutants caught ({caught / max(1, len(found)):.0%})"])
