"""Strips SavedModels of everything that their signatures do not use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from yt8m_tf import files
from yt8m_tf.errors import InputError
from yt8m_tf.export.saved_model import bytes_on_disk
from yt8m_tf.export.strip_checkpoint import Stripped, checkpoint_bytes
from yt8m_tf.serving.scorer import load_saved_model

v1 = tf.compat.v1

_PREFIX = os.path.join("variables", "variables")
_MAIN_OPS = ("saved_model_main_op", "legacy_init_op")


def strip_saved_model(source: Path, target: Path) -> Stripped:
    """Writes a SavedModel with the same signatures, which give the same outputs, bit for bit.

    Whatever is not called by a signature is removed (the layers of a Keras model, for example). Resources such as
    lookup tables are kept, with the data that they are filled from, and so are assets and `assets.extra`.

    Args, raises: see `strip.strip`.
    """
    saved = _read(source)
    before = checkpoint_bytes(source / _PREFIX) if (source / f"{_PREFIX}.index").is_file() else {}
    with files.whole_directory(target) as temporary:
        try:
            if saved.meta_graphs[0].HasField("object_graph_def"):
                _save_signatures(source, temporary)
            else:
                _save_graph(source, temporary, saved)
        except (OSError, ValueError, LookupError, AssertionError, tf.errors.OpError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"--input={source}: cannot be stripped ({' '.join(str(error).split())}); use it as it is"
            ) from error
        for name in ("assets", "assets.extra"):
            if (source / name).is_dir():
                shutil.copytree(source / name, temporary / name, dirs_exist_ok=True)
        after = checkpoint_bytes(temporary / _PREFIX) if (temporary / f"{_PREFIX}.index").is_file() else {}
    return before, after, bytes_on_disk(source)


def _read(source: Path) -> SavedModel:
    try:
        saved = SavedModel.FromString((source / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise InputError(f"--input={source}: saved_model.pb is damaged; export the model again") from error
    serving = [meta for meta in saved.meta_graphs if list(meta.meta_info_def.tags) == ["serve"]]
    if len(serving) != 1 or not any(not key.startswith("__") for key in serving[0].signature_def):
        raise InputError(f"--input={source}: has no graph tagged 'serve' with signatures; there is nothing to keep")
    del saved.meta_graphs[:]
    saved.meta_graphs.append(serving[0])
    return saved


def _save_signatures(source: Path, target: Path) -> None:
    """TensorFlow 2: loads the objects, and saves the signatures with what they capture."""
    loaded = load_saved_model(source, f"--input={source}")
    view = tf.train.TrackableView(loaded)
    objects = view.descendants()
    resources = [item for item in objects if isinstance(item, tf.saved_model.experimental.TrackableResource)]
    functions = [*loaded.signatures.values(), *(f for resource in resources for f in _functions_of(resource))]
    captured = {id(tensor) for function in functions for tensor in function.captured_inputs}
    kept = [item for item in objects if isinstance(item, tf.Variable) and id(item.handle) in captured]
    module = tf.Module()
    module.weights = {f"{number:04d}_{_plain(item.name)}": item for number, item in enumerate(kept)}
    module.resources = resources
    for name, child in view.children(loaded).items():
        if isinstance(child, tf.saved_model.Asset):
            setattr(module, name, child)
    tf.saved_model.save(module, os.fspath(target), signatures=dict(loaded.signatures))
    _check_same(source, loaded, tf.saved_model.load(files.plain(target)))


def _functions_of(resource: Any) -> Iterator[Any]:
    """Yields the concrete functions that create and fill a loaded resource."""
    for function in (resource._create_resource, resource._initialize):
        yield from getattr(function, "concrete_functions", ())


def _plain(name: str) -> str:
    return name.split(":")[0].replace("/", ".")


def _check_same(source: Path, old: Any, new: Any) -> None:
    def described(loaded: Any) -> dict[str, str]:
        return {
            name: f"{function.structured_input_signature} {sorted(function.structured_outputs.items())}"
            for name, function in loaded.signatures.items()
        }

    if described(old) != described(new):
        raise InputError(f"--input={source}: its signatures change if they are saved again; use it as it is")


def _save_graph(source: Path, target: Path, saved: SavedModel) -> None:
    """TensorFlow 1: keeps the graph, and saves only the variables that signatures depend on."""
    (meta,) = saved.meta_graphs
    graph = v1.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        v1.saved_model.loader.load(session, ["serve"], files.plain(source))
        needed = _ancestors(graph, meta)
        kept = [variable for variable in v1.global_variables() if variable.op in needed]
        if kept:
            saver = v1.train.Saver(kept)
            (target / "variables").mkdir()
            path = os.fspath(target / _PREFIX)
            saver.save(session, path, write_meta_graph=False, write_state=False)
            meta.saver_def.CopyFrom(saver.as_saver_def())
        else:
            meta.ClearField("saver_def")
        for key, collection in meta.collection_def.items():
            items = graph.get_collection(key)
            if collection.WhichOneof("kind") == "bytes_list" and all(isinstance(item, tf.Variable) for item in items):
                values = list(collection.bytes_list.value)
                del collection.bytes_list.value[:]
                pairs = zip(items, values, strict=True)
                collection.bytes_list.value.extend(value for item, value in pairs if item.op in needed)
        meta.graph_def.CopyFrom(graph.as_graph_def(add_shapes=True))
    (target / "saved_model.pb").write_bytes(saved.SerializeToString())


def _ancestors(graph: tf.Graph, meta: MetaGraphDef) -> set[tf.Operation]:
    """Returns all operations on which the signatures, or the operations run at loading, depend."""
    names = [info.name for signature in meta.signature_def.values() for info in signature.outputs.values()]
    waiting = [graph.as_graph_element(name) for name in names]
    waiting += [item for key in _MAIN_OPS for item in graph.get_collection(key)]
    waiting = [item if isinstance(item, tf.Operation) else item.op for item in waiting]
    found: set[tf.Operation] = set()
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return found
