"""Optional parts of a SavedModel besides its two signatures."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping

import tensorflow as tf

from yt8m_tf.config.data import DataConfig, frames_of
from yt8m_tf.data.clips import decode_features, with_frames
from yt8m_tf.data.records import parse_records
from yt8m_tf.errors import InputError
from yt8m_tf.layers.masking import masked_means
from yt8m_tf.vocabulary import load_vocabulary

# The features that the starter code's MediaPipe interface concatenates, in this order.
_JOINED = ("rgb", "audio")


@dataclasses.dataclass(frozen=True)
class Additions:
    """Optional outputs and signatures of a SavedModel.

    Attributes:
      class_names: `serving_default` also gives `class_names` [B, k] string. Needs a vocabulary.
      mediapipe: a signature `mediapipe` with the interface of the starter code's export for MediaPipe:
        `rgb_and_audio` [B, T, 1152] float32, dequantised, rgb first, and `num_frames` [B, 1] int32 -> `predictions`
        [B, C] float32 probabilities. For models of rgb and audio at frame level; frames after `max_frames` are cut off.
        https://github.com/google/youtube-8m/blob/master/export_model_mediapipe.py
      frames: a signature `frames`, for models of video-level features: takes serialized frame-level records
        (`config.data.frames_of`), dequantises and averages their frames, and returns what `serving_default` does.
      embeddings: a signature `embeddings`, which maps the inputs of `features` to `embeddings` [B, D] float32, the
        input of the last layer that is as wide as the classes (`class_layer.embedding_model`).
    """

    class_names: bool = False
    mediapipe: bool = False
    embeddings: bool = False
    frames: bool = False

    def check(self, data: DataConfig) -> None:
        """Raises InputError if a model that reads `data` cannot have one of the signatures."""
        if self.mediapipe:
            frames_specs(data)
        if self.frames and data.level == "frame":
            raise InputError("--frames: the model already reads frame-level records; leave the flag out")

    def names(self, vocabulary: str | os.PathLike[str] | None, num_classes: int) -> list[str] | None:
        """Returns the names for the output `class_names`; None if it is not wanted.

        Raises:
          InputError: it is wanted, but no vocabulary is known.
        """
        if not self.class_names:
            return None
        if vocabulary is None:
            raise InputError("--class_names: no names are known; give --vocabulary=FILE, or leave the flag out")
        return load_vocabulary(os.fspath(vocabulary), num_classes)


NOTHING_MORE = Additions()


def means_of_records(examples: tf.Tensor, data: DataConfig) -> dict[str, tf.Tensor]:
    """Converts frame-level records to the features of a video-level model.

    Args:
      examples: [B] serialized `tf.train.SequenceExample`; the graph fails if one has no frames.
      data: the data of the model.

    Returns:
      "id" [B] string, and for each feature the mean of its dequantised frames, [B, D] float32.
    """
    clips = frames_of(data)
    batch = with_frames(parse_records(examples, clips.records))
    decoded = decode_features(batch, clips.spec)
    return {"id": batch["id"]} | masked_means(decoded, data.sizes)


def frames_specs(data: DataConfig) -> dict[str, tf.TensorSpec]:
    """Returns the specs of the arguments of the signature `mediapipe`.

    Raises:
      InputError: the model does not read frames of rgb and audio.
    """
    if data.level != "frame" or {*data.sizes} != {*_JOINED}:
        raise InputError(
            f"--mediapipe: the model reads {' and '.join(data.sizes)} at {data.level} level, and MediaPipe gives frames"
            " of rgb and audio; leave the flag out, or export a model of these"
        )
    size = sum(data.sizes.values())
    return {
        "rgb_and_audio": tf.TensorSpec([None, None, size], tf.float32, name="rgb_and_audio"),
        "num_frames": tf.TensorSpec([None, 1], tf.int32, name="num_frames"),
    }


def frames_function(
    score: Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]], data: DataConfig
) -> Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """Builds the function of the signature `mediapipe`; `score` takes float32 frames as they are."""

    def score_frames(arguments: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        frames = arguments["rgb_and_audio"][:, : data.max_frames]  # [B, T, D]
        parts = tf.split(frames, [data.sizes[name] for name in _JOINED], axis=2)
        num_frames = tf.minimum(arguments["num_frames"][:, 0], tf.shape(frames)[1])
        return score({**dict(zip(_JOINED, parts, strict=True)), "num_frames": num_frames})

    return score_frames
