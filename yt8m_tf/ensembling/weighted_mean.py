"""Combines several trained models into one, as a run directory for evaluation, scoring and export."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from yt8m_tf import locks, models, run_dir
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.data import DataConfig, frames_of
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.config.features import FeatureConfig
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import checkpoints
from yt8m_tf.training.checkpoints import Trained


def combine(
    workdirs: Sequence[Path],
    weights: Sequence[float],
    output: Path,
    which: str = "best",
    average: str = "probabilities",
) -> ExperimentConfig:
    """Writes a run of the model `weighted_mean` that contains the weights of trained runs.

    Args:
      workdirs: directories of the trained runs.
      weights: weights of the members in the mean, 0 or more; members of weight 0 are left out.
      output: the new run directory.
      which: "best" or "last" checkpoints.
      average: "probabilities" or "logits", see `WeightedMeanConfig`.

    Returns:
      The configuration of the new run: the data of the first member, with the features of all members.

    Raises:
      InputError: a run cannot be read, runs are on different data, or `output` contains a run already.
    """
    kept = [(workdir, weight) for workdir, weight in zip(workdirs, weights, strict=True) if weight > 0]
    if not kept:
        raise InputError("--weights: all are 0; give at least one member a weight")
    with locks.exclusive(output, "--workdir", "makes a run"):
        if (output / run_dir.CONFIG).exists():
            raise InputError(f"--workdir={output}: contains a run already; name another directory")
        return _combine(kept, output, which, average)


def _combine(kept: Sequence[tuple[Path, float]], output: Path, which: str, average: str) -> ExperimentConfig:
    seen: dict[Path, Path] = {}
    for workdir, _ in kept:
        if (twin := seen.setdefault(workdir.resolve(), workdir)) is not workdir:
            raise InputError(f"--members: {twin} and {workdir} are the same run; name it once, with a higher weight")
        if not (workdir / run_dir.CONFIG).is_file():
            raise InputError(
                f"--members: {workdir} is not a run directory of yt8m-train (it has no {run_dir.CONFIG}); name one"
            )
    opened = [checkpoints.open_trained(workdir, which) for workdir, _ in kept]
    data = common_data([workdir for workdir, _ in kept], [trained.experiment.data for trained, _ in opened])
    members = [member_options(trained, data) for trained, _ in opened]
    model = {"name": "weighted_mean", "members": members, "weights": [float(weight) for _, weight in kept]}
    model["average"] = average
    experiment = parse_experiment({"model": model, "data": strict_yaml.to_dict(data)})
    weights_of = {
        f"member_{number}_{variable.path}": tf.constant(read(variable))
        for number, (trained, read) in enumerate(opened)
        for variable in trained.model.weights
    }
    built = models.build_without_weights(experiment.model, data.spec)
    assert set(weights_of) == {variable.path for variable in built.weights}
    checkpoints.save_run(output, experiment, weights_of)
    return experiment


def read_weights(path: Path, names: Sequence[str]) -> list[float]:
    """Reads the weights of models from the `weights.json` of yt8m-stack.

    Raises:
      InputError: the file cannot be read, or lacks one of the models.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        weights = [float(values[name]) for name in names]
        if not all(map(math.isfinite, weights)):
            raise ValueError(f"weights that are not numbers: {weights}")
        return weights
    except KeyError as error:
        raise InputError(f"--weights={path}: no weight of {error}; it has {', '.join(values)}") from error
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"--weights={path}: cannot be read ({error}); give weights.json of yt8m-stack") from error


def common_data(workdirs: Sequence[Path], configs: Sequence[DataConfig]) -> DataConfig:
    """Returns the data of a graph with the models of several runs: that of the first run, with the features of all.

    Video-level models that are combined with frame-level models read the means of the frames (`config.data.frames_of`).
    These differ from the dataset's means only by the rounding of codes and by frames after `data.max_frames`.

    Raises:
      InputError: a model has verticals, or runs are on different data.
    """
    configs = _of_clips(workdirs, configs)
    first = configs[0]
    features: dict[str, int | FeatureConfig] = {}
    keys: dict[str, str] = {}
    known: dict[str, tuple[str, FeatureConfig]] = {}
    for workdir, data in zip(workdirs, configs, strict=True):
        if data.verticals:
            raise InputError(f"{workdir}: a model with verticals cannot be a member of a weighted mean; leave it out")
        for what in ("level", "num_classes", "max_frames", "frames", "id_keys"):
            mine, others = getattr(data, what), getattr(first, what)
            if what == "frames":  # sampling in training does not affect the graph
                mine, others = mine.steps(training=False), others.steps(training=False)
            if mine != others:
                raise InputError(
                    f"{workdir} and {workdirs[0]} have different data.{what}; name runs on the same records"
                )
        for name, stored in data.stored.items():
            found = data.key_of(name), stored
            if (other := known.setdefault(name, found)) != found:
                reads = " and as ".join(f"'{key}', {feature.dtype} {feature.size}" for key, feature in (found, other))
                raise InputError(f"{workdir} reads '{name}' differently from another member: {reads}; leave one out")
            features.setdefault(name, data.features[name])
        keys |= data.keys
    return dataclasses.replace(first, features=features, keys=keys, verticals=0, num_folds=0, fold=0)


def _of_clips(workdirs: Sequence[Path], configs: Sequence[DataConfig]) -> Sequence[DataConfig]:
    """Converts video-level data to frame-level data if there is any of the latter, and uses the shards of the first."""
    clips = next((data for data in configs if data.level == "frame"), None)
    if clips is None or all(data.level == "frame" for data in configs):
        return configs
    if clips.frames.steps(training=False):
        raise InputError(
            f"{workdirs[configs.index(clips)]}: its data.frames changes the frames in evaluation, so that"
            " video-level members would read means of changed frames; leave out this member or these"
        )
    places = {name: getattr(clips, name) for name in ("train", "validation", "test", "max_frames", "frame_lengths")}
    return [data if data.level == "frame" else dataclasses.replace(frames_of(data), **places) for data in configs]


def member_options(trained: Trained, data: DataConfig) -> Mapping[str, Any]:
    """Returns the options of a trained model as a member of a graph that reads `data`."""
    own = trained.experiment.data
    features = {} if list(own.features) == list(data.features) else {"features": list(own.features)}
    level = {} if own.level == data.level else {"level": own.level}
    return {**trained.experiment.model, **features, **level}
