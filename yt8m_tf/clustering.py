"""k-means over frames: a sample of frames from shards, scikit-learn's mini-batch k-means, one file of centroids.

The file is a NumPy archive (.npz): `centroids` [K, D] float32, of decoded frames with all features side by side, in the
order of `feature_names` and `feature_sizes`; `inertia`, the sum of the sampled frames' squared distances to the nearest
centroid; `num_frames` of the sample; `seed`.
"""

from __future__ import annotations

import dataclasses
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from yt8m_tf import run_dir, schema
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import evaluation_stream
from yt8m_tf.errors import InputError
from yt8m_tf.experiment import DataConfig

# Read together: 45 MB of clips of both features.
_CLIPS_OF_BATCH = 128
_UNBOUNDED = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class Clustering:
    """Centroids, and how well they stand for the frames that they were fitted to.

    Attributes:
      centroids: [K, D] float32.
      features: feature name to size D', in the order of the columns.
      num_frames: frames of the sample.
      seed: of the sample and the fit.
      inertia: sum of squared distances of the frames to their nearest centroids.
      total_inertia: the same with the mean frame as the only centroid.
      num_empty: centroids that are the nearest one of no frame.
    """

    centroids: np.ndarray
    features: Mapping[str, int]
    num_frames: int
    seed: int
    inertia: float
    total_inertia: float
    num_empty: int

    @property
    def mean_squared_distance(self) -> float:
        """Of the frames to their nearest centroids."""
        return self.inertia / self.num_frames

    @property
    def explained(self) -> float:
        """The share of the frames' variance that is between clusters, not within: 1 where frames are centroids."""
        return 1.0 - self.inertia / self.total_inertia if self.total_inertia else 1.0


def parse_features(items: Sequence[str]) -> dict[str, int]:
    """Features as the flag `--features=rgb:1024,audio:128` gives them: name to size, in order.

    Raises:
      InputError: none, or one that is not NAME:SIZE.
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
    features: Mapping[str, int],
    num_frames: int,
    *,
    frames_per_clip: int,
    seed: int,
    faults: Faults,
    progress: bool = True,
) -> np.ndarray:
    """Draws frames from the first clips of every shard, as many clips of each and as many frames of each clip.

    Args:
      shards: paths of frame-level shards.
      features: feature name to size.
      num_frames: the size of the sample, rounded up to whole clips of every shard; it is smaller where shards hold
        fewer clips, or clips fewer frames.
      frames_per_clip: drawn from each clip, without replacement.
      seed: of the draws.
      faults: what to do about damaged shards and clips without frames.
      progress: whether to show a progress bar.

    Returns:
      [N, D] uint8 codes: N * D bytes, and 50 MB beside them while shards are read.

    Raises:
      InputError: a record that is not frame-level or has other features; damage, unless it is to be skipped.
    """
    # Labels are not read: any will do.
    data = DataConfig("frame", features=features, num_classes=_UNBOUNDED, max_labels=_UNBOUNDED)
    clips_of_shard = -(-num_frames // (frames_per_clip * len(shards)))
    rng, count = np.random.default_rng(seed), 0
    sample = np.empty((clips_of_shard * len(shards) * frames_per_clip, sum(features.values())), np.uint8)
    batches: Iterator[Mapping[str, Any]] = evaluation_stream(
        shards, data, _CLIPS_OF_BATCH, faults=faults, with_labels=False, records_per_shard=clips_of_shard
    )
    with tqdm(total=len(sample), desc="sample", unit=" frames", unit_scale=True, disable=not progress) as bar:
        for batch in _explained(batches, features):
            codes = [batch[name].numpy() for name in features]  # [B, T, D'] each
            for clip in np.flatnonzero(batch["valid"]):
                length = int(batch["num_frames"][clip])
                chosen = rng.choice(length, min(length, frames_per_clip), replace=False)
                rows = np.concatenate([values[clip, chosen] for values in codes], axis=1)
                sample[count : count + len(rows)] = rows
                count += len(rows)
            bar.update(count - bar.n)
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

    It starts from K frames of the first batch. scikit-learn's own start, k-means++, takes longer than the whole fit
    where K is in the thousands, for 0.1 to 0.5 % more of the variance explained.

    Args:
      sample: [N, D] uint8 codes, decoded batch by batch.
      features: feature name to size, D in all.
      num_clusters: K.
      batch_size: frames of an update; no fewer than K are taken.
      num_passes: over the sample.
      seed: of the start and the order of the frames.
      progress: whether to show progress bars.

    Raises:
      InputError: fewer frames than clusters.
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
    with tqdm(total=num_passes * num_frames, desc="fit", unit=" frames", unit_scale=True, disable=not progress) as bar:
        for _ in range(num_passes):
            order = rng.permutation(num_frames)
            for start in range(0, num_frames, batch_size):
                rows = order[start : start + batch_size]
                kmeans.partial_fit(_decode(sample[rows]))
                bar.update(len(rows))
    inertia, total_inertia, counts = _measure(sample, kmeans, batch_size, progress)
    num_empty = int(np.sum(counts == 0))
    return Clustering(kmeans.cluster_centers_, dict(features), num_frames, seed, inertia, total_inertia, num_empty)


def write(clustering: Clustering, output: Path) -> None:
    """Writes the file of centroids, which appears when it is whole.

    Raises:
      InputError: it cannot be written.
    """
    try:
        with run_dir.whole_file(output) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                centroids=clustering.centroids,
                feature_names=np.array(list(clustering.features)),
                feature_sizes=np.array(list(clustering.features.values()), np.int64),
                inertia=np.float64(clustering.inertia),
                num_frames=np.int64(clustering.num_frames),
                seed=np.int64(clustering.seed),
            )
    except OSError as error:
        raise _not_writable(output, error) from error


def check_writable(output: Path) -> None:
    """Makes the directory of `output`, and sees whether a file can be written there: before hours of work, not after.

    Raises:
      InputError: it cannot.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
        if output.is_dir():
            raise IsADirectoryError(0, "is a directory")
    except OSError as error:
        raise _not_writable(output, error) from error


def load_centroids(model: Any, path: str, features: Mapping[str, int], data_dir: str = "") -> None:
    """Assigns the centroids of a file to the layer "codebook" of a new model.

    Args:
      model: a `keras.Model` with such a layer.
      path: of the file, relative to `data_dir` unless it is absolute or has a scheme, such as "gs://".
      features: what the model reads, in the order that it puts them side by side.
      data_dir: see `path`.

    Raises:
      InputError: no such file, not one of `yt8m-kmeans`, or of another number of clusters or other features.
    """
    variable = model.get_layer("codebook").centroids
    path = os.path.join("" if "://" in path else os.path.expanduser(data_dir), os.path.expanduser(path))
    where, flags = f"configuration key 'model.centroids': '{path}'", _flags(features)
    try:
        with np.load(io.BytesIO(tf.io.gfile.GFile(path, "rb").read()), allow_pickle=False) as archive:
            centroids, names, sizes = (archive[key] for key in ("centroids", "feature_names", "feature_sizes"))
    except tf.errors.OpError as error:
        reason = "no such file" if isinstance(error, tf.errors.NotFoundError) else " ".join(error.message.split())
        remedy = f"fit centroids with yt8m-kmeans --num_clusters={variable.shape[0]} --features={flags}, or name theirs"
        raise InputError(f"{where} cannot be read ({reason}); {remedy}") from error
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{where} is no file of centroids; name one that yt8m-kmeans wrote") from error
    found = dict(zip(names.tolist(), sizes.tolist(), strict=True))
    if list(found.items()) != list(features.items()):
        raise InputError(
            f"{where} is of the features {_flags(found)}, data.features has {flags}; make data.features the same, in"
            f" the same order, or run yt8m-kmeans with --features={flags}"
        )
    if centroids.shape != tuple(variable.shape):
        raise InputError(
            f"{where} holds {len(centroids)} centroids, not model.num_clusters: {variable.shape[0]}; set"
            f" model.num_clusters: {len(centroids)}, or run yt8m-kmeans with --num_clusters={variable.shape[0]}"
        )
    variable.assign(centroids)


def _decode(codes: np.ndarray) -> np.ndarray:
    return np.asarray(schema.dequantise(codes))


def _explained(batches: Iterator[Mapping[str, Any]], features: Mapping[str, int]) -> Iterator[Mapping[str, Any]]:
    """Says where the features and the level come from, of which messages of the pipeline speak as `data.features`."""
    try:
        yield from batches
    except InputError as error:
        raise InputError(f"--input, read at data.level: frame with --features={_flags(features)}: {error}") from error


def _measure(sample: np.ndarray, kmeans: Any, batch_size: int, progress: bool) -> tuple[float, float, np.ndarray]:
    """The inertia, that of the mean frame alone, and [K] frames of each cluster."""
    counts = np.zeros(kmeans.n_clusters, np.int64)
    inertia, squares, sums = 0.0, 0.0, np.zeros(sample.shape[1])
    with tqdm(total=len(sample), desc="measure", unit=" frames", unit_scale=True, disable=not progress) as bar:
        for start in range(0, len(sample), batch_size):
            x = _decode(sample[start : start + batch_size])
            nearest = kmeans.predict(x)
            inertia += float(np.sum(np.square(x - kmeans.cluster_centers_[nearest]), dtype=np.float64))
            squares += float(np.sum(np.square(x), dtype=np.float64))
            sums += np.sum(x, axis=0, dtype=np.float64)
            counts += np.bincount(nearest, minlength=len(counts))
            bar.update(len(x))
    return inertia, max(squares - float(np.sum(np.square(sums))) / len(sample), 0.0), counts


def _flags(features: Mapping[str, int]) -> str:
    return ",".join(f"{name}:{size}" for name, size in features.items())


def _not_writable(output: Path, error: OSError) -> InputError:
    return InputError(f"--output={output}: cannot be written ({error.strerror}); name another file")
