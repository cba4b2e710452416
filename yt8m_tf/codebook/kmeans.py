"""k-means over frames: a sample of frames from shards, fitted by scikit-learn's mini-batch k-means."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from yt8m_tf import schema
from yt8m_tf.codebook.centroids import Clustering
from yt8m_tf.config.data import RecordsConfig
from yt8m_tf.console.progress import Progress
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import evaluation_stream
from yt8m_tf.data.sampling import decode
from yt8m_tf.errors import InputError

# Clips that are read together: 45 MB with both features.
_CLIPS_OF_BATCH = 128


def parse_features(items: Sequence[str]) -> dict[str, int]:
    """Parses features as the flag `--features=rgb:1024,audio:128` gives them: name to size, in order.

    Raises:
      InputError: there is none, or one is not NAME:SIZE.
    """
    features = {}
    for item in items:
        name, _, size = item.partition(":")
        if not name or not size.isdecimal() or int(size) < 1:
            raise InputError(f"--features: '{item}' is not NAME:SIZE; write it like rgb:1024,audio:128")
        features[name] = int(size)
    if not features:
        raise InputError("--features: names no feature; write it like rgb:1024,audio:128")
    return features


def sample_frames(
    shards: Sequence[str],
    data: RecordsConfig,
    num_frames: int,
    *,
    frames_per_clip: int,
    seed: int,
    faults: Faults,
    features_flag: str = "",
    progress: bool = True,
) -> np.ndarray:
    """Draws frames from the first clips of every shard: the same number of clips per shard and of frames per clip.

    Args:
      shards: paths of frame-level shards.
      data: what they contain.
      num_frames: the size of the sample, rounded up to whole clips of every shard; it is smaller if shards have fewer
        clips, or clips fewer frames.
      frames_per_clip: frames drawn from each clip, without replacement.
      seed: seed of the draws.
      faults: what to do about damaged shards and clips without frames.
      features_flag: the flag that says what `data` is, for messages; "" if a configuration does.
      progress: whether to show a progress bar.

    Returns:
      [N, D], the features concatenated: uint8 codes of YouTube-8M's range if every feature is stored as such, otherwise
      decoded float32 values. While shards are read, some batches of 45 MB are in memory, too.

    Raises:
      InputError: a record is not frame-level or has other features, or a shard is damaged and not to be skipped.
    """
    if features_flag:
        faults.reader = dataclasses.replace(faults.reader, model="yt8m-kmeans", features_flag=features_flag)
    clips_of_shard = -(-num_frames // (frames_per_clip * len(shards)))
    rng, count = np.random.default_rng(seed), 0
    is_codes = all((f.dtype, f.range) == ("uint8", schema.CODE_RANGE) for f in data.stored.values())
    ranges = {name: feature.range or schema.CODE_RANGE for name, feature in data.stored.items()}
    sample = np.empty(
        (clips_of_shard * len(shards) * frames_per_clip, sum(data.sizes.values())), np.uint8 if is_codes else np.float32
    )
    batches: Iterator[Mapping[str, Any]] = evaluation_stream(
        shards, data, _CLIPS_OF_BATCH, faults=faults, records_per_shard=clips_of_shard
    )
    with Progress(total=len(sample), desc="sample", unit=" frames", unit_scale=True, disable=not progress) as bar:
        for batch in batches:
            stored = {name: batch[name].numpy() for name in data.features}  # [B, T, D'] each
            for clip in np.flatnonzero(batch["valid"]):
                length = int(batch["num_frames"][clip])
                chosen = rng.choice(length, min(length, frames_per_clip), replace=False)
                rows = [values[clip, chosen] for values in stored.values()]
                if not is_codes:
                    rows = [np.asarray(decode(own, ranges[name])) for name, own in zip(stored, rows, strict=True)]
                sample[count : count + len(chosen)] = np.concatenate(rows, axis=1)
                count += len(chosen)
            bar.update(count - bar.n)
    faults.check_any(count, shards, "no frame was read")
    return sample[:count]


def fit(
    sample: np.ndarray,
    features: Mapping[str, int],
    num_clusters: int,
    *,
    batch_size: int,
    num_passes: int,
    seed: int,
    progress: bool = True,
) -> Clustering:
    """Fits centroids with scikit-learn's MiniBatchKMeans, and measures them on the same frames.

    It starts from K frames of the first batch: scikit-learn's own start, k-means++, gains little and takes longer than
    all the rest (docs/BENCHMARKS.md).

    Args:
      sample: [N, D], from `sample_frames`; codes are decoded batch by batch.
      features: feature name to size, D in total.
      num_clusters: K.
      batch_size: frames per update, raised to K if it is smaller.
      num_passes: passes over the sample.
      seed: seed of the start and the order of the frames.
      progress: whether to show progress bars.

    Raises:
      InputError: there are fewer frames than clusters.
    """
    if len(sample) < num_clusters:
        raise InputError(
            f"--num_clusters={num_clusters}: the sample has {len(sample)} frames, fewer than clusters; raise"
            " --num_frames or --frames_per_clip, give more shards, or ask for fewer clusters"
        )
    from sklearn.cluster import MiniBatchKMeans

    batch_size = min(max(batch_size, num_clusters), len(sample))
    kmeans = MiniBatchKMeans(
        num_clusters, init="random", n_init=1, batch_size=batch_size, compute_labels=False, random_state=seed
    )
    rng, num_frames = np.random.default_rng(seed), len(sample)
    with Progress(
        total=num_passes * num_frames, desc="fit", unit=" frames", unit_scale=True, disable=not progress
    ) as bar:
        for _ in range(num_passes):
            order = rng.permutation(num_frames)
            for start in range(0, num_frames, batch_size):
                rows = order[start : start + batch_size]
                kmeans.partial_fit(np.asarray(decode(sample[rows])))
                bar.update(len(rows))
    inertia, total_inertia, counts = _measure(sample, kmeans, batch_size, progress)
    num_empty = int(np.sum(counts == 0))
    return Clustering(kmeans.cluster_centers_, dict(features), num_frames, seed, inertia, total_inertia, num_empty)


def _measure(sample: np.ndarray, kmeans: Any, batch_size: int, progress: bool) -> tuple[float, float, np.ndarray]:
    """Returns the inertia, that of the mean frame alone, and the number of frames of each cluster, [K]."""
    counts = np.zeros(kmeans.n_clusters, np.int64)
    inertia, squares, sums = 0.0, 0.0, np.zeros(sample.shape[1])
    with Progress(total=len(sample), desc="measure", unit=" frames", unit_scale=True, disable=not progress) as bar:
        for start in range(0, len(sample), batch_size):
            x = np.asarray(decode(sample[start : start + batch_size]))
            nearest = kmeans.predict(x)
            inertia += float(np.sum(np.square(x - kmeans.cluster_centers_[nearest]), dtype=np.float64))
            squares += float(np.sum(np.square(x), dtype=np.float64))
            sums += np.sum(x, axis=0, dtype=np.float64)
            counts += np.bincount(nearest, minlength=len(counts))
            bar.update(len(x))
    return inertia, max(squares - float(np.sum(np.square(sums))) / len(sample), 0.0), counts
