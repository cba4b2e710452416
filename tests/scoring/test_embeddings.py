"""Embeddings of runs and SavedModels: their values, their files, resuming, and training on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from commands import run_command
from tiny_models import FEATURES, empty_clip, tiny_data, tiny_model, tiny_records, write_shard

from yt8m_tf import files
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.strict_yaml import merge, to_dict
from yt8m_tf.data.clips import model_inputs
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.records import parse_records
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.runs import evaluate_trained
from yt8m_tf.export.additions import Additions
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.scoring import embeddings
from yt8m_tf.scoring.embeddings import embed, load_embedder
from yt8m_tf.training import loop
from yt8m_tf.training.checkpoints import load_trained

COUNTS = (5, 9, 0)
_BASE: dict[str, Any] = {
    "model": {"name": "logistic"},
    "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 10, "shuffle_records": 50},
    "optimizer": {"learning_rate": 0.1},
    "train": {"batch_size": 32, "steps_per_epoch": 2, "epochs": 1},
}


def _train(data_dir: Path, workdir: Path, **changes: Any) -> Path:
    options = loop.RunOptions(str(data_dir), workdir, xla=False, progress=False)
    loop.train(parse_experiment(merge(_BASE, changes)), options, tf.distribute.get_strategy(), Faults())
    return workdir


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A frame-level SavedModel, its model and data, shards, and their records."""
    root, rng, data = tmp_path_factory.mktemp("embeddings"), np.random.default_rng(7), tiny_data("frame")
    model = tiny_model(data, rng)
    export_saved_model(model, data, root / "m", precision=FLOAT32, additions=Additions(embeddings=True))
    records = [tiny_records(data, rng, count, prefix=f"s{i}_") for i, count in enumerate(COUNTS)]
    shards = [write_shard(root / f"{i}.tfrecord", shard) for i, shard in enumerate(records)]
    return root / "m", model, data, shards, records


def read(directory: Path, size: int, num_classes: int = 30) -> dict[str, np.ndarray]:
    """Reads all records of a directory of embeddings, like any other records."""
    features = {"embedding": {"size": size, "dtype": "float16"}}
    data = parse_experiment({"model": {"name": "logistic"}, "data": {"features": features, "num_classes": num_classes}})
    serialized = [
        record for path in sorted(directory.glob("*.tfrecord")) for record in tf.data.TFRecordDataset(str(path))
    ]
    assert isinstance(data.data, DataConfig)
    return {name: values.numpy() for name, values in parse_records(tf.stack(serialized), data.data).items()}


def expected_of(world) -> np.ndarray:
    """The embeddings [N, 64] from the model's layers, clip by clip."""
    _, model, data, _, records = world
    rows = []
    for record in [record for shard in records for record in shard]:
        lists = tf.train.SequenceExample.FromString(record).feature_lists.feature_list
        clips = {
            n: np.stack([np.frombuffer(f.bytes_list.value[0], np.uint8) for f in lists[n].feature]) for n in FEATURES
        }
        frames = np.concatenate([clips[n][: data.max_frames] for n in FEATURES], axis=1) * (4 / 255) + (4 / 512 - 2)
        hidden = model.get_layer("hidden")(frames.mean(axis=0)[None].astype(np.float32))
        rows.append(np.maximum(model.get_layer("norm")(hidden, training=False).numpy()[0], 0))
    return np.array(rows)


@pytest.mark.parametrize("kind", ["tfrecord", "npy"])
def test_files_contain_ids_labels_and_vectors(world, tmp_path, kind):
    path, _, _, shards, records = world
    summary = embed(load_embedder(path), shards, tmp_path / "out", kind=kind, batch_size=4, progress=False)
    assert (summary.num_embedded, summary.manifest.size) == (sum(COUNTS), 64)
    ids = [f"s{i}_{j}".encode() for i, count in enumerate(COUNTS) for j in range(count)]
    if kind == "npy":
        arrays = [np.load(tmp_path / "out" / f"{i}.npy") for i in range(len(COUNTS))]
        assert [len(array) for array in arrays] == list(COUNTS) and arrays[0].dtype == np.float16
        found = np.concatenate(arrays)
        names = [(tmp_path / "out" / f"{i}.ids.txt").read_bytes().splitlines() for i in range(len(COUNTS))]
        assert [name for own in names for name in own] == ids
    else:
        parsed = read(tmp_path / "out", 64)
        found = parsed["embedding"]
        assert parsed["id"].tolist() == ids
        labels = [
            sorted(tf.train.SequenceExample.FromString(r).context.feature["labels"].int64_list.value)
            for shard in records
            for r in shard
        ]
        assert [sorted(row[row >= 0].tolist()) for row in parsed["labels"]] == labels
    np.testing.assert_allclose(found, expected_of(world), rtol=2e-3, atol=1e-3)  # float16


def test_a_run_that_embedded_nothing_does_not_block_its_directory(tmp_path):
    embedder = embeddings.Embedder(tmp_path, DataConfig(), "first", 8, dict)
    other = dataclasses.replace(embedder, fingerprint="second")
    manifest = embeddings._begin(tmp_path, embedder, "tfrecord")

    def write(num_videos):
        shards = {"x": embeddings.EmbeddedShard(99, num_videos)}
        files.write_json(tmp_path / embeddings.MANIFEST, to_dict(dataclasses.replace(manifest, shards=shards)))

    write(0)
    assert embeddings._begin(tmp_path, other, "tfrecord").fingerprint == "second"
    write(1)
    with pytest.raises(InputError, match="contains embeddings of another model"):
        embeddings._begin(tmp_path, other, "tfrecord")


def test_an_interrupted_run_continues_and_ends_the_same(world, tmp_path, monkeypatch):
    path, _, _, shards, _ = world
    embedder = load_embedder(path)
    embed(embedder, shards, tmp_path / "whole", progress=False)
    real = embeddings._embed_shard

    def interrupted(embedder, shard, *rest):
        if shard == shards[1]:
            raise KeyboardInterrupt
        return real(embedder, shard, *rest)

    monkeypatch.setattr(embeddings, "_embed_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embed(embedder, shards, tmp_path / "out", progress=False)
    monkeypatch.undo()
    assert embed(embedder, shards, tmp_path / "out", progress=False).num_embedded == COUNTS[1]
    assert embed(embedder, shards, tmp_path / "out", progress=False).num_embedded == 0
    for file in (tmp_path / "whole").glob("*.*"):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(InputError, match=r"--output=.*: contains embeddings of another model, checkpoint or --format"):
        embed(embedder, shards, tmp_path / "out", kind="npy", progress=False)


def test_clips_without_frames_have_no_embeddings(world, tmp_path):
    path, _, _, _, records = world
    shard = write_shard(tmp_path / "e.tfrecord", [records[0][0], empty_clip(b"none"), records[0][1]])
    with pytest.raises(InputError, match=r"record 1, video 'none': no frames at all"):
        embed(load_embedder(path), [shard], tmp_path / "out", progress=False)
    for _ in range(2):  # written, then found
        faults = Faults(on_empty="skip")
        embed(load_embedder(path), [shard], tmp_path / "out", faults=faults, progress=False)
        assert faults.num_empty == 1
    assert read(tmp_path / "out", 64)["id"].tolist() == [b"s0_0", b"s0_1"]


def test_models_without_embeddings_give_a_one_line_error(world, tmp_path):
    path, model, data, shards, _ = world
    export_saved_model(model, data, tmp_path / "bare")
    with pytest.raises(InputError, match=r"^--model=.*bare: a SavedModel without embeddings; export it with"):
        load_embedder(tmp_path / "bare")
    with pytest.raises(InputError, match=r"^--model=.*: neither a run directory of yt8m-train nor a SavedModel"):
        load_embedder(tmp_path)
    with pytest.raises(InputError, match=r"^--input: two shards are named '0\.tfrecord'"):
        embed(load_embedder(path), [shards[0], shards[0]], tmp_path / "out", progress=False)
    with pytest.raises(InputError, match=r"^--output=.*: would write over .*, which is to be read"):
        embed(load_embedder(path), shards, Path(shards[0]).parent, progress=False)
    large = embeddings.Embedder(path, data, "", 1, lambda batch: tf.fill([len(batch["rgb"]), 1], 70_000.0))
    with pytest.raises(InputError, match=r"0\.tfrecord: the model in .* gives video 's0_0' .* beyond float16's 65,504"):
        embed(large, shards, tmp_path / "large", progress=False)


def test_a_runs_embeddings_are_the_input_of_its_last_layer(tmp_path):
    """The logits are the product of the embeddings and the kernel, plus the bias."""
    world = Path(__file__).resolve().parents[1] / "old_runs" / "video"
    done = run_command(
        *("score", f"--model={world / 'run'}", f"--data_dir={world / 'data'}", "--input=validate*.tfrecord"),
        *(f"--output={tmp_path}", "--kind=embeddings", "--checkpoint=last"),
    )
    assert done.returncode == 0, done.stderr
    trained = load_trained(world / "run", "last")
    data = trained.experiment.data
    serialized = tf.stack(list(tf.data.TFRecordDataset(str(world / "data" / "validate0000.tfrecord"))))
    given = parse_records(serialized, data)
    logits = trained.model(model_inputs(given, data.spec), training=False).numpy()
    layer = trained.model.get_layer("logits")
    size = layer.kernel.shape[0]
    assert f"embeddings, {size} values each, of {len(logits)} videos of 1 shards" in done.stdout
    assert f"data: {{features: {{embedding: {{size: {size}, dtype: float16}}}}}}" in done.stdout
    found = read(tmp_path, size, data.num_classes)
    assert found["id"].tolist() == given["id"].numpy().tolist()
    vectors = found["embedding"].astype(np.float64)
    again = vectors @ layer.kernel.numpy().astype(np.float64) + layer.bias.numpy()
    np.testing.assert_allclose(again, logits, atol=0.02 * np.abs(logits).max(), rtol=0)  # float16, sums of `size` terms


@pytest.mark.slow
def test_nearest_neighbours_learn_the_same_from_embeddings_as_from_features(learnable_shards, tmp_path):
    """The embeddings of the logistic model are its inputs."""
    data_dir = learnable_shards("video", train=4, validate=2)
    embedder = load_embedder(_train(data_dir, tmp_path / "run"))
    embed(embedder, sorted(map(str, data_dir.glob("*.tfrecord"))), tmp_path / "embeddings", progress=False)
    neighbors = {"name": "nearest_neighbors", "capacity": 300, "num_neighbors": 9, "shares": {}}
    gaps = []
    for directory, features in (
        (data_dir, {"rgb": 8, "audio": 4}),
        (tmp_path / "embeddings", {"embedding": {"size": 12, "dtype": "float16"}}),
    ):
        values = {**_BASE, "model": neighbors, "data": {**_BASE["data"], "features": features}}
        options = loop.RunOptions(str(directory), tmp_path / f"run_{len(gaps)}", xla=False, progress=False)
        loop.train(parse_experiment(values), options, tf.distribute.get_strategy(), Faults())
        trained = load_trained(tmp_path / f"run_{len(gaps)}")
        gaps.append(evaluate_trained(trained, ["validate*.tfrecord"], str(directory), faults=Faults(), xla=False).gap)
    assert min(gaps) > 0.6 and abs(gaps[0] - gaps[1]) < 0.05
