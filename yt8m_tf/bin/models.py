"""Lists every model and configuration: level, parameters, size in float16, published GAP@20 and BCE.

Example:

  yt8m-models
  yt8m-models --match='vlad|zoo.yaml:z09'
  yt8m-models --markdown=docs/MODELS.md
  yt8m-models --reference=docs/CONFIGURATION.md
  yt8m-models --sizes=configs/model_sizes.csv      # after a change to models or configurations: builds all of them
  yt8m-models --costs=configs/known_models.csv     # also after a change to pipelines; --plan reads this file
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from yt8m_tf.bin.launch import launch
from yt8m_tf.console.quiet import import_quietly

_MATCH = flags.DEFINE_string("match", "", "A regular expression: only configurations whose name or model matches.")
_MARKDOWN = flags.DEFINE_string("markdown", None, "Write the page of all models to this file instead.")
_SIZES = flags.DEFINE_string("sizes", None, "Build all models, and write the table of their sizes to this file.")
_COSTS = flags.DEFINE_string(
    "costs", None, "Build the models of all pipelines, and write their options, costs and shapes to this file."
)
_REFERENCE = flags.DEFINE_string("reference", None, "Write the page of all configuration keys to this file instead.")
_RESULTS = flags.DEFINE_string("results", "docs/results", "Directory of measured figures, for --markdown.")


def main(_: Sequence[str]) -> None:
    from yt8m_tf import catalogue, files
    from yt8m_tf.config import checks
    from yt8m_tf.errors import InputError

    wanted = checks.regular_expression("match", _MATCH.value)
    tables = {"sizes": _sizes_table, "costs": _costs_table, "reference": _reference}
    written = (_MARKDOWN, _SIZES, _COSTS, _REFERENCE)
    paths = {flag.name: files.local_path(flag.value, f"--{flag.name}") for flag in written if flag.present}
    if paths and _MATCH.value:
        raise InputError(f"--{next(iter(paths))}: the file lists all models; leave --match out")
    if made := [(path, tables[name]) for name, path in paths.items() if name in tables]:
        return _write(*made[0])
    sizes, published = catalogue.read_sizes(), catalogue.read_published()
    everything = (catalogue.describe(selector, sizes, published) for selector in catalogue.selectors())
    entries = [entry for entry in everything if wanted.search(entry.selector) or wanted.search(entry.model)]
    if not entries:
        raise InputError(f"--match={_MATCH.value}: matches no configuration; leave it out to see all")
    if "markdown" in paths:
        import_quietly()
        with files.whole_file(paths["markdown"]) as temporary:
            temporary.write_text(catalogue.markdown(entries, Path(_RESULTS.value)), encoding="utf-8")
        print(f"written: {paths['markdown']}")
    else:
        print(catalogue.format_table(entries))


def _write(path: Path, make_table: Callable[[], str]) -> None:
    from yt8m_tf import files

    import_quietly()
    table = make_table()
    with files.whole_file(path) as temporary:
        temporary.write_text(table, encoding="utf-8")
    print(f"written: {path}")


def _reference() -> str:
    from yt8m_tf import reference

    return reference.markdown()


def _sizes_table() -> str:
    from yt8m_tf import catalogue
    from yt8m_tf.console.progress import Progress

    bar = Progress(catalogue.selectors(), desc="build", unit="model", leave=False)
    return catalogue.sizes_table([catalogue.measure(selector) for selector in bar])


def _costs_table() -> str:
    from yt8m_tf.console.progress import Progress
    from yt8m_tf.pipelines import forward_costs

    distinct = forward_costs.shipped_models()
    return forward_costs.table_of(Progress(distinct, desc="trace", unit="model", leave=False))


def run() -> None:
    """Runs the console script."""
    launch(main, framework=False)


if __name__ == "__main__":
    run()
