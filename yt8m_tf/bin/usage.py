"""The text of `--help`, and one-line explanations of invalid flags."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags

from yt8m_tf.config.strict_yaml import nearest
from yt8m_tf.console.command_line import command_line

_WIDEST = 120
# The flags of `fault_flags` and `label_flags` that each command has.
_CLIPS, _LABELS = ("on_damaged", "on_empty"), ("on_unlabelled",)
FAULT_FLAGS = {
    "evaluate": (*_CLIPS, *_LABELS),
    "export": (*_CLIPS, *_LABELS),
    "infer": _CLIPS,
    "kmeans": _CLIPS,
    "score": _CLIPS,
    "score-submission": _LABELS,
    "stack": _LABELS,
    "train": (*_CLIPS, *_LABELS),
}

# Flags of which an empty value means something: no names, no column of splits, every name, no figure.
_MAY_BE_EMPTY = {
    "yt8m-convert": ("split_column",),
    "yt8m-export": ("vocabulary",),
    "yt8m-extract": ("split_column",),
    "yt8m-models": ("match",),
    "benchmark": ("match",),
    "label_noise": ("figure",),
    "mutate": ("match",),
    "run_experiments": ("match",),
}


def help_text(command: str, description: str, module: str, shared: str, everything: bool) -> str:
    """Returns the text of `--help`: the description, then the command's own flags with their defaults.

    Args:
      command: the command's name.
      description: what it does, with an example.
      module: the name of the module whose key flags are the command's own.
      shared: the name of the module that defines the flags of all commands, which come last.
      everything: whether to include the flags of libraries.
    """
    own = _key_flags(module)
    common = [flag for flag in _key_flags(shared) if flag not in own]
    parts = [
        description.strip(),
        f"Flags of {command}:\n\n{_listing(own)}",
        f"Flags of every command:\n\n{_listing(common)}",
    ]
    if everything:
        known = {flag.name: flag for flag in map(flags.FLAGS.__getitem__, flags.FLAGS)}
        others = [flag for name, flag in sorted(known.items()) if flag not in own and flag not in common]
        parts.append(f"Flags of the libraries:\n\n{_listing(others)}")
    return "\n\n".join(parts)


def explain(error: flags.Error, command: str, description: str) -> str:
    """Explains an error in the flags, in one line with the remedy.

    Args:
      error: the error of absl's parser.
      command: the command's name.
      description: what it does, with an example that shows values of flags.
    """
    return f"{_problem(error, description)}; '{command} --help' shows all flags"


def empty_flag(command: str, description: str, module: str) -> str | None:
    """Returns an explanation of the first flag that was given an empty text, list or element of a repeated flag.

    Without it, such a flag would be ignored, or fail in each command in its own way.

    Args:
      command, description: see `explain`.
      module: the name of the module whose key flags are the command's own.
    """
    for flag in _key_flags(module):
        values = flag.value if "multi" in flag.flag_type() else [flag.value]
        is_empty = flag.present and any(value in ("", []) for value in values)
        if is_empty and flag.name not in _MAY_BE_EMPTY.get(command, ()):
            leave_out = "" if _is_required(flag) else ", or leave it out"
            return f"--{flag.name}=: empty; give {_example(flag.name, description)}{leave_out}"
    return None


def _problem(error: flags.Error, description: str) -> str:
    text = str(error)
    if isinstance(error, flags.UnrecognizedFlagError):
        known = [f"--{name}" for name in flags.FLAGS]
        return f"--{error.flagname}: unknown flag{nearest(f'--{error.flagname}', known)}"
    if missing := re.findall(r"^flag --(\w+)=None: ", text, re.MULTILINE):
        named = " and ".join(f"--{name}" for name in missing)
        return f"{named}: missing; give {' '.join(_example(name, description) for name in missing)}"
    if exclusive := re.search(r"(Exactly|At most) one of \(([^)]*)\)", text):
        names = [f"--{name}" for name in exclusive[2].split(", ")]
        given = [name for name in names if flags.FLAGS[name[2:]].value is not None]
        if len(given) > 1:
            return f"{' and '.join(given)}: exclude each other; give one of them"
        named = f"{', '.join(names[:-1])} or {names[-1]}"
        return f"{named}: missing; give one of them, such as {_example(names[0][2:], description)}"
    if illegal := re.match(r"flag (--(\w+)=.*?): ", text, re.DOTALL):
        return f"{illegal[1]}: must be {_wanted(flags.FLAGS[illegal[2]])}"
    if lacking := re.match(r"Missing value for flag --?(\w+)", text):
        return f"--{lacking[1]}: lacks its value; give {_example(lacking[1], description)}"
    return " ".join(text.split())


def _key_flags(module: str) -> list[Any]:
    return flags.FLAGS.get_key_flags_for_module(module)


def _listing(listed: Sequence[Any]) -> str:
    width = min(shutil.get_terminal_size((100, 0)).columns, _WIDEST)
    return "\n".join(
        f"  {_head(flag)}\n"
        + textwrap.fill(
            f"{_help(flag)} {_default(flag)}",
            width,
            initial_indent=" " * 6,
            subsequent_indent=" " * 6,
            break_on_hyphens=False,
        )
        for flag in listed
    )


def _help(flag: Any) -> str:
    text = " ".join((flag.help or "").split())
    return (
        re.sub(r"^<[^>]*>: ", "", text) if "enum" in flag.flag_type() else text
    )  # absl repeats the values in the help text


def _head(flag: Any) -> str:
    """Returns the flag with a placeholder for its value, as on a command line."""
    kind = flag.flag_type()
    if kind == "bool":
        return f"--[no]{flag.name}"
    if "enum" in kind:
        return f"--{flag.name}={'|'.join(flag.parser.enum_values)}"
    value = {"int": "N", "float": "X"}.get(kind, "TEXT,..." if "list" in kind else "TEXT")
    return f"--{flag.name}={value}"


def _default(flag: Any) -> str:
    if _is_required(flag):
        return "(required)"
    if flag.default is None or flag.default in ("", []):
        return "(default: none)"
    return f"(default: {flag.default_as_str.strip(chr(39))})"


def _is_required(flag: Any) -> bool:
    """Returns whether a flag is required, that is, has a validator that checks only this flag and rejects None."""
    return any(hasattr(own, "flag_name") and not own.checker(None) for own in flag.validators)


def _wanted(flag: Any) -> str:
    """Returns a description of the values that a flag takes."""
    kind, parser = flag.flag_type(), flag.parser
    if kind == "bool":
        return f"true or false; write --{flag.name} or --no{flag.name}"
    if "enum" in kind:
        return " or ".join(parser.enum_values)
    words = {"int": "a whole number", "float": "a number"}.get(kind, "text")
    low, high = getattr(parser, "lower_bound", None), getattr(parser, "upper_bound", None)
    if low is not None:
        words += f" of at least {low}"
    return f"{words}{' and' if low is not None else ' of'} at most {high}" if high is not None else words


def _example(name: str, description: str) -> str:
    """Returns the flag with the value in the command's example, or with a placeholder."""
    found = re.search(rf"--{name}=('[^']*'|\S+)", description)
    return found[0] if found else f"--{name}=VALUE"


def next_command(command: str, *arguments: str, **values: object) -> str:
    """Returns "next: " and a command line (`console.command_line`).

    Faults in the data that this command was told to tolerate are tolerated by the next one, too, if it has the flag.
    """
    for name in FAULT_FLAGS.get(command, ()):
        if name in flags.FLAGS and flags.FLAGS[name].value != flags.FLAGS[name].default:
            values[name] = flags.FLAGS[name].value
    return f"next: {command_line(command, *arguments, **values)}"


def parse_comma_list(text: str) -> list[str]:
    """Inverts `comma_list`: splits a text as absl's list flags do."""
    return flags.ListParser().parse(text)
