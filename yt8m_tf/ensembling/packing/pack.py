"""Packs candidates into one SavedModel within a byte budget: measures, selects, combines and exports."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yt8m_tf.data.faults import Faults
from yt8m_tf.data.shards import list_shards
from yt8m_tf.ensembling import weighted_mean
from yt8m_tf.ensembling.packing import report
from yt8m_tf.ensembling.packing.candidates import Candidate, enough_shards, held_out_shards
from yt8m_tf.ensembling.packing.held_out import HeldOut, read_held_out
from yt8m_tf.ensembling.packing.measure import Option, measure_options, rules_for
from yt8m_tf.ensembling.packing.report import Choice
from yt8m_tf.ensembling.packing.selection import Item, Point, frontier, select, with_fitted_weights
from yt8m_tf.errors import InputError
from yt8m_tf.export.additions import NOTHING_MORE, Additions
from yt8m_tf.export.precision import Precision, Rule
from yt8m_tf.export.report import ExportReport
from yt8m_tf.export.saved_model import TooLargeError, check_target
from yt8m_tf.export.trained import MEASURE_EXAMPLES, export_trained
from yt8m_tf.serving.limits import SIZE_LIMIT
from yt8m_tf.stacking.inputs import StackInputs
from yt8m_tf.vocabulary import chosen_vocabulary, without_descriptions


@dataclasses.dataclass(frozen=True)
class Packed:
    """Result of a packing: the choice, the report of its export, and the files next to the SavedModel."""

    choice: Choice
    export: ExportReport
    files: tuple[Path, ...]


def pack(
    members: Sequence[Candidate],
    precisions: Sequence[Precision],
    output: Path,
    *,
    data_dir: str = ".",
    size_limit: int = SIZE_LIMIT,
    measure_examples: int = MEASURE_EXAMPLES,
    vocabulary: str | None = None,
    additions: Additions = NOTHING_MORE,
    tolerance: float | None = None,
    overwrite: bool = False,
    faults: Faults | None = None,
    progress: bool = True,
) -> Packed:
    """Selects the weighted mean of candidates with the best GAP@20 within a size limit, and exports it.

    Selection uses every second held-out video; quote the GAPs of the other videos. Measurements stay in
    `<output>.pack/`, so that an interrupted packing can be resumed. If a SavedModel turns out too large, the next
    smaller ensemble is exported.

    Args:
      members: candidates from `find_candidates`, at least one.
      precisions: different precisions for the weights of members.
      output: the SavedModel's directory.
      data_dir: the directory to which the runs' patterns of shards are relative.
      size_limit: the largest size of the SavedModel, in bytes.
      measure_examples: the number of held-out videos for selection, in whole shards, and of validation videos on which
        the export is measured.
      vocabulary, additions, tolerance, overwrite, faults: see `export_trained`.
      progress: whether to show progress bars.

    Raises:
      InputError: no candidate fits, scores are of different data, or data are damaged; see `export_trained`.
    """
    check_target(output, overwrite)
    data = members[0].predictor.data
    list_shards(data.validation, data_dir, "data.validation")  # fails now, not hours later when the export is measured
    budget = size_limit
    vocabulary = chosen_vocabulary(vocabulary, data.vocabulary, data.num_classes, data_dir)
    additions.names(vocabulary, data.num_classes)
    if vocabulary is not None:
        budget -= len(without_descriptions(vocabulary).encode())
    shards = enough_shards(held_out_shards(members[0], data_dir), members[0], measure_examples)
    names = [member.name for member in members]
    StackInputs([member.scores for member in members], names, shards)  # checks that they are of the same data
    cache = output.with_name(f"{output.name}.pack")
    options = measure_options(members, precisions, shards, cache, budget, progress)
    items, videos = _read(members, options, shards, progress)
    points = select(items, videos.half(0), budget, progress)
    while True:
        choice = _choose(points, items, options, videos, budget, size_limit)
        files = report.write(choice, cache)
        try:
            exported = _export(
                choice,
                output,
                cache / "run",
                data_dir=data_dir,
                size_limit=size_limit,
                vocabulary=vocabulary or "",
                additions=additions,
                measure_examples=measure_examples,
                tolerance=tolerance,
                overwrite=overwrite,
                faults=faults,
                progress=progress,
            )
            return Packed(choice, exported, files)
        except TooLargeError as error:
            budget = choice.point.num_bytes - error.excess
            if all(point.num_bytes > budget for point in points):
                raise


def _read(
    members: Sequence[Candidate], options: Sequence[Option], shards: Sequence[str], progress: bool
) -> tuple[list[Item], HeldOut]:
    """Reads the inputs of the selection; the first columns are the candidates' own scores, which options may use."""
    directories = [member.scores for member in members]
    names = [member.name for member in members]
    for option in options:
        if option.scores not in directories:
            directories.append(option.scores)
            names.append(option.name)
    items = [
        Item(members.index(option.candidate), directories.index(option.scores), option.num_bytes) for option in options
    ]
    return items, read_held_out(StackInputs(directories, names, shards), progress)


def _choose(
    points: Sequence[Point],
    items: Sequence[Item],
    options: Sequence[Option],
    videos: HeldOut,
    budget: int,
    size_limit: int,
) -> Choice:
    best = frontier([point for point in points if point.num_bytes <= budget])
    chosen = with_fitted_weights(best[-1], items, videos.half(0))
    others = videos.half(1)

    def judged(weights: dict[int, float]) -> float:
        return others.gap(others.weighted_sum(weights))

    line = best if chosen is best[-1] else [*best, chosen]
    return Choice(
        options=tuple(options),
        option_gaps=tuple(judged({item.column: 1}) for item in items),
        full_gaps=tuple(judged({item.candidate: 1}) for item in items),
        points=tuple(line),
        gaps=tuple(judged({items[n].column: weight for n, weight in point.weights.items()}) for point in line),
        met=tuple(points),
        num_videos=(len(videos.labels) - len(others.labels), len(others.labels)),
        size_limit=size_limit,
    )


def _export(choice: Choice, output: Path, run: Path, **arguments: Any) -> ExportReport:
    """Combines the chosen members into a run, and exports it."""
    chosen = choice.members()
    shutil.rmtree(run, ignore_errors=True)
    try:
        workdirs = [option.candidate.workdir for option, _ in chosen]
        weighted_mean.combine(workdirs, [weight for _, weight in chosen], run, chosen[0][0].candidate.which)
        rules = [
            Rule(f"member_{number}_{rule.pattern}", rule.kind, rule.block)
            for number, (option, _) in enumerate(chosen)
            for rule in rules_for(option.candidate, option.precision)
        ]
        described = {"pack": report.described(choice)}
        return export_trained(run, output, precision=Precision(tuple(rules)), report=described, **arguments)
    except TooLargeError:
        raise
    except InputError as error:
        raise InputError(f"{error} (measurements are kept; run the same command again to continue)") from error
    finally:
        shutil.rmtree(run, ignore_errors=True)
