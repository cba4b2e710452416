"""Writes a trained model as a SavedModel that needs no code of ours: small weights, two signatures, a size limit.

The graph is not compiled by XLA: TF Serving refuses such functions on a CPU unless it is started with
`--xla_cpu_compilation_enabled`, every new batch size would be compiled again, and not every model gets faster
(docs/BENCHMARKS.md).

Weights that are stored in less than float32 are decoded once, when the model is loaded (`stored.Stored`): Grappler
does not treat a cast of a variable as a constant, so a cast in the graph would be repeated in each call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf import files
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.clips import model_inputs, with_frames
from yt8m_tf.data.records import feature_specs, parse_records
from yt8m_tf.errors import InputError
from yt8m_tf.export.additions import NOTHING_MORE, Additions, frames_function, frames_specs, means_of_records
from yt8m_tf.export.precision import FLOAT16, Precision
from yt8m_tf.export.reproducible import make_reproducible
from yt8m_tf.export.stored import Stored
from yt8m_tf.layers import recurrent
from yt8m_tf.locks import exclusive
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.models.class_layer import embedding_model
from yt8m_tf.serving.limits import SIZE_LIMIT
from yt8m_tf.serving.metadata import METADATA_FILE, VOCABULARY_FILE, describe
from yt8m_tf.vocabulary import without_descriptions


class TooLargeError(InputError):
    """A SavedModel exceeds the size limit; `excess` says by how many bytes."""

    def __init__(self, message: str, excess: int):
        super().__init__(message)
        self.excess = excess


@dataclasses.dataclass(frozen=True)
class ExportedSize:
    """Sizes of a SavedModel, in bytes.

    Attributes:
      total_bytes: size of all its files, uncompressed.
      limit_bytes: the size limit.
      layer_bytes: size of the stored weights, by outermost layer, largest first.
    """

    total_bytes: int
    limit_bytes: int
    layer_bytes: Mapping[str, int]

    def check(self) -> None:
        """Raises TooLargeError if the total exceeds the limit."""
        if self.total_bytes > self.limit_bytes:
            layers = ", ".join(f"{name} {size:,}" for name, size in self.layer_bytes.items())
            raise TooLargeError(
                f"the SavedModel takes {self.total_bytes:,} bytes, more than --size_limit={self.limit_bytes:,}; its"
                f" layers take: {layers}; export with a coarser --precision, without --tflite, or a smaller model",
                self.total_bytes - self.limit_bytes,
            )


def export_saved_model(
    model: keras.Model,
    data: DataConfig,
    directory: str | os.PathLike[str],
    *,
    precision: Precision = FLOAT16,
    size_limit: int = SIZE_LIMIT,
    metadata: Mapping[str, Any] | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
    additions: Additions = NOTHING_MORE,
    read: Callable[[keras.Variable], np.ndarray] = keras.ops.convert_to_numpy,
    overwrite: bool = False,
) -> ExportedSize:
    """Runs `write_saved_model`; the directory appears when it is complete. `trained.export_trained` also measures it.

    Args:
      model, data, precision, size_limit, metadata, vocabulary, additions, read: see
        `write_saved_model`.
      directory: the directory to write, with its parents; for TF Serving, `NAME/1`.
      overwrite: whether to replace an existing SavedModel.

    Raises:
      InputError: `directory` exists; see also `write_saved_model`.
    """
    with replacing(directory, overwrite) as temporary:
        return write_saved_model(
            model, data, temporary, precision, size_limit, metadata or {}, vocabulary, additions, read
        )


@contextlib.contextmanager
def replacing(directory: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary directory for a SavedModel, which becomes `directory` if the block ends without an error.

    Raises:
      InputError: `directory` exists, and is not a SavedModel or must not be overwritten.
    """
    target = Path(directory)
    check_target(target, overwrite)
    # The temporary name is not a number, so that TF Serving does not take it for a version.
    with (
        exclusive(target, "--output", "exports", beside=True),
        files.whole_directory(target, replace=overwrite) as temporary,
    ):
        yield temporary
        check_target(target, overwrite)  # another process may have written it in the meantime


def write_saved_model(
    model: keras.Model,
    data: DataConfig,
    directory: Path,
    precision: Precision,
    size_limit: int,
    metadata: Mapping[str, Any],
    vocabulary: str | os.PathLike[str] | None = None,
    additions: Additions = NOTHING_MORE,
    read: Callable[[keras.Variable], np.ndarray] = keras.ops.convert_to_numpy,
) -> ExportedSize:
    """Writes a model as a SavedModel.

    Signatures:
      `serving_default(examples: [B] string)`, serialized records as in shards -> `video_id` [B] string,
        `class_indexes` [B, k] int32, `predictions` [B, k] float32 probabilities, highest first (equal logits by lower
        class id), k = min(20, C).
      `features(...)` -> `predictions` [B, C] float32 probabilities. Video level: each feature [B, D]; frame level: each
        feature [B, T, D], and `num_frames` [B] int32. Features have the dtype of the records; in YouTube-8M float32 at
        video level and uint8 codes at frame level.
    `serving_default` fails for a record without an id or, at frame level, without frames; `features` gives a clip
    without frames scores of 0. `additions` may add signatures.

    Args:
      model: maps the inputs of `models.registry.model_inputs` to [B, C] logits.
      data: the records that the model reads.
      directory: an empty directory.
      precision: precision of the stored weights; the arithmetic is always float32.
      size_limit: largest size of all files together, in bytes.
      metadata: entries to add to `assets/metadata.json`; plain values for JSON.
      vocabulary: a CSV file to include in the assets, without its descriptions.
      additions: further signatures and files.
      read: returns the value of a variable of `model`; called for one variable at a time, which need not have a value.

    Raises:
      InputError: the vocabulary cannot be read, the model does not support one of `additions`, a weight exceeds the
        range of float16, or the model takes more than `size_limit` bytes.
    """
    if vocabulary is not None and not Path(vocabulary).is_file():
        raise InputError(
            f"--vocabulary={vocabulary}: no such file; give the dataset's vocabulary.csv, or leave the flag out"
        )
    names = additions.names(vocabulary, data.num_classes)
    module = InferenceModule(model, data, precision, read, names, additions)
    with tempfile.TemporaryDirectory() as staging:
        files.write_json(Path(staging) / METADATA_FILE, describe(data, str(precision), metadata))
        module.metadata = tf.saved_model.Asset(os.path.join(staging, METADATA_FILE))
        if vocabulary is not None:
            copy = Path(staging, VOCABULARY_FILE)
            copy.write_text(without_descriptions(Path(vocabulary)), encoding="utf-8")
            module.vocabulary = tf.saved_model.Asset(os.fspath(copy))
        tf.saved_model.save(module, os.fspath(directory), signatures=module.signatures())
    make_reproducible(directory)
    layers: dict[str, int] = {}
    for path, stored in module.weights.items():
        layer = path.split("/")[0]
        layers[layer] = layers.get(layer, 0) + stored.num_bytes
    size = ExportedSize(bytes_on_disk(directory), size_limit, dict(sorted(layers.items(), key=lambda item: -item[1])))
    size.check()
    return size


def bytes_on_disk(directory: Path) -> int:
    """Sums the bytes of all files below a directory."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


class InferenceModule(tf.Module):
    """The variables that inference needs, in their stored precision, and the signatures over them.

    The Keras model is traced with the values of these variables instead of its own. It is not an attribute, because its
    variables, and objects that they refer to, would be saved, too.

    Args:
      model, data, precision, read, additions: see `write_saved_model`.
      names: names of the classes, for the output `class_names`; None: no such output.
    """

    def __init__(
        self,
        model: keras.Model,
        data: DataConfig,
        precision: Precision,
        read: Callable[[keras.Variable], np.ndarray] = keras.ops.convert_to_numpy,
        names: Sequence[str] | None = None,
        additions: Additions = NOTHING_MORE,
    ):
        super().__init__(name="inference")
        recurrent.forbid_fused_kernels(model)
        # `weights` leaves out seeds and metrics, which `variables` has.
        self.weights = {variable.path: Stored(variable, read(variable), precision) for variable in model.weights}

        def call(function: keras.Model, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
            casts = [
                (variable, tf.cast(self.weights[variable.path].read(), variable.dtype)) for variable in model.weights
            ]
            inputs = model_inputs(features, data.spec)
            with keras.StatelessScope(state_mapping=casts):
                return tf.cast(function(inputs, training=False), tf.float32)

        def logits_of(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
            logits = call(model, features)  # [B, C]
            if "num_frames" in features:
                logits = tf.where(features["num_frames"][:, None] > 0, logits, -np.inf)
            return logits

        def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            parsed = parse_records(examples, data.records)
            video_id = parsed.pop("id")
            return highest(video_id, parsed if data.level == "video" else with_frames(parsed))

        def highest(video_id: tf.Tensor, parsed: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            # Logits are ranked, not scores: scores near 1 are equal in float32 even if their logits differ.
            logits, classes = tf.math.top_k(logits_of(parsed), min(TOP_K, data.num_classes))  # [B, k]
            found = {"video_id": video_id, "class_indexes": classes, "predictions": tf.sigmoid(logits)}
            return found if names is None else found | {"class_names": tf.gather(tf.constant(names), classes)}

        def score(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {"predictions": tf.sigmoid(logits_of(features))}

        def serve_frames(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            means = means_of_records(examples, data)
            return highest(means.pop("id"), means)

        records = tf.TensorSpec([None], tf.string, name="examples")
        self.serve = tf.function(serve, input_signature=[records])
        self.score = tf.function(score)
        specs = feature_specs(data)
        self._more: dict[str, tuple[Any, Any]] = {}
        additions.check(data)
        if additions.frames:
            self._more["frames"] = tf.function(serve_frames), records
        if additions.mediapipe:
            self._more["mediapipe"] = tf.function(frames_function(score, data)), frames_specs(data)
        if additions.embeddings:
            embed = embedding_model(model, data.spec, "--embeddings")
            self._more["embeddings"] = tf.function(lambda features: {"embeddings": call(embed, features)}), specs
        self._specs = specs

    def signatures(self) -> dict[str, Any]:
        """Returns the concrete functions by signature name."""
        return {
            "serving_default": self.serve.get_concrete_function(),
            "features": self.score.get_concrete_function(self._specs),
            **{name: function.get_concrete_function(specs) for name, (function, specs) in self._more.items()},
        }


def check_target(target: Path, overwrite: bool) -> None:
    """Raises InputError if `target` exists and must not be replaced."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not files.is_saved_model(target):
        raise InputError(f"--output={target}: exists and is not a SavedModel; choose another directory")
    if not overwrite:
        raise InputError(
            f"--output={target}: contains a SavedModel already; choose another directory, or give --overwrite"
        )
