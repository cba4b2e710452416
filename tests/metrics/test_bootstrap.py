"""Bootstrap intervals against the plain GAP of explicit resamples."""

import numpy as np
import pytest

from yt8m_tf.errors import InputError
from yt8m_tf.metrics import bootstrap
from yt8m_tf.metrics.accumulator import MetricAccumulator, global_average_precision, pair_keys
from yt8m_tf.metrics.batch_statistics import top_score_statistics
from yt8m_tf.metrics.bootstrap import RankedVideos, difference_interval, gap_interval, gap_resamples


def random_videos(rng, num_videos, width=20, ties=False):
    """Scores [N, k], hits [N, k], labels [N]: hits are likelier at higher scores; some labels have no pair."""
    scores = rng.random((num_videos, width), np.float32) ** 3
    if ties:
        scores = np.round(scores, 1)
    hits = rng.random((num_videos, width)) < scores * rng.uniform(0.2, 1, (num_videos, 1))
    return scores, hits, hits.sum(axis=1) + rng.integers(0, 2, num_videos)


def ranked(scores, hits, num_labels, ids=None):
    return RankedVideos(pair_keys(scores, hits), num_labels.astype(np.uint32), ids)


@pytest.mark.parametrize(
    ("num_videos", "width", "ties"), [(1, 20, False), (37, 20, False), (50, 7, True), (300, 3, True)]
)
def test_each_resample_has_the_gap_of_its_videos(num_videos, width, ties, rng):
    scores, hits, num_labels = random_videos(rng, num_videos, width, ties)
    num_labels[0] += 1
    actual = gap_resamples(ranked(scores, hits, num_labels), 25, seed=4)
    generator = np.random.default_rng(4)
    for value in actual:
        rows = generator.integers(num_videos, size=num_videos)  # explicit rows, some of them repeated
        expected = global_average_precision(scores[rows], hits[rows], max(num_labels[rows].sum(), 1))
        if num_labels[rows].sum():
            assert value == pytest.approx(expected, abs=1e-12)
        else:
            assert np.isnan(value)


def test_paired_differences_join_videos_by_id(rng):
    scores, hits, num_labels = random_videos(rng, 80)
    ids = np.array([b"v%d" % row for row in range(80)])
    others = rng.random(scores.shape, np.float32)
    one, two = ranked(scores, hits, num_labels, ids), ranked(others, hits, num_labels, ids)
    order = rng.permutation(80)
    shuffled = RankedVideos(two.keys[order], two.num_labels[order], ids[order])
    found = difference_interval(one, shuffled, 60, seed=1)
    differences = gap_resamples(one, 60, 1) - gap_resamples(two, 60, 1)
    assert [found.low, found.high] == pytest.approx(np.quantile(differences, [0.025, 0.975]).tolist(), abs=1e-14)
    assert found.excludes_zero and found.low > 0
    same = difference_interval(one, one)
    assert (same.low, same.high) == (0, 0) and not same.excludes_zero


def test_other_videos_or_labels_are_refused(rng):
    scores, hits, num_labels = random_videos(rng, 4)
    one = ranked(scores, hits, num_labels, np.array([b"a", b"b", b"c", b"d"]))
    with pytest.raises(
        InputError, match="--against: the models were evaluated on different videos: 4 and 4, for example 'd'"
    ):
        difference_interval(one, ranked(scores, hits, num_labels, np.array([b"a", b"b", b"c", b"long"])))
    with pytest.raises(InputError, match="4 and 3, for example 'd'"):
        difference_interval(one, ranked(scores[:3], hits[:3], num_labels[:3], np.array([b"a", b"b", b"c"])))
    with pytest.raises(InputError, match="--against: video 'a' has other labels"):
        difference_interval(one, ranked(scores, hits, num_labels + np.array([1, 0, 0, 0]), one.ids))


def test_interval_covers_the_gap_of_all_videos_at_its_stated_rate(rng):
    """Of 60 samples of 400 videos, 95 % cover it on average; fewer than 50 do with a probability below 1 in 1,000."""
    scores, hits, num_labels = random_videos(rng, 20_000, 5)
    truth = global_average_precision(scores, hits, num_labels.sum())
    covered = 0
    for _ in range(60):
        rows = rng.choice(20_000, 400, replace=False)
        found = gap_interval(ranked(scores[rows], hits[rows], num_labels[rows]))
        covered += found.low <= truth <= found.high
    assert covered >= 50


def test_metrics_have_their_interval(rng):
    accumulator = MetricAccumulator(30, keep_ids=True)
    scores = np.sort(rng.random((40, 20), np.float32))[:, ::-1]
    classes = np.array([rng.permutation(30)[:20] for _ in range(40)])
    labels = [rng.integers(0, 30, rng.integers(0, 26)) for _ in range(40)]  # repeated labels count once
    ids = np.array([b"v%d" % row for row in range(40)], object)
    for part in (slice(0, 9), slice(9, 40)):
        accumulator.update(top_score_statistics(classes[part], scores[part], labels[part], 30), ids[part])
    metrics = accumulator.result()
    assert metrics.videos.ids.tolist() == ids.tolist()
    assert metrics.videos.num_labels.tolist() == [len(set(row.tolist())) for row in labels]
    interval = metrics.gap_interval
    assert interval.low < metrics.gap < interval.high
    assert interval == gap_interval(metrics.videos, bootstrap.RESAMPLES, bootstrap.SEED)  # it has a fixed seed
    # Gathered from other processes, without ids.
    gathered = MetricAccumulator.from_arrays(accumulator.arrays()).result()
    assert gathered.gap_interval == interval and gathered.videos.ids is None
