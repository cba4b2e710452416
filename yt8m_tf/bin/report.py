"""Writes a self-contained HTML page about a pipeline or a run, readable on a phone, in light or dark mode.

It has tables of models and stages, training curves, precision-recall and calibration, GAP@20 against bytes and against
the number of models, average precision of every class, confusions and example videos. If a part is still missing, the
page names the command that makes it. The figures are also written as PNG files to a folder next to the page.

Example:

  yt8m-report --workdir=runs/real_subset --output=report.html
  yt8m-report --workdir=runs/real_subset --output=report.html --data_dir=DATA/yt8m_2018 --vocabulary=vocabulary.csv

With --data_dir, a model without score shards of the validation videos scores them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from absl import flags

from yt8m_tf.bin.launch import launch

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of yt8m-pipeline, or of a run of yt8m-train.", required=True)
_OUTPUT = flags.DEFINE_string("output", "report.html", "The page; pictures are written to NAME_files beside it.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Directory to which data.validation is relative; without it, scores must exist."
)
_VOCABULARY = flags.DEFINE_string(
    "vocabulary", None, "The dataset's vocabulary.csv; the default is the model's data.vocabulary below --data_dir."
)
_MODEL = flags.DEFINE_string("model", None, "Run to analyse in detail; the default is 'final', or the best one.")
_NUM_SHARDS = flags.DEFINE_integer(
    "num_shards", 100, "Validation shards for curves, confusions and examples; 0: all.", lower_bound=0
)
_NUM_EXAMPLES = flags.DEFINE_integer(
    "num_examples", 3, "Number of best, of worst and of random videos to show.", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "Random seed for the choice of videos.", lower_bound=0)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.errors import InputError
    from yt8m_tf.report.page import Options, write_report

    workdir, output = files.local_path(_WORKDIR.value, "--workdir"), files.local_path(_OUTPUT.value, "--output")
    if output.suffix != ".html":
        raise InputError(f"--output={output}: not the name of a page; give one that ends in .html")
    options = Options(
        _DATA_DIR.value and os.path.expanduser(_DATA_DIR.value),
        _VOCABULARY.value and os.path.expanduser(_VOCABULARY.value),
        _MODEL.value,
        _NUM_SHARDS.value,
        _NUM_EXAMPLES.value,
        _SEED.value,
    )
    report = write_report(workdir, output, options)
    print(f"model: {report.model} ({report.checkpoint})")
    written = f"{report.page.stat().st_size / 1e6:.1f} MB), {len(report.pictures)} pictures in {output.stem}_files/"
    print(f"written: {report.page} ({written}")
    print(f"next: {report.next_command}")


def run() -> None:
    """Runs the console script."""
    launch(main)


if __name__ == "__main__":
    run()
