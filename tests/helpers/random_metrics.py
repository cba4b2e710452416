"""Metrics of random scores."""

from __future__ import annotations

import numpy as np

from yt8m_tf.metrics.accumulator import MetricAccumulator, Metrics
from yt8m_tf.metrics.batch_statistics import top_score_statistics


def random_metrics(rng: np.random.Generator, videos: int = 30, classes: int = 25) -> Metrics:
    scores = np.sort(rng.uniform(size=(videos, 20)).astype(np.float32))[:, ::-1]
    order = np.array([rng.permutation(classes)[:20] for _ in range(videos)])
    labels = [rng.choice(classes, rng.integers(1, 5), replace=False) for _ in range(videos)]
    accumulator = MetricAccumulator(classes)
    accumulator.update(top_score_statistics(order, scores, labels, classes))
    return accumulator.result()
