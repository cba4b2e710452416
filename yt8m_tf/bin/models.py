"""Lists every first-level model and configuration: level, parameters, size in float16, published GAP@20 and BCE.

Example:

  yt8m-models
  yt8m-models --match='vlad|zoo.yaml:z09'
  yt8m-models --markdown=docs/MODELS.md
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from yt8m_tf.bin.launch import launch

_MATCH = flags.DEFINE_string("match", "", "Only configurations whose name or model this regular expression finds.")
_MARKDOWN = flags.DEFINE_string("markdown", None, "Write the page of all models to this file instead.")
_RESULTS = flags.DEFINE_string("results", "docs/results", "Directory of measured figures, for --markdown.")


def main(_: Sequence[str]) -> None:
    from pathlib import Path

    from yt8m_tf import catalogue, files
    from yt8m_tf.config import checks
    from yt8m_tf.console.progress import Progress
    from yt8m_tf.errors import InputError

    wanted = checks.regular_expression("match", _MATCH.value)
    if _MARKDOWN.value and _MATCH.value:
        raise InputError("--markdown: the page is of all models; leave --match out")
    selectors = [name for name in catalogue.selectors() if wanted.search(name) or wanted.search(_model(name))]
    if not selectors:
        raise InputError(f"--match={_MATCH.value}: finds no configuration; leave it out to see all")
    published = catalogue.read_published()
    bar = Progress(selectors, desc="build", unit="model", leave=False)
    entries = [catalogue.describe(selector, published) for selector in bar]
    if _MARKDOWN.value:
        with files.whole_file(Path(_MARKDOWN.value)) as temporary:
            temporary.write_text(catalogue.markdown(entries, Path(_RESULTS.value)), encoding="utf-8")
        print(f"written: {_MARKDOWN.value}")
    else:
        print(catalogue.format_table(entries))


def _model(selector: str) -> str:
    from yt8m_tf.config import strict_yaml

    return strict_yaml.load_yaml(selector)["model"]["name"]


def run() -> None:
    """The console script."""
    launch(main)


if __name__ == "__main__":
    run()
