"""The tables and the figure of tools/label_noise.py, made from its JSON files."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/label_noise.py")

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf.report import drawing
from yt8m_tf.stacking.report import save_figure

HARD, STUDENTS, LIGHTGBM = "hard", ("half", "soft"), "LightGBM"
_NAMES = {HARD: "hard labels", "half": "student, half soft", "soft": "student, soft alone", LIGHTGBM: LIGHTGBM}


def recovered(student: float, hard: float, hard_without_noise: float) -> float | None:
    """Returns the share of the GAP@20 lost to wrong labels that a student recovers.

    Args:
      student, hard: GAP@20 of a student, and of the same model on hard labels, of which a share is wrong.
      hard_without_noise: GAP@20 of the model on hard labels that are all right.

    Returns:
      0 for a student that is no better than the model on hard labels, 1 for one that is as good as without wrong
      labels, more for a better one; None if wrong labels do not lower GAP@20.
    """
    cost = hard_without_noise - hard
    return (student - hard) / cost if cost > 0 else None


def gains(student: Sequence[float], hard: Sequence[float]) -> list[float]:
    """Returns, for each seed, the student's gain over the same model trained on hard labels with the same seed."""
    return [mine - twin for mine, twin in zip(student, hard, strict=True)]


def tables(levels: Sequence[Mapping[str, Any]]) -> str:
    """Returns three Markdown tables: GAP@20 of the models, gains of the students, and the noise left in the labels.

    Args:
      levels: the contents of the JSON files, by share of wrong labels, which is 0 in the first.
    """
    return "\n\n".join("\n".join(part) for part in (_scores(levels), _gains(levels), _labels(levels)))


def _scores(levels: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [_row("GAP@20", *(f"{level['percent']} % wrong" for level in levels)), _rule(1 + len(levels))]
    for against in ("truth", "noisy"):
        title = "the truth" if against == "truth" else "labels as wrong as the training labels"
        lines.append(_row(f"**against {title}**", *[""] * len(levels)))
        for name in levels[0][against]:
            lines.append(_row(_NAMES.get(name, name), *(_spread(level[against][name]) for level in levels)))
        lines.append(_row("reachable", *(f"{level['reachable'][against]:.4f}" for level in levels)))
        if against == "truth":
            cells = (f"{level['reachable']['truth_from_noisy_labels']:.4f}" for level in levels)
            lines.append(_row("reachable by a perfect fit to the training labels", *cells))
    return lines


def _gains(levels: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [_row("against the truth", "loss from wrong labels", "student", "gain, in points", "recovered"), _rule(5)]
    clean = statistics.fmean(levels[0]["truth"][HARD])
    for level in levels:
        hard = statistics.fmean(level["truth"][HARD])
        for name in (*STUDENTS, LIGHTGBM):
            values = level["truth"][name]
            mean = statistics.fmean(values)
            own = gains(values, level["truth"][HARD]) if name in STUDENTS else [mean - hard]
            share = recovered(mean, hard, clean) if level["percent"] else None
            cells = (_NAMES[name], _spread([100 * gain for gain in own], "+.2f"), _percent(share))
            lines.append(_row(f"{level['percent']} % wrong", f"{100 * (clean - hard):.2f}", *cells))
    return lines


def _labels(levels: Sequence[Mapping[str, Any]]) -> list[str]:
    header = ("training videos", "labels", "precision", "recall", "F1", "squared error of a video", "GAP@20")
    lines = [_row(*header), _rule(len(header))]
    for level in levels:
        for name, title in ((HARD, "hard, as written"), ("half", "half soft"), ("soft", "soft, out of fold")):
            own = level["labels"][name]
            # Half-soft labels are at least 0.5 for the classes of the hard ones.
            named = ["" if name == "half" else f"{own[key]:.3f}" for key in ("precision", "recall", "f1")]
            cells = [*named, f"{own['squared_error']:.3f}"]
            gap = f"{level['labels']['soft_gap_at_20']['truth']:.4f}" if name == "soft" else ""
            lines.append(_row(f"{level['percent']} % wrong", title, *cells, gap))
    return lines


def draw(levels: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws GAP@20 against the truth by share of wrong labels: means, and bars from the lowest to the highest seed."""
    percents = [level["percent"] for level in levels]
    path.parent.mkdir(parents=True, exist_ok=True)
    palette = drawing.Palette(list(_NAMES))
    with drawing.canvas((5.5, 4)) as (figure, axes):
        for name, title in _NAMES.items():
            seeds = [level["truth"][name] for level in levels]
            means = [statistics.fmean(values) for values in seeds]
            below = [mean - min(values) for mean, values in zip(means, seeds, strict=True)]
            above = [max(values) - mean for mean, values in zip(means, seeds, strict=True)]
            line = palette.line(name)
            axes.errorbar(percents, means, [below, above], label=title, marker="o", markersize=4, capsize=3, **line)
        for key, title, dashes in (
            ("truth", "reachable", "--"),
            ("truth_from_noisy_labels", "a perfect fit to the labels trained on", ":"),
        ):
            limit = [level["reachable"][key] for level in levels]
            axes.plot(percents, limit, label=title, color="#888888", linestyle=dashes)
        axes.set_xticks(percents)
        axes.set_xlabel("wrong labels among those trained on, %")
        axes.set_ylabel("GAP@20 against the truth")
        drawing.legend_below(figure, len(_NAMES) + 2)
        save_figure(figure, path)


def _spread(values: Sequence[float], form: str = ".4f") -> str:
    mean = f"{statistics.fmean(values):{form}}"
    return f"{mean} ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else mean


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return "|---" + "|---:" * (columns - 1) + "|"
