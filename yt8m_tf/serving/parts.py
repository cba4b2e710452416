"""The finished parts of an output of yt8m-infer, after which an interrupted run continues."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf import files
from yt8m_tf.config import strict_yaml
from yt8m_tf.data.integrity import Damage
from yt8m_tf.errors import InputError
from yt8m_tf.serving.formats import CSV, Format


def parts_directory(output: str | os.PathLike[str]) -> Path:
    """Returns the directory of an output's parts while the output is incomplete."""
    path = Path(output)
    return path.with_name(path.name + ".parts")


def check_target(output: str | os.PathLike[str]) -> None:
    """Refuses an output that has no name or is a directory.

    Raises:
      InputError: the name is empty, or that of a directory.
    """
    if not os.fspath(output):
        raise InputError("--output: is empty; name a file, such as submission.csv")
    if Path(output).is_dir():
        raise InputError(f"--output={output}: is a directory; name a file, such as {Path(output) / 'submission.csv'}")


@dataclasses.dataclass
class Part:
    """Summary of a finished shard.

    Attributes:
      num_bytes: the size of the shard; if it has been replaced since, for example by a sound copy, it is read again.
      num_records: records read from it.
      num_rows: rows written for them; fewer if clips without frames were skipped.
      damage: where reading ended; None for a sound shard.
    """

    num_bytes: int
    num_records: int = 0
    num_rows: int = 0
    damage: Damage | None = None


class Parts:
    """The rows of each finished shard, in `OUTPUT.parts/`, and their assembly into `OUTPUT`.

    Shards are written in order, so the finished ones are always the first ones. A part is finished once its `.json`
    exists.

    Args:
      output: the path.
      run: everything that the rows depend on, except the contents of shards; parts of another run are refused.
      shard_bytes: the size of each shard.
      is_current: returns, for the number of a shard and its part, whether the shard is unchanged; it is called only if
        the size is unchanged.
      layout: the format, which joins the parts.

    Attributes:
      finished: the finished parts, in order.

    Raises:
      InputError: existing parts belong to another run, or cannot be read.
    """

    def __init__(
        self,
        output: str | os.PathLike[str],
        run: Mapping[str, Any],
        shard_bytes: Sequence[int],
        is_current: Callable[[int, Part], bool] = lambda index, part: True,
        layout: Format = CSV,
    ):
        self.output, self._layout = Path(output), layout
        self._shard_bytes = [*shard_bytes, 0]
        self.directory = parts_directory(output)
        self._remedy = f"remove {self.directory} to start over"
        self.finished: list[Part] = []
        self.directory.mkdir(parents=True, exist_ok=True)
        self._check_run(dict(run))
        for index, num_bytes in enumerate(shard_bytes):
            state = self._path(index, "json")
            part = strict_yaml.read_json(state, Part, self._remedy) if state.is_file() else None
            if part is None or part.num_bytes != num_bytes or not is_current(index, part):
                break
            self.finished.append(part)
        self._current, self._started = self._next_part(), False

    def add(self, rows: bytes, num_records: int, num_rows: int) -> None:
        """Appends rows to the shard that is being written."""
        # Rows that a killed run left are overwritten.
        with open(self._path(len(self.finished), "tmp"), "ab" if self._started else "wb") as file:
            file.write(rows)
        self._started = True
        self._current.num_records += num_records
        self._current.num_rows += num_rows

    def finish_shard(self, damage: Damage | None = None) -> None:
        """Completes the shard that is being written, which may have no records."""
        self.add(b"", 0, 0)
        index = len(self.finished)
        os.replace(self._path(index, "tmp"), self._rows_path(index))
        self._current.damage = damage
        files.write_json(self._path(index, "json"), dataclasses.asdict(self._current))
        self.finished.append(self._current)
        self._current, self._started = self._next_part(), False

    def assemble(self) -> None:
        """Joins the parts into the output, which appears once it is complete, and removes the parts."""
        with files.whole_file(self.output) as temporary:
            self._layout.join([self._rows_path(index) for index in range(len(self.finished))], temporary)
        shutil.rmtree(self.directory)

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.finished:  # there is nothing to resume
            shutil.rmtree(self.directory, ignore_errors=True)

    def _next_part(self) -> Part:
        return Part(self._shard_bytes[len(self.finished)])

    def _rows_path(self, index: int) -> Path:
        return self._path(index, self._layout.suffix)

    def _path(self, index: int, suffix: str) -> Path:
        return self.directory / f"{index:05d}.{suffix}"

    def _check_run(self, run: dict[str, Any]) -> None:
        path = self.directory / "run.json"
        run = json.loads(json.dumps(run))  # as it is read back
        if not path.is_file():
            files.write_json(path, run)
            return
        before = strict_yaml.read_json(path, Mapping[str, Any], self._remedy)
        changed = sorted(key for key in {*before, *run} if before.get(key) != run.get(key))
        if changed and not self._path(0, "json").is_file():  # nothing was finished, so nothing is lost
            files.write_json(path, run)
        elif changed:
            raise InputError(
                f"--output={self.output}: {self.directory} contains parts of a run that differs in"
                f" {' and '.join(changed)}; delete it to start over, give the same flags as before to continue, or"
                " choose another file"
            )
