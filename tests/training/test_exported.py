"""An exported model as a teacher: it gives the scores of its SavedModel, for inputs that the SavedModel cannot take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.data import clips
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import parse_precision
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.models.registry import build_model, parse_experiment
from yt8m_tf.serving.scorer import load_saved_model
from yt8m_tf.training.teacher import fingerprint, load_teacher

_SIZES = {"rgb": 300, "audio": 20}  # large enough to be stored in a smaller type than float32
_FCN = {"name": "fcn", "hidden_sizes": [8], "dropout": 0.5}
_MODELS: dict[str, dict[str, Any]] = {
    "fcn": _FCN,
    "mean": {"name": "weighted_mean", "members": [_FCN, {"name": "logistic"}], "weights": [1.0, 3.0]},
    "clips": {"name": "logistic"},
}


def _experiment(model: dict[str, Any], level: str, **labels: Any) -> Any:
    data = {"level": level, "features": _SIZES, "num_classes": 70, "max_frames": 6}
    return parse_experiment({"model": model, "data": data, "labels": labels})


def _export(directory: Path, model: dict[str, Any], level: str, precision: str, rng: np.random.Generator) -> None:
    experiment = _experiment(model, level)
    built = build_model(experiment.model, experiment.data.spec)
    for variable in built.weights:
        variable.assign(np.abs(rng.normal(size=variable.shape)) * 0.2)
    export_saved_model(
        built,
        experiment.data,
        directory,
        precision=parse_precision(precision),
        metadata={"model": experiment.model},
    )


@pytest.mark.parametrize(
    ("model", "level", "precision"),
    [("fcn", "video", "cluster"), ("mean", "video", "float16"), ("clips", "frame", "float32")],
)
def test_a_teacher_gives_the_scores_of_its_saved_model(
    model: str, level: str, precision: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    _export(tmp_path / "exported", _MODELS[model], level, precision, rng)
    student = _experiment({"name": "logistic"}, level, teacher="exported")
    teacher = load_teacher(student, str(tmp_path))
    assert teacher is not None
    if level == "video":
        batch = {name: rng.normal(size=(5, size)).astype(np.float32) for name, size in _SIZES.items()}
    else:
        batch = {name: rng.integers(0, 256, (5, 6, size)).astype(np.uint8) for name, size in _SIZES.items()}
        batch["num_frames"] = np.array([6, 1, 3, 2, 5], np.int32)
    signature = load_saved_model(tmp_path / "exported", "").signatures["features"]
    expected = signature(**{name: tf.constant(values) for name, values in batch.items()})["predictions"]
    found = teacher.scores(clips.decode_features(batch, student.data.spec))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(found.numpy()) > 0.01


def test_an_export_is_known_by_its_contents(rng: np.random.Generator, tmp_path: Path) -> None:
    labels = [_experiment({"name": "logistic"}, "video", teacher=name).labels for name in ("one", "moved", "other")]
    _export(tmp_path / "one", _FCN, "video", "float32", rng)
    first = fingerprint(labels[0], str(tmp_path))
    (tmp_path / "one").rename(tmp_path / "moved")
    _export(tmp_path / "other", _FCN, "video", "float32", rng)
    assert fingerprint(labels[1], str(tmp_path)) == first != fingerprint(labels[2], str(tmp_path))


def test_a_saved_model_that_is_not_an_export_is_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    experiment = _experiment({"name": "logistic"}, "video", teacher="m")
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
    with pytest.raises(InputError, match=r"^labels\.teacher=.*/m: a SavedModel that does not say how to build its mod"):
        load_teacher(experiment, str(tmp_path))
    built = build_model(experiment.model, experiment.data.spec)
    export_saved_model(
        built, experiment.data, tmp_path / "m", metadata={"model": {**_FCN, "dropout": 0.0}}, overwrite=True
    )
    with pytest.raises(InputError, match=r"names model 'fcn', which needs the weight '.*' \[320, 8\], but it has none"):
        load_teacher(experiment, str(tmp_path))
    other = _experiment({"name": "logistic"}, "frame", teacher="clips")
    _export(tmp_path / "clips", _FCN, "video", "float32", rng)
    with pytest.raises(InputError, match=r"/clips: was trained with data\.level video, this run has frame; name a t"):
        load_teacher(other, str(tmp_path))
