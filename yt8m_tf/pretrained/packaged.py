"""The words that stand for what comes with the package, where a path is taken.

A directory or file of the same name in the working directory is named with a path: `./pretrained`, `./examples`.
"""

from __future__ import annotations

from pathlib import Path

from yt8m_tf.errors import InputError

MODEL = "pretrained"
# MODEL_CARD.md says what they hold, and whose they are.
_EXAMPLES = {"examples": "validate0139.tfrecord", "examples:frame": "SjJ3.tfrecord"}

_DIRECTORY = Path(__file__).parent


def saved_model(value: str, option: str) -> str:
    """The directory of a SavedModel that a user names: `pretrained` is the one that comes with the package.

    Args:
      value: the word, or a path, which stays as it is.
      option: the flag or key, such as "--saved_model", for messages.

    Raises:
      InputError: it is the word, and the package was installed without the model.
    """
    return str(_packaged("model/saved_model.pb", value, option).parent) if value == MODEL else value


def shards(pattern: str, option: str) -> str:
    """A pattern of shards that a user gives: `examples` are the packaged video-level records of a real shard,
    `examples:frame` a real frame-level clip.

    Args:
      pattern: one of the words, or a pattern, which stays as it is.
      option: the flag or key, for messages; "" where it is not known.

    Raises:
      InputError: it is a word, and the package was installed without the records.
    """
    return str(_packaged(f"examples/{_EXAMPLES[pattern]}", pattern, option)) if pattern in _EXAMPLES else pattern


def _packaged(name: str, word: str, option: str) -> Path:
    path = _DIRECTORY / name
    if not path.is_file():
        given = f"{option}={word}" if option else word
        raise InputError(
            f"{given}: {path} is missing; install the package again, from its wheel or a whole checkout, or give a path"
        )
    return path
