"""Feature extraction: a recipe, and the backbones that it names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from yt8m_tf import schema
from yt8m_tf.config import checks, strict_yaml
from yt8m_tf.conversion.encoding import Storage
from yt8m_tf.errors import InputError

INCEPTION, VGGISH, LOG_MEL = "inception", "vggish", "log_mel"
PUBLISHED = frozenset({INCEPTION, VGGISH})  # the backbones of YouTube-8M's own features
_KINDS = (INCEPTION, VGGISH, LOG_MEL, "keras:FILE.keras[:LAYER]", "saved_model:DIR[:OUTPUT]", "applications:NAME")
_KERAS = re.compile(r"keras:(.*?\.keras)(?::(.+))?")
_SAVED_MODEL = re.compile(r"saved_model:(.+?)(?::(\w+))?")
_APPLICATION = re.compile(r"applications:(\w+)")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TAKEN = ("id", "video_id", "labels")  # names of other fields of a record

RECIPE = "extraction.json"
# Scalings of pixels from 0 to 255: none, to [0, 1], or those of `keras.applications` with these names.
Scaling = Literal["none", "unit", "tf", "torch", "caffe"]
WithoutAudio = Literal["silence", "skip"]


class PictureBackbone(Protocol):
    """Computes features of pictures."""

    size: int

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        """Prepares a picture [H, W, 3] uint8 for the network, as a small array."""

    def __call__(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the features of N prepared pictures, [N, D] float32."""


class SoundBackbone(Protocol):
    """Computes features of sound."""

    size: int

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        """Computes the features of seconds of sound: [N, 16000] float32 in [-1, 1] -> [N, D] float32."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe: the features to compute from videos, with their backbones and settings.

    Attributes:
      features: name of a feature to its backbone, such as "inception" or "keras:model.keras".
      inception, vggish: directories of the published files.
      image_size, scaling: preparation of pictures for Keras models, SavedModels and applications
        (`networks.PictureNetwork`).
      max_seconds: the length to which videos are cut.
      without_audio: treatment of a video without sound: use silence, or leave the video out.
      storage: data type of the frames in records.
    """

    features: Mapping[str, str]
    inception: str | None = None
    vggish: str | None = None
    image_size: int | None = None
    scaling: Scaling | None = None
    max_seconds: int = schema.MAX_FRAMES
    without_audio: WithoutAudio = "silence"
    storage: Storage = dataclasses.field(default_factory=Storage)

    def __post_init__(self) -> None:
        checks.positive(self, "max_seconds")

    @property
    def weights(self) -> list[Path]:
        """The user's files and directories on which the features depend."""
        named = [
            match[1]
            for text in self.features.values()
            for form in (_KERAS, _SAVED_MODEL)
            if (match := form.fullmatch(text))
        ]
        directories = ((INCEPTION, self.inception), (VGGISH, self.vggish))
        given = [path for kind, path in directories if path is not None and kind in self.features.values()]
        return [Path(path).expanduser() for path in (*named, *given)]


@dataclasses.dataclass(frozen=True)
class Backbones:
    """The backbones of a recipe, by the names of their features."""

    pictures: Mapping[str, PictureBackbone]
    sounds: Mapping[str, SoundBackbone]

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of the features by name, those of pictures first."""
        pictures = {name: backbone.size for name, backbone in self.pictures.items()}
        return pictures | {name: backbone.size for name, backbone in self.sounds.items()}


class LogMel:
    """The mean of a second's log-mel spectrogram: features of sound that need no weights."""

    size = 64

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        """Computes the features of sound: [N, 16000] float32 in [-1, 1] -> [N, 64] float32."""
        from yt8m_tf.extraction.log_mel import log_mel

        return log_mel(seconds).mean(axis=1)


def parse_features(values: Sequence[str], flag: str = "--features") -> dict[str, str]:
    """Reads NAME=BACKBONE.

    Raises:
      InputError: a value is of another form, or a name occurs twice or is that of another field.
    """
    features: dict[str, str] = {}
    for value in values:
        name, _, backbone = value.partition("=")
        if not backbone or not _NAME.fullmatch(name):
            raise InputError(f"{flag}={value}: must be NAME=BACKBONE, such as rgb=inception")
        if name in _TAKEN:
            raise InputError(f"{flag}={value}: '{name}' is the name of another field of records; choose another name")
        if name in features:
            raise InputError(f"{flag}={value}: '{name}' occurs twice; give each feature its own name")
        features[name] = _with_whole_path(backbone)
    return features


def _with_whole_path(text: str) -> str:
    """Makes the path in a backbone absolute, because a recipe is used from other directories, too."""
    for form in (_KERAS, _SAVED_MODEL):
        if match := form.fullmatch(text):
            path = str(Path(match[1]).expanduser().absolute())
            return text.partition(":")[0] + ":" + path + text[match.end(1) :]
    return text


def read_recipe(place: Path, flag: str) -> Recipe:
    """Reads the recipe that yt8m-extract wrote.

    Args:
      place: the directory of its shards, or the file.
      flag: the flag that names the recipe, for messages.

    Raises:
      InputError: there is no recipe, or see `check_recipe`.
    """
    path = place / RECIPE if place.is_dir() else place
    remedy = f"give {flag}=DIR, where yt8m-extract wrote {RECIPE}, or {flag}=NAME=BACKBONE,..."
    recipe: Recipe = strict_yaml.read_json(path, Recipe, remedy)
    if not recipe.features:
        raise InputError(f"{path}: names no features; {remedy}")
    try:
        check_recipe(recipe)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return recipe


def check_recipe(recipe: Recipe) -> None:
    """Checks, without loading networks, that a recipe names known backbones and existing files.

    Raises:
      InputError: it names others, or none.
    """
    if not recipe.features:
        raise InputError("features: none are named; give NAME=BACKBONE, such as rgb=inception")
    for name, text in recipe.features.items():
        if text in PUBLISHED:
            _directory({INCEPTION: recipe.inception, VGGISH: recipe.vggish}[text], name, text)
        elif text != LOG_MEL and not any(form.fullmatch(text) for form in (_KERAS, _SAVED_MODEL, _APPLICATION)):
            raise InputError(f"{name}={text}: no such backbone; give one of {', '.join(_KINDS)}")
    if missing := [path for path in recipe.weights if not path.exists()]:
        raise InputError(f"features: {missing[0]}: no such file or directory; give the path of the backbone")


def load_backbones(recipe: Recipe) -> Backbones:
    """Loads the backbones of a recipe.

    Raises:
      InputError: see `check_recipe`; or a file is damaged, or is not a file of the backbone.
    """
    check_recipe(recipe)
    pictures: dict[str, PictureBackbone] = {}
    sounds: dict[str, SoundBackbone] = {}
    for name, text in recipe.features.items():
        if text == INCEPTION:
            from yt8m_tf.extraction.inception import Inception

            pictures[name] = Inception(_directory(recipe.inception, name, text))
        elif text == VGGISH:
            from yt8m_tf.extraction.vggish import VGGish

            sounds[name] = VGGish(_directory(recipe.vggish, name, text))
        elif text == LOG_MEL:
            sounds[name] = LogMel()
        else:
            _add_network(recipe, name, text, pictures, sounds)
    return Backbones(pictures, sounds)


def _add_network(
    recipe: Recipe, name: str, text: str, pictures: dict[str, PictureBackbone], sounds: dict[str, SoundBackbone]
) -> None:
    from yt8m_tf.extraction import networks

    where = f"{name}={text}"
    if match := _KERAS.fullmatch(text):
        network = networks.load_keras(Path(match[1]).expanduser(), match[2], where)
    elif match := _SAVED_MODEL.fullmatch(text):
        network = networks.load_saved_model(Path(match[1]).expanduser(), match[2], where)
    else:
        network = networks.load_application(text.partition(":")[2], recipe.image_size, where)
    if network.takes_pictures:
        pictures[name] = networks.PictureNetwork(network, recipe.image_size, recipe.scaling, where)
    else:
        sounds[name] = networks.SoundNetwork(network, where)


def _directory(given: str | None, name: str, kind: str) -> Path:
    if given is None:
        raise InputError(f"{name}={kind}: needs --{kind}=DIR, the directory of the published files")
    return Path(given).expanduser()
