"""Evaluation of a pipeline's models on sample data against the true labels, which the generator keeps."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/label_noise.py")

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.submissions import read_csv_labels, read_shard_labels
from yt8m_tf.metrics.accumulator import global_average_precision
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.pipelines.settings import PipelineConfig
from yt8m_tf.sample_data.generator import SampleConfig, make_model
from yt8m_tf.sample_data.output import SUMMARY, TRUE_LABELS
from yt8m_tf.score_shards.manifest import read_manifest
from yt8m_tf.score_shards.reading import read_shard
from yt8m_tf.scoring.predictors import find_predictor
from yt8m_tf.scoring.score import score

LIGHTGBM = "LightGBM"
Labels = Mapping[str, set[int]]


def read_scores(directory: Path) -> tuple[list[str], np.ndarray]:
    """Reads all score shards of a directory.

    Returns:
      The ids of N videos, and their scores, [N, C] float32, 0 for classes that are not listed.

    Raises:
      InputError: see `read_manifest` and `read_shard`.
    """
    manifest = read_manifest(directory, "scores")
    shards = [read_shard(directory, name, manifest) for name in sorted(manifest.shards)]
    ids = [video_id.decode() for shard in shards for video_id in shard.ids.tolist()]
    classes, values = (np.concatenate([getattr(s, what) for s in shards]) for what in ("classes", "scores"))
    scores = np.zeros((len(ids), manifest.num_classes + 1), np.float32)  # the last column takes the padding, -1
    np.put_along_axis(scores, classes, values.astype(np.float32), axis=1)
    return ids, scores[:, :-1]


def multi_hot(ids: Sequence[str], labels: Labels, num_classes: int) -> np.ndarray:
    """Returns the labels of videos, [N, C] bool.

    Raises:
      InputError: a video has no entry in `labels`.
    """
    if missing := [video_id for video_id in ids if video_id not in labels]:
        raise InputError(f"{TRUE_LABELS} or the shards lack video '{missing[0]}', which has scores; make both again")
    result = np.zeros((len(ids), num_classes), bool)
    for row, video_id in zip(result, ids, strict=True):
        row[list(labels[video_id])] = True
    return result


def gap_of(scores: np.ndarray, labels: np.ndarray) -> float:
    """Computes GAP@20 of scores [N, C] against labels [N, C] bool."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP_K]
    pairs = (np.take_along_axis(values, best, axis=1) for values in (scores, labels))
    return global_average_precision(*pairs, int(labels.sum()))


def label_quality(targets: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compares labels with the truth.

    Args:
      targets: [N, C] in [0, 1], hard or soft labels; at least 0.5 counts as a label.
      truth: [N, C] bool.

    Returns:
      `precision` and `recall` of these labels, their harmonic mean `f1`, and `squared_error`, the mean over videos of
      the sum of (target - truth)² over classes.
    """
    named = targets >= 0.5
    right = int((named & truth).sum())
    precision, recall = right / max(int(named.sum()), 1), right / max(int(truth.sum()), 1)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    error = float(np.square(targets - truth, dtype=np.float64).sum(axis=1).mean())
    return {"precision": precision, "recall": recall, "f1": f1, "squared_error": error}


@dataclasses.dataclass(frozen=True)
class Level:
    """A share of wrong labels, with its data and pipeline.

    Attributes:
      percent: share of wrong labels.
      data: directory of sample data with this share of wrong labels.
      clean: directory of sample data without wrong labels, on whose test videos models are evaluated.
      run: directory of the finished pipeline on `data`.
    """

    percent: int
    data: Path
    clean: Path
    run: Path


def measure(level: Level, settings: PipelineConfig) -> dict[str, Any]:
    """Computes all figures for one share of wrong labels, as plain values for JSON; docs/RESULTS.md explains them."""
    results = json.loads((level.run / "results.json").read_text(encoding="utf-8"))["stages"]
    own, clean = (json.loads((path / SUMMARY).read_text(encoding="utf-8")) for path in (level.data, level.clean))
    test = read_csv_labels(level.clean / TRUE_LABELS)
    shards = list_shards(["video/test*.tfrecord"], str(level.clean))
    trained = [*settings.baselines, *settings.students]
    for name in trained:
        predictor = find_predictor(level.run / "runs" / name, xla=False)
        score([predictor], shards, level.run / "truth" / name, xla=False, progress=False)
    directories = {name: level.run / "scores" / name / "test" for name in settings.first_level()}
    directories |= {LIGHTGBM: level.run / "stacked" / "test"}
    directories |= {name: level.run / "truth" / name for name in trained}
    truth = {name: _gap_of_shards(path, test) for name, path in directories.items()}
    noisy = dict(results["stack"]["gaps"]["validation"])
    noisy |= {name: results[f"evaluate {name}"]["gap_at_20"] for name in trained}
    return {
        "percent": level.percent,
        "videos": {split: values["num_videos"] for split, values in own["splits"].items()},
        "truth": by_seed(truth),
        "noisy": by_seed({name: noisy[name] for name in truth}),
        "reachable": {
            "truth": clean["best_reachable_gap"]["test"]["video"],
            "truth_from_noisy_labels": _posterior_gap(own["parameters"], shards, test),
            "noisy": own["best_reachable_gap"]["validate"]["video"],
        },
        "labels": _training_labels(level),
        "minutes": round(sum(result["seconds"] for result in results.values()) / 60, 1),
    }


def by_seed(values: Mapping[str, float]) -> dict[str, list[float]]:
    """Groups the values of NAME, NAME_seed_1, NAME_seed_2, ... as a list by NAME."""
    found: dict[str, list[float]] = {}
    for name, value in values.items():
        found.setdefault(re.sub(r"_seed_\d+$", "", name), []).append(value)
    return found


def _gap_of_shards(directory: Path, labels: Labels) -> float:
    ids, scores = read_scores(directory)
    return gap_of(scores, multi_hot(ids, labels, scores.shape[1]))


def _training_labels(level: Level) -> dict[str, Any]:
    """Compares the written labels, the soft ones and their mean with the truth on the training videos."""
    ids, soft = read_scores(level.run / "stacked" / "train")
    truth = multi_hot(ids, read_csv_labels(level.data / TRUE_LABELS), soft.shape[1])
    hard = multi_hot(ids, read_shard_labels(str(level.data / "video" / "train*.tfrecord")), soft.shape[1])
    targets = {"hard": hard.astype(np.float32), "half": (soft + hard) / 2, "soft": soft}
    quality: dict[str, Any] = {name: label_quality(values, truth) for name, values in targets.items()}
    return quality | {"soft_gap_at_20": {"truth": gap_of(soft, truth), "noisy": gap_of(soft, hard)}}


def _posterior_gap(parameters: Mapping[str, Any], shards: Sequence[str], labels: Labels) -> float:
    """Computes the GAP, against the true labels, of a model that predicts the probabilities of noisy labels exactly."""
    names = [field.name for field in dataclasses.fields(SampleConfig)]
    config = SampleConfig(**{name: parameters[name] for name in names})
    keys = {f"mean_{name}": tf.io.FixedLenFeature([size], tf.float32) for name, size in config.feature_sizes.items()}
    keys["id"] = tf.io.FixedLenFeature([], tf.string)
    records = tf.data.TFRecordDataset(shards).batch(sum(1 for _ in tf.data.TFRecordDataset(shards)))
    parsed = tf.io.parse_example(next(iter(records)), keys)
    features = {name: parsed[f"mean_{name}"].numpy() for name in config.feature_sizes}
    scores = make_model(config).posterior(features)
    ids = [video_id.decode() for video_id in parsed["id"].numpy()]
    return gap_of(scores, multi_hot(ids, labels, config.num_classes))
