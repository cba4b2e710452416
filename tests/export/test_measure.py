import numpy as np
import pytest
import tensorflow as tf
from tiny_models import NUM_CLASSES, tiny_data, tiny_model

from yt8m_tf.data.clips import decode_features
from yt8m_tf.data.records import feature_specs
from yt8m_tf.errors import InputError
from yt8m_tf.export import measure
from yt8m_tf.export.measure import Comparison
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model


def plain_gap(scores, labels):
    """GAP@20 by definition: pool the 20 best pairs of each video, average precision over all positives."""
    pairs = []
    for row, positives in zip(scores, labels, strict=True):
        best = sorted(range(len(row)), key=lambda c: (-row[c], c))[:20]
        pairs += [(row[c], c in positives) for c in best]
    pairs.sort(key=lambda pair: -pair[0])
    total, seen = 0.0, 0
    for rank, (_, hit) in enumerate(pairs, start=1):
        seen += hit
        total += seen / rank if hit else 0.0
    return total / sum(map(len, labels))


@pytest.mark.parametrize("level", ["video", "frame"])
def test_compare_against_plain_numbers(level, rng, tmp_path):
    data = tiny_data(level)
    exported, trained = tiny_model(data, rng), tiny_model(data, rng)
    export_saved_model(exported, data, tmp_path / "m", precision=FLOAT32)
    batches, rows = [], []
    for valid in ([True] * 6, [True, True, False, False, False, False]):
        if level == "video":
            batch = {name: rng.normal(size=(6, size)).astype(np.float32) for name, size in data.features.items()}
        else:
            batch = {name: rng.integers(0, 256, (6, 5, size), np.uint8) for name, size in data.features.items()}
            batch["num_frames"] = rng.integers(1, 6, 6).astype(np.int32)
        labels = np.array([[*rng.choice(NUM_CLASSES, 2, replace=False), -1] for _ in range(6)], np.int32)
        tensors = {name: tf.constant(value) for name, value in batch.items()}
        scores = [
            np.asarray(tf.sigmoid(m(decode_features(tensors, data.spec), training=False))) for m in (exported, trained)
        ]
        rows += [(scores[0][i], scores[1][i], set(labels[i]) - {-1}) for i in range(6) if valid[i]]
        batches.append(tensors | {"labels": tf.constant(labels), "valid": tf.constant(valid)})

    def probabilities(batch):
        return tf.sigmoid(trained(decode_features(batch, data.spec), training=False))

    features = tf.saved_model.load(str(tmp_path / "m")).signatures["features"]

    def saved_probabilities(batch):
        return features(**{name: batch[name] for name in feature_specs(data)})["predictions"]

    expected = measure.reference(probabilities, batches, tmp_path / "scores", sizes=(1, 9))
    found = measure.compare(saved_probabilities, batches, expected)

    saved, reference, labels = (list(column) for column in zip(*rows, strict=True))
    difference = np.abs(np.array(saved) - np.array(reference))
    assert found.num_videos == 8
    assert found.gap == pytest.approx(plain_gap(saved, labels), abs=1e-9)
    assert found.gap_float32 == pytest.approx(plain_gap(reference, labels), abs=1e-9)
    assert found.max_difference == pytest.approx(difference.max(), abs=1e-6)
    assert found.mean_difference == pytest.approx(difference.mean(), abs=1e-6)
    assert list(expected.videos_per_second) == [1, 9] and min(expected.videos_per_second.values()) > 0


@pytest.mark.parametrize("size", [1, 2, 3])
def test_scores_that_depend_on_the_size_of_the_batch_are_refused(size, tmp_path):
    """The float32 model is scored only in batches of five, which give correct scores and a correct GAP."""
    batch = {
        "x": tf.constant([[0.9, 0.1], [0.1, 0.9], [0.8, 0.3], [0.2, 0.6], [0.5, 0.4]]),
        "labels": tf.constant([[0], [1], [0], [1], [0]]),
        "valid": tf.constant([True] * 4 + [False]),
    }

    def scores(batch):
        return batch["x"] * (0.5 if len(batch["x"]) == size else 1.0)

    expected = measure.reference(scores, [batch], tmp_path / "scores")
    with pytest.raises(
        InputError, match=rf"other scores in a batch of {size} than in one of 5: a score differs by 0\.4"
    ):
        measure.compare(scores, [batch], expected)
    noisy = measure.reference(scores, [batch], tmp_path / "scores", alone=False)
    assert measure.compare(scores, [batch], noisy).max_difference == 0.0
    assert measure.compare(lambda batch: batch["x"], [batch], expected).gap == expected.gap


def test_rates_are_of_valid_rows_and_of_the_right_size():
    seen = []

    def scores(batch):
        seen.append(batch["x"].numpy().ravel().tolist())
        return batch["x"]

    batch = {"x": tf.constant([[1.0], [2.0], [3.0]]), "valid": tf.constant([True, False, True])}
    rates = measure.videos_per_second(scores, batch | {"labels": tf.zeros([3, 1], tf.int32)}, [1, 5])
    assert set(map(tuple, seen)) == {(1.0,), (1.0, 3.0, 1.0, 3.0, 1.0)} and list(rates) == [1, 5]


def test_advice_about_a_changed_gap():
    changed = measure.Comparison(10, 0.5, 0.6, 0.1, 0.1)
    with pytest.raises(
        InputError, match=r"GAP@20 of the exported model is 0.5.*export with a finer --precision, or allow"
    ):
        changed.check(1e-3)
    with pytest.raises(InputError, match=r"of the LiteRT model is 0.5.*leave --tflite out, or allow more"):
        changed.check(1e-3, "the LiteRT model", "leave --tflite out")
    changed.check(0.11)


def test_scores_that_are_nan(tmp_path):
    batch = {"labels": tf.constant([[0]]), "valid": tf.constant([True])}
    with pytest.raises(InputError, match="NaN"):
        measure.reference(lambda _: tf.constant([[float("nan")]]), [batch], tmp_path / "scores")


def test_tolerance():
    comparison = Comparison(num_videos=9, gap=0.7001, gap_float32=0.7003, max_difference=0.0, mean_difference=0.0)
    comparison.check(3e-4)
    with pytest.raises(InputError, match=r"0\.700100.*0\.700300.*--tolerance=0\.0001"):
        comparison.check(1e-4)
    broken = Comparison(num_videos=9, gap=float("nan"), gap_float32=0.7, max_difference=0.0, mean_difference=0.0)
    with pytest.raises(InputError):
        broken.check(1.0)
