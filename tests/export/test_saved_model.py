import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_models import (
    CLOSE,
    FEATURES,
    MAX_FRAMES,
    NUM_CLASSES,
    clean_environment,
    empty_clip,
    float_scores,
    tiny_data,
    tiny_model,
    tiny_records,
)

from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import FLOAT32, parse_precision
from yt8m_tf.export.saved_model import export_saved_model, replacing
from yt8m_tf.export.stored import free_decoded

LEVELS = ("video", "frame")


def files_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a model of a level at a precision, once: the data, the model, and what was loaded."""
    made = {}

    def export(level, precision):
        if (level, precision) not in made:
            data, directory = tiny_data(level), tmp_path_factory.mktemp("exported") / "m"
            model = tiny_model(data, np.random.default_rng(1))
            export_saved_model(model, data, directory, precision=parse_precision(precision))
            made[level, precision] = data, model, tf.saved_model.load(str(directory))
        return made[level, precision]

    return export


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("precision", CLOSE)
def test_serving_signature_gives_the_models_highest_scores(level, precision, rng, exported):
    data, model, loaded = exported(level, precision)
    serialized = tiny_records(data, rng, 7)

    served = loaded.signatures["serving_default"](examples=tf.constant(serialized))

    assert served["video_id"].numpy().tolist() == [b"v%d" % i for i in range(7)]
    assert served["class_indexes"].dtype == tf.int32
    assert served["predictions"].shape == (7, 20)
    expected = float_scores(model, data, serialized)
    scores, classes = served["predictions"].numpy(), served["class_indexes"].numpy()
    assert (np.diff(scores, axis=1) <= 0).all()
    np.testing.assert_allclose(scores, np.take_along_axis(expected, classes, 1), atol=CLOSE[precision], rtol=0)
    # Whatever was left out scores no more than what was kept.
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :20], atol=CLOSE[precision], rtol=0)
    assert all(len(set(row)) == 20 for row in classes.tolist())


@pytest.mark.parametrize("precision", CLOSE)
def test_features_signature_video(precision, rng, exported):
    _, model, loaded = exported("video", precision)
    inputs = {name: rng.normal(size=(5, size)).astype(np.float32) for name, size in FEATURES.items()}

    scores = loaded.signatures["features"](**inputs)["predictions"]

    expected = 1 / (1 + np.exp(-np.asarray(model(inputs, training=False), np.float64)))
    np.testing.assert_allclose(scores, expected, atol=CLOSE[precision], rtol=0)


@pytest.mark.parametrize("precision", CLOSE)
def test_features_signature_frame_takes_codes(precision, rng, exported):
    _, model, loaded = exported("frame", precision)
    codes = {name: rng.integers(0, 256, (5, 9, size), np.uint8) for name, size in FEATURES.items()}
    num_frames = rng.integers(1, 10, 5).astype(np.int32)

    scores = loaded.signatures["features"](**codes, num_frames=num_frames)["predictions"]

    decoded = {name: (value * (4 / 255) + (4 / 512 - 2)).astype(np.float32) for name, value in codes.items()}
    logits = np.asarray(model(decoded | {"num_frames": num_frames}, training=False), np.float64)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=CLOSE[precision], rtol=0)


def test_clip_without_frames_scores_zero_and_disturbs_no_other(rng, exported):
    data, _, loaded = exported("frame", "float32")
    serialized = tiny_records(data, rng, 2)

    serving = loaded.signatures["serving_default"]
    scores = serving(examples=tf.constant([serialized[0], empty_clip(b"none"), serialized[1]]))["predictions"].numpy()

    assert (scores[1] == 0).all()
    np.testing.assert_allclose(scores[[0, 2]], serving(examples=tf.constant(serialized))["predictions"], atol=1e-6)


def test_equal_scores_rank_by_class_id_and_few_classes_are_all_served(rng, tmp_path):
    data = tiny_data("video", num_classes=6)
    model = tiny_model(data, rng)
    model.get_layer("logits").set_weights([np.zeros((64, 6)), np.array([1.0, 2, 1, 2, 1, 2])])
    export_saved_model(model, data, tmp_path / "m")

    serving = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"]

    classes = serving(examples=tf.constant(tiny_records(data, rng, 3)))["class_indexes"].numpy()
    assert classes.tolist() == [[1, 3, 5, 0, 2, 4]] * 3


def test_only_large_weights_are_halved_and_nothing_else_is_stored(rng, tmp_path):
    data = tiny_data("video", features={"rgb": 1024, "audio": 128}, num_classes=1500)
    model = tiny_model(data, rng)
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    model.optimizer = optimizer  # a trained model's slots hang on it

    for precision in ("float32", "float16"):
        export_saved_model(model, data, tmp_path / precision, precision=parse_precision(precision))

    stored = tf.train.load_checkpoint(str(tmp_path / "float16" / "variables" / "variables"))
    dtypes = stored.get_variable_to_dtype_map()
    names = {
        re.search(r"weights/(.*)/stored/values/\.ATTRIBUTES", key)[1].replace(".S", "/"): key
        for key in dtypes
        if "weights" in key
    }
    assert set(names) == {variable.path for variable in model.weights}
    assert len(dtypes) == len(names) + 1  # and the bookkeeping of the object graph: no slots, seeds, counters
    halves = {name for name, key in names.items() if dtypes[key] == tf.float16}
    assert halves == {"hidden/kernel", "logits/kernel"}  # logits/bias has 1,500 elements
    assert {dtypes[key] for name, key in names.items() if name not in halves} == {tf.float32}

    data_file = "variables/variables.data-00000-of-00001"
    half, full = ((tmp_path / precision / data_file).stat().st_size for precision in ("float16", "float32"))
    assert 0.5 < half / full < 0.52


def test_float16_overflow_names_the_variable(rng, tmp_path):
    data = tiny_data("video")
    model = tiny_model(data, rng)
    kernel = model.get_layer("logits").kernel
    values = kernel.numpy()
    values[3, 4] = -7e4
    kernel.assign(values)

    with pytest.raises(InputError, match=r"'logits/kernel'.*-70000.*--precision='logits/kernel:float32,\*:float16'"):
        export_saved_model(model, data, tmp_path / "m")
    assert not list(tmp_path.iterdir())

    export_saved_model(model, data, tmp_path / "m", precision=FLOAT32)


def test_size_limit_names_both_numbers_and_the_layers_and_leaves_nothing(rng, tmp_path):
    data = tiny_data("video")
    model = tiny_model(data, rng)
    size = export_saved_model(model, data, tmp_path / "m")
    assert size.total_bytes == files_bytes(tmp_path / "m")
    assert size.layer_bytes == {"hidden": 64 * 64 * 2 + 64 * 4, "logits": 64 * 30 * 2 + 30 * 4, "norm": 4 * 64 * 4}

    with pytest.raises(
        InputError, match=r"takes [\d,]{5,} bytes.*--size_limit=10,000.*hidden 8,448, logits 3,960"
    ) as error:
        export_saved_model(model, data, tmp_path / "n", size_limit=10_000)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_existing_directories(rng, tmp_path):
    data = tiny_data("video")
    model = tiny_model(data, rng)
    (tmp_path / "empty").mkdir()
    export_saved_model(model, data, tmp_path / "empty")
    before = (tmp_path / "empty" / "saved_model.pb").stat().st_ino

    with pytest.raises(InputError, match="--overwrite"):
        export_saved_model(model, data, tmp_path / "empty")
    export_saved_model(model, data, tmp_path / "empty", overwrite=True)
    assert (tmp_path / "empty" / "saved_model.pb").stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="no SavedModel"):
        export_saved_model(model, data, tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "precious"


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match="--overwrite"), replacing(tmp_path / "m") as temporary:
        (temporary / "saved_model.pb").write_text("mine")
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "saved_model.pb").write_text("somebody else's")
    assert (tmp_path / "m" / "saved_model.pb").read_text() == "somebody else's"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_decoded_weights_are_freed_and_a_second_load_is_not_touched(rng, tmp_path):
    data = tiny_data("video")
    export_saved_model(tiny_model(data, rng), data, tmp_path / "m")
    features = {name: tf.zeros((1, size)) for name, size in FEATURES.items()}
    first, second = (tf.saved_model.load(str(tmp_path / "m")) for _ in range(2))
    free_decoded(first)
    assert second.signatures["features"](**features)["predictions"].shape == (1, NUM_CLASSES)
    with pytest.raises(tf.errors.FailedPreconditionError, match="decoded/"):
        first.signatures["features"](**features)


def test_what_fails_in_the_block_is_not_published(tmp_path):
    with pytest.raises(InputError, match="too different"), replacing(tmp_path / "m") as temporary:
        (temporary / "saved_model.pb").touch()
        raise InputError("too different")
    assert not list(tmp_path.iterdir())


def test_metadata_and_vocabulary_travel_in_the_assets(rng, tmp_path):
    data = tiny_data("frame")
    vocabulary = tmp_path / "words.csv"
    vocabulary.write_text("Index,Name\n0,Game\n")
    metadata = {"model": {"name": "tiny"}}
    export_saved_model(
        tiny_model(data, rng),
        data,
        tmp_path / "m",
        metadata=metadata,
        vocabulary=vocabulary,
    )

    os.rename(tmp_path / "m", tmp_path / "moved")
    loaded = tf.saved_model.load(str(tmp_path / "moved"))
    found = json.loads(Path(loaded.metadata.asset_path.numpy().decode()).read_text())
    assert (found["level"], found["features"], found["num_classes"]) == ("frame", FEATURES, NUM_CLASSES)
    assert found["model"] == {"name": "tiny"}
    assert found["data"]["max_frames"] == MAX_FRAMES
    assert found["versions"]["tensorflow"] == tf.__version__
    assert Path(loaded.vocabulary.asset_path.numpy().decode()).read_text() == vocabulary.read_text()

    with pytest.raises(InputError, match=r"--vocabulary=.*no such file"):
        export_saved_model(tiny_model(data, rng), data, tmp_path / "n", vocabulary=tmp_path / "none.csv")


WITHOUT_PACKAGE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "yt8m_tf":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
try:
    import yt8m_tf
except ModuleNotFoundError:
    pass
else:
    sys.exit("yt8m_tf could be imported")

import numpy as np
import tensorflow as tf

record = open("record.bin", "rb").read()
for name in ("float32", "float16", "cluster"):
    outputs = tf.saved_model.load(name).signatures["serving_default"](examples=tf.constant([record]))
    np.savez(f"{name}.npz", **{key: np.array(value.numpy().tolist()) for key, value in outputs.items()})
"""


def test_frame_record_is_served_in_a_process_without_the_package(rng, tmp_path):
    data = tiny_data("frame")
    model = tiny_model(data, rng)
    for precision in CLOSE:
        export_saved_model(model, data, tmp_path / precision, precision=parse_precision(precision))
    serialized = tiny_records(data, rng, 1)
    (tmp_path / "record.bin").write_bytes(serialized[0])

    command = [sys.executable, "-c", WITHOUT_PACKAGE]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    scores = float_scores(model, data, serialized)[0]
    for precision, close in CLOSE.items():
        outputs = np.load(tmp_path / f"{precision}.npz")
        assert outputs["video_id"].tolist() == [b"v0"]
        expected = scores[outputs["class_indexes"][0]]
        np.testing.assert_allclose(outputs["predictions"][0], expected, atol=close, rtol=0)
