"""A report as one HTML page that needs nothing else, and PNG files of its figures beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yt8m_tf
from yt8m_tf import files
from yt8m_tf.errors import InputError
from yt8m_tf.report import classes, ensembles, sections
from yt8m_tf.report.parts import Section
from yt8m_tf.report.predictions import STACKED, Predictions, find_predictions
from yt8m_tf.report.segments import segment_model, segment_runs, segments
from yt8m_tf.report.sources import Workdir, main_model, read_workdir
from yt8m_tf.report.template import render
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
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What a report takes beside the directory.

    Attributes:
      data_dir: where the shards of the validation data are; None: not at hand.
      vocabulary: the dataset's vocabulary.csv; None: `data.vocabulary` of the model below `data_dir`, if it is there.
      model: the run that is looked at closely; None: the final network, or the best one.
      num_shards: validation shards that curves, confusions and examples are from; 0: all.
      num_examples: videos of a kind.
      seed: of the random ones.
      progress: whether to show progress bars.
    """

    data_dir: str | None = None
    vocabulary: str | None = None
    model: str | None = None
    num_shards: int = 100
    num_examples: int = 3
    seed: int = 0
    progress: bool = True


def write_report(path: Path, output: Path, options: Options) -> list[Path]:
    """Writes the report of a pipeline's or a run's directory.

    Args:
      path: the directory; nothing is written there.
      output: the page. Pictures go to a folder beside it, `NAME_files` for `NAME.html`.
      options: what is shown, and of which model.

    Returns:
      The page and the pictures.

    Raises:
      InputError: nothing there to report on, a damaged file, or a page that cannot be written.
    """
    files.check_writable(output, "--output")
    workdir = read_workdir(path)
    model = main_model(workdir, options.model)
    directory = output.with_name(f"{output.stem}_files")
    of_segments = workdir.runs[model].of_segments
    found = {} if of_segments else _predictions(workdir, model, options)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        content = [sections.overview(workdir, model, directory), sections.models(workdir)]
        if not of_segments:
            content += _of_videos(workdir, model, found, directory, options)
        if segment_runs(workdir):
            whose = segment_model(workdir, model)
            content.append(segments(workdir, whose, _class_names(workdir, whose, options), directory))
        with files.whole_file(output) as temporary:
            temporary.write_text(_page(workdir, model, content), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output={output}: cannot be written ({error.strerror}); name another file") from error
    return [output, *sorted(directory.glob("*.png"))]


def _of_videos(
    workdir: Workdir, model: str, found: Mapping[str, Predictions], directory: Path, options: Options
) -> list[Section]:
    """The sections that rest on labels of whole videos."""
    names = _class_names(workdir, model, options)
    whose = model if model in found else next(iter(found), model)  # else the stacked models'
    own = found.get(whose)
    evaluation, evaluate = workdir.evaluations.get(model), classes.commands(workdir, model)
    content = [
        sections.training(workdir, directory),
        classes.quality(model, evaluation, found, evaluate, directory),
        sections.sizes(workdir, model, directory),
    ]
    if workdir.stacks:
        content.append(ensembles.ensembles(workdir, directory, options.num_shards, options.progress))
    return [
        *content,
        classes.classes(evaluation, names, evaluate, directory),
        classes.confused(whose, own, names),
        classes.examples(whose, own, names, options.num_examples, options.seed),
    ]


def _page(workdir: Workdir, model: str, content: Sequence[Section]) -> str:
    kind = "pipeline" if workdir.pipeline else "run"
    return render(
        "page.html",
        title=workdir.path.resolve().name,
        subtitle=f"Report of a {kind}, {workdir.path}, with a closer look at {model}.",
        links=[(section.name, _LINKS[section.name]) for section in content],
        sections=content,
        footer=f"yt8m-report of yt8m_tf {yt8m_tf.__version__}",
    )


def _predictions(workdir: Workdir, model: str, options: Options) -> dict[str, Predictions]:
    """Of the model, of the stacked models, and of the best of these, as far as they can be had."""
    wanted = [model]
    if workdir.split:
        gaps = workdir.gaps[workdir.split]
        wanted += [STACKED, max(workdir.models, key=lambda name: gaps[name])]
    found = {}
    for name in dict.fromkeys(wanted):
        data_dir = options.data_dir if name == model else None  # score shards of the others, or nothing
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
