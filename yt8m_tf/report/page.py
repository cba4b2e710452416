"""Writes a report as one self-contained HTML page, with PNG files of its figures beside it."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yt8m_tf
from yt8m_tf import files
from yt8m_tf.errors import InputError
from yt8m_tf.report import classes, ensembles, sections
from yt8m_tf.report.drawing import Palette
from yt8m_tf.report.hints import Hints
from yt8m_tf.report.origin import origin
from yt8m_tf.report.overview import overview
from yt8m_tf.report.parts import Section
from yt8m_tf.report.predictions import STACKED, Predictions, find_predictions
from yt8m_tf.report.segments import segment_model, segment_runs, segments
from yt8m_tf.report.sources import read_workdir
from yt8m_tf.report.template import render
from yt8m_tf.report.workdir import Workdir, main_model
from yt8m_tf.vocabulary import load_vocabulary

_LINKS = {
    "overview": "At a glance",
    "models": "Models",
    "training": "Training",
    "quality": "Precision",
    "sizes": "Size",
    "ensembles": "Ensembles",
    "classes": "Classes",
    "confusions": "Confusions",
    "examples": "Examples",
    "segments": "Segments",
    "origin": "How it was made",
}
_COMPARED = 2  # number of best models that are compared on the same videos


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a report.

    Attributes:
      data_dir: directory of the validation shards; None if they are not available.
      vocabulary: the dataset's vocabulary.csv; None: the model's `data.vocabulary`, if it exists below `data_dir`.
      model: the run that is analysed in detail; None: the final network, or the best one.
      num_shards: number of validation shards for curves, confusions and examples; 0: all.
      num_examples: number of example videos of each kind.
      seed: seed of the random examples.
      progress: whether to show progress bars.
    """

    data_dir: str | None = None
    vocabulary: str | None = None
    model: str | None = None
    num_shards: int = 100
    num_examples: int = 3
    seed: int = 0
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
      page: the page.
      pictures: the PNG files beside it.
      model: the model that it analyses in detail.
      checkpoint: that model's checkpoint, in words.
      next_command: the command to run next.
    """

    page: Path
    pictures: Sequence[Path]
    model: str
    checkpoint: str
    next_command: str


def write_report(path: Path, output: Path, options: Options) -> Report:
    """Writes the report of a pipeline's or a run's directory.

    Args:
      path: the directory, which is not changed.
      output: the page. Pictures go to a folder beside it, `NAME_files` for `NAME.html`.
      options: what is shown, and of which model.

    Raises:
      InputError: there is nothing to report on, a file is damaged, or the page cannot be written.
    """
    files.check_writable(output, "--output")
    workdir = read_workdir(path)
    model = main_model(workdir, options.model)
    hints = Hints(workdir, output, options.data_dir, options.vocabulary, options.model)
    directory = output.with_name(f"{output.stem}_files")
    of_segments = workdir.runs[model].of_segments
    found = {} if of_segments else _predictions(workdir, model, options)
    palette = _palette(workdir, model)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        content = [overview(workdir, model, found, hints, directory), sections.models(workdir, hints)]
        if not of_segments:
            content += _of_videos(workdir, model, found, hints, palette, directory, options)
        if segment_runs(workdir):
            whose = segment_model(workdir, model)
            names = _class_names(workdir, whose, options)
            content.append(segments(workdir, whose, names, hints, palette, directory))
        content.append(origin(workdir, model))
        with files.whole_file(output) as temporary:
            temporary.write_text(_page(workdir, model, content), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output={output}: cannot be written ({error.strerror}); name another file") from error
    pictures = sorted(directory.glob("*.png"))
    return Report(output, pictures, model, _checkpoint(workdir, model), _next(workdir, model, found, hints))


def _of_videos(
    workdir: Workdir,
    model: str,
    found: Mapping[str, Predictions],
    hints: Hints,
    palette: Palette,
    directory: Path,
    options: Options,
) -> list[Section]:
    """Returns the sections that need labels of whole videos."""
    names, evaluation = _class_names(workdir, model, options), workdir.evaluations.get(model)
    content = [
        sections.training(workdir, hints, palette, directory),
        classes.quality(model, evaluation, found, hints, palette, directory),
        sections.sizes(workdir, model, hints, palette, directory),
    ]
    if workdir.stacks:
        shown = options.num_shards, options.progress
        content.append(ensembles.ensembles(workdir, hints, palette, directory, *shown))
    return [
        *content,
        classes.classes(model, evaluation, names, hints, directory),
        classes.confused(model, found, names, hints),
        classes.examples(model, found, names, options.num_examples, options.seed, hints),
    ]


def _page(workdir: Workdir, model: str, content: Sequence[Section]) -> str:
    name = "/".join(workdir.path.resolve().parts[-2:]).lstrip("/")
    experiment = workdir.runs[model].experiment
    what = f"{experiment.data.level} level, {experiment.data.num_classes:,} classes"
    if workdir.pipeline:
        title = f"Pipeline {name}: {len(workdir.runs)} models, {experiment.data.num_classes:,} classes"
    else:
        title = f"Run {name}: {experiment.model['name']}, {what}"
    return render(
        "page.html",
        title=title,
        subtitle=f"{workdir.path}, with a closer look at {model} ({_checkpoint(workdir, model)}).",
        links=[(section.name, _LINKS[section.name]) for section in content],
        sections=content,
        footer=(
            f"Written by yt8m-report of yt8m_tf {yt8m_tf.__version__}, {datetime.date.today().isoformat()}. Words such"
            " as GAP@20, Hit@1 and out of fold: docs/GLOSSARY.md."
        ),
    )


def _checkpoint(workdir: Workdir, model: str) -> str:
    run = workdir.runs[model]
    if run.best_step is None:
        return "no checkpoint"
    first = " of fold 0" if len(run.directories) > 1 else ""
    return f"{run.experiment.model['name']}, checkpoint of step {run.best_step:,}{first}"


def _next(workdir: Workdir, model: str, found: Mapping[str, Predictions], hints: Hints) -> str:
    """Returns the command to run next: the first one that adds what the page lacks, or else export or inference."""
    evaluated = workdir.runs[model].of_segments or model in workdir.evaluations or workdir.runs[model].best_step is None
    if not evaluated:
        return hints.evaluate(model)
    if not workdir.runs[model].of_segments and model not in found and hints.data_dir is None:
        return hints.report()
    exports = workdir.exports_of(model)
    return hints.infer(exports[0]) if exports else hints.export(model)


def _palette(workdir: Workdir, model: str) -> Palette:
    """Returns the colours of models: the first for `model`, then those of the others, the best first."""
    trained = sorted(workdir.runs.values(), key=lambda run: -sections.mean_history(run, "gap_at_20").rank)
    return Palette([model, *workdir.validation_gaps, *(run.name for run in trained)])


def _predictions(workdir: Workdir, model: str, options: Options) -> dict[str, Predictions]:
    """Returns the available predictions of `model`, LightGBM, the best first-level model, and the best models."""
    gaps = workdir.validation_gaps
    stacked = [name for name in gaps if name in workdir.models]
    best = list(gaps)[:_COMPARED]
    found = {}
    for name in dict.fromkeys([model, STACKED, *stacked[:1], *best]):
        data_dir = options.data_dir if name in (model, *best) else None  # the others only have score shards
        own = find_predictions(workdir, name, data_dir, options.num_shards, options.progress)
        if own is not None:
            found[name] = own
    return found


def _class_names(workdir: Workdir, model: str, options: Options) -> Callable[[int], str]:
    data = workdir.runs[model].experiment.data
    vocabulary, own = options.vocabulary, files.below(options.data_dir or "", data.vocabulary)
    if vocabulary is None and options.data_dir is not None and Path(own).is_file():
        vocabulary = own
    evaluation = workdir.evaluations.get(model) or workdir.segment_evaluations.get(model)
    names = load_vocabulary(vocabulary, data.num_classes) if vocabulary else evaluation.names if evaluation else None
    return lambda number: names[number] if names and names[number] else f"class {number}"
