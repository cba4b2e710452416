"""Tables, text and JSON of measurements, and facts about the machine on which they were made."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Measurement
from yt8m_tf import files
from yt8m_tf.console import tables

_PACKAGES = ("tensorflow", "keras", "numpy")


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, and rows of formatted cells; the first column is text, the others are numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def render(self, markdown: bool = False) -> str:
        """Formats the table as aligned text or Markdown."""
        if markdown:
            return f"**{self.title}**\n\n{tables.markdown(self.header, self.rows)}"
        lines = tables.aligned([self.header, *self.rows], num_left=1).splitlines()
        return "\n".join([self.title, *(f"  {line}" for line in lines)])


@dataclasses.dataclass(frozen=True)
class Result:
    """The results of a sub-command: timings, further tables, sizes of its workload, remarks, and figures of models."""

    measurements: Sequence[Measurement]
    tables: Sequence[Table] = ()
    workload: dict[str, Any] = dataclasses.field(default_factory=dict)
    remarks: Sequence[str] = ()
    models: Sequence[dict[str, Any]] = ()


def rate_table(measurement: Measurement) -> Table:
    """Returns a table of the median, lowest and highest rate of every implementation."""
    rows = []
    for way in measurement.ways:
        rates = measurement.rates[way.name]
        rows.append([way.name, *(_number(value) for value in (measurement.median(way.name), min(rates), max(rates)))])
    repetitions = len(next(iter(measurement.rates.values())))
    title = f"{measurement.title}: {measurement.unit} (repetitions: {repetitions})"
    return Table(title, ("way", "median", "lowest", "highest"), rows)


def ratio_table(measurement: Measurement) -> Table:
    """Returns a table of the ratio of every target, its range over the repetitions, and its required value."""
    rows = []
    for target in measurement.targets:
        ratios, ratio = measurement.ratios(target), measurement.ratio(target)
        demanded = ["-", "-"]
        if target.at_least is not None:
            demanded = [f"{target.at_least:g}", "yes" if ratio >= target.at_least else "NO"]
        what = f"{target.ours} / {target.against}"
        rows.append([what, f"{ratio:.2f}", f"{min(ratios):.2f}", f"{max(ratios):.2f}", *demanded])
    title = f"{measurement.title}: ratios within a repetition"
    return Table(title, ("ratio", "median", "lowest", "highest", "at least", "reached"), rows)


def render(name: str, result: Result, markdown: bool = False) -> str:
    """Formats all tables, what each rate counts, the workload and the machine."""
    tables = [make(measurement) for measurement in result.measurements for make in (rate_table, ratio_table)]
    parts = [table.render(markdown) for table in (*tables, *result.tables)]
    bullet = "- " if markdown else "  "
    facts = [f"{bullet}{key}: {value}" for key, value in (result.workload | machine_facts()).items()]
    for measurement in result.measurements:
        counted = [f"{bullet}{way.name}: {way.counted}" for way in measurement.ways]
        parts += ["\n".join([f"What is counted, {measurement.title}:", *counted])]
    parts += ["\n".join(["Measured on:", *facts])]
    parts += result.remarks
    return f"{'### ' if markdown else ''}benchmark {name}\n\n" + "\n\n".join(parts)


def write_json(path: Path, name: str, result: Result, quick: bool) -> None:
    """Writes everything, including all single rates; the file appears when it is complete."""
    contents = {
        "benchmark": name,
        "quick": quick,
        "machine": machine_facts(),
        "workload": result.workload,
        "measurements": [_plain(measurement) for measurement in result.measurements],
        "tables": [dataclasses.asdict(table) for table in result.tables],
        "remarks": list(result.remarks),
        "models": list(result.models),
    }
    with files.whole_file(path) as temporary:
        temporary.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def read_models(path: Path) -> list[dict[str, Any]]:
    """Returns the figures of models in a file of `write_json`; empty if there is no file."""
    return json.loads(path.read_text(encoding="utf-8"))["models"] if path.is_file() else []


def machine_facts() -> dict[str, Any]:
    """Returns the processor, number of cores that this process may use, GPUs, load and versions."""
    import tensorflow as tf

    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "?")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "CPU": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "GPUs": ", ".join(gpus) or "none",
        "load average (1, 5, 15 minutes)": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": ", ".join(
            [
                f"Python {platform.python_version()}",
                *(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES),
            ]
        ),
    }


def _plain(measurement: Measurement) -> dict[str, Any]:
    ways = [
        {
            "name": way.name,
            "counted": way.counted,
            "median": measurement.median(way.name),
            "rates": measurement.rates[way.name],
        }
        for way in measurement.ways
    ]
    targets = [
        dataclasses.asdict(target) | {"ratio": measurement.ratio(target), "ratios": measurement.ratios(target)}
        for target in measurement.targets
    ]
    return {"title": measurement.title, "unit": measurement.unit, "ways": ways, "targets": targets}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
