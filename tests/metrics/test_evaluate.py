"""The evaluation of batches: every video counts once, and errors name the video."""

import math

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import MetricAccumulator
from yt8m_tf.metrics.batch_statistics import batch_statistics
from yt8m_tf.metrics.evaluate import evaluate

NUM_CLASSES = 6


def make_batches(rng, count=3, size=4):
    """Batches whose features are the logits; half of the last one is padding."""
    for i in range(count):
        valid = np.arange(size) < (size if i < count - 1 else size // 2)
        yield {
            "id": tf.constant([b"v%d%d" % (i, row) for row in range(size)]),
            "rgb": tf.constant(rng.normal(size=(size, NUM_CLASSES)), tf.float32),
            "labels": tf.constant(rng.integers(-1, NUM_CLASSES - 1, (size, 2)), tf.int32),  # none of the last class
            "valid": tf.constant(valid),
        }


def step(batch):
    assert set(batch) == {"rgb", "labels", "valid"}
    return batch_statistics(batch["rgb"], batch["labels"], batch["valid"])


def test_evaluate_adds_up_all_batches(capsys, rng):
    batches = list(make_batches(rng))
    accumulator = MetricAccumulator(NUM_CLASSES)
    for batch in batches:
        accumulator.update(batch_statistics(batch["rgb"], batch["labels"], batch["valid"]))
    expected = accumulator.result()
    actual = evaluate(step, batches, MetricAccumulator(NUM_CLASSES), total=10)
    assert actual.scalars() == expected.scalars()
    assert actual.num_videos == 10
    shown = capsys.readouterr().err
    assert "10 of 10" in shown and "videos/s" in shown

    without_ids = [{name: value for name, value in batch.items() if name != "id"} for batch in batches]
    assert evaluate(step, without_ids, MetricAccumulator(NUM_CLASSES), progress=False).scalars() == expected.scalars()
    assert capsys.readouterr().err == ""


def test_evaluate_names_the_video_with_a_nan_score(rng):
    batches = list(make_batches(rng))
    logits = batches[1]["rgb"].numpy()
    logits[2, 3] = math.nan
    batches[1]["rgb"] = tf.constant(logits)
    with pytest.raises(InputError, match="video v12: "):
        evaluate(step, batches, MetricAccumulator(NUM_CLASSES), progress=False)


@pytest.mark.parametrize("kind", ["no batches", "only padding", "no labels"])
def test_evaluating_nothing_is_an_error(kind, rng):
    (batch,) = make_batches(rng, 1)
    if kind == "only padding":
        batch["valid"] = tf.zeros_like(batch["valid"])
    if kind == "no labels":
        batch["labels"] = -tf.ones_like(batch["labels"])
    message = "none of the 2 videos" if kind == "no labels" else "no videos to evaluate"
    with pytest.raises(InputError, match=message):
        evaluate(step, [] if kind == "no batches" else [batch], MetricAccumulator(NUM_CLASSES), progress=False)
