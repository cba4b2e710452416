"""Exports a run directory to a SavedModel, and compares the two on validation data."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf import files, run_dir
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import LabelsConfig
from yt8m_tf.console.progress import Progress
from yt8m_tf.data import records
from yt8m_tf.data.clips import model_inputs
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import at_least_one, evaluation_stream, limited, scoring_batch_size
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.export import lite, measure, saved_model
from yt8m_tf.export.additions import NOTHING_MORE, Additions
from yt8m_tf.export.precision import ENTRIES, FLOAT16, Precision, growing_rules, unused_rules
from yt8m_tf.export.report import REPORT_FILE, ExportReport, peak_bytes
from yt8m_tf.export.stored import stored_bytes
from yt8m_tf.export.strip import strip_report
from yt8m_tf.export.strip_checkpoint import checkpoint_bytes
from yt8m_tf.layers.noise import GaussianNoise
from yt8m_tf.serving.limits import SIZE_LIMIT
from yt8m_tf.serving.metadata import METADATA_FILE, without_paths
from yt8m_tf.training.checkpoints import Trained, find_checkpoint, open_trained
from yt8m_tf.vocabulary import chosen_vocabulary

# Enough to tell apart models that are almost the same; the scores take 1.5 GB on disk in the meantime.
MEASURE_EXAMPLES = 100_000

_RATED_SIZES = (1, 64)  # batch sizes at which speed is measured, besides the default one of scoring
_PARTS = 4  # parts of a batch of the default size; a whole one is too large with a large model, 0.2 GB for the final


def export_trained(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    data_dir: str = ".",
    which: str = "best",
    precision: Precision = FLOAT16,
    size_limit: int = SIZE_LIMIT,
    vocabulary: str | None = None,
    additions: Additions = NOTHING_MORE,
    measure_examples: int = MEASURE_EXAMPLES,
    tolerance: float | None = None,
    tflite: bool = False,
    report: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    faults: Faults | None = None,
    progress: bool = True,
) -> ExportReport:
    """Exports a run's model; the SavedModel appears only if it is within the size limit and the tolerance.

    The trained model scores the validation data first. It is released before the SavedModel is written (weight by
    weight) and loaded. At most the float32 weights, or the stored weights together with the float32 weights decoded
    from them, are therefore in memory at a time. Measurements are written to `assets/metadata.json` (GAP and scores, as
    "metrics") and `assets.extra/export_report.json` (all).

    Args:
      workdir: run directory.
      output: the SavedModel's directory.
      data_dir: the directory to which the run's `data.validation` is relative.
      which: "best" or "last" checkpoint.
      precision, size_limit, additions, overwrite: see `saved_model.export_saved_model`.
      vocabulary: a file with the names of the classes; None: the run's `data.vocabulary` below `data_dir`, if it exists
        and names all classes; "": none.
      measure_examples: number of validation examples to compare on, the first ones.
      tolerance: largest accepted change of GAP@20; None: 1e-3 for clustered weights, 1e-4 for float16, 1e-6 for
        float32.
      tflite: also write `assets.extra/model.tflite` (`lite`), always with float16 weights. `tolerance` applies to its
        GAP@20, too; None: 1e-4.
      report: entries to add to `assets.extra/export_report.json`.
      faults: treatment of faults in the validation data; the default leaves out clips without frames.
      progress: whether to show progress bars.

    Raises:
      InputError: a rule of `precision` matches no variable; see also `load_trained`, `list_shards`,
        `saved_model.export_saved_model`, `lite.convert`, `measure.compare`, `measure.Comparison.check`.
    """
    start = time.perf_counter()
    source = _Source(Path(workdir), which, data_dir, measure_examples, faults or Faults(on_empty="skip"), progress)
    vocabulary = chosen_vocabulary(vocabulary, source.data.vocabulary, source.data.num_classes, data_dir)
    additions.names(vocabulary, source.data.num_classes)  # reports impossible requests before minutes of work
    additions.check(source.data)
    with saved_model.replacing(output, overwrite) as temporary, _scratch(temporary) as scratch:
        _check_rules(source, precision, size_limit)
        reference = _score_trained(source, Path(scratch, "scores"))
        gc.collect()  # weights and the graphs traced over them refer to each other
        size = _write(source, temporary, precision, size_limit, vocabulary, additions, tflite)
        gc.collect()
        comparison, load_seconds, rates = _measure(source, temporary, reference)
        comparison.check(measure.TOLERANCE[precision.coarsest] if tolerance is None else tolerance)
        lite_comparison = _measure_lite(source, temporary / lite.LITE_FILE, reference) if tflite else None
        if lite_comparison is not None:
            lite_comparison.check(
                measure.TOLERANCE["float16"] if tolerance is None else tolerance,
                "the LiteRT model, whose weights are float16 whatever --precision says,",
                "leave --tflite out",
            )
        _add_metrics(temporary / "assets" / METADATA_FILE, comparison)
        found = ExportReport(
            size=size,
            comparison=comparison,
            lite=lite_comparison,
            load_seconds=load_seconds,
            videos_per_second={batch: (reference.videos_per_second[batch], rate) for batch, rate in rates.items()},
            seconds=time.perf_counter() - start,
            peak_bytes=peak_bytes(),
            stripped=strip_report(checkpoint_bytes(find_checkpoint(source.workdir, which)[0]), size.total_bytes),
        )
        return _write_report(temporary, found, report or {})


def _write_report(directory: Path, found: ExportReport, more: Mapping[str, Any]) -> ExportReport:
    """Writes the report, whose total includes its own bytes."""
    (directory / REPORT_FILE).parent.mkdir(exist_ok=True)
    total = -1
    while total != found.size.total_bytes:
        total = found.size.total_bytes
        files.write_json(directory / REPORT_FILE, {**found.to_dict(), **more})
        size = dataclasses.replace(found.size, total_bytes=saved_model.bytes_on_disk(directory))
        found = dataclasses.replace(found, size=size)
    found.size.check()
    return found


def _scratch(directory: Path) -> tempfile.TemporaryDirectory[str]:
    """Makes a temporary directory on the same disk, whose name shows what it is if a killed process leaves it."""
    return tempfile.TemporaryDirectory(prefix=f"{directory.name}.scores.", dir=directory.parent)


class _Source:
    """A run, and the validation data on which its model is measured."""

    def __init__(self, workdir: Path, which: str, data_dir: str, num_examples: int, faults: Faults, progress: bool):
        self.workdir, self.which, self._num_examples, self._progress = workdir, which, num_examples, progress
        self._faults = faults
        faults.of_model(f"the model in {workdir}")
        # The export scores whole clips, so it is measured on whole clips, also for a model of rated segments.
        self.data: DataConfig = dataclasses.replace(run_dir.read_experiment(workdir).data, segments=None)
        self._shards = list_shards(self.data.validation, data_dir, "data.validation")
        self._counted = False

    def batches(self, title: str = "") -> measure.Batches:
        """Returns the batches of the validation data, with a progress bar if there is a title."""
        size = scoring_batch_size(self.data.level) // _PARTS
        # The data is read several times; tolerated faults are counted the first time.
        own, self._counted = self._faults if not self._counted else dataclasses.replace(self._faults), True
        stream = at_least_one(
            evaluation_stream(self._shards, self.data, size, faults=own),
            self._shards,
            own,
            "data.validation: no video to measure with was read",
        )
        with self.bar(title, " videos") as bar:
            for batch in limited(stream, self._num_examples):
                yield batch
                bar.update(int(tf.math.count_nonzero(batch["valid"])))

    def bar(self, title: str, unit: str, total: int | None = None) -> Progress:
        hidden = not (title and self._progress)
        return Progress(desc=title, total=total, unit=unit, unit_scale=True, mininterval=0.5, disable=hidden)

    def features(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: batch[name] for name in records.feature_specs(self.data)}


def _check_rules(source: _Source, precision: Precision, size_limit: int) -> None:
    """Checks the precision rules and the size of the weights before scoring, which takes minutes."""
    weights = open_trained(source.workdir, source.which)[0].model.weights
    sizes: dict[str, int] = {}
    for variable in weights:
        layer = variable.path.split("/")[0]
        sizes[layer] = sizes.get(layer, 0) + stored_bytes(variable, precision)
    if unused := unused_rules(precision, weights):
        raise InputError(
            f"--precision: no variable's path fits '{unused[0].pattern}'; the model's layers are: {', '.join(sizes)}"
        )
    for rule, variable in growing_rules(precision, weights):
        raise InputError(
            f"--precision: '{rule}' stores '{variable.path}' {list(variable.shape)} in more bytes than float32 does: a"
            f" codebook of {ENTRIES} values for every {rule.block} outputs; give it more outputs"
        )
    layers = dict(sorted(sizes.items(), key=lambda item: -item[1]))
    saved_model.ExportedSize(sum(sizes.values()), size_limit, layers).check()


def _score_trained(source: _Source, expected: Path) -> measure.Reference:
    """Scores with the trained model, called by Keras; its weights are released on return."""
    trained, read = open_trained(source.workdir, source.which)
    model = trained.model
    weights = {variable.path: tf.Variable(read(variable), trainable=False) for variable in model.weights}

    @tf.function(input_signature=[records.feature_specs(source.data)])
    def scores(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        inputs = model_inputs(features, source.data.spec)
        values = [
            [weights.get(variable.path, variable) for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        logits, _ = model.stateless_call(*values, inputs, training=False)
        return tf.sigmoid(tf.cast(logits, tf.float32))

    sizes = (*_RATED_SIZES, scoring_batch_size(source.data.level))
    alone = not any(isinstance(layer, GaussianNoise) and layer.always for layer in model._flatten_layers())
    return measure.reference(
        lambda batch: scores(source.features(batch)), source.batches("float32"), expected, sizes, alone
    )


def _write(
    source: _Source,
    directory: Path,
    precision: Precision,
    size_limit: int,
    vocabulary: str | None,
    additions: Additions,
    tflite: bool,
) -> saved_model.ExportedSize:
    trained, read = open_trained(source.workdir, source.which)
    weights, metadata = trained.model.weights, _metadata(trained, source.workdir)
    with source.bar("weights", "B", sum(4 * int(np.prod(variable.shape)) for variable in weights)) as bar:

        def read_next(variable: keras.Variable) -> np.ndarray:
            values = read(variable)
            bar.update(values.nbytes)
            return values

        size = saved_model.write_saved_model(
            trained.model, source.data, directory, precision, size_limit, metadata, vocabulary, additions, read_next
        )
    if tflite:
        path = directory / lite.LITE_FILE
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(lite.convert(trained.model, source.data, read))
    return size


def _measure(
    source: _Source, directory: Path, reference: measure.Reference
) -> tuple[measure.Comparison, float, dict[int, float]]:
    """Returns the comparison with the trained model, the seconds of loading, and the speeds of the SavedModel."""
    start = time.perf_counter()
    loaded = tf.saved_model.load(files.plain(directory))
    load_seconds = time.perf_counter() - start

    def scores(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return loaded.signatures["features"](**source.features(batch))["predictions"]

    comparison = measure.compare(scores, source.batches("SavedModel"), reference)
    rates = measure.videos_per_second(scores, next(iter(source.batches())), reference.videos_per_second)
    return comparison, load_seconds, rates


def _measure_lite(source: _Source, path: Path, reference: measure.Reference) -> measure.Comparison:
    runner = lite.Runner(path.read_bytes())

    def scores(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.constant(runner(**{name: value.numpy() for name, value in source.features(batch).items()}))

    return measure.compare(scores, source.batches("LiteRT"), reference)


def _add_metrics(metadata: Path, comparison: measure.Comparison) -> None:
    described = json.loads(metadata.read_text(encoding="utf-8"))
    files.write_json(metadata, described | {"metrics": dataclasses.asdict(comparison)})


def _metadata(trained: Trained, workdir: Path) -> dict[str, Any]:
    evaluations = [line for line in run_dir.read_history(workdir) if line.get("step") == trained.step]
    experiment = _without_centroids(strict_yaml.to_dict(trained.experiment))
    labels = {key: value for key, value in experiment["labels"].items() if key not in LabelsConfig.PLACES}
    return {
        "model": experiment["model"],
        "experiment": {**experiment, "data": without_paths(experiment["data"]), "labels": labels},
        "step": trained.step,
        "evaluation": evaluations[-1] if evaluations else None,
    }


def _without_centroids(values: Any) -> Any:
    """Removes the paths of centroids, which are read only when a run begins, from a plain configuration."""
    if isinstance(values, Mapping):
        return {key: _without_centroids(value) for key, value in values.items() if key != "centroids"}
    return [_without_centroids(value) for value in values] if isinstance(values, list | tuple) else values
