"""Sample data of both levels, with centroids, small enough to train any model on it in seconds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from yt8m_tf.codebook import centroids, kmeans
from yt8m_tf.config.data import RecordsConfig
from yt8m_tf.data.faults import Faults
from yt8m_tf.sample_data.dataset import Layout, write_sample_data
from yt8m_tf.sample_data.frames import FrameCounts
from yt8m_tf.sample_data.generator import SampleConfig
from yt8m_tf.vocabulary import load_verticals

NUM_CLASSES, MAX_FRAMES = 20, 12
NUM_CLUSTERS = 16  # the number to which `shrink` cuts them
SIZES = {"rgb": 24, "audio": 12}


@dataclasses.dataclass(frozen=True)
class Sample:
    """Sample data: its directory, GAP@20 of the class prior on the validation videos, and the number of verticals."""

    directory: Path
    prior_gap: float
    num_verticals: int


def make_sample(directory: Path) -> Sample:
    """Writes the sample data."""
    settings = SampleConfig(
        num_classes=NUM_CLASSES, num_topics=6, noise_labels=0.05, rgb_size=SIZES["rgb"], audio_size=SIZES["audio"]
    )
    layout = Layout({"train": 1536, "validate": 512, "test": 0}, 512, ("video", "frame"))
    write_sample_data(str(directory), settings, layout, FrameCounts(4, MAX_FRAMES))
    facts = json.loads((directory / "sample_data.json").read_text())
    verticals = load_verticals(directory / "vocabulary.csv", NUM_CLASSES)
    shards = [str(path) for path in sorted((directory / "frame").glob("train*.tfrecord"))]
    frames = kmeans.sample_frames(
        shards, RecordsConfig("frame", SIZES), 2000, frames_per_clip=4, seed=0, faults=Faults(), progress=False
    )
    fitted = kmeans.fit(frames, SIZES, NUM_CLUSTERS, batch_size=256, num_passes=2, seed=0, progress=False)
    centroids.write(fitted, directory / "centroids.npz")
    return Sample(directory, facts["class_prior_gap"]["validate"], verticals.shape[1])
