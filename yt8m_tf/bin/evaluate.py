"""Evaluates a trained model: GAP@20, Hit@1, PERR, mAP, BCE and calibration, overall and per class.

Prints a table, and writes metrics.json (everything, with calibration bins) and classes.csv (one line per class). GAP@20
has a bootstrap interval, the middle 95 % of 200 resamples of the videos. --against=OTHER evaluates another run or
SavedModel on the same shards, too, and gives the interval of the difference over the same resamples: one model is
better if the interval excludes 0.

With --projector, the run's TensorBoard shows the class weights, with the names, verticals and average precision of the
classes.

A SavedModel, also a third-party one, gives only the highest scores of each video. A class that is not among them counts
as not predicted. BCE and calibration are left out, as is PERR if a video has more labels than scores.

--thresholds writes, for each class, the score threshold with the best F1 on these videos, for yt8m-infer --threshold. A
class beyond a video's 20 highest scores counts as not predicted, and classes with few positives share one threshold.
This takes no more memory than the metrics do, below 1 kB per video.

Example:

  yt8m-evaluate --workdir=runs/resnet_like --data_dir=DATA/2/video --vocabulary=vocabulary.csv
  yt8m-evaluate --workdir=runs/resnet_like --data_dir=DATA/2/video --thresholds=thresholds.csv
  yt8m-evaluate --workdir=runs/resnet_like --data_dir=DATA/2/video --vocabulary=vocabulary.csv --projector
  yt8m-evaluate --workdir=runs/resnet_like --data_dir=DATA/2/video --against=exported/resnet_like/1
  yt8m-evaluate --saved_model=exported/resnet_like/1 --data_dir=DATA/2/video --input='validate*.tfrecord' \\
      --output=evaluation
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from yt8m_tf.bin import checkpoint_flags, fault_flags, label_flags, model_flags
from yt8m_tf.bin.launch import launch
from yt8m_tf.bin.usage import next_command

if TYPE_CHECKING:
    from yt8m_tf.data.faults import Faults
    from yt8m_tf.evaluation.against import Difference
    from yt8m_tf.metrics.accumulator import Metrics
    from yt8m_tf.metrics.rated_pairs import RatedMetrics

_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory of yt8m-train.")
_DATA_DIR = flags.DEFINE_string("data_dir", ".", "Directory to which patterns of shards are relative.")
_INPUT = flags.DEFINE_list("input", None, "Patterns of labelled shards; the default is a run's data.validation.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory for the results; the default is WORKDIR/evaluation.")
_NUM_CLASSES = flags.DEFINE_integer(
    "num_classes",
    None,
    "Number of classes of a SavedModel that does not state it; the default is 3862, as in the 2018 version.",
    lower_bound=1,
)
_VOCABULARY = flags.DEFINE_string(
    "vocabulary",
    None,
    "The dataset's vocabulary.csv, for names of classes; the default is the run's data.vocabulary below --data_dir, if"
    " it is there, or the names in a SavedModel.",
)
_PROJECTOR = flags.DEFINE_bool(
    "projector", False, "Write the class weights of a run for TensorBoard's projector; --vocabulary names them."
)
_THRESHOLDS = flags.DEFINE_string("thresholds", None, "CSV file to write the thresholds of the best F1 to.")
_MIN_POSITIVES = flags.DEFINE_integer(
    "min_positives",
    10,
    "Positive videos that a class needs for its own threshold; all classes with fewer share one.",
    lower_bound=1,
)
_AGAINST = flags.DEFINE_string(
    "against", None, "Another run or SavedModel, or pretrained, to evaluate on the same shards and compare GAP@20 with."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Examples evaluated together; the default is 1024 at video level, 128 at frame level.",
    lower_bound=1,
)
_XLA = flags.DEFINE_bool("xla", True, "Compile the forward pass of a run with XLA.")
flags.adopt_module_key_flags(checkpoint_flags)
flags.adopt_module_key_flags(fault_flags)
flags.adopt_module_key_flags(label_flags)
flags.adopt_module_key_flags(model_flags)
flags.mark_flags_as_mutual_exclusive(["workdir", "saved_model", "bundle"], required=True)


def main(_: Sequence[str]) -> None:
    if _AGAINST.value is not None:
        from yt8m_tf.evaluation import against

        against.check_model(_other_model())  # before minutes of work
    if model_flags.is_given():
        _evaluate_saved_model()
    else:
        _evaluate_run()


def _evaluate_saved_model() -> None:
    from yt8m_tf import files, locks
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.errors import InputError
    from yt8m_tf.evaluation import runs
    from yt8m_tf.evaluation.saved_models import evaluate_scorer
    from yt8m_tf.schema import NUM_CLASSES
    from yt8m_tf.serving.metadata import read_names
    from yt8m_tf.serving.scorer import load_scorer
    from yt8m_tf.vocabulary import load_vocabulary

    if _PROJECTOR.value:
        raise InputError("--projector: shows the weights of a run; name one with --workdir, not a SavedModel")
    if not _INPUT.value or _OUTPUT.value is None:
        missing = "--output: name a directory for the results" if _INPUT.value else "--input: name labelled shards"
        raise InputError(f"{missing}; a SavedModel has no directory or data for them")
    output = files.local_path(_OUTPUT.value, "--output")
    _check_thresholds(_VOCABULARY.value, os.path.join(model_flags.path(), "assets"))
    shards = list_shards(_INPUT.value, _DATA_DIR.value, "--input")
    faults = fault_flags.faults(label_flags.ON_UNLABELLED.value)
    with locks.exclusive(output, "--output", "evaluates"), model_flags.saved_model() as directory:
        scorer = load_scorer(directory, 1, model_flags.flag(), _NUM_CLASSES.value, NUM_CLASSES)
        own = _VOCABULARY.value and Path(_VOCABULARY.value).expanduser()
        names = load_vocabulary(own, scorer.num_classes) if own else read_names(directory, scorer.num_classes)
        metrics = evaluate_scorer(
            scorer,
            shards,
            batch_size=_BATCH_SIZE.value,
            faults=faults,
            min_positives=_min_positives(),
            keep_ids=_AGAINST.value is not None,
        )
        compared = _compare(metrics, _INPUT.value, faults)
        context = {"model": model_flags.flag(), "patterns": list(_INPUT.value), "data_dir": _DATA_DIR.value}
        runs.write_evaluation(
            metrics, output, vocabulary=names, context=context, against=compared.to_dict() if compared else None
        )
        told = _write_thresholds(metrics, names)
    print(f"model: SavedModel of {model_flags.flag()}")
    print(runs.format_table(metrics))
    if compared:
        print(compared.line())
    print("from the highest scores of each video: a class that is not among them counts as not predicted")
    print(f"written: {output / runs.METRICS_FILE}, {output / runs.CLASSES_FILE}")
    for line in told:
        print(line)
    for line in faults.summary():
        print(line)


def _compare(metrics: Metrics | RatedMetrics, patterns: Sequence[str], faults: Faults) -> Difference | None:
    """Compares the model with that of --against. Faults in the data have already been reported."""
    from yt8m_tf.evaluation import against

    if _AGAINST.value is None:
        return None
    return against.measure(
        metrics,
        _other_model(),
        patterns,
        _DATA_DIR.value,
        which=checkpoint_flags.CHECKPOINT.value,
        batch_size=_BATCH_SIZE.value,
        faults=faults.anew(),
        xla=_XLA.value,
    )


def _other_model() -> Path:
    """Returns the local path of the SavedModel that --against names."""
    from yt8m_tf import files
    from yt8m_tf.pretrained import packaged

    return files.local_path(packaged.saved_model(_AGAINST.value, "--against"), "--against")


def _min_positives() -> int | None:
    return _MIN_POSITIVES.value if _THRESHOLDS.value is not None else None


def _check_thresholds(*inputs: str | None) -> None:
    """Checks before the work that the file of thresholds can be written, and is none of the files that are read."""
    from yt8m_tf import files
    from yt8m_tf.errors import InputError

    if _THRESHOLDS.value is None:
        return
    path = files.local_path(_THRESHOLDS.value, "--thresholds")
    if path.suffix != ".csv":  # as no shard and no file of a run is named, except those of its evaluation
        raise InputError(f"--thresholds={path}: not the name of a table; give one that ends in .csv")
    files.check_no_input([path], filter(None, inputs), f"--thresholds={path}")
    files.check_writable(path, "--thresholds")


def _write_thresholds(metrics: Metrics | RatedMetrics, names: Sequence[str] | None) -> list[str]:
    """Writes the thresholds, if they were asked for, and returns the lines to print."""
    from yt8m_tf import files
    from yt8m_tf.serving.thresholds import write_thresholds

    found = metrics.thresholds
    if found is None:
        return []
    path = files.local_path(_THRESHOLDS.value, "--thresholds")
    write_thresholds(path, found, names)
    own = int(found.own.sum())
    return [
        f"thresholds: {path} ({own:,} classes of {_MIN_POSITIVES.value} positives or more have their own, the"
        f" other {len(found.own) - own:,} share {found.shared:.4f})"
    ]


def _evaluate_run() -> None:
    from yt8m_tf import files, locks, run_dir
    from yt8m_tf.evaluation import projector, runs
    from yt8m_tf.models.class_layer import class_weights
    from yt8m_tf.training.checkpoints import load_trained
    from yt8m_tf.vocabulary import chosen_vocabulary, load_details

    workdir = files.local_path(_WORKDIR.value, "--workdir")
    output = workdir / "evaluation" if _OUTPUT.value is None else files.local_path(_OUTPUT.value, "--output")
    faults = fault_flags.faults(label_flags.ON_UNLABELLED.value)
    trained = load_trained(workdir, checkpoint_flags.CHECKPOINT.value)
    data = trained.experiment.data
    given = _VOCABULARY.value and os.path.expanduser(_VOCABULARY.value)
    vocabulary = chosen_vocabulary(given, data.vocabulary, data.num_classes, _DATA_DIR.value)
    _check_thresholds(vocabulary)
    details = load_details(vocabulary, data.num_classes) if vocabulary else None
    if _PROJECTOR.value:
        weights = class_weights(trained.model, data.spec, "--projector")
    patterns = _INPUT.value or data.validation
    context = {"workdir": str(workdir), "step": trained.step, "patterns": list(patterns), "data_dir": _DATA_DIR.value}
    with locks.exclusive(output, "--output", "evaluates"):
        metrics = runs.evaluate_trained(
            trained,
            patterns,
            _DATA_DIR.value,
            batch_size=_BATCH_SIZE.value,
            faults=faults,
            xla=_XLA.value,
            min_positives=_min_positives(),
            keep_ids=_AGAINST.value is not None,
        )
        compared = _compare(metrics, patterns, faults)
        names = details["name"] if details else None
        runs.write_evaluation(
            metrics, output, vocabulary=names, context=context, against=compared.to_dict() if compared else None
        )
        told = _write_thresholds(metrics, names)
    print(
        f"model: {trained.experiment.model['name']}, {checkpoint_flags.CHECKPOINT.value} checkpoint of {workdir}:"
        f" step {trained.step:,}"
    )
    print(runs.format_table(metrics))
    if compared:
        print(compared.line())
    print(f"written: {output / runs.METRICS_FILE}, {output / runs.CLASSES_FILE}")
    for line in told:
        print(line)
    if _PROJECTOR.value:
        projector.write_projector(workdir / run_dir.PROJECTOR, weights, metrics, details)
        print(f"class weights: tensorboard --logdir={workdir}, tab Projector")
    print(next_command("export", workdir=workdir, output=f"exported/{workdir.name}/1", data_dir=_DATA_DIR.value))
    for line in faults.summary():
        print(line)


def run() -> None:
    """Runs the console script."""
    launch(main)


if __name__ == "__main__":
    run()
