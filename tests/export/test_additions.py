"""Optional parts of a SavedModel: class names, MediaPipe's signature, embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from shards import frame_record, write_shard
from tiny_models import FEATURES, MAX_FRAMES, NUM_CLASSES, tiny_data, tiny_model, tiny_records

from yt8m_tf import models
from yt8m_tf.errors import InputError
from yt8m_tf.export.additions import Additions
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.models.class_layer import class_weights
from yt8m_tf.serving.inference import infer
from yt8m_tf.serving.scorer import load_scorer


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a model of a level once; returns the data, the model, and its loaded SavedModel with all additions."""
    made = {}

    def export(level):
        if level not in made:
            data, root = tiny_data(level), tmp_path_factory.mktemp("additions")
            model = tiny_model(data, np.random.default_rng(1))
            text = "".join(f'{c},"name {c}, é","a long\ndescription"\n' for c in range(NUM_CLASSES))
            (root / "words.csv").write_text(f"Index,Name,WikiDescription\n{text}", encoding="utf-8")
            additions = Additions(class_names=True, mediapipe=level == "frame", embeddings=True)
            options = {"precision": FLOAT32, "vocabulary": root / "words.csv", "additions": additions}
            export_saved_model(model, data, root / "m", **options)
            made[level] = data, model, root / "m", tf.saved_model.load(str(root / "m"))
        return made[level]

    return export


def test_names_are_written_beside_classes_and_scores(exported, rng):
    data, _, path, loaded = exported("video")
    served = loaded.signatures["serving_default"](examples=tf.constant(tiny_records(data, rng, 5)))
    names = [[name.decode() for name in row] for row in served["class_names"].numpy()]
    assert names == [[f"name {c}, é" for c in row] for row in served["class_indexes"].numpy()]
    assert load_scorer(str(path))(tf.constant(tiny_records(data, rng, 5)))[1].shape == (5, 20)
    assert "description" not in (path / "assets" / "vocabulary.csv").read_text(encoding="utf-8")


def test_mediapipe_takes_dequantised_frames(exported, rng):
    """The signature takes values that no code has, and more frames than the model reads; it ignores padding."""
    _, model, _, loaded = exported("frame")
    length = MAX_FRAMES + 5
    frames = rng.normal(size=(4, length, sum(FEATURES.values()))).astype(np.float32)
    num_frames = np.array([[1], [MAX_FRAMES], [length], [7]], np.int32)
    signature = loaded.signatures["mediapipe"]
    inputs = signature.structured_input_signature[1]
    assert inputs["rgb_and_audio"].shape.as_list() == [None, None, 64] and inputs["num_frames"].shape[1] == 1
    scores = signature(rgb_and_audio=frames, num_frames=num_frames)["predictions"].numpy()

    rgb, audio = np.split(frames, [FEATURES["rgb"]], axis=2)
    for row, count in enumerate(np.minimum(num_frames[:, 0], MAX_FRAMES)):
        clip = {"rgb": rgb[row : row + 1, :count], "audio": audio[row : row + 1, :count]}
        clip["num_frames"] = np.array([count], np.int32)
        logits = np.asarray(model(clip, training=False), np.float64)[0]
        np.testing.assert_allclose(scores[row], 1 / (1 + np.exp(-logits)), atol=1e-6, rtol=0)


def test_mediapipe_agrees_with_features_on_codes(exported, rng):
    _, _, _, loaded = exported("frame")
    codes = {name: rng.integers(0, 256, (3, MAX_FRAMES, size), np.uint8) for name, size in FEATURES.items()}
    counts = np.array([MAX_FRAMES, 1, 0], np.int32)
    expected = loaded.signatures["features"](**codes, num_frames=counts)["predictions"].numpy()
    joined = np.concatenate([codes["rgb"], codes["audio"]], axis=2) * np.float32(4 / 255) + np.float32(4 / 512 - 2)
    scores = loaded.signatures["mediapipe"](rgb_and_audio=joined, num_frames=counts[:, None])["predictions"].numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-6, rtol=0)
    assert (scores[2] == 0).all()


@pytest.mark.parametrize("level", ["video", "frame"])
def test_embeddings_are_the_input_of_the_class_scores(exported, rng, level):
    """The logits are the product of the embeddings and the last layer's kernel, plus its bias."""
    _, model, _, loaded = exported(level)
    shape = (5,) if level == "video" else (5, 9)
    inputs = {
        name: rng.normal(size=(*shape, size)).astype(np.float32)
        if level == "video"
        else rng.integers(0, 256, (*shape, size), np.uint8)
        for name, size in FEATURES.items()
    }
    if level == "frame":
        inputs["num_frames"] = np.arange(1, 6, dtype=np.int32)
    vectors = loaded.signatures["embeddings"](**inputs)["embeddings"].numpy()
    assert vectors.shape == (5, 64) and vectors.dtype == np.float32
    kernel, bias = (np.asarray(value, np.float64) for value in model.get_layer("logits").get_weights())
    scores = loaded.signatures["features"](**inputs)["predictions"].numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-(vectors @ kernel + bias))), scores, atol=1e-6, rtol=0)


def test_clips_are_scored_by_their_means(rng, tmp_path):
    """A video-level model scores clips with its signature `frames`, also in `infer`."""
    data, clips = tiny_data("video"), tiny_data("frame")
    model = tiny_model(data, rng)
    export_saved_model(model, data, tmp_path / "m", precision=FLOAT32, additions=Additions(frames=True))
    frames = [
        {name: rng.integers(0, 256, (count, size), np.uint8) for name, size in FEATURES.items()}
        for count in (1, 7, MAX_FRAMES)
    ]
    records = [frame_record(f"clip{i}".encode(), [1], **clip) for i, clip in enumerate(frames)]
    means = {
        name: np.stack([(clip[name] * (4 / 255) + 4 / 512 - 2).mean(axis=0) for clip in frames]) for name in FEATURES
    }
    expected = 1 / (1 + np.exp(-np.asarray(model(means, training=False), np.float64)))
    ids, classes, scores = load_scorer(str(tmp_path / "m"), signature_name="frames")(tf.constant(records))
    assert ids.tolist() == [b"clip0", b"clip1", b"clip2"]
    np.testing.assert_allclose(scores, np.take_along_axis(expected, classes, 1), atol=1e-6, rtol=0)
    np.testing.assert_array_equal(classes[:, 0], expected.argmax(axis=1))

    write_shard(tmp_path / "clips.tfrecord", records)
    infer(str(tmp_path / "m"), [str(tmp_path / "clips.tfrecord")], tmp_path / "out.csv", signature="frames")
    rows = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[1].split()[0]) for row in rows] == classes[:, 0].tolist()
    with pytest.raises(InputError, match=r"^--frames: the model already reads frame-level records; leave the flag out"):
        export_saved_model(tiny_model(clips, rng), clips, tmp_path / "n", additions=Additions(frames=True))
    export_saved_model(model, data, tmp_path / "without", precision=FLOAT32)
    with pytest.raises(InputError, match=r"no signature 'frames' .*; export it with yt8m-export --frames$"):
        load_scorer(str(tmp_path / "without"), signature_name="frames")


def test_embeddings_of_a_mean_are_concatenated(rng, tmp_path):
    """The embeddings of logistic members are the inputs that they read; neighbours are left out."""
    data = tiny_data("video", features={"rgb": 6, "audio": 3})
    members = [
        {"name": "logistic", "features": ["audio"]},
        {"name": "weighted_mean", "members": [{"name": "logistic"}, {"name": "nearest_neighbors", "capacity": 9}]},
    ]
    model = models.build_model({"name": "weighted_mean", "members": members}, data.spec)
    export_saved_model(model, data, tmp_path / "m", precision=FLOAT32, additions=Additions(embeddings=True))
    inputs = {"rgb": rng.normal(size=(4, 6)).astype(np.float32), "audio": rng.normal(size=(4, 3)).astype(np.float32)}
    vectors = tf.saved_model.load(str(tmp_path / "m")).signatures["embeddings"](**inputs)["embeddings"].numpy()
    expected = np.concatenate([inputs["audio"], inputs["rgb"], inputs["audio"]], axis=1)
    np.testing.assert_array_equal(vectors, expected)
    assert class_weights(model, data.spec, "").shape == (NUM_CLASSES, vectors.shape[1])


def test_invalid_additions_give_a_one_line_error(rng, tmp_path):
    data = tiny_data("video")
    model = tiny_model(data, rng)
    for additions, message in (
        (Additions(class_names=True), r"^--class_names: no names are known; give --vocabulary=FILE"),
        (Additions(mediapipe=True), r"^--mediapipe: the model reads rgb and audio at video level, and MediaPipe gives"),
    ):
        with pytest.raises(InputError, match=message):
            export_saved_model(model, data, tmp_path / "m", additions=additions)
    neighbors = models.build_model({"name": "nearest_neighbors", "capacity": 9}, data.spec)
    with pytest.raises(InputError, match=r"^--embeddings: model 'nearest_neighbors' has no layer that makes"):
        export_saved_model(neighbors, data, tmp_path / "m", additions=Additions(embeddings=True))
    assert not (tmp_path / "m").exists()
