"""Trains a model on sample data with Keras `compile` and `fit`, and compares it with the best possible score.

    python examples/fit.py

It takes half a minute on two CPU cores. The sample data is written to a temporary directory.
"""

from __future__ import annotations

import tempfile

import keras

import yt8m_tf
from yt8m_tf.sample_data.dataset import Layout, write_sample_data
from yt8m_tf.sample_data.frames import FrameCounts
from yt8m_tf.sample_data.generator import SampleConfig

NUM_CLASSES = 60
SIZES = {"rgb": 128, "audio": 32}


def fit(directory: str, num_train: int = 6_000, epochs: int = 6) -> tuple[float, float]:
    """Makes sample data in a directory and trains on it; returns GAP@20 of the model and the best reachable."""
    config = SampleConfig(NUM_CLASSES, rgb_size=SIZES["rgb"], audio_size=SIZES["audio"])
    layout = Layout({"train": num_train, "validate": 2_000, "test": 0}, videos_per_shard=1_000, levels=("video",))
    facts = write_sample_data(directory, config, layout, FrameCounts(12, 30))

    spec = yt8m_tf.InputSpec(features=SIZES, num_classes=NUM_CLASSES)
    training = yt8m_tf.make_dataset(f"{directory}/video/train*.tfrecord", spec, batch_size=64, seed=0)
    validation = yt8m_tf.make_dataset(f"{directory}/video/validate*.tfrecord", spec, batch_size=256)

    model = yt8m_tf.build_model("fcn", spec, hidden_sizes=[256], dropout=0.2)
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=yt8m_tf.Loss("bce"),
        metrics=[yt8m_tf.GlobalAveragePrecision()],
        jit_compile=False,  # the metric keeps its pairs on the host
    )
    history = model.fit(training, validation_data=validation, epochs=epochs, shuffle=False)
    return history.history["val_gap_at_20"][-1], facts["best_reachable_gap"]["validate"]["video"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        reached, best = fit(temporary)
    print(f"GAP@20 {reached:.4f}; the best that any model can reach on this data: {best:.4f}")
