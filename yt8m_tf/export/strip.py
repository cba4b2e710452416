"""Removes optimizer slots and the like from checkpoints, `.keras` files and SavedModels, and reports the bytes by kind.

Variables that are not known to be dispensable are kept; `kinds` has the rules.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from yt8m_tf import files, run_dir
from yt8m_tf.console import tables
from yt8m_tf.errors import InputError
from yt8m_tf.export import strip_checkpoint, strip_keras, strip_saved_model
from yt8m_tf.export.saved_model import bytes_on_disk
from yt8m_tf.locks import exclusive
from yt8m_tf.training import checkpoints

# Appended to the name of the output.
REPORT_SUFFIX = ".strip_report.json"


@dataclasses.dataclass(frozen=True)
class StripReport:
    """Bytes of a stripped file or directory, before and after.

    Attributes:
      format: "run", "checkpoint", "keras" or "saved_model".
      before, after: bytes of variables, by kind (`kinds`).
      bytes_before, bytes_after: bytes of all files that were read, and of all that were written.
    """

    format: str
    before: Mapping[str, int]
    after: Mapping[str, int]
    bytes_before: int
    bytes_after: int

    def table(self) -> str:
        """Formats the report as aligned columns."""
        rows = [
            ("variables", "bytes before", "bytes after"),
            *((kind, f"{size:,}", f"{self.after.get(kind, 0):,}") for kind, size in self.before.items()),
            ("all variables", f"{sum(self.before.values()):,}", f"{sum(self.after.values()):,}"),
            ("files", f"{self.bytes_before:,}", f"{self.bytes_after:,}"),
        ]
        share = f"{self.bytes_after / self.bytes_before:.1%} of the bytes are left"
        return f"{tables.aligned(rows, 1)}\n{share}"


def strip(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, which: str = "best", average: bool | None = None
) -> StripReport:
    """Writes `source` to `target` without variables that inference does not read, and a report next to it.

    Args:
      source: a run directory, of which one checkpoint is taken; the directory or the prefix of a TensorFlow
        checkpoint; a `.keras` file; or a SavedModel's directory.
      target: the file or directory to write, in the same format; its parents are created.
      which: "best" or "last" checkpoint of a run.
      average: whether to replace the weights by their moving averages, if a checkpoint has these by name. None does so
        for our own checkpoints, as evaluation and export do; for other checkpoints, the choice must be given.

    Raises:
      InputError: `source` is none of these, or damaged; `target` exists, is `source`, or another process writes it; or
        it is not known which weights inference would use.
    """
    source, target = Path(source), Path(target)
    form = _format(source)
    _check_target(source, target)
    if average is not None and form not in ("run", "checkpoint"):
        raise InputError(f"--weights: {source} is not a checkpoint; leave the flag out")
    with exclusive(target, "--output", "strips", beside=True):
        _check_target(source, target)  # another process may have written it in the meantime
        if form == "run":
            before, after, read = strip_checkpoint.strip_run(source, target, which, average)
        elif form == "checkpoint":
            before, after, read = strip_checkpoint.strip_checkpoint(source, target, average)
        elif form == "keras":
            before, after, read = strip_keras.strip_keras(source, target)
        else:
            before, after, read = strip_saved_model.strip_saved_model(source, target)
        report = StripReport(form, before, after, read, _bytes_of(target))
        files.write_json(target.with_name(target.name + REPORT_SUFFIX), dataclasses.asdict(report))
    return report


def _format(source: Path) -> str:
    if files.is_saved_model(source):
        return "saved_model"
    if (source / run_dir.CONFIG).is_file():
        return "run"
    if (source / checkpoints.STATE).is_file() or source.with_name(source.name + ".index").is_file():
        return "checkpoint"
    if source.suffix == ".keras" and source.is_file():
        return "keras"
    if not source.exists():
        raise InputError(
            f"--input={source}: nothing there; give a run directory, a checkpoint's directory or its prefix (without"
            " .index), a .keras file or a SavedModel's directory"
        )
    found = "a directory without run, checkpoint or SavedModel" if source.is_dir() else "a file, but not a .keras file"
    raise InputError(
        f"--input={source}: {found}; give a run directory, a checkpoint's directory or its prefix (without .index), a"
        " .keras file or a SavedModel's directory"
    )


def _check_target(source: Path, target: Path) -> None:
    real_source, real_target = source.resolve(), target.resolve()
    if real_target == real_source or real_source in real_target.parents:
        raise InputError(f"--output={target}: the same as --input, or inside of it; choose another name")
    taken = [path for path in (target, target.with_name(target.name + ".index")) if os.path.lexists(path)]
    if taken:
        raise InputError(f"--output={taken[0]}: exists already; choose another name, or remove it")


def _bytes_of(target: Path) -> int:
    if target.is_dir():
        return bytes_on_disk(target)
    if target.is_file():
        return target.stat().st_size
    return strip_checkpoint.checkpoint_files_bytes(target)


def strip_report(before: Mapping[str, int], after: int) -> list[str]:
    """Compares the bytes of a checkpoint with those of its export, as lines of a table.

    Args:
      before: `strip_checkpoint.checkpoint_bytes`.
      after: bytes of the exported model.
    """
    total = sum(before.values())
    counted = (*before.items(), ("variables in all", total))
    rows = [(f"checkpoint {kind}", f"{size:,}", "bytes") for kind, size in counted]
    rows.append(("SavedModel without this report", f"{after:,}", f"bytes ({after / total:.1%})" if total else "bytes"))
    return tables.aligned(rows, 1).splitlines()
