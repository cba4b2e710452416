"""Every kind of file that a command opens: a sound example, and the library call that opens it."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
import yaml
from backbones import write_inception, write_vggish
from mutated import framed
from segments import rated_record
from shards import frame_record, video_record, write_shard
from videos import Clip

from yt8m_tf import run_dir, vocabulary
from yt8m_tf.codebook import centroids
from yt8m_tf.config import configurations, strict_yaml
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import LabelsConfig
from yt8m_tf.config.segments import SegmentsConfig
from yt8m_tf.data import inspection, integrity, pipeline, records
from yt8m_tf.data.batches import read_batches
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.record_check import Reader, check_record, parse_record
from yt8m_tf.data.record_writing import Ratings, VideoRecord, clip_example
from yt8m_tf.data.segments import parse_segments
from yt8m_tf.ensembling.weighted_mean import read_weights
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation import segment_submissions, submissions
from yt8m_tf.evaluation.segment_submissions import SegmentRatings
from yt8m_tf.export import precision, strip
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.extraction import workers
from yt8m_tf.extraction.backbones import Recipe, load_backbones, read_recipe
from yt8m_tf.extraction.inception import Inception
from yt8m_tf.extraction.vggish import VGGish
from yt8m_tf.metrics.segment_map import ratings_by_class
from yt8m_tf.models import build_model
from yt8m_tf.models.registry import load_experiment, parse_experiment
from yt8m_tf.pipelines.settings import load_pipeline
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.pipelines.state import States
from yt8m_tf.report import clip_records, clip_scores, sections
from yt8m_tf.report.drawing import Palette
from yt8m_tf.report.hints import Hints
from yt8m_tf.report.sources import read_workdir
from yt8m_tf.report.timeline import write_timelines
from yt8m_tf.sample_data.frames import FrameCounts
from yt8m_tf.score_shards import records as score_records
from yt8m_tf.score_shards.manifest import Manifest, ScoredShard, finish, known_inputs, read_manifest
from yt8m_tf.score_shards.reading import read_shard
from yt8m_tf.score_shards.soft_labels import SoftLabels
from yt8m_tf.scoring import embeddings
from yt8m_tf.scoring.predictors import find_predictor
from yt8m_tf.serving import bundle, segment_submission
from yt8m_tf.serving.parts import Part, Parts
from yt8m_tf.serving.scorer import load_scorer
from yt8m_tf.serving.thresholds import read_thresholds
from yt8m_tf.stacking import boosting, finished
from yt8m_tf.stacking.inputs import StackInputs
from yt8m_tf.stacking.rows import load_rows
from yt8m_tf.stacking.settings import StackConfig
from yt8m_tf.training import checkpoints, distribution

_CLASSES, _FEATURES, _FRAMES, _VIDEOS = 12, {"rgb": 6, "audio": 3}, 5, 7
_FRONTIER, _EXPORT_REPORT = "exported/pack/1.pack/frontier.json", "exported/a/1/assets.extra/export_report.json"
_FIXED = 11  # seed of the sound inputs


@dataclasses.dataclass(frozen=True)
class Input:
    """A sound input that is opened again and again.

    Attributes:
      path: the file that is mutated.
      open: opens the file at `path`, which may be faulty; checks the result, or raises InputError.
      named: each error message contains at least one of these.
    """

    path: Path
    open: Callable[[], Any]
    named: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file: its form (`mutated.FORMS`), a function that creates a sound one, and its share of all inputs."""

    form: str
    make: Callable[[Path], Input]
    share: float = 1.0


def _rng() -> np.random.Generator:
    return np.random.default_rng(_FIXED)


def _input(path: Path, call: Callable[[], Any], *named: str) -> Input:
    return Input(path, call, (path.name, *named))


def _data(level: str) -> DataConfig:
    return DataConfig(level=level, features=_FEATURES, num_classes=_CLASSES, max_frames=_FRAMES, max_labels=4)  # type: ignore[arg-type]


def _records(level: str) -> list[bytes]:
    rng, found = _rng(), []
    for number in range(_VIDEOS):
        labels = sorted(rng.choice(_CLASSES, 2, replace=False).tolist())
        if level == "video":
            means = {name: rng.normal(size=size).astype(np.float32) for name, size in _FEATURES.items()}
            found.append(video_record(b"v%d" % number, labels, **means))
        else:
            length = int(rng.integers(1, _FRAMES + 2))
            codes = {name: rng.integers(0, 256, (length, size)).astype(np.uint8) for name, size in _FEATURES.items()}
            found.append(frame_record(b"v%d" % number, labels, **codes))
    return found


# --- shards ----------------------------------------------------------------------------------------------------------


def _record(level: str) -> Callable[[Path], Input]:
    """A record, on which TensorFlow's parser and the search for the reason must agree."""

    def make(directory: Path) -> Input:
        path, shard, data = directory / "record", directory / "shard.tfrecord", _data(level)
        path.write_bytes(_records(level)[3])
        parse = tf.function(lambda serialized: records.parse_records(serialized, data), autograph=False)

        def call() -> None:
            serialized = path.read_bytes()
            problem = check_record(serialized, data, need_labels=False, need_frames=False)
            shard.write_bytes(framed([serialized]))
            try:
                parsed = parse(tf.constant([serialized]))
            except records.PARSE_FAILURES as error:
                assert Faults(on_empty="skip").find_bad_record([str(shard)], data), f"refused without reason: {error}"
            else:
                if level == "frame" and int(parsed["num_frames"][0]) == 0:
                    return  # `Faults.skip_empty` checks whether a feature is missing or empty
                # TensorFlow ignores keys that are not UTF-8, and finds those that it looks for.
                assert not problem or parse_record(serialized) is None, f"not refused: {problem}"
                assert all(np.isfinite(value).all() for value in parsed.values() if value.dtype.is_floating)
            integrity.named(serialized)
            inspection.add_record(inspection.Contents(), serialized)

        return _input(path, call)

    return make


def _rated_record(directory: Path) -> Input:
    """A clip with ratings, on which TensorFlow's parser and the search for the reason must agree."""
    path, shard = directory / "record", directory / "shard.tfrecord"
    data = dataclasses.replace(_data("frame"), segments=SegmentsConfig(3, 1))
    codes = {name: np.full((_FRAMES, size), 7, np.uint8) for name, size in _FEATURES.items()}
    path.write_bytes(rated_record(b"v", [(0, 1, 1.0), (0, 2, 0.0), (2, 0, 0.5), (_FRAMES, 3, 1.0)], **codes))
    parse = tf.function(lambda serialized: parse_segments(serialized, data, Faults()), autograph=False)

    def call() -> None:
        serialized = path.read_bytes()
        problem = check_record(serialized, data, need_labels=False)
        shard.write_bytes(framed([serialized]))
        try:
            found = parse(tf.constant([serialized]))
        except records.PARSE_FAILURES as error:
            assert Faults().find_bad_record([str(shard)], data), f"refused without reason: {error}"
        else:
            assert not problem or parse_record(serialized) is None, f"not refused: {problem}"
            ratings, classes = found["ratings"].numpy(), found["rated_classes"].numpy()
            assert ((ratings >= 0) & (ratings <= 1)).all() and (classes < _CLASSES).all()
            assert found["rgb"].shape[1] == 5 and (found["num_frames"].numpy() >= 1).all()

    return _input(path, call)


def _shard(level: str) -> Callable[[Path], Input]:
    """A shard, read by the stream of evaluation with different policies for faults."""

    def make(directory: Path) -> Input:
        path, data = write_shard(directory / "shard.tfrecord", _records(level)), _data(level)
        choices = [("error", "error", "error"), ("skip", "skip", "skip"), ("skip", "skip", "negative")]
        calls = 0

        def call() -> None:
            nonlocal calls
            calls += 1
            on_damaged, on_empty, on_unlabelled = choices[calls % len(choices)]
            faults = Faults(on_damaged, on_empty, on_unlabelled, Reader(has_flags=True))  # type: ignore[arg-type]
            pipeline.check_first_records([str(path)], data, faults)
            for batch in pipeline.evaluation_stream([str(path)], data, 4, faults=faults):
                for name in _FEATURES:
                    assert batch[name].shape[0] == 4
                    assert level == "frame" or np.isfinite(batch[name]).all()
                assert int(tf.reduce_max(batch["labels"])) < _CLASSES

        return _input(path, call)

    return make


def _inspected(directory: Path) -> Input:
    path = write_shard(directory / "shard.tfrecord", _records("frame"))

    def call() -> None:
        report, damaged = inspection.inspect([str(path)])
        inspection.table(report)
        if damaged:
            shutil.rmtree(directory / "saved", ignore_errors=True)
            inspection.salvage_all(damaged, str(directory / "saved"))
            saved = directory / "saved" / path.name  # missing if no record was good
            assert not saved.exists() or integrity.scan_shard(str(saved)).damage is None

    return _input(path, call)


def _read(directory: Path) -> Input:
    """A shard, read as for scoring, with damage skipped."""
    path = write_shard(directory / "shard.tfrecord", _records("video"))

    def call() -> None:
        faults = Faults("skip")
        found = sum(len(serialized) for _, serialized in read_batches([[str(path)]], 3, faults))
        assert found == len([*integrity.good_records(str(path))])

    return _input(path, call)


def _labels_of_shards(directory: Path) -> Input:
    path = write_shard(directory / "shard.tfrecord", _records("video"))
    return _input(path, lambda: submissions.read_shard_labels(str(path)))


# --- scores ----------------------------------------------------------------------------------------------------------


def _scores(directory: Path) -> tuple[Path, Manifest]:
    rng, rows = _rng(), []
    for number in range(_VIDEOS):
        scores = np.sort(rng.random(4).astype(np.float16))[::-1]
        rows.append((b"v%d" % number, rng.choice(_CLASSES, 4, replace=False), scores))
    directory.mkdir(parents=True, exist_ok=True)
    score_records.write_shard(directory / "a.tfrecord", rows)
    made_from = {"a.tfrecord": ScoredShard(1000, None, ("v9",))}
    manifest = Manifest(("runs/m",), "f" * 64, _CLASSES, 5, "video", {}, {"a.tfrecord": _VIDEOS}, made_from)
    return directory / "a.tfrecord", finish(directory, manifest)


def _score_shard(directory: Path) -> Input:
    path, manifest = _scores(directory)

    def call() -> None:
        found = read_shard(directory, path.name, manifest)
        assert found.classes.shape == (_VIDEOS, 5)
        assert ((found.scores >= 0) & (found.scores <= 1)).all()

    return _input(path, call)


def _soft_labels(directory: Path) -> Input:
    path, _ = _scores(directory / "soft")
    shard = str(write_shard(directory / "a.tfrecord", _records("video")))
    labels = LabelsConfig(soft="soft")

    def call() -> None:
        def beside(shards: Any) -> SoftLabels:
            return SoftLabels(labels, directory / "soft", shards, data)

        data = dataclasses.replace(_data("video"), shuffle_records=0)
        batch = next(pipeline.training_stream([shard], data, 4, seed=1, faults=Faults(), beside=beside))
        assert batch["soft_classes"].shape == (4, 5)

    return _input(path, call)


def _scores_json(directory: Path) -> Input:
    _scores(directory)
    shard = str(write_shard(directory.with_name("shards") / "a.tfrecord", _records("video")))

    def call() -> None:
        known_inputs(directory)
        manifest = read_manifest(directory, "--scores")
        read_shard(directory, "a.tfrecord", manifest)
        StackInputs([directory], ["m"], [shard], "error").read(shard)

    return _input(directory / "scores.json", call, str(directory), "a.tfrecord")


# --- runs ------------------------------------------------------------------------------------------------------------


def _run(directory: Path) -> Path:
    workdir = directory / "run"
    data = {"features": _FEATURES, "num_classes": _CLASSES, "num_folds": 2}
    experiment = parse_experiment({"model": {"name": "logistic"}, "data": data})
    keras.utils.set_random_seed(_FIXED)
    model = build_model(experiment.model, experiment.data.spec)
    run_dir.prepare(workdir, experiment)
    run_dir.keep_folds(workdir, {"a.tfrecord": 0, "b.tfrecord": 1})
    checkpoints.save_run(workdir, experiment, {variable.path: variable for variable in model.weights})
    for step in (5, 10):
        run_dir.append_history(workdir, {"step": step, "metrics": {"gap_at_20": 0.5, "loss": 1.0}})
    return workdir


def _in_run(name: str, call: Callable[[Path], Any], *named: str) -> Callable[[Path], Input]:
    def make(directory: Path) -> Input:
        workdir = _run(directory)
        return _input(workdir / name, lambda: call(workdir), *named)

    return make


def _restored() -> Callable[[Path], None]:
    variables: dict[str, tf.Variable] = {}

    def call(workdir: Path) -> None:
        if not variables:
            for name, shape in tf.train.list_variables(str(workdir / _CHECKPOINT / "variables")):
                variables[name] = tf.Variable(tf.zeros(shape))
        checkpoints.fault(workdir / _CHECKPOINT)
        checkpoints.restore(workdir, 0, variables)
        checkpoints.find_checkpoint(workdir)

    return call


def _stripped(workdir: Path) -> None:
    output = workdir.parent / "stripped"
    shutil.rmtree(output, ignore_errors=True)
    strip.strip(workdir, output)


_CHECKPOINT = "checkpoints/step_00000000"
_OF_CHECKPOINT = ("step_00000000",)

# --- SavedModels -----------------------------------------------------------------------------------------------------


def _saved_model(directory: Path) -> Path:
    data = _data("video")
    keras.utils.set_random_seed(_FIXED)
    target = directory / "model"
    export_saved_model(build_model({"name": "logistic"}, data.spec), data, target)
    return target


def _keras_file(directory: Path) -> Input:
    path, output = directory / "model.keras", directory / "stripped.keras"
    keras.utils.set_random_seed(_FIXED)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    model.compile(optimizer="adam", loss="mse")
    model.save(path)

    def call() -> None:
        output.unlink(missing_ok=True)
        strip.strip(path, output)

    return _input(path, call)


def _graph(directory: Path) -> Input:
    model, output = _saved_model(directory), directory / "stripped"

    def call() -> None:
        shutil.rmtree(output, ignore_errors=True)
        strip.strip(model, output)

    return _input(model / "saved_model.pb", call, str(model))


def _metadata(directory: Path) -> Input:
    model = _saved_model(directory)

    def call() -> None:
        predictor = find_predictor(model)
        assert isinstance(predictor.data, DataConfig)

    return _input(model / "assets" / "metadata.json", call, str(model))


def _metadata_loaded(directory: Path) -> Input:
    model = _saved_model(directory)
    return _input(model / "assets" / "metadata.json", lambda: load_scorer(str(model)), str(model))


def _model_variables(name: str) -> Callable[[Path], Input]:
    def make(directory: Path) -> Input:
        model = _saved_model(directory)
        return _input(model / "variables" / name, lambda: load_scorer(str(model)), str(model))

    return make


def _bundle(directory: Path) -> Input:
    path = directory / "bundle.tgz"
    bundle.write_bundle(_saved_model(directory), path, progress=False)

    def call() -> None:
        with bundle.unpacked(path, 1 << 20) as found:
            assert (found / "saved_model.pb").is_file()
        assert not (directory.parent / "x").exists()

    return _input(path, call)


# --- configurations --------------------------------------------------------------------------------------------------


def _configuration(directory: Path) -> Input:
    path = directory / "experiment.yaml"
    values = {
        "model": {"name": "resnet_like", "inner_size": 8},
        "data": {"features": _FEATURES, "keys": {"rgb": "mean_rgb"}, "train": ["a*.tfrecord", "b*.tfrecord"]},
        "loss": {"name": "bce"},
        "optimizer": {"name": "adam", "learning_rate": 1e-3},
        "labels": {"soft": "scores/a", "weight": 0.5},
        "train": {"batch_size": 64, "ema_decay": 0.99},
    }
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return _input(
        path,
        lambda: load_experiment(str(path)),
        "configuration",
        "unknown",
        "model",
        "data.",
        "train.",
        "optimizer.",
        "labels.",
    )


def _configurations(directory: Path) -> Input:
    path = directory / "several.yaml"
    base = {"model": {"name": "fcn"}, "train": {"batch_size": 32}}
    named = {"one": {"base": "plain", "train": {"steps": 5}}, "two": {"base": "plain"}}
    path.write_text(yaml.safe_dump({"bases": {"plain": base}, "configurations": named}, sort_keys=False))
    names = ("configuration key", "unknown", "model")
    return _input(path, lambda: (configurations.configuration_names(str(path)), load_experiment(f"{path}:one")), *names)


def _pipeline(directory: Path) -> Input:
    path = directory / "pipeline.yaml"
    values = {
        "models": {"a": {"config": "first_level/logistic.yaml", "changes": {"train": {"batch_size": 8}}}},
        "num_folds": 3,
        "video": {"data": {"features": _FEATURES}},
        "students": {"s": {"config": "first_level/fcn.yaml"}},
        "ensemble": {"s": 1.0},
        "stack": {"num_trees": 5},
        "videos": {"train": 100},
        "export": "float16",
    }
    path.write_text(yaml.safe_dump(values, sort_keys=False))

    def call() -> None:
        settings = load_pipeline(str(path))
        for own in settings.first_level().values():
            settings.experiment(own, {})

    return _input(path, call, "configuration", "unknown", "model", "first_level/", "ensemble", "final", "num_folds")


def _precision(directory: Path) -> Input:
    path = directory / "precision.yaml"
    path.write_text("- dense*:cluster@8\n- bn*:float32\n- '*:float16'\n")
    return _input(path, lambda: precision.parse_precision(str(path)), "--precision")


# --- tables ----------------------------------------------------------------------------------------------------------


def _submission(directory: Path) -> Input:
    path = directory / "submission.csv"
    rows = [f"v{number},1 0.75 {number + 2} 0.5 0 0.25" for number in range(_VIDEOS)]
    path.write_text("\n".join(["VideoId,LabelConfidencePairs", *rows, ""]))
    labels = {f"v{number}": {number, 3} for number in range(_VIDEOS)}

    def call() -> None:
        gap, unlabelled = submissions.submission_gap(path, labels)
        assert 0 <= gap <= 1
        assert unlabelled == 0

    return _input(path, call)


def _segment_submission(directory: Path) -> Input:
    path = directory / "segments.csv"
    segment_submission.write_submission(path, [(c, [b"v%d:%d" % (n, c) for n in range(_VIDEOS)]) for c in range(4)])
    segments = [f"v{number}:2".encode() for number in range(_VIDEOS)]
    rated = ratings_by_class(np.arange(_VIDEOS), np.full(_VIDEOS, 2), np.arange(_VIDEOS) % 2)

    def call() -> None:
        found = segment_submissions.submission_map(path, SegmentRatings(segments, rated), range(_CLASSES))
        assert 0 <= found.mean <= 1

    return _input(path, call)


def _segment_classes(directory: Path) -> Input:
    path = directory / "segment_label_ids.csv"
    path.write_text("".join(f"{line}\n" for line in ("Index", 3, 7, 11)))

    def call() -> None:
        found = segment_submission.read_classes(path, _CLASSES)
        assert found == sorted(set(found))
        assert 0 <= found[0] <= found[-1] < _CLASSES

    return _input(path, call)


def _ratings(directory: Path) -> Input:
    frames = {name: np.zeros((_FRAMES, size), np.uint8) for name, size in _FEATURES.items()}
    rated = Ratings([0, 5, 5], [5, 10, 10], [1, 1, 2], [1.0, 0.0, 0.5])
    path = write_shard(
        directory / "rated.tfrecord",
        [clip_example(VideoRecord(b"v%d" % number, [1], {}), frames, rated) for number in range(_VIDEOS)],
    )

    def call() -> None:
        found = segment_submissions.read_ratings(str(path), _CLASSES)
        assert set(found.by_class) <= set(range(_CLASSES))

    return _input(path, call)


def _segment_scores(directory: Path) -> Input:
    path, page = directory / "segments.jsonl", directory / "page.html"
    windows = [{"start": s, "end": s + 5, "names": ["a", "b"], "ids": [3, 1], "scores": [0.5, 0.25]} for s in (0, 5)]
    path.write_text("".join(json.dumps({"id": f"v{n}", "segments": windows}) + "\n" for n in range(_VIDEOS)))

    def call() -> None:
        timelines = write_timelines(page, clip_scores.read_scores(path, None, 3, progress=False), {})
        assert all(0 <= cell.left < 100.01 for own in timelines for band in own.bands for cell in band.cells)

    return _input(path, call)


def _annotations(directory: Path) -> Input:
    frames = {name: np.zeros((_FRAMES, size), np.uint8) for name, size in _FEATURES.items()}
    rated = Ratings([0, 5, 5], [5, 10, 10], [1, 1, 2], [1.0, 0.0, 0.5])
    records = [clip_example(VideoRecord(b"v%d" % number, [1, 2], {}), frames, rated) for number in range(_VIDEOS)]
    path = write_shard(directory / "annotated.tfrecord", records)

    def call() -> None:
        for record in clip_records.find_records(
            [str(path)], None, _VIDEOS, f"--labels={path}", progress=False
        ).values():
            known = clip_records.read_annotations(*record, _CLASSES)
            assert all(0 <= label < _CLASSES for label in known.labels)

    return _input(path, call)


def _csv_labels(directory: Path) -> Input:
    path = directory / "labels.csv"
    path.write_text("\n".join(["id,labels", *(f"v{number},{number} 3" for number in range(_VIDEOS)), ""]))
    return _input(path, lambda: submissions.read_csv_labels(path))


def _vocabulary(directory: Path) -> Input:
    path = directory / "vocabulary.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Index", "TrainVideoCount", "Name", "Vertical1", "Vertical2", "Vertical3", "WikiDescription"])
        for number in range(_CLASSES):
            rows.writerow(
                [number, 1000 - number, f"Class, {number}", "Games", "", "Arts" * (number % 2), 'A "thing"\n']
            )

    def call() -> None:
        assert len(vocabulary.load_vocabulary(path, _CLASSES)) == _CLASSES
        vocabulary.load_details(path, _CLASSES)
        verticals = vocabulary.load_verticals(path, _CLASSES)
        assert verticals.shape[0] == _CLASSES
        assert verticals.size == 0 or verticals.any(axis=0).all()

    return _input(path, call)


def _thresholds(directory: Path) -> Input:
    path = directory / "thresholds.csv"
    path.write_text("class,name,threshold\n" + "".join(f'{c},"a, {c}",0.{c + 1}5\n' for c in range(_CLASSES)))

    def call() -> None:
        scores = read_thresholds(path, _CLASSES).scores
        assert scores.shape == (_CLASSES,) and ((scores >= 0) & (scores <= 1)).all()

    return _input(path, call)


def _embeddings(directory: Path) -> Input:
    """The manifest from which an interrupted `score --kind=embeddings` resumes."""
    path = directory / embeddings.MANIFEST
    manifest = embeddings.EmbeddingsManifest("m", "f", 4, "npy", {"a": embeddings.EmbeddedShard(10, 2)})
    path.write_text(json.dumps(strict_yaml.to_dict(manifest)))
    data = DataConfig(features=_FEATURES, num_classes=_CLASSES)
    embedder = embeddings.Embedder(Path("m"), data, "f", 4, lambda batch: batch["rgb"])

    def call() -> None:
        for shard in embeddings._begin(directory, embedder, "npy").shards.values():
            assert type(shard.num_videos) is type(shard.num_bytes) is int

    return _input(path, call, str(directory))


def _histogram(directory: Path) -> Input:
    path = directory / "frames.csv"
    path.write_text("num_frames,num_videos\n" + "".join(f"{n},{n * 7}\n" for n in range(1, 9)))

    def call() -> None:
        drawn = FrameCounts(1, 300, str(path)).draw(20, _rng())
        assert ((drawn >= 1) & (drawn <= 300)).all()

    return _input(path, call)


def _centroids(directory: Path) -> Input:
    path = directory / "centroids.npz"
    values = _rng().normal(size=(4, 9)).astype(np.float32)
    centroids.write(centroids.Clustering(values, _FEATURES, 50, 1, 3.0, 9.0, 0), path)

    class Codebook(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="codebook")
            self.centroids = self.add_weight(shape=(4, 9), name="centroids")

    class Model:
        def get_layer(self, name: str) -> Any:
            return layer

    layer = Codebook()

    def call() -> None:
        centroids.load_centroids(Model(), str(path), _FEATURES)
        assert np.isfinite(layer.centroids.numpy()).all()

    return _input(path, call)


# --- outputs of stages that later ones read --------------------------------------------------------------------------


def _rows(directory: Path) -> Input:
    path = directory / "a.npz"
    rng = _rng()
    arrays = {
        "ids": np.array([b"v0", b"v1"]),
        "num_labels": 3,
        "videos": np.array([0, 0, 1], np.int32),
        "classes": np.array([1, 2, 1], np.int32),
        "features": rng.random((3, 4)).astype(np.float16),
        "labels": np.array([True, False, False]),
    }
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return _input(path, lambda: load_rows(path).matrix())


def _booster(suffix: str) -> Callable[[Path], Input]:
    def make(directory: Path) -> Input:
        import lightgbm

        rng = _rng()
        values = rng.random((60, 3))
        dataset = lightgbm.Dataset(values, (values[:, 0] > 0.5).astype(int), params={"verbosity": -1})
        parameters = {"objective": "binary", "num_leaves": 4, "min_data_in_leaf": 2, "verbosity": -1, "num_threads": 1}
        trained = boosting.Trained(lightgbm.train(parameters, dataset, 3), {"training": [0.5], "held out": [0.4]})
        boosting.save(directory / "fold_0.txt", trained)

        def call() -> None:
            found = boosting.load(directory / "fold_0.txt")
            assert isinstance(found.curves, Mapping)
            found.booster.num_feature()

        return _input(directory / f"fold_0{suffix}", call, "fold_0.txt")

    return make


def _weights(directory: Path) -> Input:
    path = directory / "weights.json"
    path.write_text(json.dumps({"a": 0.25, "b": 0.75}))

    def call() -> None:
        assert np.isfinite(read_weights(path, ["a", "b"])).all()

    return _input(path, call)


def _stacking(name: str) -> Callable[[Path], Input]:
    def make(directory: Path) -> Input:
        started: dict[str, Any] = {
            "fingerprint": "f" * 64,
            "config": strict_yaml.to_dict(StackConfig()),
            "models": ["a", "b"],
        }
        started["top_k"] = [20, 20]
        (directory / finished.CONFIG).write_text(json.dumps(started))
        gaps = {"train": {"a": 0.5, "b": 0.5}, "validate": {"a": 0.4, "b": 0.4}}
        (directory / finished.REPORT).write_text(json.dumps({"gaps": gaps, "importances": {"a": 0.5}}))
        for split in gaps:
            shard, _ = _scores(directory / split)
            (directory / "rows" / split).mkdir(parents=True)
            (directory / "rows" / split / f"{shard.name}.npz").write_bytes(b"")

        def call() -> None:
            assert finished.read_stacking(directory, "--stack").naming

        return _input(directory / name, call, str(directory), "configuration key")

    return make


def _reported(name: str) -> Callable[[Path], Input]:
    """A file of a run's evaluation, from which a report is made."""

    def make(directory: Path) -> Input:
        workdir = _run(directory)
        evaluation = workdir / "evaluation"
        evaluation.mkdir()
        interval = {"low": 0.4, "high": 0.6, "level": 0.95}
        metrics = {"metrics": {"gap_at_20": 0.5}, "intervals": {"gap_at_20": interval}, "context": {"step": 1}}
        (evaluation / "metrics.json").write_text(json.dumps(metrics))
        rows = "".join(f"{number},Name {number},{number + 1},0.5\n" for number in range(_CLASSES))
        (evaluation / "classes.csv").write_text(f"class,name,num_positives,average_precision\n{rows}")
        return _input(workdir / name, lambda: read_workdir(workdir), str(workdir), "configuration key")

    return make


def _packed(name: str) -> Callable[[Path], Input]:
    """A file on packings or exports, which a report draws."""

    def make(directory: Path) -> Input:
        workdir, members = _run(directory), [{"name": "a", "precision": "float16", "weight": 1.0}]
        point = {"members": members, "rule": "greedy", "num_bytes": 2000, "gap": 0.5}
        report = {"size": {"total_bytes": 1000}, "metrics": {"gap": 0.5, "gap_float32": 0.5}, "pack": {"members": []}}
        for relative, contents in (
            (_FRONTIER, {"options": [{"num_bytes": 1000, "gap": 0.4}], "frontier": [point]}),
            (_EXPORT_REPORT, report),
        ):
            (workdir / relative).parent.mkdir(parents=True)
            (workdir / relative).write_text(json.dumps(contents))

        def call() -> None:
            found = read_workdir(workdir)
            hints = Hints(found, directory / "report.html", None, None, None)
            sections.sizes(found, "a", hints, Palette(["a"]), directory)

        return _input(workdir / name, call, str(workdir))

    return make


def _stage_states(directory: Path, shards: Sequence[tuple[str, int]]) -> States:
    first = Stage("train a", "train", (), "runs/a", {"experiment": {"train": {"epochs": 2}}}, ("*.tfrecord",))
    last = Stage("evaluate a", "evaluate", (first.name,), "evaluation/a", {"best": True}, ("*.tfrecord",))
    return States(directory, [first, last], dict.fromkeys((first.name, last.name), tuple(shards)))


def _stage(name: str) -> Callable[[Path], Input]:
    """A record of a pipeline's stages, written when there was one shard fewer than now."""

    def make(directory: Path) -> Input:
        states = _stage_states(directory, [("a.tfrecord", 10)])
        stages = {"train a": "runs/a", "evaluate a": "evaluation/a"}
        for stage in stages:
            states.begin(stage)
            output = directory / stages[stage]
            output.mkdir(parents=True)
            (output / "x").write_text("x")
            states.finish(stage, {"seconds": 1.0, "gap_at_20": 0.5})
        (path,) = (directory / "stages").glob(name)

        def call() -> None:
            for shards in ([("a.tfrecord", 10)], [("a.tfrecord", 10), ("b.tfrecord", 20)]):
                found = _stage_states(directory, shards)
                for line in found.changed():
                    assert "\n" not in line
                for stage in stages:
                    if found.of(stage) == "done":
                        assert float(found.result(stage)["gap_at_20"]) is not None
                with contextlib.suppress(InputError) if len(shards) > 1 else contextlib.nullcontext():
                    found.check(())

        return _input(path, call, str(directory))

    return make


def _tf_config(directory: Path) -> Input:
    path = directory / "TF_CONFIG"
    cluster = {"chief": ["a:2222"], "worker": ["b:2222", "c:2222"]}
    path.write_text(json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}}))

    def call() -> None:
        content = path.read_bytes().replace(b"\0", b"")  # not possible in an environment
        with mock.patch.dict(os.environ, {"TF_CONFIG": content.decode(errors="surrogateescape")}):
            assert set(distribution.read_cluster()) <= {"chief", "worker"}

    return _input(path, call)


def _part(name: str) -> Callable[[Path], Input]:
    """A part from which an interrupted `infer` resumes."""

    def make(directory: Path) -> Input:
        output, run = directory / "out.csv", {"model": "f", "input": ["a"], "top_k": 3}
        parts = Parts(output, run, [100])
        parts.add(b"v0,1 0.5\n", 1, 1)
        parts.finish_shard(None)

        def call() -> None:
            for part in Parts(output, run, [100]).finished:
                assert isinstance(part, Part)
                assert type(part.num_records) is type(part.num_rows) is int

        return _input(parts.directory / name, call, str(parts.directory))

    return make


# --- videos and feature extraction -----------------------------------------------------------------------------------


def _video(suffix: str) -> Callable[[Path], Input]:
    """A video, whose problem becomes a row of the report."""

    def make(directory: Path) -> Input:
        path = Clip("disc", 440.0, 1).write(directory / f"clip{suffix}", seconds=2.0)
        recipe = Recipe({"audio": "log_mel", "rgb": f"keras:{_mean_colour(directory)}"}, max_seconds=5)
        part = directory / "part.npz"

        def call() -> None:
            outcome = workers.run_task(workers.Task(str(path), part), recipe)
            if outcome.problem is not None:
                assert outcome.problem.isprintable() and "Traceback" not in outcome.problem
                assert not re.match(r"[A-Z]\w*Error", outcome.problem), outcome.problem
                return
            _, encoded = workers.read_part(part)
            assert {len(values) for values in encoded.frames.values()} == {outcome.num_frames}
            assert 1 <= outcome.num_frames <= 5

        return _input(path, call)

    return make


def _mean_colour(directory: Path) -> Path:
    inputs = keras.Input([4, 4, 3])
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)).save(directory / "mean.keras")
    return directory / "mean.keras"


def _recipe(directory: Path) -> Input:
    path = directory / "extraction.json"
    path.write_text(json.dumps(strict_yaml.to_dict(Recipe({"audio": "log_mel"}))))
    return _input(path, lambda: load_backbones(read_recipe(path, "--extract")))


def _part_of_extraction(directory: Path) -> Input:
    """Extracted features of a video; if they are damaged, the video is processed again."""
    video = _video(".mkv")(directory)
    video.open()
    part = directory / "part.npz"

    def call() -> None:
        with contextlib.suppress(ValueError, OSError):
            outcome, encoded = workers.read_part(part)
            assert encoded.num_frames == outcome.num_frames and encoded.frames.keys() == outcome.sizes.keys()

    return _input(part, call)


def _published(name: str) -> Callable[[Path], Input]:
    """A file of a published backbone, here of a small one."""

    def make(directory: Path) -> Input:
        rng = _rng()
        if name.startswith("vggish"):
            small: dict[str, Any] = {"channels": (2, 2, 3, 3), "units": (5, 4, 3)}
            write_vggish(directory, rng, **small)
            return _input(directory / name, lambda: VGGish(directory, **small))
        write_inception(directory, rng)
        return _input(directory / name, lambda: Inception(directory))

    return make


KINDS: Mapping[str, Kind] = {
    "video record": Kind("record", _record("video"), 12),
    "frame record": Kind("record", _record("frame"), 12),
    "rated record": Kind("record", _rated_record, 12),
    "video shard": Kind("records", _shard("video"), 0.4),
    "frame shard": Kind("records", _shard("frame"), 0.4),
    "inspected shard": Kind("records", _inspected, 1.5),
    "scored shard": Kind("records", _read, 1.5),
    "labels in shards": Kind("records", _labels_of_shards, 3),
    "score shard": Kind("records", _score_shard, 6),
    "soft labels": Kind("records", _soft_labels, 0.2),
    "scores.json": Kind("json", _scores_json, 3),
    "config.yaml": Kind("yaml", _in_run("config.yaml", lambda w: run_dir.read_experiment(w, parse_experiment)), 5),
    "folds.json": Kind("json", _in_run("folds.json", run_dir.read_folds), 4),
    "history.jsonl": Kind("json lines", _in_run("history.jsonl", run_dir.read_history), 4),
    "state.json": Kind("json", _in_run(f"{_CHECKPOINT}/state.json", checkpoints.latest_state, *_OF_CHECKPOINT), 5),
    "variables.index": Kind("bytes", _in_run(f"{_CHECKPOINT}/variables.index", _restored(), *_OF_CHECKPOINT), 4),
    "variables.data": Kind(
        "bytes", _in_run(f"{_CHECKPOINT}/variables.data-00000-of-00001", _restored(), *_OF_CHECKPOINT), 4
    ),
    "stripped index": Kind("bytes", _in_run(f"{_CHECKPOINT}/variables.index", _stripped, *_OF_CHECKPOINT), 1),
    "metadata.json": Kind("json", _metadata, 4),
    "metadata.json of a loaded model": Kind("json", _metadata_loaded, 0.3),
    "variables of a SavedModel": Kind("bytes", _model_variables("variables.data-00000-of-00001"), 0.3),
    "index of a SavedModel": Kind("bytes", _model_variables("variables.index"), 0.3),
    "Keras file": Kind("npz", _keras_file, 1),
    "graph": Kind("bytes", _graph, 0.3),
    "bundle": Kind("tgz", _bundle, 4),
    "configuration": Kind("yaml", _configuration, 6),
    "configurations": Kind("yaml", _configurations, 5),
    "pipeline": Kind("yaml", _pipeline, 3),
    "precision": Kind("yaml", _precision, 3),
    "submission": Kind("csv", _submission, 6),
    "submission of segments": Kind("csv", _segment_submission, 4),
    "classes of segments": Kind("csv", _segment_classes, 3),
    "scores of segments": Kind("json lines", _segment_scores, 2),
    "labels and ratings of clips": Kind("records", _annotations),
    "shard of ratings": Kind("records", _ratings, 3),
    "labels": Kind("csv", _csv_labels, 4),
    "vocabulary": Kind("csv", _vocabulary, 6),
    "thresholds": Kind("csv", _thresholds, 3),
    "embeddings": Kind("json", _embeddings, 2),
    "frame counts": Kind("csv", _histogram, 3),
    "centroids": Kind("npz", _centroids, 5),
    "rows of a stacking": Kind("npz", _rows, 4),
    "booster": Kind("text", _booster(".txt"), 2),
    "curves of a booster": Kind("json", _booster(".json"), 2),
    "weights.json": Kind("json", _weights, 3),
    "stacking's configuration": Kind("json", _stacking(finished.CONFIG), 3),
    "stacking's report": Kind("json", _stacking(finished.REPORT), 3),
    "metrics.json": Kind("json", _reported("evaluation/metrics.json"), 2),
    "classes.csv": Kind("csv", _reported("evaluation/classes.csv"), 2),
    "part of a submission": Kind("json", _part("00000.json"), 3),
    "run of a submission": Kind("json", _part("run.json"), 3),
    "record of a stage": Kind("json", _stage("train_a.done.json"), 3),
    "shards of a stage": Kind("json", _stage("shards/*.json"), 2),
    "frontier of a packing": Kind("json", _packed(_FRONTIER), 0.3),
    "report of an export": Kind("json", _packed(_EXPORT_REPORT), 0.3),
    "TF_CONFIG": Kind("json", _tf_config, 3),
    "video in MP4": Kind("bytes", _video(".mp4"), 2),
    "video in Matroska": Kind("bytes", _video(".mkv"), 2),
    "recipe of features": Kind("json", _recipe, 2),
    "features of a video": Kind("npz", _part_of_extraction, 2),
    "checkpoint of VGGish": Kind("bytes", _published("vggish_model.ckpt"), 1),
    "PCA of VGGish": Kind("npz", _published("vggish_pca_params.npz"), 1),
    "graph of Inception": Kind("bytes", _published("classify_image_graph_def.pb"), 0.3),
    "PCA of Inception": Kind("bytes", _published("eigenvals.npy"), 1),
}
