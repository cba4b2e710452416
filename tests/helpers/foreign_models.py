"""SavedModels with the starter code's export signature, made without this package: sigmoid(mean_rgb @ weights)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1


def save_v1(
    path: Path, weights: np.ndarray, shape: Sequence[int | None] | None = (None,), k: int = 20, clips: bool = False
) -> str:
    """Saves a graph of TensorFlow 1 with a session's variables, as the starter code exports it.

    Args:
      path: the directory.
      weights: [D, C].
      shape: shape of the placeholder of records; None: unknown.
      k: number of scores of a video.
      clips: map over the records, as the starter code does with clips: [B, 1] ids and [B, 1, k] scores.
    """
    with tf.Graph().as_default(), tf1.Session() as session:
        records = tf1.placeholder(tf.string, shape)
        kernel = tf1.get_variable("weights", initializer=tf.constant(weights, tf.float32))
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([""], [""]), "")  # to be initialised

        def score(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            features = {"id": tf1.FixedLenFeature([], tf.string)}
            features["mean_rgb"] = tf1.FixedLenFeature([weights.shape[0]], tf.float32)
            parsed = tf1.parse_example(serialized, features)
            top, classes = tf.math.top_k(tf.sigmoid(parsed["mean_rgb"] @ kernel), k)
            return parsed["id"] + table.lookup(parsed["id"]), classes, top

        if clips:
            kinds = (tf.string, tf.int32, tf.float32)
            ids, classes, scores = tf.map_fn(lambda record: score(record[None]), records, fn_output_signature=kinds)
        else:
            ids, classes, scores = score(records)
        session.run([tf1.global_variables_initializer(), tf1.tables_initializer()])
        signature = tf1.saved_model.signature_def_utils.build_signature_def(
            {"example_bytes": tf1.saved_model.build_tensor_info(records)},
            {
                name: tf1.saved_model.build_tensor_info(tensor)
                for name, tensor in {"predictions": scores, "video_id": ids, "class_indexes": classes}.items()
            },
            "tensorflow/serving/predict",
        )
        builder = tf1.saved_model.Builder(str(path))
        signatures = {"serving_default": signature, "another": signature}
        builder.add_meta_graph_and_variables(session, ["serve"], signatures, main_op=tf1.tables_initializer())
        builder.add_meta_graph(["serve", "gpu"], {"another": signature})
        builder.save()
    return str(path)


def save_v2(
    path: Path,
    weights: np.ndarray,
    change: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]] = lambda *rows: rows,
    k: int = 20,
) -> str:
    """Saves a module with one function; `change` maps ids [B], classes [B, k] and scores [B, k] to its outputs."""
    module = tf.Module()
    module.kernel = tf.Variable(weights, dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "serialized")])
    def score(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        features = {"id": tf.io.FixedLenFeature([], tf.string)}
        features["mean_rgb"] = tf.io.FixedLenFeature([weights.shape[0]], tf.float32)
        parsed = tf.io.parse_example(serialized, features)
        top, classes = tf.math.top_k(tf.sigmoid(parsed["mean_rgb"] @ module.kernel), k)
        ids, classes, top = change(parsed["id"], classes, top)
        return {"class_indexes": classes, "video_id": ids, "predictions": top, "more": top}

    module.score = score
    tf.saved_model.save(module, str(path), signatures={"serving_default": score})
    return str(path)


def plain_scores(weights: np.ndarray, serialized: Sequence[bytes]) -> np.ndarray:
    """Computes the scores [N, C] float64 in NumPy."""
    rows = [tf.train.Example.FromString(record).features.feature["mean_rgb"].float_list.value for record in serialized]
    return 1 / (1 + np.exp(-np.array(rows, np.float64) @ weights.astype(np.float64)))


def save_frames_model(
    path: Path, weights: np.ndarray, batch: int | None = None, length: int | None = None, **changes: Any
) -> str:
    """Saves a model with the interface of the starter code's export for MediaPipe: sigmoid(mean of frames @ weights).

    Args:
      path: the directory.
      weights: [1152, C].
      batch, length: B and T; None: any.
      changes: `frames`, `counts`: other specifications of the inputs; `output`: another name of the output.
    """
    module = tf.Module()
    module.kernel = tf.Variable(weights, dtype=tf.float32)
    frames = changes.get("frames", tf.TensorSpec([batch, length, len(weights)], tf.float32, "rgb_and_audio"))
    counts = changes.get("counts", tf.TensorSpec([batch, 1], tf.int32, "num_frames"))

    @tf.function(input_signature=[frames, counts])
    def score(rgb_and_audio: tf.Tensor, num_frames: tf.Tensor) -> dict[str, tf.Tensor]:
        # Padding is 0, and adds nothing to the sum.
        means = tf.reduce_sum(tf.cast(rgb_and_audio, tf.float32), axis=1) / tf.cast(num_frames, tf.float32)
        return {changes.get("output", "predictions"): tf.sigmoid(means @ module.kernel)}

    module.score = score
    tf.saved_model.save(module, str(path), signatures={"serving_default": score})
    return str(path)
