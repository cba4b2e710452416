"""Words that commands accept instead of a path, for the model and the records in the package.

Files of the same name in the working directory need a path: `./pretrained`, `./examples`.
"""

from __future__ import annotations

from pathlib import Path

from yt8m_tf.errors import InputError

MODEL = "pretrained"
# MODEL_CARD.md describes them, and names their owners.
_EXAMPLES = {"examples": "validate0139.tfrecord", "examples:frame": "SjJ3.tfrecord"}

_DIRECTORY = Path(__file__).parent


def saved_model(value: str, option: str) -> str:
    """Returns the directory of a SavedModel; `pretrained` names the one in the package.

    Args:
      value: the word, or a path, which is returned unchanged.
      option: the flag or key, such as "--saved_model", for messages.

    Raises:
      InputError: the word was given, but the package was installed without the model.
    """
    return str(_packaged("model/saved_model.pb", value, option).parent) if value == MODEL else value


def shards(pattern: str, option: str) -> str:
    """Returns a pattern of shards: for `examples` real video-level records, for `examples:frame` a real clip.

    Args:
      pattern: one of the words, or a pattern, which is returned unchanged.
      option: the flag or key, for messages; "" if it is not known.

    Raises:
      InputError: a word was given, but the package was installed without the records.
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
