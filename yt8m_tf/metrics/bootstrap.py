"""Bootstrap intervals of GAP@20 over videos: of one model, and of the difference of two on the same videos.

A resample draws as many videos as there are, with replacement, and its GAP is exact. All pairs are sorted only once: a
resample weights each pair by how often its video was drawn, so that ranks are cumulative sums. 200 resamples of 100,000
videos take seconds, and about 400 bytes of memory per video.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from yt8m_tf.errors import InputError

RESAMPLES, LEVEL, SEED = 200, 0.95, 0


@dataclasses.dataclass(frozen=True, eq=False)
class RankedVideos:
    """The ranked scores and label counts of videos, from which GAP is computed.

    Attributes:
      keys: [N, k] uint32, `accumulator.pair_keys` of each video's highest scores.
      num_labels: [N] uint32, the number of all labels of each video.
      ids: [N] bytes, if they were kept.
    """

    keys: np.ndarray
    num_labels: np.ndarray
    ids: np.ndarray | None = None

    def in_order_of(self, ids: np.ndarray) -> RankedVideos | None:
        """Returns the same videos in the order of `ids`; None if `ids` are those of other videos."""
        assert self.ids is not None
        own, wanted = np.argsort(self.ids, kind="stable"), np.argsort(ids, kind="stable")
        if len(ids) != len(self.ids) or (self.ids[own] != ids[wanted]).any():
            return None
        rows = np.empty(len(ids), np.int64)
        rows[wanted] = own
        return RankedVideos(self.keys[rows], self.num_labels[rows], ids)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A bootstrap interval, from the 2.5 % to the 97.5 % quantile of resamples.

    Attributes:
      low, high: ends of the interval.
      level: share of the resamples within it.
      resamples: number of resamples.
      seed: seed of the draws.
    """

    low: float
    high: float
    level: float = LEVEL
    resamples: int = RESAMPLES
    seed: int = SEED

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 is outside the interval."""
        return self.low > 0 or self.high < 0


def gap_interval(videos: RankedVideos, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """Computes the interval of GAP@20; at least one video must have a label."""
    return _interval(gap_resamples(videos, resamples, seed), resamples, seed)


def difference_interval(
    videos: RankedVideos, others: RankedVideos, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Computes the paired interval of GAP@20 of `videos` minus that of `others`, with the same resamples for both.

    Args:
      videos: the videos of one model, with ids.
      others: those of the other model, with ids, in any order.
      resamples, seed: number and seed of the draws.

    Raises:
      InputError: the videos differ, or a video's number of labels does.
    """
    assert videos.ids is not None and others.ids is not None
    joined = others.in_order_of(videos.ids)
    if joined is None:
        lacking, more = np.setdiff1d(videos.ids, others.ids), np.setdiff1d(others.ids, videos.ids)
        example = next(iter([*lacking, *more]), videos.ids[0]).decode(errors="replace")
        raise InputError(
            f"--against: the models were evaluated on different videos: {len(videos.ids):,} and {len(others.ids):,},"
            f" for example '{example}'; evaluate both on the same shards, without --on_damaged=skip"
        )
    if (wrong := joined.num_labels != videos.num_labels).any():
        raise InputError(
            f"--against: video '{videos.ids[np.argmax(wrong)].decode(errors='replace')}' has other labels for the other"
            " model; give two models of one version of the dataset"
        )
    values = gap_resamples(videos, resamples, seed) - gap_resamples(joined, resamples, seed)
    return _interval(values, resamples, seed)


def gap_resamples(videos: RankedVideos, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Computes GAP@20 of each resample: [resamples] float64, NaN for a resample without labels.

    Which rows resample i draws depends only on N and the seed, not on the scores.
    """
    num_videos, width = videos.keys.shape
    # Complements, because the sort is ascending and keys rank in descending order; the lowest bit is now 1 for a hit.
    pairs = (~videos.keys).astype(np.uint64).ravel()
    pairs <<= np.uint64(32)
    pairs |= np.repeat(np.arange(num_videos, dtype=np.uint32), width)
    pairs.sort()
    hits = np.flatnonzero(pairs & np.uint64(1 << 32))
    pairs &= np.uint64(0xFFFFFFFF)
    owners = pairs.view(np.int64)[: hits[-1] + 1 if len(hits) else 0]  # pairs after the last hit do not count
    rank = np.int32 if num_videos * width < 2**31 else np.int64
    found = np.full(resamples, np.nan)
    with np.errstate(invalid="ignore"):
        for number, drawn in enumerate(_draws(num_videos, resamples, seed)):
            weights = drawn.take(owners)
            of_hits = weights[hits].astype(np.int64)
            ranks = np.cumsum(weights, dtype=rank)[hits]  # of the last copy of each hit
            misses = np.repeat(ranks - np.cumsum(of_hits), of_hits)
            # Copies of a hit are consecutive, as are hits of the same score, with equally many misses before each.
            hit_ranks = np.arange(1, len(misses) + 1)
            found[number] = (hit_ranks / (hit_ranks + misses)).sum() / np.float64(
                drawn.astype(np.int64) @ videos.num_labels.astype(np.int64)
            )
    return found


def _draws(num_videos: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields, for each resample, how often each video was drawn: [N] uint16."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(num_videos, size=num_videos), minlength=num_videos).astype(np.uint16)


def _interval(values: np.ndarray, resamples: int, seed: int) -> Interval:
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), LEVEL, resamples, seed)
