"""For each kind of input, inference stays the same bit for bit, other data is removed, and the report is right."""

import json
import re
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_models import tiny_data, tiny_model, tiny_records

from yt8m_tf import models, run_dir
from yt8m_tf.errors import InputError
from yt8m_tf.export import kinds
from yt8m_tf.export.precision import parse_precision
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.export.strip import strip, strip_report
from yt8m_tf.export.strip_checkpoint import checkpoint_bytes
from yt8m_tf.locks import exclusive
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import checkpoints

v1 = tf.compat.v1


@pytest.fixture(scope="module")
def fitted():
    """A Keras model trained by Adam with moving averages, metrics and dropout, and inputs for it."""
    rng = np.random.default_rng()
    inputs = keras.Input((8,))
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(32)], name="inner")
    inner.compile("adam", "mse")
    inner.fit(np.ones((4, 8)), np.ones((4, 32)), verbose=0)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(inner(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(5, activation="sigmoid", name="optimizer")(x))
    model.compile(keras.optimizers.Adam(use_ema=True), "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC()])
    features = rng.normal(size=(32, 8)).astype(np.float32)
    model.fit(features, rng.integers(0, 2, (32, 5)).astype(np.float32), epochs=2, verbose=0)
    return model, features


def weight_bytes(model):
    return sum(4 * int(np.prod(variable.shape)) for variable in model.weights)


def write_checkpoint(prefix, values):
    tensors = [tf.constant(value) for value in values.values()]
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=list(values), shape_and_slices=[""] * len(values), tensors=tensors
    )


def read_checkpoint(prefix):
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])


def test_keras_file_predicts_the_same(fitted, tmp_path):
    model, features = fitted
    model.save(tmp_path / "m.keras")
    report = strip(tmp_path / "m.keras", tmp_path / "out" / "s.keras")

    stripped = keras.models.load_model(tmp_path / "out" / "s.keras")
    np.testing.assert_array_equal(stripped.predict(features, verbose=0), model.predict(features, verbose=0))
    assert not stripped.compiled and not stripped.get_layer("inner").compiled
    assert report.after == {kinds.WEIGHTS: weight_bytes(model)} and report.before[kinds.WEIGHTS] == weight_bytes(model)
    assert report.before[kinds.SLOTS] > 2 * weight_bytes(model)
    assert report.bytes_after == (tmp_path / "out" / "s.keras").stat().st_size < report.bytes_before
    with zipfile.ZipFile(tmp_path / "out" / "s.keras") as archive:
        archive.extract("model.weights.h5", tmp_path)
    names: list[str] = []
    h5py.File(tmp_path / "model.weights.h5").visit(names.append)
    assert not [name for name in names if "optimizer" in name]
    written = json.loads((tmp_path / "out" / "s.keras.strip_report.json").read_text())
    assert written["format"] == "keras" and written["after"] == report.after


def test_keras_checkpoint_keeps_weights_of_any_key(fitted, tmp_path):
    model, features = fitted
    # In this order, Keras's weights are saved as optimizer/_trainable_variables/...
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / "c"))
    assert any(name.startswith("optimizer/_trainable_variables") for name, _ in tf.train.list_variables(path))
    report = strip(path, tmp_path / "stripped")

    assert report.after == {kinds.WEIGHTS: weight_bytes(model)}
    assert {kinds.SLOTS, kinds.AVERAGES, kinds.COUNTERS} < set(report.before)
    assert report.before[kinds.AVERAGES] == sum(4 * int(np.prod(v.shape)) for v in model.trainable_variables)
    fresh = keras.models.clone_model(model)
    tf.train.Checkpoint(model=fresh).restore(str(tmp_path / "stripped")).assert_existing_objects_matched()
    np.testing.assert_array_equal(fresh.predict(features, verbose=0), model.predict(features, verbose=0))


def test_slots_in_the_object_graph_are_removed(rng, tmp_path):
    """Optimizers of Keras 2 before 2.11: slots belong to pairs of an optimizer and a variable, not to objects."""
    graph = kinds_graph(
        {
            "": {"layer": "w_holder", "optimizer": "adam", "save_counter": "save_counter"},
            "w_holder": {"kernel": "w", "Adam": "odd"},
            "adam": {"iter": "iter", "decay": "decay"},
        },
        slots={"adam": [("w", "m", "slot")]},
    )
    values = {name: rng.normal(size=(3,)).astype(np.float32) for name in ("w", "odd", "iter", "decay", "slot")}
    values |= {"save_counter": np.int64(4), kinds.OBJECT_GRAPH: graph.SerializeToString()}
    write_checkpoint(tmp_path / "c", values)
    report = strip(tmp_path / "c", tmp_path / "s")

    found = read_checkpoint(tmp_path / "s")
    left = type(graph).FromString(found.pop(kinds.OBJECT_GRAPH))
    assert_same(found, {name: values[name] for name in ("w", "odd")})
    assert report.before == {kinds.WEIGHTS: 24, kinds.COUNTERS: 32, kinds.SLOTS: 12}
    assert {a.checkpoint_key for node in left.nodes for a in node.attributes} == {"w", "odd"}
    assert not any(node.slot_variables for node in left.nodes) and len(left.nodes) == len(graph.nodes)


def kinds_graph(children, slots):
    """A `TrackableObjectGraph`; objects without children are variables, and their names are the keys."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    names = list(dict.fromkeys(["", *(n for row in children.values() for n in row.values())]))
    names += [slot for rows in slots.values() for *_, slot in rows]
    graph = TrackableObjectGraph()
    for name in names:
        node = graph.nodes.add()
        for local, child in children.get(name, {}).items():
            node.children.add(node_id=names.index(child), local_name=local)
        for original, slot_name, slot in slots.get(name, ()):
            ids = {"original_variable_node_id": names.index(original), "slot_variable_node_id": names.index(slot)}
            node.slot_variables.add(slot_name=slot_name, **ids)
        if name not in children:
            node.attributes.add(name="VARIABLE_VALUE", checkpoint_key=name)
    return graph


def starter_code_graph():
    """Builds a training graph of the starter code in the default session; returns input, output and the record."""
    examples = v1.placeholder(tf.string, [None], name="example_bytes")
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [2.0]), -1.0)
    features = v1.parse_example(examples, {"x": tf.io.FixedLenFeature([4], tf.float32)})["x"]
    with v1.variable_scope("tower"):
        hidden = tf.matmul(features, v1.get_variable("hidden/weights", [4, 6]))
        scores = tf.sigmoid(tf.matmul(hidden, v1.get_variable("Adam", [6, 3]))) * table.lookup(tf.constant("a"))
    step = v1.train.get_or_create_global_step()
    updates = [
        v1.train.AdamOptimizer().minimize(tf.reduce_mean(scores), global_step=step),
        v1.train.RMSPropOptimizer(0.1, momentum=0.9).minimize(tf.reduce_mean(scores)),
        v1.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_mean(scores)),
    ]
    averages = v1.train.ExponentialMovingAverage(0.9)
    with tf.control_dependencies(updates):
        update = averages.apply(v1.trainable_variables())
    session = v1.get_default_session()
    session.run([v1.global_variables_initializer(), v1.tables_initializer()])
    record = tf.train.Example()
    record.features.feature["x"].float_list.value.extend([0.3, -1.0, 2.0, 0.5])
    session.run(update, {examples: [record.SerializeToString()]})
    return examples, scores, record.SerializeToString()


@pytest.fixture(scope="module")
def starter_code(tmp_path_factory):
    """The directory of a checkpoint and a SavedModel of TensorFlow 1, a record, and its scores."""
    root = tmp_path_factory.mktemp("v1")
    with v1.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        examples, scores, record = starter_code_graph()
        v1.train.Saver().save(session, str(root / "model.ckpt-7"), write_meta_graph=False)
        builder = v1.saved_model.Builder(str(root / "saved"))
        signature = v1.saved_model.predict_signature_def({"example_bytes": examples}, {"predictions": scores})
        signatures = {"serving_default": signature}
        builder.add_meta_graph_and_variables(session, ["serve"], signatures, main_op=v1.tables_initializer())
        builder.save()
        return root, record, session.run(scores, {examples: [record]})


@pytest.mark.parametrize("average", [False, True])
def test_names_of_tensorflow_1(average, starter_code, tmp_path):
    root, _, _ = starter_code
    before = read_checkpoint(root / "model.ckpt-7")
    assert {"tower/hidden/weights/RMSProp_1", "tower/Adam/Adam_1", "beta1_power", "global_step"} < set(before)
    with pytest.raises(InputError, match=r"tower/\S+/ExponentialMovingAverage.*--weights=trained or --weights=average"):
        strip(root / "model.ckpt-7", tmp_path / "s")
    with exclusive(tmp_path / "s", "--output", beside=True), pytest.raises(InputError, match="another process strips"):
        strip(root / "model.ckpt-7", tmp_path / "s", average=average)
    report = strip(root / "model.ckpt-7", tmp_path / "s", average=average)

    suffix = "/ExponentialMovingAverage" if average else ""
    # "tower/Adam" is a weight: there is no variable "tower" whose slot it could be.
    assert_same(
        read_checkpoint(tmp_path / "s"), {n: before[n + suffix] for n in ("tower/hidden/weights", "tower/Adam")}
    )
    weights = 4 * (24 + 18)
    rows = {line.split("  ")[0]: line.split()[-2:] for line in report.table().splitlines()}
    assert rows["optimizer slots"] == [f"{5 * weights:,}", "0"] and rows["weights"] == [f"{weights}"] * 2


def test_saved_model_of_tensorflow_1(starter_code, tmp_path):
    root, record, expected = starter_code
    report = strip(root / "saved", tmp_path / "s")
    assert set(read_checkpoint(tmp_path / "s" / "variables" / "variables")) == {"tower/hidden/weights", "tower/Adam"}
    assert set(report.after) == {kinds.WEIGHTS} and kinds.SLOTS in report.before
    with v1.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        meta = v1.saved_model.loader.load(session, ["serve"], str(tmp_path / "s"))
        signature = meta.signature_def["serving_default"]
        fed = {signature.inputs["example_bytes"].name: [record]}
        np.testing.assert_array_equal(session.run(signature.outputs["predictions"].name, fed), expected)
    function = tf.saved_model.load(str(tmp_path / "s")).signatures["serving_default"]
    np.testing.assert_array_equal(function(example_bytes=tf.constant([record]))["predictions"], expected)


@pytest.mark.parametrize("how", ["save", "export"])
def test_saved_model_of_keras(how, fitted, tmp_path):
    model, features = fitted
    if how == "save":
        tf.saved_model.save(model, str(tmp_path / "m"))
    else:
        model.export(tmp_path / "m", verbose=False)
    (tmp_path / "m" / "assets.extra").mkdir()
    (tmp_path / "m" / "assets.extra" / "note.txt").write_text("kept")
    report = strip(tmp_path / "m", tmp_path / "s")

    old, new = (tf.saved_model.load(str(tmp_path / name)).signatures["serving_default"] for name in "ms")
    (name,) = old.structured_input_signature[1]
    given, found = (function(**{name: tf.constant(features)}) for function in (old, new))
    assert_same(tf.nest.map_structure(np.asarray, found), tf.nest.map_structure(np.asarray, given))
    assert report.after == {kinds.WEIGHTS: weight_bytes(model)}
    assert sum(report.before.values()) > 1.9 * weight_bytes(model)
    assert (tmp_path / "s" / "assets.extra" / "note.txt").read_text() == "kept"
    assert report.bytes_after < report.bytes_before


def test_saved_model_of_ours_with_weights_decoded_at_load(rng, tmp_path):
    data = tiny_data("video")
    precision = parse_precision("hidden*:cluster,*:float16")
    export_saved_model(tiny_model(data, rng), data, tmp_path / "m", precision=precision)
    strip(tmp_path / "m", tmp_path / "s")
    records = tf.constant(tiny_records(data, rng, 5))
    old, new = (tf.saved_model.load(str(tmp_path / name)) for name in "ms")
    given, found = (loaded.signatures["serving_default"](examples=records) for loaded in (old, new))
    assert_same(tf.nest.map_structure(np.asarray, found), tf.nest.map_structure(np.asarray, given))
    assert new.metadata.asset_path.numpy().decode() == str(tmp_path / "s" / "assets" / "metadata.json")


def test_saved_model_with_a_lookup_table_and_its_file(tmp_path):
    (tmp_path / "words.txt").write_text("cat\ndog\n")
    module = tf.Module()
    module.file = tf.saved_model.Asset(str(tmp_path / "words.txt"))
    numbers = tf.lookup.TextFileInitializer(
        module.file, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    module.table = tf.lookup.StaticHashTable(numbers, -1)
    module.weight, module.unused = tf.Variable([2, 3], dtype=tf.int64), tf.Variable(np.ones(100, np.float32))
    module.scale = tf.function(
        lambda words: {"number": module.table.lookup(words) * module.weight[0]},
        input_signature=[tf.TensorSpec([None], tf.string, name="words")],
    )
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"scale": module.scale})
    report = strip(tmp_path / "m", tmp_path / "s")
    (tmp_path / "words.txt").unlink()
    (tmp_path / "m").rename(tmp_path / "gone")

    found = tf.saved_model.load(str(tmp_path / "s")).signatures["scale"](words=tf.constant(["dog", "cow", "cat"]))
    assert found["number"].numpy().tolist() == [2, -2, 0]
    assert (report.before, report.after) == ({kinds.WEIGHTS: 416}, {kinds.WEIGHTS: 16})


@pytest.fixture
def run(rng, tmp_path):
    """A run directory with slots and moving averages, and the values of its last checkpoint."""
    values = {"model": {"name": "logistic"}, "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 24}}
    experiment = parse_experiment(values | {"train": {"ema_decay": 0.9}})
    run_dir.prepare(tmp_path / "run", experiment)
    model = models.build_model(experiment.model, experiment.data.spec)
    parts = ("model", "ema", "slots/m", "slots/v")
    for step in (10, 20):
        state = {
            f"{part}/{v.path}": rng.normal(size=v.shape).astype(np.float32) for part in parts for v in model.weights
        }
        state |= {"loss_scale/scale": np.float32(8), "loss_scale/steps": np.float32(3)}
        facts = {"best_step": 10, "positions": [0], "plateau": {}}
        checkpoints.save(tmp_path / "run", step, state, facts)
    run_dir.append_history(tmp_path / "run", {"step": 10, "gap": 0.5})
    return tmp_path / "run"


@pytest.mark.parametrize("which", ["best", "last"])
def test_run_directory_is_evaluated_as_before(which, run, tmp_path):
    expected = checkpoints.load_trained(run, which)
    report = strip(run, tmp_path / "s", which=which)

    found = checkpoints.load_trained(tmp_path / "s")
    assert found.step == expected.step and found.experiment == expected.experiment
    for one, other in zip(found.model.weights, expected.model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert set(read_checkpoint(found.checkpoint)) == {f"model/{v.path}" for v in found.model.weights}
    size = weight_bytes(found.model)
    both = {kinds.WEIGHTS: size, kinds.AVERAGES: size}
    assert report.before == {kinds.SLOTS: 2 * size, **both, kinds.LOSS_SCALE: 8}
    assert report.after == {kinds.WEIGHTS: size}
    assert run_dir.read_history(tmp_path / "s") == run_dir.read_history(run)


def test_checkpoint_directory_with_the_trained_weights(run, tmp_path):
    source = run / "checkpoints" / "step_00000020"
    strip(source, tmp_path / "s", average=False)
    old, new = (read_checkpoint(path / "variables") for path in (source, tmp_path / "s"))
    assert_same(new, {name: value for name, value in old.items() if name.startswith("model/")})
    assert json.loads((tmp_path / "s" / "state.json").read_text())["step"] == 20


def test_checkpoint_bytes_by_kind(tmp_path):
    kernel = np.zeros((10, 3), np.float32)
    names = {"model/a/kernel": kernel, "slots/m/a/kernel": kernel, "slots/v/a/kernel": kernel, "step": np.int64(7)}
    write_checkpoint(tmp_path / "variables", names)
    found = checkpoint_bytes(tmp_path / "variables")
    assert found == {kinds.SLOTS: 240, kinds.WEIGHTS: 120, kinds.COUNTERS: 8}
    assert strip_report(found, 92)[-1].endswith("92  bytes (25.0%)")
    with pytest.raises(InputError, match="nothing_here"):
        checkpoint_bytes(tmp_path / "nothing_here")


def test_unknown_names_stay(rng, tmp_path):
    names = (
        "slots/w",
        "w/Adamant",
        "Momentum",
        "w/MyOptimizer",
        "moving_mean/local_step",
        "x/ExponentialMovingAverage",
    )
    values = {name: rng.normal(size=(2,)).astype(np.float32) for name in (*names, "w")}
    write_checkpoint(tmp_path / "c", values)
    strip(tmp_path / "c", tmp_path / "s")
    assert_same(read_checkpoint(tmp_path / "s"), values)


@pytest.mark.parametrize("name", ["ckpt [1]", "a?b*", "back\\slash"])
def test_a_prefix_is_not_a_pattern(name, rng, tmp_path):
    values = {"w": rng.normal(size=(2,)).astype(np.float32)}
    write_checkpoint(tmp_path / "plain", values)
    strip(tmp_path / "plain", tmp_path / name)
    strip(tmp_path / name, tmp_path / "again")
    assert_same(read_checkpoint(tmp_path / "again"), values)


def test_unstrippable_input_gives_a_one_line_error(run, rng, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "gone").symlink_to("nothing")
    (tmp_path / "text.keras").write_text("no archive")
    (tmp_path / "text.h5").write_text("no archive")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "saved_model.pb").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with zipfile.ZipFile(tmp_path / "bad.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"no HDF5")
    write_checkpoint(tmp_path / "slots", {"w": np.zeros(3, np.float32), "w/Adam": np.zeros(3, np.float32)})
    data = (tmp_path / "slots.data-00000-of-00001").read_bytes()
    (tmp_path / "slots.data-00000-of-00001").write_bytes(data[:5])
    cases = {
        ("none", "s"): "--input=.*none: nothing there; give a run directory",
        ("empty", "s"): "a directory without run, checkpoint or SavedModel",
        ("text.h5", "s"): "a file, but not a .keras file",
        ("text.keras", "s.keras"): "cannot be read as a .keras file",
        ("text.keras", "s"): "--output=.*s: Keras loads only files named NAME.keras",
        ("other.keras", "s.keras"): "contains no model.weights.h5",
        ("bad.keras", "s.keras"): "cannot be read as a .keras file",
        ("broken", "s"): "saved_model.pb is damaged",
        ("bare", "s"): "no graph tagged 'serve' with signatures",
        ("slots", "s"): "is damaged",
        ("run", "run"): "--output=.*run: the same as --input",
        ("run", "run/inside"): "the same as --input, or inside of it",
        ("run", "empty"): "--output=.*empty: exists already",
        ("run", "gone"): "--output=.*gone: exists already",
    }
    before = sorted(tmp_path.rglob("*"))
    for (source, target), message in cases.items():
        with pytest.raises(InputError, match=message) as raised:
            strip(tmp_path / source, tmp_path / target)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"--weights=average: .* has no moving averages"):
        strip(tmp_path / "slots", tmp_path / "s", average=True)
    with pytest.raises(InputError, match=r"--weights: .* is not a checkpoint"):
        strip(tmp_path / "other.keras", tmp_path / "s.keras", average=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_keras_file_with_damaged_weights(tmp_path):
    source, damaged = tmp_path / "m.keras", tmp_path / "d.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()]).save(source)
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights, refused = members["model.weights.h5"], 0
    for start in range(0, len(weights), 256):
        members["model.weights.h5"] = weights[:start] + b"\xff" * 64 + weights[start + 64 :]
        with zipfile.ZipFile(damaged, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        try:
            strip(damaged, tmp_path / f"s{start}.keras")
        except InputError as error:
            refused += 1
            assert re.search(r"d\.keras: cannot be read as a \.keras file \(.*\); save it again", str(error))
    assert refused > 10
