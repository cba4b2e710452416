"""Third-party clients: saved_model_cli, TensorFlow 1's loader, TensorFlow Serving's REST interface."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_models import (
    CLOSE,
    FEATURES,
    clean_environment,
    float_scores,
    tiny_data,
    tiny_model,
    tiny_records,
    write_shard,
)

from yt8m_tf.export.precision import parse_precision
from yt8m_tf.export.saved_model import export_saved_model

ROOT = Path(__file__).resolve().parents[2]
# One model with both kinds of weights that are decoded on loading.
MIXED = parse_precision("hidden*:cluster,*:float16")
v1 = tf.compat.v1

# Runs each command in a separate process, with a single import of TensorFlow.
COMMANDS = """
import json, os, sys
from tensorflow.python.tools.saved_model_cli import main

for number, arguments in enumerate(json.load(open("commands.json"))):
    if not os.fork():
        with open(f"{number}.out", "w") as file:
            os.dup2(file.fileno(), 1)
        sys.argv = ["saved_model_cli", *arguments]
        main()
        os._exit(3)
    if status := os.waitstatus_to_exitcode(os.wait()[1]):
        sys.exit(f"{arguments}: {status}")
"""


@pytest.mark.slow  # TensorFlow 1's loader and the REST test call the same signatures
def test_saved_model_cli(rng, tmp_path):
    data = tiny_data("video")
    model = tiny_model(data, rng)
    inputs = {name: rng.uniform(-2, 2, (3, size)).astype(np.float32) for name, size in FEATURES.items()}
    np.savez(tmp_path / "features.npz", **inputs)
    example = {"id": ["abcd"]} | {f"mean_{name}": value[0].tolist() for name, value in inputs.items()}
    export_saved_model(model, data, tmp_path / "m", precision=MIXED)
    run = ["run", "--dir=m", "--tag_set=serve"]
    given = ";".join(f"{name}=features.npz[{name}]" for name in inputs)
    commands = [
        ["show", "--dir=m", "--all"],
        [*run, "--signature_def=features", f"--inputs={given}", "--outdir=features"],
        [*run, "--signature_def=serving_default", f"--input_examples=examples={[example]}", "--outdir=examples"],
    ]
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    line = [sys.executable, "-c", COMMANDS]
    done = subprocess.run(line, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    expected = tf.sigmoid(model(inputs, training=False)).numpy()
    shown = (tmp_path / "0.out").read_text()
    assert "signature_def['features']" in shown and "signature_def['serving_default']" in shown
    assert re.search(r"inputs\['examples'\] tensor_info:\s+dtype: DT_STRING\s+shape: \(-1\)", shown)
    scores = np.load(tmp_path / "features" / "predictions.npy")
    np.testing.assert_allclose(scores, expected, atol=CLOSE["cluster"], rtol=0)
    best, classes = (np.load(tmp_path / "examples" / f"{name}.npy") for name in ("predictions", "class_indexes"))
    np.testing.assert_allclose(best[0], scores[0][classes[0]], atol=1e-6, rtol=0)
    assert "abcd" in (tmp_path / "2.out").read_text()


@pytest.mark.parametrize("level", ["video", "frame"])
def test_loader_of_tensorflow_1_decodes_the_weights_too(level, rng, tmp_path):
    """TensorFlow Serving loads a SavedModel like this: a session, and the initialiser named in the graph."""
    data = tiny_data(level)
    export_saved_model(tiny_model(data, rng), data, tmp_path / "m", precision=MIXED)
    records = tiny_records(data, rng, 5)
    signature = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"]
    expected = {name: value.numpy() for name, value in signature(examples=tf.constant(records)).items()}

    with v1.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        meta = v1.saved_model.loader.load(session, ["serve"], str(tmp_path / "m"))
        served = meta.signature_def["serving_default"]
        outputs = {name: info.name for name, info in served.outputs.items()}
        found = session.run(outputs, {served.inputs["examples"].name: records})
    assert found["video_id"].tolist() == [b"v%d" % number for number in range(5)]
    np.testing.assert_array_equal(found["class_indexes"], expected["class_indexes"])
    np.testing.assert_allclose(found["predictions"], expected["predictions"], atol=1e-6, rtol=0)


def documented_client():
    """The functions of the Python program in docs/EXPORT.md."""
    text = (ROOT / "docs" / "EXPORT.md").read_text(encoding="utf-8")
    (program,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "urllib" in block]
    functions = {"__name__": "client"}
    exec(program, functions)
    return functions


def serve(signature, body):
    """Answers a row-format request like TensorFlow Serving (see its json_tensor.cc)."""
    (name,) = signature.structured_input_signature[1]
    values = []
    for instance in json.loads(body)["instances"]:
        assert set(instance) == {name}  # exactly the names of all inputs
        assert set(instance[name]) == {"b64"}
        values.append(base64.b64decode(instance[name]["b64"], validate=True))
    outputs = {key: value.numpy() for key, value in signature(**{name: tf.constant(values)}).items()}
    rows: list[dict[str, object]] = [{} for _ in values]
    for key, output in outputs.items():
        for row, value in zip(rows, output.tolist(), strict=True):
            is_text = isinstance(value, bytes)
            assert not (is_text and key.endswith("_bytes"))  # would be base64
            row[key] = value.decode() if is_text else value
    return json.dumps({"predictions": rows}).encode()


@pytest.mark.parametrize("level", ["video", "frame"])
def test_documented_rest_client(level, rng, tmp_path):
    data = tiny_data(level)
    model = tiny_model(data, rng)
    export_saved_model(model, data, tmp_path / "m" / "1")
    serialized = tiny_records(data, rng, 4)
    shard = write_shard(tmp_path / "test.tfrecord", serialized)
    client = documented_client()

    records = list(client["read_records"](shard, 3))
    assert records == serialized[:3]
    assert list(client["read_records"](shard, 9)) == serialized
    signature = tf.saved_model.load(str(tmp_path / "m" / "1")).signatures["serving_default"]
    answer = list(client["read_answer"](serve(signature, client["request_body"](records))))

    expected = float_scores(model, data, records)
    assert [video_id for video_id, _ in answer] == ["v0", "v1", "v2"]
    for (_, pairs), scores in zip(answer, expected, strict=True):
        assert len(pairs) == 20
        for index, score in pairs:
            assert score == pytest.approx(scores[index], abs=1e-3)
