import gc
import json
import os
import re
import subprocess
import sys
import threading
import time
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

LEVELS = ("video", "frame")


def files_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a model of a level at a precision, once; returns the data, the model, and the loaded SavedModel."""
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
    # Omitted classes score no more than the returned ones.
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


@pytest.mark.parametrize("level", LEVELS)
def test_serving_refuses_records_of_the_other_level(level, rng, exported):
    """An empty string, a record of the other level, a clip without frames: none may get scores of 0."""
    data, _, loaded = exported(level, "float32")
    serving = loaded.signatures["serving_default"]
    other = tiny_data("video" if level == "frame" else "frame")
    wrong = [b"", tiny_records(other, rng, 1)[0], empty_clip(b"none")]
    for record in wrong:
        with pytest.raises(tf.errors.InvalidArgumentError):
            serving(examples=tf.constant([*tiny_records(data, rng, 1), record]))


def test_features_of_a_clip_without_frames_score_zero_and_do_not_affect_others(rng, exported):
    _, _, loaded = exported("frame", "float32")
    codes = {name: rng.integers(0, 256, (3, 9, size)).astype(np.uint8) for name, size in FEATURES.items()}
    features = loaded.signatures["features"]
    counts = np.array([4, 0, 9], np.int32)
    scores = features(**codes, num_frames=counts)["predictions"].numpy()
    assert (scores[1] == 0).all()
    others = features(**{name: values[[0, 2]] for name, values in codes.items()}, num_frames=counts[[0, 2]])
    np.testing.assert_allclose(scores[[0, 2]], others["predictions"], atol=1e-6)


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
    model.optimizer = optimizer  # a trained model has the optimizer's slots attached

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
    assert len(dtypes) == len(names) + 1  # one more for the object graph: no slots, seeds, counters
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
    with pytest.raises(InputError, match=r"exists and is not a SavedModel; choose another directory$"):
        export_saved_model(model, data, tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "precious"


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match="--overwrite"), replacing(tmp_path / "m") as temporary:
        (temporary / "saved_model.pb").write_text("mine")
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "saved_model.pb").write_text("somebody else's")
    assert (tmp_path / "m" / "saved_model.pb").read_text() == "somebody else's"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_decoded_weights_are_freed_with_the_last_signature(rng, tmp_path):
    data = tiny_data("video")
    model = tiny_model(data, rng)
    export_saved_model(model, data, tmp_path / "m")
    features = {name: tf.zeros((1, size)) for name, size in FEATURES.items()}
    first, second = (tf.saved_model.load(str(tmp_path / "m")).signatures["features"] for _ in range(2))
    gc.collect()  # only the signatures of what was loaded are left
    expected = first(**features)["predictions"].numpy()
    del first
    gc.collect()
    np.testing.assert_array_equal(second(**features)["predictions"], expected)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_models_loaded(rng, tmp_path):
    """Each model contains 40 MB of decoded weights."""
    data = tiny_data("video", num_classes=150_000)
    export_saved_model(tiny_model(data, rng), data, tmp_path / "m")
    features = {name: tf.zeros((1, size)) for name, size in FEATURES.items()}

    def resident() -> float:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    def load() -> None:
        tf.saved_model.load(str(tmp_path / "m")).signatures["features"](**features)
        gc.collect()  # a loaded model is part of a reference cycle

    for _ in range(4):  # allocators keep some memory for later
        load()
    before = resident()
    for _ in range(10):
        load()
    assert resident() - before < 120


def test_replacing_never_leaves_a_moment_without_a_model(rng, tmp_path):
    data = tiny_data("video")
    model = tiny_model(data, rng)
    export_saved_model(model, data, tmp_path / "m")
    stop, missing = threading.Event(), []

    def watch() -> None:
        while not stop.is_set():
            if not (tmp_path / "m" / "saved_model.pb").exists():
                missing.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(30):
            with replacing(tmp_path / "m", overwrite=True) as temporary:
                (temporary / "saved_model.pb").write_text("new")
    finally:
        stop.set()
        watcher.join()
    assert not missing and [path.name for path in tmp_path.iterdir()] == ["m"]


def test_two_exports_to_one_place_are_refused(tmp_path):
    with (
        replacing(tmp_path / "m"),
        pytest.raises(InputError, match=rf"another process exports there \(process {os.getpid()} on "),
        replacing(tmp_path / "m"),
    ):
        pass


def test_metadata_has_no_paths_of_the_data(rng, tmp_path):
    places = {"train": ("/home/me/a*",), "validation": ("/home/me/b*",), "test": ("/home/me/c*",)}
    model = tiny_model(tiny_data("video"), rng)
    for name, data in (("here", tiny_data("video", **places)), ("there", tiny_data("video"))):
        export_saved_model(model, data, tmp_path / name)
    here, there = (
        {f.relative_to(tmp_path / n): f.read_bytes() for f in (tmp_path / n).rglob("*") if f.is_file()}
        for n in ("here", "there")
    )
    assert here == there and not any(b"/home/me" in content for content in here.values())


def test_output_of_a_failed_block_is_not_published(tmp_path):
    with pytest.raises(InputError, match="too different"), replacing(tmp_path / "m") as temporary:
        (temporary / "saved_model.pb").touch()
        raise InputError("too different")
    assert not list(tmp_path.iterdir())


def test_metadata_and_vocabulary_are_in_the_assets(rng, tmp_path):
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


@pytest.mark.slow
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
