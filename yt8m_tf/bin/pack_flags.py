"""The flags of yt8m-export --pack, and the packing that they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

PACK = flags.DEFINE_bool(
    "pack", False, "Choose the members of a weighted mean among --candidates, and export that, instead of --workdir."
)
_CANDIDATES = flags.DEFINE_list(
    "candidates", None, "With --pack: run directories of one fold of each model (a pattern may name them)."
)
_SCORES = flags.DEFINE_list(
    "scores",
    None,
    "With --pack: score shards of the candidates out of fold, NAME or NAME/SPLIT (a pattern may name them).",
)
_PRECISIONS = flags.DEFINE_list(
    "precisions",
    ["float16", "cluster"],
    "With --pack: storage formats to try for a member's weights, separated by commas: float16, float32, cluster,"
    " cluster@N or the path of a YAML list of rules (see --precision).",
)
NAMES = ("candidates", "scores", "precisions")


def first() -> Path:
    """Returns the run directory of the first candidate."""
    from yt8m_tf import files

    return files.matching(_CANDIDATES.value, "--candidates")[0]


def pack(output: str, which: str, **arguments: Any) -> str:
    """Packs `which` checkpoints ("best" or "last") of the candidates, and returns the text to print.

    The other arguments are those of `packing.pack.pack`.

    Raises:
      InputError: a flag is missing; see `packing.pack.pack`.
    """
    from yt8m_tf import files
    from yt8m_tf.ensembling.packing import report
    from yt8m_tf.ensembling.packing.candidates import find_candidates
    from yt8m_tf.ensembling.packing.pack import pack
    from yt8m_tf.errors import InputError
    from yt8m_tf.export.precision import parse_precision

    for name, value, example in (
        ("candidates", _CANDIDATES.value, "runs/*/fold_0"),
        ("scores", _SCORES.value, "scores/*/train"),
        ("precisions", _PRECISIONS.value, "float16,cluster"),
    ):
        if not value:
            raise InputError(f"--{name}: --pack needs it, such as --{name}='{example}'")
    try:
        precisions = [parse_precision(text) for text in _PRECISIONS.value]
    except InputError as error:
        raise InputError(f"--precisions={','.join(_PRECISIONS.value)}: {error}") from error
    precisions = list({str(precision): precision for precision in precisions}.values())
    members = find_candidates(
        files.matching(_CANDIDATES.value, "--candidates"), files.matching(_SCORES.value, "--scores"), which
    )
    packed = pack(members, precisions, Path(output), **arguments)
    return "\n".join(
        [
            report.format_frontier(packed.choice),
            "",
            *report.format_precisions(packed.choice),
            "",
            report.format_members(packed.choice),
            "",
            *packed.export.lines(),
            f"frontier: {', '.join(map(str, packed.files))}",
        ]
    )
