"""Flags of feature extraction from videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from yt8m_tf.extraction.backbones import Recipe

_DIRECTORIES = {
    name: flags.DEFINE_string(name, None, f"Directory with the published files of the backbone {name}.")
    for name in ("inception", "vggish")
}
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Height and width that pictures are resized to for Keras models, SavedModels and applications; the default is what"
    " the model takes, or 224.",
    lower_bound=1,
)
_SCALING = flags.DEFINE_enum(
    "scaling",
    None,
    ["none", "unit", "tf", "torch", "caffe"],
    "Pixel values that these models expect: 0 to 255, 0 to 1, -1 to 1, or as Keras scales them for networks of"
    " PyTorch and Caffe; the default is an application's own scaling, or none.",
)
_MAX_SECONDS = flags.DEFINE_integer("max_seconds", 303, "Seconds of a video; the rest is left out.", lower_bound=1)
_WITHOUT_AUDIO = flags.DEFINE_enum(
    "without_audio",
    "silence",
    ["silence", "skip"],
    "Action on a video without sound if sound features are wanted: use those of silence, or leave it out.",
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    ["uint8", "float16", "float32"],
    "Storage of frames; the default is uint8 for inception and vggish, as in the dataset, and float16 for others.",
)
_RANGE = flags.DEFINE_list("range", ["-2", "2"], "Values that the codes 0 and 255 of uint8 stand for.")
_ALL = (*_DIRECTORIES.values(), _IMAGE_SIZE, _SCALING, _MAX_SECONDS, _WITHOUT_AUDIO, _DTYPE, _RANGE)


def recipe(features: Sequence[str], flag: str) -> Recipe:
    """Reads the recipe of features from the flags.

    Args:
      features: a text NAME=BACKBONE for each feature.
      flag: the flag with which they were given, for messages.

    Raises:
      InputError: a flag cannot be used.
    """
    from yt8m_tf.conversion.encoding import Dtype, Storage
    from yt8m_tf.extraction.backbones import PUBLISHED, Recipe, parse_features

    parsed = parse_features(features, flag)
    dtype: Dtype = _DTYPE.value or ("uint8" if set(parsed.values()) <= PUBLISHED else "float16")
    return Recipe(
        parsed,
        **{name: _whole_path(flag) for name, flag in _DIRECTORIES.items()},
        image_size=_IMAGE_SIZE.value,
        scaling=_SCALING.value,
        max_seconds=_MAX_SECONDS.value,
        without_audio=_WITHOUT_AUDIO.value,
        storage=Storage.parse(dtype, _RANGE.value, "--range"),
    )


def recipe_or_stored(values: Sequence[str], flag: str) -> Recipe:
    """Reads the recipe that yt8m-extract stored if `values` is one path, and otherwise the recipe of the flags.

    Raises:
      InputError: a flag cannot be used, or there is no recipe at the path.
    """
    from yt8m_tf import files
    from yt8m_tf.errors import InputError
    from yt8m_tf.extraction.backbones import read_recipe

    if len(values) != 1 or "=" in values[0]:
        return recipe(values, flag)
    if given := [own.name for own in _ALL if flags.FLAGS[own.name].present]:
        raise InputError(f"--{given[0]}: already set by {flag}={values[0]}; leave the flag out")
    return read_recipe(files.local_path(values[0], flag), flag)


def _whole_path(flag: flags.FlagHolder) -> str | None:
    from yt8m_tf import files

    return None if flag.value is None else str(files.local_path(flag.value, f"--{flag.name}").absolute())
