"""The models and configurations that come with the project: descriptions, sizes and published scores.

Sizes are read from a table, `configs/model_sizes.csv`, so that listing all models needs no TensorFlow; `measure` builds
models to make this table.
"""

from __future__ import annotations

import csv
import dataclasses
import inspect
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf.config import configurations
from yt8m_tf.config.data import RecordsConfig
from yt8m_tf.console import tables
from yt8m_tf.errors import InputError

PUBLISHED_FILE = "published.csv"
DEPARTURES_FILE = "departures.csv"
SIZES_FILE = "model_sizes.csv"
_SIZES_HEADER = ("configuration", "model", "level", "parameters", "float16_bytes", "features")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One configuration.

    Attributes:
      selector: the value of `--config`.
      model: the registered name.
      level: level of the records that it reads.
      num_parameters: number of trainable parameters.
      float16_bytes: size of the weights in a float16 export.
      features: the features that it takes, as `NAME:SIZE`, with the dtype if it is not YouTube-8M's.
      published_gap, published_bce: published GAP@20 and BCE; None if they were not published.
    """

    selector: str
    model: str
    level: str
    num_parameters: int
    float16_bytes: int
    features: tuple[str, ...]
    published_gap: float | None = None
    published_bce: float | None = None


def describe(
    selector: str, sizes: Mapping[str, Mapping[str, str]], published: Mapping[str, Mapping[str, str]]
) -> Entry:
    """Looks up a configuration in the tables.

    Args:
      selector: `PATH.yaml[:NAME]`.
      sizes: from `read_sizes`.
      published: from `read_published`.

    Raises:
      InputError: the table of sizes lacks the configuration.
    """
    if selector not in sizes:
        raise InputError(f"{SIZES_FILE} has no row for {selector}; write it again with yt8m-models --sizes=FILE")
    size, figures = sizes[selector], published.get(selector, {})
    return Entry(
        selector,
        size["model"],
        size["level"],
        int(size["parameters"]),
        int(size["float16_bytes"]),
        tuple(size["features"].split()),
        _number(figures.get("gap_at_20")),
        _number(figures.get("bce")),
    )


def measure(selector: str) -> Entry:
    """Builds the model of a configuration, without memory for its weights, and counts its weights.

    Raises:
      InputError: the configuration is not valid.
    """
    # Keras takes seconds to import, and a list of models does not need it.
    import numpy as np

    from yt8m_tf import models
    from yt8m_tf.export.precision import is_compressible
    from yt8m_tf.models import registry

    run = registry.load_experiment(selector)
    model = models.build_without_weights(run.model, run.data.spec)
    stored = [variable for variable in model.weights if variable.name != "seed_generator_state"]
    return Entry(
        selector,
        run.model["name"],
        run.data.level,
        sum(int(np.prod(variable.shape)) for variable in model.trainable_weights),
        sum(int(np.prod(variable.shape)) * (2 if is_compressible(variable) else 4) for variable in stored),
        features_of(run.data),
    )


def features_of(data: RecordsConfig) -> tuple[str, ...]:
    """Returns each feature of a configuration as `NAME:SIZE`, with its dtype if it is not YouTube-8M's."""
    usual = "float_list" if data.level == "video" else "uint8"
    return tuple(
        f"{name}:{feature.size}{'' if feature.dtype == usual else f':{feature.dtype}'}"
        for name, feature in data.stored.items()
    )


def selectors(experiments: bool = True) -> list[str]:
    """Returns the configurations that come with the project and that `yt8m-train --config` can select.

    Args:
      experiments: whether to include those of `experiments/`, whose results are in docs/RESULTS.md.
    """
    places = ("experiments/",) * experiments + ("first_level/", "second_level/", "variants.yaml:", "zoo.yaml:")
    found = [selector for selector in configurations.shipped_selectors() if selector.startswith(places)]
    return [selector for selector in found if selector != "second_level/lightgbm.yaml"]


def read_published() -> dict[str, dict[str, str]]:
    """Reads the rows of `configs/published.csv`, by selector: gap_at_20, bce, source."""
    with open(configurations.shipped_file(PUBLISHED_FILE), encoding="utf-8", newline="") as file:
        return {row["configuration"]: row for row in csv.DictReader(file)}


def read_departures() -> list[dict[str, str]]:
    """Reads the rows of `configs/departures.csv`, the departures from published code: of, what, theirs, ours, why."""
    with open(configurations.shipped_file(DEPARTURES_FILE), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_sizes() -> dict[str, dict[str, str]]:
    """Reads the rows of `configs/model_sizes.csv`, by selector: model, level, parameters, float16_bytes, features."""
    with open(configurations.shipped_file(SIZES_FILE), encoding="utf-8", newline="") as file:
        return {row["configuration"]: row for row in csv.DictReader(file)}


def sizes_table(entries: Iterable[Entry]) -> str:
    """Returns the text of `configs/model_sizes.csv` for measured entries."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_SIZES_HEADER)
    for entry in entries:
        sizes = entry.num_parameters, entry.float16_bytes
        writer.writerow((entry.selector, entry.model, entry.level, *sizes, " ".join(entry.features)))
    return text.getvalue()


def format_table(entries: Iterable[Entry]) -> str:
    """Formats entries as aligned plain text, one line each."""
    header = ("configuration", "model", "level", "parameters", "float16", "GAP@20", "BCE")
    rows = [header] + [
        (entry.selector, entry.model, *_cells(entry), _text(entry.published_bce, "{:.5f}")) for entry in entries
    ]
    return tables.aligned(rows, num_left=3)


_HEAD = """\
# Models

Generated by `yt8m-models --markdown=docs/MODELS.md`; a test checks that it is up to date.

- Features are those that a configuration takes, each with its size. They are YouTube-8M's unless a dtype says
  otherwise. With `data.features`, every model takes features of any names and sizes unless its section says otherwise.
- Parameters are the trainable ones; float16 is the size of the weights in the exported SavedModel.
- Published scores are GAP@20, with their sources in `configs/published.csv`.
- Scores on real records are GAP@20 on 20 validation shards after 6 epochs on 120 others, with hidden layers of 512
  ([RESULTS.md](RESULTS.md)). They can be compared with each other, but not with the published ones.
- The speed of training was measured on two CPU cores ([BENCHMARKS.md](BENCHMARKS.md)).

The last section lists where a model, a loss or a configuration differs from the published code:
[departures](#departures-from-the-published-code).
"""
_DEPARTURES_HEAD = """\
## Departures from the published code

The models were compared with the published PyTorch classes by their outputs with the same random weights. Losses,
schedules and sampling were compared on the same inputs, and all 113 configurations key by key. Everything that is not
listed here is equal, up to a relative difference of 4e-6. The published code is that of
[arXiv 1809.04403](https://arxiv.org/abs/1809.04403).
"""


def markdown(entries: Sequence[Entry], results: Path) -> str:
    """Returns the text of `docs/MODELS.md`.

    It has a section for each registered model, with its docstring, its figures and its configurations, and one on
    departures from the published code.

    Args:
      entries: all configurations.
      results: directory of measured figures: `first_level_real/NAME.json` of tools/run_experiments.py, and
        `benchmark_models.json` of tools/benchmark.py; either may be missing.
    """
    from yt8m_tf.models import registry  # for the docstrings; see `measure`

    scores = [json.loads(path.read_text()) for path in sorted(results.glob("first_level_real/*.json"))]
    steps = _steps(results / "benchmark_models.json")
    lines = [_HEAD]
    for name in registry.model_names():
        description = inspect.getdoc(registry.registration(name).builder) or ""
        lines += [f"## `{name}`", "", description.partition("\n\nRaises:")[0], ""]
        reached = [f"`{_stem(r)}` {r['gap_at_20']:.4f}" for r in scores if r["model"] == name]
        if reached:
            lines += [f"On real records: {', '.join(reached)}.", ""]
        if name in steps:
            lines += [f"Training: {steps[name]}.", ""]
        if own := [entry for entry in entries if entry.model == name]:
            lines += _configuration_table(own)
    return "\n".join([*lines, *_departures()]).rstrip() + "\n"


def _departures() -> list[str]:
    """Returns the last section: a table for each kind of departure."""
    lines, rows = [_DEPARTURES_HEAD], read_departures()
    for kind in dict.fromkeys(row["of"] for row in rows):
        lines += [f"### {kind}", "", "| what | theirs | ours | why |", "|---|---|---|---|"]
        lines += [
            f"| {' | '.join(row[n] for n in ('what', 'theirs', 'ours', 'why'))} |" for row in rows if row["of"] == kind
        ]
        lines.append("")
    return lines


def _configuration_table(entries: Iterable[Entry]) -> list[str]:
    lines = ["| configuration | level | features | parameters | float16 | published |", "|---|---|---|---|---|---|"]
    for entry in entries:
        level, *others = _cells(entry)
        lines.append(f"| {' | '.join((f'`{entry.selector}`', level, ', '.join(entry.features), *others))} |")
    return [*lines, ""]


def _cells(entry: Entry) -> tuple[str, str, str, str]:
    """Returns level, parameters, size and published GAP@20, as both tables show them."""
    size = f"{entry.float16_bytes / 1e6:,.1f} MB"
    return entry.level, f"{entry.num_parameters:,}", size, _text(entry.published_gap, "{:.5f}")


def _stem(result: Mapping[str, Any]) -> str:
    return result["configuration"].rpartition(":")[2]


def _steps(path: Path) -> dict[str, str]:
    """Returns the training speed of each measured model, in words."""
    if not path.is_file():
        return {}
    texts: dict[str, list[str]] = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["models"]:
        texts.setdefault(row["model"], []).append(row["text"])
    return {model: "; ".join(own) for model, own in texts.items()}


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _text(value: float | None, pattern: str) -> str:
    return "" if value is None else pattern.format(value)
