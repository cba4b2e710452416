"""The output formats of yt8m-infer: a submission for Kaggle, JSON Lines, Parquet, and readable lines.

Rows of a batch are encoded and appended to a file for their shard, a part. At the end the parts are joined.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf.errors import InputError
from yt8m_tf.serving.submission import HEADER, format_rows

_DECIMALS = 7  # decimals, as in a submission
_PEOPLES_DECIMALS = 4
_ROW_GROUP = 1 << 16  # videos; about 30 MB with 20 names each, while a Parquet file is joined


@dataclasses.dataclass(frozen=True)
class Rows:
    """Scores of B videos, ready to be written.

    Attributes:
      ids: [B] bytes.
      classes: [B, k] ids.
      scores: [B, k] float32 from 0 to 1, highest first.
      keep: [B, k] bool, the pairs to write; None: all.
      names: the names of the C classes, if they are known.
    """

    ids: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    keep: np.ndarray | None = None
    names: Sequence[str] | None = None

    def pairs(self) -> Iterator[tuple[str, list[int], list[float]]]:
        """Yields the id of each video, and the classes and scores of its pairs."""
        rounded = np.round(self.scores.astype(np.float64), _DECIMALS)
        keep = np.ones(rounded.shape, bool) if self.keep is None else self.keep
        for video_id, classes, scores, kept in zip(self.ids, self.classes, rounded, keep, strict=True):
            yield video_id.decode("utf-8", "backslashreplace"), classes[kept].tolist(), scores[kept].tolist()


@dataclasses.dataclass(frozen=True)
class Format:
    """An output format of rows.

    Attributes:
      suffix: suffix of the parts' file names.
      encode: encodes `Rows`, or `segment_formats.SegmentRows`, as bytes that can be appended to a part.
      join: joins parts, in order, into one file.
      has_names, needs_names: whether the format can contain names of classes, and whether it requires them.
    """

    suffix: str
    encode: Callable[[Any], bytes]
    join: Callable[[Sequence[Path], Path], None]
    has_names: bool = True
    needs_names: bool = False


def _csv(rows: Rows) -> bytes:
    return format_rows(rows.ids, rows.classes, rows.scores, rows.keep)


def _jsonl(rows: Rows) -> bytes:
    lines = []
    for video_id, classes, scores in rows.pairs():
        names = {} if rows.names is None else {"names": [rows.names[c] for c in classes]}
        lines.append(json.dumps({"id": video_id, **names, "ids": classes, "scores": scores}, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _lines(rows: Rows) -> bytes:
    assert rows.names is not None
    lines = []
    for video_id, classes, scores in rows.pairs():
        found = (
            f"{' '.join(rows.names[c].split()) or f'class {c}'} {score:.{_PEOPLES_DECIMALS}f}"
            for c, score in zip(classes, scores, strict=True)
        )
        lines.append(f"{video_id}: {', '.join(found)}".rstrip() + "\n")
    return "".join(lines).encode()


def _parquet(rows: Rows) -> bytes:
    """Encodes rows as an Arrow stream; streams in one file can be read one after the other."""
    pa = pyarrow()
    found = list(rows.pairs())
    columns: dict[str, Any] = {"id": pa.array([video_id for video_id, _, _ in found], pa.string())}
    if rows.names is not None:
        names = [[rows.names[c] for c in classes] for _, classes, _ in found]
        columns["names"] = pa.array(names, pa.list_(pa.string()))
    columns["ids"] = pa.array([classes for _, classes, _ in found], pa.list_(pa.int32()))
    columns["scores"] = pa.array([scores for _, _, scores in found], pa.list_(pa.float32()))
    batch, sink = pa.record_batch(columns), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _join_csv(parts: Sequence[Path], output: Path) -> None:
    join_text(parts, output, HEADER)


def join_text(parts: Sequence[Path], output: Path, header: bytes = b"") -> None:
    """Writes a header, then the parts."""
    with open(output, "wb") as whole:
        whole.write(header)
        for path in parts:
            with open(path, "rb") as part:
                shutil.copyfileobj(part, whole, 1 << 20)


def _join_parquet(parts: Sequence[Path], output: Path) -> None:
    pa = pyarrow()
    writer, waiting, count = None, [], 0
    try:
        for batch in _arrow_batches(parts):
            writer = writer or pa.parquet.ParquetWriter(output, batch.schema, compression="zstd")
            waiting.append(batch)
            count += len(batch)
            if count >= _ROW_GROUP:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting, count = [], 0
        if writer and waiting:
            writer.write_table(pa.Table.from_batches(waiting))
    finally:
        if writer:
            writer.close()


def _arrow_batches(parts: Sequence[Path]) -> Iterator[Any]:
    pa = pyarrow()
    for path in parts:
        size = path.stat().st_size
        with pa.OSFile(str(path)) as file:
            while file.tell() < size:
                yield from pa.ipc.open_stream(file)


def pyarrow() -> Any:
    """Imports pyarrow, with its module `parquet`.

    Raises:
      InputError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("--format=parquet: needs pyarrow, which is not installed; pip install '.[parquet]'") from error
    return pyarrow


CSV = Format("csv", _csv, _join_csv, has_names=False)
FORMATS = {
    "csv": CSV,
    "jsonl": Format("jsonl", _jsonl, join_text),
    "parquet": Format("arrows", _parquet, _join_parquet),
    "names": Format("txt", _lines, join_text, needs_names=True),
}
