"""A loaded export scores arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import CLOSE, FEATURES, MAX_FRAMES, NUM_CLASSES, tiny_data, tiny_model

from yt8m_tf.errors import InputError
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.serving.exported import ExportedModel, load_export


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    directory = tmp_path_factory.mktemp("exported")
    names = directory / "vocabulary.csv"
    names.write_text("Index,Name\n" + "".join(f"{number},class {number}\n" for number in range(NUM_CLASSES)))
    model = tiny_model(tiny_data("video"), np.random.default_rng(1))
    export_saved_model(model, tiny_data("video"), directory / "m" / "1", vocabulary=names)
    return directory / "m" / "1", model


def _features(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    return {name: rng.normal(size=(count, size)) for name, size in FEATURES.items()}  # float64, NumPy's default


def test_scores_and_names_are_those_of_the_model(exported: tuple[Path, object], rng: np.random.Generator) -> None:
    directory, model = exported
    loaded, features = load_export(directory), _features(rng, 1500)  # more than one batch
    logits = np.asarray(model(features, training=False), np.float64)  # type: ignore[operator]
    expected = 1 / (1 + np.exp(-logits))
    scores = loaded.scores(features)
    np.testing.assert_allclose(scores, expected, atol=CLOSE["float16"])
    found = loaded.predict(features, top_k=3)
    np.testing.assert_array_equal(found.classes[:, 0], scores.argmax(axis=1))
    np.testing.assert_array_equal(found.scores, -np.sort(-scores, axis=1)[:, :3])
    assert found.names is not None and found.names[7] == [f"class {number}" for number in found.classes[7]]
    assert loaded.scores(_features(rng, 0)).shape == (0, NUM_CLASSES)


def test_clips_are_whole_by_default(tmp_path: Path, rng: np.random.Generator) -> None:
    data = tiny_data("frame")
    export_saved_model(tiny_model(data, np.random.default_rng(1)), data, tmp_path / "1")
    loaded = load_export(tmp_path / "1")
    codes = {name: rng.integers(0, 256, (3, MAX_FRAMES, size), np.uint8) for name, size in FEATURES.items()}
    whole = {**codes, "num_frames": [MAX_FRAMES] * 3}
    np.testing.assert_array_equal(loaded.scores(codes), loaded.scores(whole))
    assert loaded.predict(codes).names is None
    with pytest.raises(InputError, match=r"'rgb' is float64 \[3, 12, 48\], not uint8"):
        loaded.scores({**codes, "rgb": codes["rgb"].astype(float)})


def test_records_and_features_that_do_not_fit_are_named(
    exported: tuple[Path, object], tmp_path: Path, rng: np.random.Generator
) -> None:
    loaded, features = load_export(exported[0]), _features(rng, 2)
    assert isinstance(loaded, ExportedModel)
    for wrong, message in (
        ({"rgb": features["rgb"]}, "'audio' is missing or unknown"),
        ({**features, "rgb": features["rgb"][:, 1:]}, r"'rgb' is float64 \[2, 47\], not float32 \[None, 48\]"),
        ({**features, "rgb": features["rgb"][:1]}, "or has another number of videos"),
    ):
        with pytest.raises(InputError, match=message):
            loaded.scores(wrong)
    with pytest.raises(InputError, match="top_k"):
        loaded.predict(features, top_k=0)
    with pytest.raises(InputError, match=r"no saved_model.pb there"):
        load_export(tmp_path)
