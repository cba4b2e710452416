"""The first section of a report: the best model and its lead, the one to serve, and surprises, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from yt8m_tf.console.tables import size
from yt8m_tf.report import figures
from yt8m_tf.report.analysis import paired_interval, prior_gap
from yt8m_tf.report.hints import Hints
from yt8m_tf.report.parts import Missing, Part, Prose, Section, Tiles
from yt8m_tf.report.predictions import STACKED, Predictions
from yt8m_tf.report.workdir import COMBINATION, FINAL, FIRST_LEVEL, STUDENT, Export, Workdir
from yt8m_tf.stacking.settings import OUT_OF_FOLD

_LOST = 0.0005  # smallest loss of GAP@20 by weights in fewer bits that is reported
_RISING = 0.001  # smallest rise of GAP@20 at the last evaluation, likewise
_APART = 0.02  # smallest difference of GAP@20 out of fold and on validation videos, likewise


def overview(workdir: Workdir, model: str, found: Mapping[str, Predictions], hints: Hints, directory: Path) -> Section:
    """Returns the section with the main figures, and GAP@20 of all models.

    Args:
      workdir: the directory that the report describes.
      model: the model that is analysed in detail.
      found: predictions by name of the model, if they are known.
      hints: commands that create what is missing.
      directory: directory for pictures.
    """
    gaps = workdir.validation_gaps
    parts: list[Part] = []
    if gaps:
        paragraphs = [_best(workdir, gaps, found), _to_serve(workdir, model, gaps)]
        parts.append(Prose(paragraphs, "Unexpected results:", _surprises(workdir, model, gaps)))
    if not workdir.runs[model].of_segments and model not in workdir.evaluations:
        parts += [*_while_training(workdir, model), Missing(f"No evaluation of {model} yet", hints.evaluate(model))]
    if tiles := _tiles(workdir, model, gaps):
        parts.append(Tiles(tiles))
    if len(gaps) > 1:
        parts.append(figures.draw_gaps(gaps, workdir.kind, workdir.reachable, directory))
    return Section("overview", "At a glance", parts)


def _tiles(workdir: Workdir, model: str, gaps: Mapping[str, float]) -> list[tuple[str, str]]:
    tiles = []
    if model in workdir.evaluations:
        found = workdir.evaluations[model].metrics
        metrics = found["metrics"]
        tiles.append((f"GAP@20 of {model}", f"{metrics['gap_at_20']:.4f}"))
        if interval := found.get("intervals", {}).get("gap_at_20"):  # a release before this key left it out
            title = f"{interval['level']:.0%} interval of GAP@20, over videos"
            tiles.append((title, f"{interval['low']:.4f} to {interval['high']:.4f}"))
        tiles.append(("Hit@1", f"{metrics['hit_at_1']:.4f}"))
        tiles += [
            (title, f"{metrics[name]:.4f}") for name, title in (("perr", "PERR"), ("map", "mAP")) if name in metrics
        ]
        tiles.append(("validation videos", f"{found['num_videos']:,}"))
    if model in workdir.segment_evaluations:
        tiles.append(("MAP over rated pairs", f"{workdir.segment_evaluations[model].metrics['metrics']['map']:.4f}"))
    tiles += [(f"size of {export.path}", size(export.num_bytes)) for export in workdir.exports_of(model)]
    if singles := [name for name in gaps if name in workdir.models]:
        tiles.append((f"best first-level model, {singles[0]}", f"{gaps[singles[0]]:.4f}"))
    if STACKED in gaps:
        tiles.append(("LightGBM over all of them", f"{gaps[STACKED]:.4f}"))
    return tiles


def _best(workdir: Workdir, gaps: Mapping[str, float], found: Mapping[str, Predictions]) -> str:
    """Returns a text on the best model: its lead, and the interval of that lead. `gaps` starts with the highest."""
    best, *others = gaps
    videos = next((own.metrics["num_videos"] for own in workdir.evaluations.values()), None)
    where = f"the {videos:,} validation videos" if videos else "the validation videos"
    prior = _prior(workdir)
    known = f" A model that knows only how frequent classes are would have {prior:.4f}." if prior else ""
    limit = f" No model can be expected to exceed {workdir.reachable:.4f}." if workdir.reachable else ""
    if not others:
        return f"{best} has a GAP@20 of {gaps[best]:.4f} on {where}.{known}{limit}"
    text = (
        f"The best of {len(gaps)} on {where} is {best} ({workdir.kind(best)}), with a GAP@20 of {gaps[best]:.4f}:"
        f" {gaps[best] - gaps[others[0]]:.4f} above {others[0]}"
    )
    with_scores = [name for name in others if name in found] if best in found else []
    intervals = ((name, _interval(found[best], found[name])) for name in with_scores)
    compared, interval = next(((name, words) for name, words in intervals if words), (None, ""))
    if compared is None:
        return f"{text}. The uncertainty of this difference is not known: it needs the scores of both.{known}{limit}"
    if compared != others[0]:
        text += f", and {gaps[best] - gaps[compared]:.4f} above {compared}"
    return f"{text} ({interval}).{known}{limit}"


def _interval(own: Predictions, other: Predictions) -> str:
    """Describes the paired interval; "" if the two have different videos."""
    interval = paired_interval(own, other)
    if interval is None:
        return ""
    told = "" if interval.excludes_zero else ", which includes 0: the difference is not significant"
    return (
        f"paired {interval.level:.0%} interval over {len(own.ids):,} videos {interval.low:+.4f} to"
        f" {interval.high:+.4f}{told}"
    )


def _while_training(workdir: Workdir, model: str) -> list[Part]:
    """Describes the best evaluation during training, for a run that was not evaluated afterwards."""
    known = [entry for entry in workdir.runs[model].histories[0] if "gap_at_20" in entry]
    if not known:
        return []
    best = max(known, key=lambda entry: entry["gap_at_20"])
    videos = f" on {best['num_videos']:,} validation videos" if "num_videos" in best else ""
    return [Prose([f"The best GAP@20 of {model} during training was {best['gap_at_20']:.4f}{videos}."])]


def _prior(workdir: Workdir) -> float | None:
    for own in workdir.evaluations.values():
        if own.metrics.get("num_videos") and any(own.num_positives):
            return prior_gap(own.num_positives, own.metrics["num_videos"])
    return None


def _to_serve(workdir: Workdir, model: str, gaps: Mapping[str, float]) -> str:
    """Describes the export with the highest GAP@20, and its cost."""
    if not workdir.exports:
        return f"No model is exported for serving yet; this page takes a closer look at {model}."
    export: Export = max(workdir.exports, key=lambda own: own.gap)
    best, rate = next(iter(gaps)), export.rate
    cost = size(export.num_bytes)
    if rate is not None:
        cost += f" and {rate[1]:,.0f} videos/s in batches of {rate[0]}, on the machine that exported it"
    below = f", {gaps[best] - export.gap:.4f} below {best}" if export.model != best else ""
    return f"The one to serve is {export.path}, with a GAP@20 of {export.gap:.4f}{below}. It costs {cost}."


def _surprises(workdir: Workdir, model: str, gaps: Mapping[str, float]) -> list[str]:
    """Returns a sentence for each unexpected result."""
    of_kind = {kind: [name for name in gaps if workdir.kind(name) == kind] for kind in map(workdir.kind, gaps)}
    found = []
    for name in of_kind.get(FINAL, ()):
        above = [other for other in gaps if gaps[other] > gaps[name] and workdir.kind(other) in (FIRST_LEVEL, STUDENT)]
        if above:
            listed = ", ".join(f"{other} ({gaps[other]:.4f})" for other in above[:4])
            more = f" and {len(above) - 4} more" if len(above) > 4 else ""
            found.append(f"{name} ({gaps[name]:.4f}) is below simpler models that it builds on: {listed}{more}.")
    singles = of_kind.get(FIRST_LEVEL, [])
    weak = [name for name in of_kind.get(COMBINATION, ()) if name not in workdir.runs]  # of only first-level models
    if singles and (weak := [name for name in weak if gaps[name] < gaps[singles[0]]]):
        found.append(
            f"The best first-level model alone, {singles[0]} ({gaps[singles[0]]:.4f}), is above combinations of"
            f" all: {', '.join(f'{name} ({gaps[name]:.4f})' for name in weak)}."
        )
    found += [
        f"{name} ({gaps[name]:.4f}) is above LightGBM, on whose scores it was trained."
        for name in of_kind.get(STUDENT, ())
        if workdir.runs[name].experiment.labels.soft and gaps[name] > gaps.get(STACKED, math.inf)
    ]
    out_of_fold = workdir.gaps.get(OUT_OF_FOLD, {}).get(STACKED)
    if out_of_fold is not None and STACKED in gaps and abs(out_of_fold - gaps[STACKED]) > _APART:
        found.append(f"LightGBM has {out_of_fold:.4f} out of fold, and {gaps[STACKED]:.4f} on the validation videos.")
    for export in workdir.exports:
        if (lost := float(export.report["metrics"]["gap_float32"]) - export.gap) > _LOST:
            found.append(f"{export.path} lost {lost:.4f} of GAP@20 to the lower precision of its weights.")
    last = [entry["gap_at_20"] for entry in workdir.runs[model].histories[0] if "gap_at_20" in entry][-2:]
    if len(last) == 2 and last[1] - last[0] > _RISING:
        found.append(
            f"GAP@20 of {model} was still rising at its last evaluation, by {last[1] - last[0]:.4f}: longer training"
            " may help."
        )
    return found
