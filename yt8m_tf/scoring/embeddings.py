"""Embeds videos with a trained model: writes the activations before the class layer, in float16.

The output is shards of video-level records: `id`, `labels` if the video has any, and `mean_embedding`, D little-endian
float16. Models read them with `data.features: {embedding: {size: D, dtype: float16}}`. Or the output is `.npy` files,
[N, D], each with the ids in a text file beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from yt8m_tf import files, locks, run_dir, schema
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.data import DataConfig
from yt8m_tf.console.progress import Progress
from yt8m_tf.data import integrity, records
from yt8m_tf.data.batches import read_batches
from yt8m_tf.data.clips import model_inputs
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.integrity import Damage
from yt8m_tf.data.labels import LabelRule
from yt8m_tf.data.pipeline import scoring_batch_size
from yt8m_tf.data.shards import size_of
from yt8m_tf.data.threads import in_order
from yt8m_tf.errors import InputError
from yt8m_tf.models.class_layer import embedding_model
from yt8m_tf.serving.metadata import read_data
from yt8m_tf.serving.scorer import fingerprint, load_saved_model
from yt8m_tf.training import checkpoints

MANIFEST = "embeddings.json"
FEATURE = "embedding"
_ANY_CLASS = (1 << 63) - 1  # labels are copied: they may be those of another data set than the model's
Kind = Literal["tfrecord", "npy"]


@dataclasses.dataclass(frozen=True)
class EmbeddedShard:
    """An embedded shard: its size, its number of videos, how many had no frames, and the damage that ended reading."""

    num_bytes: int
    num_videos: int
    num_empty: int = 0
    damage: Damage | None = None


@dataclasses.dataclass(frozen=True)
class EmbeddingsManifest:
    """Manifest of a directory of embeddings.

    Attributes:
      model: path of the run directory or SavedModel, for information only.
      fingerprint: a hash of its weights and configuration.
      size: D.
      kind: "tfrecord" or "npy".
      shards: the finished shards, by base name.
    """

    model: str
    fingerprint: str
    size: int
    kind: Kind
    shards: Mapping[str, EmbeddedShard] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class EmbeddingSummary:
    """Summary of a run: the manifest, how many videos this process embedded, its duration, and faults."""

    manifest: EmbeddingsManifest
    num_embedded: int
    seconds: float
    faults: Faults


@dataclasses.dataclass(frozen=True)
class Embedder:
    """A loaded model: path, configuration of its data, hash, D, and the function from a parsed batch to [B, D]."""

    path: Path
    data: DataConfig
    fingerprint: str
    size: int
    embed: Callable[[Mapping[str, tf.Tensor]], tf.Tensor]


def load_embedder(path: Path, which: str = "best") -> Embedder:
    """Loads the model of a run directory of yt8m-train, or of a SavedModel of yt8m-export --embeddings.

    Args:
      path: the directory.
      which: "best" or "last" checkpoint of a run.

    Raises:
      InputError: `path` is neither, cannot be read, or has no layer whose input is an embedding.
    """
    where = f"--model={path}"
    if files.is_saved_model(path):
        data, loaded = read_data(path), load_saved_model(path, where)
        if data is None or "embeddings" not in loaded.signatures:
            raise InputError(f"{where}: a SavedModel without embeddings; export it with yt8m-export --embeddings")
        signature = loaded.signatures["embeddings"]
        names = [*signature.structured_input_signature[1]]

        def served(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
            assert loaded is not None  # keeps its variables alive
            return signature(**{name: batch[name] for name in names})["embeddings"]

        size = signature.structured_outputs["embeddings"].shape[-1]
        return Embedder(path, data, fingerprint(path), size, served)
    if not (path / run_dir.CONFIG).is_file():
        raise InputError(
            f"{where}: neither a run directory of yt8m-train nor a SavedModel of yt8m-export --embeddings; name one"
        )
    trained = checkpoints.load_trained(path, which)
    data, digest = trained.experiment.data, hashlib.sha256((path / run_dir.CONFIG).read_bytes())
    digest.update(fingerprint(trained.checkpoint.parent).encode())
    model = embedding_model(trained.model, data.spec, where)

    @tf.function(autograph=False, reduce_retracing=True)
    def forward(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return model(inputs, training=False)

    return Embedder(
        path, data, digest.hexdigest(), model.output.shape[-1], lambda batch: forward(model_inputs(batch, data.spec))
    )


def embed(
    embedder: Embedder,
    shards: Sequence[str],
    output: Path,
    *,
    kind: Kind = "tfrecord",
    batch_size: int | None = None,
    faults: Faults | None = None,
    progress: bool = True,
) -> EmbeddingSummary:
    """Writes the embeddings of all records of `shards`, a file for each shard, and the manifest `embeddings.json`.

    After an interruption, the same call continues with the first shard that is not finished.

    Args:
      embedder: from `load_embedder`.
      shards: paths; their base names must differ.
      output: the directory.
      kind: "tfrecord", or "npy": `NAME.npy` and `NAME.ids.txt` for `NAME.tfrecord`.
      batch_size: number of records embedded together; None: 1,024 videos, or 128 clips.
      faults: what to do about damaged shards and clips without frames, which have no embedding.
      progress: whether to show a progress bar.

    Raises:
      InputError: two shards have the same name, `output` contains embeddings of another model, a shard is damaged, a
        record does not fit the model, or an embedding is not finite in float16.
    """
    faults, begin, done = faults or Faults(), time.perf_counter(), 0
    faults.of_model(f"the model in {embedder.path}")
    names = [os.path.basename(shard) for shard in shards]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(
            f"--input: two shards are named '{min(twice)}'; embeddings are stored by base name; embed them separately"
        )
    files.check_no_input([output / name for name in names], shards, f"--output={output}")
    batch_size = batch_size or scoring_batch_size(embedder.data.level)
    with locks.exclusive(output, "--output", "writes embeddings"):
        manifest = _begin(output, embedder, kind)
        sizes = {shard: size_of(shard) for shard in shards}
        with Progress(total=sum(sizes.values()), desc="embed", unit="B", unit_scale=True, disable=not progress) as bar:
            for shard, name in zip(shards, names, strict=True):
                before = manifest.shards.get(name)
                if before and _is_current(before, shard, sizes[shard]):
                    if before.damage:
                        faults.skip_damage(dataclasses.replace(before.damage, path=shard))
                    faults.num_empty += before.num_empty
                else:
                    made = _embed_shard(embedder, shard, sizes[shard], output / name, kind, batch_size, faults)
                    manifest = dataclasses.replace(manifest, shards={**manifest.shards, name: made})
                    files.write_json(output / MANIFEST, strict_yaml.to_dict(manifest))
                    done += made.num_videos
                bar.update(sizes[shard])
    faults.check_any(sum(manifest.shards[name].num_videos for name in names), shards, "no video was embedded")
    return EmbeddingSummary(manifest, done, time.perf_counter() - begin, faults)


def _begin(output: Path, embedder: Embedder, kind: Kind) -> EmbeddingsManifest:
    """Returns the manifest of the embeddings already in `output`, or an empty one if there are none."""
    manifest = EmbeddingsManifest(str(embedder.path), embedder.fingerprint, embedder.size, kind)
    if not (output / MANIFEST).is_file():
        return manifest
    found = strict_yaml.read_json(output / MANIFEST, EmbeddingsManifest, "make the embeddings again")
    if dataclasses.replace(found, shards={}, model=manifest.model) != manifest:
        if not any(shard.num_videos for shard in found.shards.values()):  # a run that found nothing to embed
            return manifest
        raise InputError(
            f"--output={output}: contains embeddings of another model, checkpoint or --format; name another directory,"
            " or remove this one"
        )
    return found


def _is_current(before: EmbeddedShard, shard: str, num_bytes: int) -> bool:
    return before.num_bytes == num_bytes and not (before.damage and not integrity.is_damaged_as(shard, before.damage))


def _embed_shard(
    embedder: Embedder, shard: str, num_bytes: int, path: Path, kind: Kind, batch_size: int, faults: Faults
) -> EmbeddedShard:
    def run(batch: tuple[np.ndarray, tf.Tensor]) -> tuple[tf.Tensor, np.ndarray, np.ndarray, np.ndarray]:
        serialized = batch[1]
        try:
            parsed = records.parse_records(serialized, embedder.data.records)
            vectors = embedder.embed({name: parsed[name] for name in parsed if name != "id"}).numpy()
        except records.PARSE_FAILURES as error:
            problem = faults.find_bad_record([shard], embedder.data.records, need_whole=False)
            if problem is None:
                raise
            raise InputError(problem) from error
        empty = parsed["num_frames"].numpy() == 0 if embedder.data.level == "frame" else np.zeros(len(vectors), bool)
        return serialized, parsed["id"].numpy(), vectors, empty

    ids: list[bytes] = []
    num_empty = 0
    rule = LabelRule(_ANY_CLASS, embedder.data.id_keys, embedder.data.labels_key, faults.reader)

    def rows() -> Iterator[tuple[bytes, Sequence[int], np.ndarray]]:
        nonlocal num_empty
        for serialized, own, vectors, empty in in_order(run, read_batches([[shard]], batch_size, faults)):
            if empty.any():
                faults.skip_empty(shard, embedder.data.records, int(empty.sum()))
                num_empty += int(empty.sum())
            halved = _halved(vectors, own, empty, shard, embedder)
            labels = rule.parse(serialized, [shard]).to_list()
            for index in np.flatnonzero(~empty):
                ids.append(own[index])
                yield own[index], labels[index], halved[index]

    if kind == "tfrecord":
        with files.whole_file(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for row in rows():
                writer.write(_record(*row))
    else:
        vectors = [vector for *_, vector in rows()]
        with files.whole_file(path.with_suffix(".ids.txt")) as temporary:
            temporary.write_bytes(b"".join(video_id + b"\n" for video_id in ids))
        with files.whole_file(path.with_suffix(".npy")) as temporary, open(temporary, "wb") as file:
            np.save(file, np.array(vectors, np.float16).reshape(-1, embedder.size))
    return EmbeddedShard(num_bytes, len(ids), num_empty, faults.damaged.get(shard))


def _halved(vectors: np.ndarray, ids: np.ndarray, empty: np.ndarray, shard: str, embedder: Embedder) -> np.ndarray:
    """Converts embeddings [B, D] to float16, and checks that they are finite."""
    with np.errstate(over="ignore"):  # overflow gives infinity, which is refused below
        halved = vectors.astype("<f2")
    wrong = ~np.isfinite(halved).all(axis=1) & ~empty
    if wrong.any():
        raise InputError(
            f"{shard}: the model in {embedder.path} gives video '{ids[wrong][0].decode(errors='replace')}' an embedding"
            " that is NaN, or beyond float16's 65,504; train it with finite weights"
        )
    return halved


def _record(video_id: bytes, labels: Sequence[int], vector: np.ndarray) -> bytes:
    values = {
        schema.ID_KEYS[0]: tf.train.Feature(bytes_list=tf.train.BytesList(value=[video_id])),
        f"mean_{FEATURE}": tf.train.Feature(bytes_list=tf.train.BytesList(value=[vector.tobytes()])),
    }
    if labels:
        values[schema.LABELS_KEY] = tf.train.Feature(int64_list=tf.train.Int64List(value=labels))
    example = tf.train.Example(features=tf.train.Features(feature=values))
    return example.SerializeToString(deterministic=True)
