"""Strips TensorFlow checkpoints, ours and others, of variables that inference does not read."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from yt8m_tf import files, run_dir
from yt8m_tf.errors import InputError
from yt8m_tf.export import kinds
from yt8m_tf.training import checkpoints

_COPIED = (run_dir.CONFIG, run_dir.FOLDS, run_dir.HISTORY)

# Bytes of variables by kind, before and after, and bytes of the files read.
Stripped = tuple[dict[str, int], dict[str, int], int]


def checkpoint_bytes(prefix: str | os.PathLike[str]) -> dict[str, int]:
    """Returns the bytes of a checkpoint's variables by kind (`kinds`), largest first.

    Args:
      prefix: prefix of a TensorFlow checkpoint, without `.index`.

    Returns:
      Kind to bytes. String variables, which are TensorFlow's bookkeeping, are left out.

    Raises:
      InputError: there is no checkpoint of this name, or it is damaged.
    """
    reader = _open(prefix)
    return kinds.bytes_by_kind(_kinds(prefix, reader), _sizes(reader))


def strip_run(source: Path, target: Path, which: str, average: bool | None) -> Stripped:
    """Writes a run directory for evaluation, scoring and export, from which training cannot continue.

    Args, raises: see `strip.strip`.
    """
    prefix, step = checkpoints.find_checkpoint(source, which)
    with files.whole_directory(target) as temporary:
        for name in _COPIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, temporary / name)
        directory = temporary / run_dir.CHECKPOINTS / prefix.parent.name
        directory.mkdir(parents=True)
        before, after = _rewrite(prefix, directory / checkpoints.VARIABLES, average)
        _write_state(prefix.parent, directory, {"best_step": step})
    return before, after, checkpoint_files_bytes(prefix)


def strip_checkpoint(source: Path, target: Path, average: bool | None) -> Stripped:
    """Writes a checkpoint: a directory as written by `training.checkpoints`, or the files of a prefix.

    Args, raises: see `strip.strip`.
    """
    if (source / checkpoints.STATE).is_file():
        prefix = source / checkpoints.VARIABLES
        with files.whole_directory(target) as temporary:
            before, after = _rewrite(prefix, temporary / checkpoints.VARIABLES, average)
            _write_state(source, temporary, {})
        return before, after, checkpoint_files_bytes(prefix)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary_name:
        staged = Path(temporary_name) / target.name
        before, after = _rewrite(source, staged, average)
        # The index comes last: without it there is no checkpoint.
        for file in sorted(_files(staged), key=lambda path: path.suffix == ".index"):
            os.replace(file, target.parent / file.name)
    return before, after, checkpoint_files_bytes(source)


def checkpoint_files_bytes(prefix: Path) -> int:
    """Sums the bytes of a checkpoint's files."""
    return sum(file.stat().st_size for file in _files(prefix))


def _files(prefix: Path) -> list[Path]:
    beginnings = (f"{prefix.name}.index", f"{prefix.name}.data-")
    return [file for file in prefix.parent.iterdir() if file.name.startswith(beginnings)]


def _write_state(source: Path, target: Path, changes: Mapping[str, Any]) -> None:
    state = dataclasses.asdict(checkpoints.read_state(source))
    files.write_json(target / checkpoints.STATE, {**state, **changes})


def _open(prefix: str | os.PathLike[str]) -> Any:
    try:
        return tf.train.load_checkpoint(checkpoints.readable(Path(prefix)))
    except checkpoints.READ_FAILURES as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"checkpoint '{prefix}': cannot be read ({reason}); give the prefix of a whole one, without .index"
        ) from error


def _sizes(reader: Any) -> dict[str, int]:
    """Returns the bytes of each variable; string variables are left out."""
    dtypes = reader.get_variable_to_dtype_map()
    shapes = reader.get_variable_to_shape_map()
    return {
        name: tf.TensorShape(shape).num_elements() * dtypes[name].size
        for name, shape in shapes.items()
        if dtypes[name] != tf.string
    }


def _graph(prefix: str | os.PathLike[str], reader: Any) -> TrackableObjectGraph | None:
    if not reader.has_tensor(kinds.OBJECT_GRAPH):
        return None
    with _naming(prefix):
        return TrackableObjectGraph.FromString(reader.get_tensor(kinds.OBJECT_GRAPH))


@contextlib.contextmanager
def _naming(prefix: str | os.PathLike[str]) -> Iterator[None]:
    """Names the checkpoint in errors about tensors that cannot be read in the block."""
    try:
        yield
    except (*checkpoints.READ_FAILURES, DecodeError) as error:
        raise InputError(
            f"checkpoint '{prefix}': is damaged ({' '.join(str(error).split())}); fetch or make it again"
        ) from error


def _kinds(prefix: str | os.PathLike[str], reader: Any) -> dict[str, str]:
    graph = _graph(prefix, reader)
    return kinds.kinds_in_graph(graph) if graph else kinds.kinds_by_name(_sizes(reader))


def _rewrite(prefix: Path, target: Path, average: bool | None) -> tuple[dict[str, int], dict[str, int]]:
    """Writes the weights of a checkpoint to another prefix, and returns bytes by kind, before and after."""
    reader = _open(prefix)
    sizes, kind_of, graph = _sizes(reader), _kinds(prefix, reader), _graph(prefix, reader)
    dropped = {name for name in sizes if kind_of.get(name, kinds.WEIGHTS) != kinds.WEIGHTS}
    names = sorted(set(reader.get_variable_to_shape_map()) - dropped)
    if not set(names) & set(sizes):
        raise InputError(f"checkpoint '{prefix}': contains no weights; give a checkpoint of a model")
    averages = {} if graph else {kinds.averaged_weight(n): n for n in dropped if kind_of[n] == kinds.AVERAGES}
    sources = averages if _use_averages(prefix, names, averages, average) else {}
    with _naming(prefix):
        values = [tf.convert_to_tensor(reader.get_tensor(sources.get(name, name))) for name in names]
    if graph:
        values[names.index(kinds.OBJECT_GRAPH)] = tf.constant(_without(graph, dropped).SerializeToString())
    tf.raw_ops.SaveV2(prefix=str(target), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)
    return kinds.bytes_by_kind(kind_of, sizes), checkpoint_bytes(target)


def _use_averages(prefix: Path, names: Collection[str], averages: Mapping[str, str], average: bool | None) -> bool:
    if average and not averages:
        raise InputError(f"--weights=average: checkpoint '{prefix}' has no moving averages by name; leave the flag out")
    if averages and average is None and not kinds.is_ours(names):
        raise InputError(
            f"checkpoint '{prefix}': has weights and their moving averages ('{next(iter(averages.values()))}'); say"
            " which ones inference uses with --weights=trained or --weights=average"
        )
    return bool(averages) and average is not False


def _without(graph: TrackableObjectGraph, dropped: Collection[str]) -> TrackableObjectGraph:
    """Returns the object graph without the values of dropped variables; objects keep their numbers."""
    gone = set()
    for number, node in enumerate(graph.nodes):
        kept = [attribute for attribute in node.attributes if attribute.checkpoint_key not in dropped]
        if len(kept) < len(node.attributes):
            gone.add(number)
            del node.attributes[:]
            node.attributes.extend(kept)
    for node in graph.nodes:
        slots = [slot for slot in node.slot_variables if slot.slot_variable_node_id not in gone]
        del node.slot_variables[:]
        node.slot_variables.extend(slots)
    return graph
