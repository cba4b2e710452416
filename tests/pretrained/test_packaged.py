"""The packaged model on the records beside it, through every signature, and by its name in every command."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import run_command

import yt8m_tf
from yt8m_tf.config.experiment import load_values
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.export.saved_model import bytes_on_disk
from yt8m_tf.models import build_model
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.pretrained import packaged
from yt8m_tf.serving import scorer
from yt8m_tf.training import initial_weights
from yt8m_tf.training.teacher import fingerprint, load_teacher

_MOST_BYTES = 10_000_000
_MEASURED = Path(__file__).resolve().parents[2] / "docs" / "results" / "pretrained.json"
_FEATURES = {"rgb": 1024, "audio": 128}


@pytest.fixture(scope="module")
def directory() -> Path:
    return Path(packaged.saved_model("pretrained", "--saved_model"))


@pytest.fixture(scope="module")
def signatures(directory: Path) -> dict[str, Any]:
    loaded = tf.saved_model.load(str(directory))
    return {"keep": loaded, **loaded.signatures}


def _records(word: str) -> list[bytes]:
    (path,) = list_shards([word])
    return [record.numpy() for record in tf.data.TFRecordDataset(path)]


def _videos() -> tuple[list[bytes], dict[str, np.ndarray], list[set[int]]]:
    """Ids, features and labels of the packaged video-level records, read with TensorFlow's protocol buffers."""
    parsed = [tf.train.Example.FromString(record).features.feature for record in _records("examples")]
    features = {
        name: np.array([video[f"mean_{name}"].float_list.value for video in parsed], np.float32) for name in _FEATURES
    }
    ids = [video["id"].bytes_list.value[0] for video in parsed]
    return ids, features, [set(video["labels"].int64_list.value) for video in parsed]


def _gap(classes: np.ndarray, scores: np.ndarray, labels: list[set[int]]) -> float:
    """GAP@20 as defined by the challenge: the pairs of all videos in one list, by score."""
    pairs = [
        (score, int(label) in own)
        for row, values, own in zip(classes, scores, labels, strict=True)
        for label, score in zip(row[:20], values[:20], strict=True)
    ]
    total, found, hits = 0.0, sum(min(len(own), 20) for own in labels), 0
    for number, (_, hit) in enumerate(sorted(pairs, key=lambda pair: -pair[0]), 1):
        hits += hit
        total += hit * hits / number
    return total / found


def test_size_and_gap_of_the_model(directory: Path, signatures: dict[str, Any]) -> None:
    """Records and plain tensors give the same scores, and the GAP stated in the card."""
    assert bytes_on_disk(directory) <= _MOST_BYTES
    ids, features, labels = _videos()
    served = signatures["serving_default"](examples=tf.constant(_records("examples")))
    assert served["video_id"].numpy().tolist() == ids
    plain = signatures["features"](**features)["predictions"].numpy()
    expected = -np.sort(-plain, axis=1)[:, :20]
    np.testing.assert_allclose(served["predictions"].numpy(), expected, atol=1e-6)
    gap = _gap(served["class_indexes"].numpy(), served["predictions"].numpy(), labels)
    stated = json.loads(_MEASURED.read_text(encoding="utf-8"))["shipped_on_validate0139"]["metrics"]["gap_at_20"]
    assert gap == pytest.approx(stated, abs=1e-4) and gap > 0.68


def test_the_card_states_the_measured_values(directory: Path) -> None:
    card = (directory.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    measured = json.loads(_MEASURED.read_text(encoding="utf-8"))
    assert measured["shipped_bytes"] == bytes_on_disk(directory)
    for part in (measured["judged"], measured["shipped_on_validate0139"]):
        interval = part["intervals"]["gap_at_20"]
        for value in (part["metrics"]["gap_at_20"], interval["low"], interval["high"]):
            assert f"{value:.4f}" in card
    assert len(measured["commonest_classes"]) == 20
    for own in measured["commonest_classes"]:
        counted = f"{own['num_positives']:,} | {own['average_precision']:.3f}"
        assert f"| {own['class']} | {own['name']} | {counted} |" in card


def test_a_clip_is_the_mean_of_its_frames(directory: Path, signatures: dict[str, Any]) -> None:
    """The means are computed here, in float64, from dequantised frames. The clip shows food, class 11."""
    (record,) = _records("examples:frame")
    lists = tf.train.SequenceExample.FromString(record).feature_lists.feature_list
    means = {}
    for name in _FEATURES:
        codes = np.array([np.frombuffer(frame.bytes_list.value[0], np.uint8) for frame in lists[name].feature])
        means[name] = (codes * (4 / 255) + (4 / 512 - 2)).mean(axis=0, keepdims=True)
    assert len(codes) == 170
    served = signatures["frames"](examples=tf.constant([record]))
    scores = yt8m_tf.load_export("pretrained").scores(means)[0]
    classes = served["class_indexes"].numpy()[0]
    np.testing.assert_allclose(served["predictions"].numpy()[0], scores[classes], atol=1e-5)
    np.testing.assert_array_equal(np.sort(scores)[-20:], np.sort(scores[classes]))
    assert classes[0] == 11 and served["video_id"].numpy()[0] == b"SjJ3"


def test_a_run_can_start_from_it_and_learn_from_it(directory: Path, signatures: dict[str, Any]) -> None:
    """A model built from its configuration and initialised with its weights gives its scores; so does the teacher."""
    values = load_values("experiments/pretrained.yaml:judged", ["labels.teacher=pretrained"])
    experiment = parse_experiment(values)
    model = build_model(experiment.model, experiment.data.spec)
    initial_weights.init_from([directory], {f"model/{variable.path}": variable for variable in model.weights})
    _, features, _ = _videos()
    some = {name: values[:20] for name, values in features.items()}
    expected = signatures["features"](**some)["predictions"].numpy()
    np.testing.assert_allclose(keras.ops.sigmoid(model(some, training=False)), expected, atol=1e-6)
    taught = load_teacher(experiment, data_dir="elsewhere")
    assert taught is not None
    np.testing.assert_allclose(taught.scores(some), expected, atol=1e-6)
    assert fingerprint(experiment.labels, "elsewhere") == scorer.fingerprint(directory)


def test_names_of_real_videos_in_one_command(tmp_path: Path) -> None:
    output = tmp_path / "names.txt"
    flags = ("--saved_model=pretrained", "--input=examples", f"--output={output}", "--format=names", "--top_k=3")
    result = run_command("infer", *flags)
    assert result.returncode == 0, result.stderr
    lines = output.read_text(encoding="utf-8").splitlines()
    assert [line.split(": ")[0].encode() for line in lines] == _videos()[0]
    assert re.fullmatch(r"D1cp: .*\bGame 0\.\d{4}.*", lines[0]) and lines[0].count(", ") == 2


@pytest.mark.parametrize(
    ("command", "flag", "others"),
    [
        ("infer", "saved_model", ("--input=x", "--output=x")),
        ("infer", "video_model", ("--saved_model=x", "--input={shard}", "--output=y", "--segments=5")),
        ("infer", "mean_with", ("--saved_model=x", "--input={shard}", "--output=y", "--segments=5")),
        ("infer", "input", ("--saved_model=x", "--output=y")),
        ("evaluate", "saved_model", ("--input={shard}", "--output=x")),
        ("evaluate", "against", ("--workdir=x",)),
        ("score", "model", ("--input=x", "--output=x")),
        ("timeline", "saved_model", ("--input={shard}", "--output=x.html")),
        ("train", "init_from", ("--config=first_level/logistic.yaml", "--workdir=x")),
    ],
)
def test_a_missing_package_gives_a_one_line_error(
    command: str, flag: str, others: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard,) = list_shards(["examples"])
    shutil.copyfile(shard, tmp_path / "shard.tfrecord")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packaged, "_DIRECTORY", tmp_path / "package")
    word = "examples" if flag == "input" else "pretrained"
    others = tuple(text.replace("{shard}", "shard.tfrecord") for text in others)
    result = run_command(command, *others, f"--{flag}={word}")
    assert result.returncode > 0 and result.stderr.count("\n") == 1
    assert f"error: --{flag}={word}: {tmp_path / 'package'}" in result.stderr and "install the package" in result.stderr


def test_a_directory_of_the_same_name_is_named_with_a_path() -> None:
    assert packaged.saved_model("./pretrained", "--saved_model") == "./pretrained"
    assert packaged.shards("./examples", "--input") == "./examples"
    with pytest.raises(InputError, match=r"load_export: \./pretrained: no saved_model\.pb there"):
        yt8m_tf.load_export("./pretrained")
