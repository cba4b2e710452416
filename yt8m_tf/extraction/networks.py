"""Any Keras model, SavedModel or network of `keras.applications` as a backbone, for pictures or for sound.

The shape of a model's input says what it takes: pictures [N, H, W, 3], log-mel examples of a second [N, 96, 64] or
[N, 96, 64, 1], or the samples of a second [N, 16000].
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf import files
from yt8m_tf.config.strict_yaml import nearest
from yt8m_tf.errors import InputError
from yt8m_tf.extraction.decoding import SAMPLE_RATE
from yt8m_tf.extraction.log_mel import NUM_BANDS, NUM_STEPS, log_mel

DEFAULT_IMAGE_SIZE = 224  # of networks that take pictures of any size
_EXAMPLE = (NUM_STEPS, NUM_BANDS)
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Network:
    """A model as a function.

    Attributes:
      call: maps [N, ...] of `input_shape` to [N, D], or to [N, h, w, D], which is averaged over positions.
      input_shape: shape of an input, without N; None for a dimension of any size.
      dtype: dtype of the input.
      preprocess: maps float32 pixels [N, H, W, 3] in [0, 255] to the input, if the network has such a function.
      owner: the owner of its variables, which is kept alive.
    """

    call: Callable[[tf.Tensor], tf.Tensor]
    input_shape: tuple[int | None, ...]
    dtype: tf.DType
    preprocess: Callable[[Any], Any] | None = None
    owner: Any = None

    @property
    def takes_pictures(self) -> bool:
        """Returns whether the network takes pictures; otherwise it takes sound."""
        return len(self.input_shape) == 3 and self.input_shape[-1] == 3

    def features(self, inputs: tf.Tensor) -> np.ndarray:
        """Computes the features [N, D] float32 of N inputs.

        Raises:
          ValueError: the output has another rank.
        """
        batches = [inputs[first : first + _BATCH] for first in range(0, len(inputs), _BATCH)]
        return np.concatenate([_pooled(self.call(tf.cast(batch, self.dtype))) for batch in batches])


class PictureNetwork:
    """A network as a backbone for pictures.

    Args:
      network: a network that takes pictures.
      image_size: pictures are resized to this height and width, bilinearly; None: what the network takes, or 224.
      scaling: scaling of pixels (`backbones.Scaling`); None: the network's own, or "none".
      where: the feature and its backbone as the user gave them, for messages.

    Attributes:
      size: D.

    Raises:
      InputError: the network does not take such pictures, or does not return vectors.
    """

    def __init__(self, network: Network, image_size: int | None, scaling: str | None, where: str):
        fixed = network.input_shape[:2]
        own = {side for side in fixed if side is not None}
        if image_size is not None and own - {image_size}:
            raise InputError(f"--image_size={image_size}: {where} takes {max(own)}; leave the flag out")
        height, width = (side or image_size or DEFAULT_IMAGE_SIZE for side in fixed)
        self._shape = (height, width)
        self._network, self._scaling = network, scaling
        self.size = _size_of(network, (height, width, 3), where)

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        """Resizes a picture: [H, W, 3] uint8 -> [h, w, 3] float32 in [0, 255]."""
        if picture.shape[:2] == self._shape:
            return picture.astype(np.float32)
        return tf.image.resize(picture, self._shape, antialias=True).numpy()

    def __call__(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Computes the features of prepared pictures: [N, D] float32."""
        pictures = np.stack(prepared)
        if self._network.dtype == tf.uint8:
            pictures = np.round(pictures)
        if self._scaling is not None:
            pictures = _scaled(pictures, self._scaling)
        elif self._network.preprocess is not None:
            pictures = self._network.preprocess(pictures)
        return self._network.features(tf.convert_to_tensor(pictures))


class SoundNetwork:
    """A network as a backbone for sound.

    Args:
      network: a network that takes log-mel examples or samples.
      where: the feature and its backbone as the user gave them, for messages.

    Attributes:
      size: D.

    Raises:
      InputError: the network takes neither, or does not return vectors.
    """

    def __init__(self, network: Network, where: str):
        shape = network.input_shape
        self._takes_samples = shape in ((SAMPLE_RATE,), (None,))
        if not self._takes_samples and shape not in (_EXAMPLE, (*_EXAMPLE, 1)):
            raise InputError(
                f"{where}: takes inputs of the shape {shape}; it must take pictures [H, W, 3],"
                f" log-mel examples {[*_EXAMPLE]}, or the {SAMPLE_RATE:,} samples of a second"
            )
        self._network = network
        self.size = _size_of(network, tuple(map(_known, shape)), where)

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        """Computes the features of sound: [N, 16000] float32 in [-1, 1] -> [N, D] float32."""
        inputs = seconds if self._takes_samples else log_mel(seconds)
        return self._network.features(tf.reshape(inputs, [len(seconds), *map(_known, self._network.input_shape)]))


def load_keras(path: Path, layer: str | None, where: str) -> Network:
    """Loads a network from a `.keras` file.

    Args:
      path: path of the file; a file with code (a Lambda layer) is rejected.
      layer: the layer whose output is used; None: the model's output.
      where: the feature and its backbone as the user gave them, for messages.

    Raises:
      InputError: the model cannot be loaded, has several inputs or outputs, or has no such layer.
    """
    import keras

    if not path.is_file():
        raise InputError(f"{where}: no such file; give a model that model.save('NAME.keras') wrote")
    try:
        model = keras.saving.load_model(str(path), compile=False, safe_mode=True)
    except Exception as error:  # raised by zipfile, h5py or any layer
        raise InputError(f"{where}: cannot be loaded ({_one_line(error)}); save it again with Keras 3") from error
    inputs, outputs = (getattr(model, ends, None) or [] for ends in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1:
        what = f"{len(inputs)} inputs and {len(outputs)} outputs"
        raise InputError(f"{where}: has {what}; give a functional or sequential model with one of each")
    names = [own.name for own in model.layers]
    if layer is not None and layer not in names:
        raise InputError(f"{where}: has no such layer{nearest(layer, names)}")
    # A new model, because the file's may take its one input in a list or a dictionary.
    return _keras_network(keras.Model(inputs[0], outputs[0] if layer is None else model.get_layer(layer).output))


def load_application(name: str, image_size: int | None, where: str) -> Network:
    """Loads a network of `keras.applications` without its top, with ImageNet weights from the user's Keras cache.

    Args:
      name: a name such as "EfficientNetB0".
      image_size: height and width of the pictures; None: 224.
      where: the feature and its backbone as the user gave them, for messages.

    Raises:
      InputError: there is no network of this name, or its weights are not in the cache; nothing is downloaded.
    """
    import keras

    known = [own for own in dir(keras.applications) if own[0].isupper()]
    if name not in known:
        raise InputError(f"{where}: keras.applications has no such network{nearest(name, known)}")
    build, size = getattr(keras.applications, name), image_size or DEFAULT_IMAGE_SIZE
    try:
        with _from_cache(where), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MobileNet's weights are for another size, which does not matter
            model = build(include_top=False, pooling="avg", weights="imagenet", input_shape=(size, size, 3))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{where}: its cached weights cannot be loaded ({_one_line(error)}); fetch them again"
        ) from error
    return _keras_network(model, sys.modules[build.__module__].preprocess_input)


def load_saved_model(directory: Path, output: str | None, where: str) -> Network:
    """Loads the default signature of a SavedModel as a network.

    Args:
      directory: directory of the SavedModel.
      output: output of the signature; None: its only one.
      where: the feature and its backbone as the user gave them, for messages.

    Raises:
      InputError: the SavedModel cannot be loaded, or has no such signature, several inputs, or no such output.
    """
    try:
        loaded = tf.saved_model.load(files.plain(directory))
        signature = loaded.signatures["serving_default"]
    except Exception as error:  # a SavedModel of another program may raise anything
        raise InputError(
            f"{where}: not a SavedModel with a signature 'serving_default' ({_one_line(error)}); give one that has it"
        ) from error
    inputs, outputs = signature.structured_input_signature[1], list(signature.structured_outputs)
    if len(inputs) != 1:
        raise InputError(f"{where}: its signature has {len(inputs)} inputs; give one that takes only pictures")
    if output is None and len(outputs) > 1:
        example = f"{where}:{outputs[0]}"
        raise InputError(f"{where}: has the outputs {', '.join(sorted(outputs))}; name one, such as {example}")
    chosen = outputs[0] if output is None else output
    if chosen not in outputs:
        raise InputError(f"{where}: has no such output{nearest(chosen, outputs)}")
    ((key, spec),) = inputs.items()

    return Network(lambda values: signature(**{key: values})[chosen], tuple(spec.shape[1:]), spec.dtype, owner=loaded)


def _keras_network(model: Any, preprocess: Callable[[Any], Any] | None = None) -> Network:
    call = tf.function(lambda values: model(values, training=False), reduce_retracing=True)
    (given,) = model.inputs
    return Network(call, tuple(given.shape[1:]), tf.as_dtype(given.dtype), preprocess)


def _size_of(network: Network, shape: tuple[int, ...], where: str) -> int:
    """Finds D by a call."""
    try:
        return network.features(tf.zeros([1, *shape], network.dtype)).shape[1]
    except Exception as error:  # a model may raise anything for an unsuitable input
        raise InputError(
            f"{where}: fails on an input of the shape {shape} ({_one_line(error)}); give another model or layer"
        ) from error


def _pooled(values: tf.Tensor) -> np.ndarray:
    if values.shape.rank == 4:
        values = tf.reduce_mean(values, axis=[1, 2])
    if values.shape.rank != 2:
        raise ValueError(f"its output has the shape {values.shape}, not one vector for each input")
    return tf.cast(values, tf.float32).numpy()


def _scaled(pictures: np.ndarray, scaling: str) -> np.ndarray:
    """Scales float32 pixels [N, H, W, 3] from [0, 255]."""
    if scaling == "none":
        return pictures
    if scaling == "unit":
        return pictures / 255
    from keras.applications.imagenet_utils import preprocess_input

    return preprocess_input(pictures.copy(), data_format="channels_last", mode=scaling)


@contextlib.contextmanager
def _from_cache(where: str) -> Iterator[None]:
    """Makes Keras take weights from its cache in the block, and download none."""
    from keras.src.utils import file_utils  # called by its applications; there is no public switch

    def cached(name: str, origin: str, cache_subdir: str = "models", **_: object) -> str:
        folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / cache_subdir
        if not (folder / name).is_file():
            raise InputError(f"{where}: '{name}' is not in {folder}; put it there: it is published at {origin}")
        return str(folder / name)

    original = file_utils.get_file
    file_utils.get_file = cached
    try:
        yield
    finally:
        file_utils.get_file = original


def _known(side: int | None) -> int:
    return SAMPLE_RATE if side is None else side


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
