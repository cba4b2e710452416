"""The submission file: its rows, and the finished parts from which an interrupted run goes on."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf import files
from yt8m_tf.config import strict_yaml
from yt8m_tf.data.integrity import Damage
from yt8m_tf.errors import InputError

HEADER = b"VideoId,LabelConfidencePairs\n"

# Scores get seven decimals: six would spend half of the 1e-6 within which they agree with those of the evaluation.
# Tables hold the text of the first four and of the last three.
_HIGH, _LOW = 10**4, 10**3


def format_rows(video_ids: Iterable[bytes], class_indexes: np.ndarray, scores: np.ndarray) -> bytes:
    """Rows of `id,class score class score ...`, in the manner of the starter code, with seven decimals.

    Args:
      video_ids: [B] bytes.
      class_indexes: [B, k] ids, 0 or more, k at least 1.
      scores: [B, k] from 0 to 1.

    Returns:
      B lines, put together from tables of text: four times as fast as formatting number by number.
    """
    names = np.array([_quoted(video_id) for video_id in video_ids], np.bytes_)
    if not len(names):
        return b""
    classes, high, low = _class_table(1 << int(class_indexes.max()).bit_length()), _high_table(), _low_table()
    digits = np.rint(scores.astype(np.float64) * (_HIGH * _LOW)).astype(np.int64)  # [B, k]
    pair = [("class", classes.dtype), ("high", high.dtype), ("low", low.dtype), ("end", "S1")]
    rows = np.empty(len(names), [("id", names.dtype), ("comma", "S1"), ("pairs", pair, scores.shape[1:])])
    rows["id"], rows["comma"] = names, b","
    pairs = rows["pairs"]  # [B, k]
    pairs["class"] = classes[class_indexes]
    pairs["high"], pairs["low"] = high[digits // _LOW], low[digits % _LOW]
    pairs["end"] = b" "
    pairs["end"][:, -1] = b"\n"
    return rows.tobytes().translate(None, b"\0")  # NumPy fills texts up with zero bytes


def parts_directory(output: str | os.PathLike[str]) -> Path:
    """Where the parts of a submission file are until it is whole."""
    path = Path(output)
    return path.with_name(path.name + ".parts")


def check_target(output: str | os.PathLike[str]) -> None:
    """Refuses a directory's name for the submission file.

    Raises:
      InputError: there is a directory of that name, or there is no name.
    """
    if not os.fspath(output):
        raise InputError("--output: is empty; name a file, such as submission.csv")
    if Path(output).is_dir():
        raise InputError(f"--output={output}: is a directory; name a file, such as {Path(output) / 'submission.csv'}")


@dataclasses.dataclass
class Part:
    """What is known of a finished shard.

    Attributes:
      num_bytes: its size: a shard that was replaced since, say by a sound copy, is read again.
      num_records: records read from it.
      num_rows: rows written for them; fewer where clips without frames were left out.
      damage: where reading ended; None for a sound shard.
    """

    num_bytes: int
    num_records: int = 0
    num_rows: int = 0
    damage: Damage | None = None


class Parts:
    """The rows of each finished shard, in `OUTPUT.parts/`, and their assembly into `OUTPUT`.

    Shards are written in order, so what is finished is always the first so many. A part counts once its `.json` is
    there.

    Args:
      output: path of the submission file.
      run: everything that the rows depend on, but the content of shards; parts of another run are refused.
      shard_bytes: the size of each shard.
      is_current: of the number of a shard and its part, whether the shard is still the one that was read; one whose
        size changed never is.

    Attributes:
      finished: the parts that are done, in order.

    Raises:
      InputError: its parts belong to another run, or cannot be read.
    """

    def __init__(
        self,
        output: str | os.PathLike[str],
        run: Mapping[str, Any],
        shard_bytes: Sequence[int],
        is_current: Callable[[int, Part], bool] = lambda index, part: True,
    ):
        self.output = Path(output)
        self._shard_bytes = [*shard_bytes, 0]
        self.directory = parts_directory(output)
        self._remedy = f"remove {self.directory} to start anew"
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
        # What a killed run left is overwritten.
        with open(self._path(len(self.finished), "tmp"), "ab" if self._started else "wb") as file:
            file.write(rows)
        self._started = True
        self._current.num_records += num_records
        self._current.num_rows += num_rows

    def finish_shard(self, damage: Damage | None = None) -> None:
        """Completes the shard that is being written; one without any records too."""
        self.add(b"", 0, 0)
        index = len(self.finished)
        os.replace(self._path(index, "tmp"), self._path(index, "csv"))
        self._current.damage = damage
        files.write_json(self._path(index, "json"), dataclasses.asdict(self._current))
        self.finished.append(self._current)
        self._current, self._started = self._next_part(), False

    def assemble(self) -> None:
        """Puts header and parts together into the output, which appears when it is whole, and removes the parts."""
        with files.whole_file(self.output) as temporary, open(temporary, "wb") as whole:
            whole.write(HEADER)
            for index in range(len(self.finished)):
                with open(self._path(index, "csv"), "rb") as part:
                    shutil.copyfileobj(part, whole, 1 << 20)
        shutil.rmtree(self.directory)

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.finished:  # nothing to go on from
            shutil.rmtree(self.directory, ignore_errors=True)

    def _next_part(self) -> Part:
        return Part(self._shard_bytes[len(self.finished)])

    def _path(self, index: int, suffix: str) -> Path:
        return self.directory / f"{index:05d}.{suffix}"

    def _check_run(self, run: dict[str, Any]) -> None:
        path = self.directory / "run.json"
        run = json.loads(json.dumps(run))  # as it reads back
        if not path.is_file():
            files.write_json(path, run)
            return
        before = strict_yaml.read_json(path, Mapping[str, Any], self._remedy)
        changed = sorted(key for key in {*before, *run} if before.get(key) != run.get(key))
        if changed and not self._path(0, "json").is_file():  # nothing was finished, so nothing is lost
            files.write_json(path, run)
        elif changed:
            raise InputError(
                f"--output={self.output}: {self.directory} holds parts of a run with other {' and '.join(changed)};"
                " delete it to start anew, repeat that run to go on, or choose another file"
            )


def _quoted(video_id: bytes) -> bytes:
    """The id as a CSV field."""
    if any(special in video_id for special in (b",", b'"', b"\n", b"\r")):
        return b'"' + video_id.replace(b'"', b'""') + b'"'
    return video_id


@functools.cache  # sizes are powers of two, so there are few
def _class_table(size: int) -> np.ndarray:
    return np.array([b"%d " % index for index in range(size)], np.bytes_)


@functools.cache
def _high_table() -> np.ndarray:
    return np.array([b"%d.%04d" % divmod(value, _HIGH) for value in range(_HIGH + 1)], np.bytes_)


@functools.cache
def _low_table() -> np.ndarray:
    return np.array([b"%03d" % value for value in range(_LOW)], np.bytes_)
