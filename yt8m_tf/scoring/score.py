"""Scores shards with a trained model, out of fold if it was trained on folds: from shards to score shards.

Batches may span shards. While one batch is scored, the next one is parsed and the previous one is written. A score
shard appears once it is complete, so that an interrupted run continues with the first missing shard, and several
processes can share the work (`locks`).
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf import files, schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.console.progress import Progress
from yt8m_tf.data import integrity, records
from yt8m_tf.data.batches import read_batches
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import scoring_batch_size
from yt8m_tf.data.shards import size_of
from yt8m_tf.data.threads import in_order
from yt8m_tf.errors import InputError
from yt8m_tf.locks import Claims
from yt8m_tf.score_shards import records as score_records
from yt8m_tf.score_shards.manifest import Manifest, ScoredShard, begun, finish, known_inputs, note_input
from yt8m_tf.scoring.predictors import Predictor

# Number of shards claimed together. Each such group needs a new dataset, which takes as long as scoring about a hundred
# videos.
_CLAIMED = {"video": 64, "frame": 4}


@dataclasses.dataclass(frozen=True)
class ScoringSummary:
    """Summary of a run: finished manifest, number of videos scored by this process, its duration, skipped faults."""

    manifest: Manifest
    num_scored: int
    seconds: float
    faults: Faults


def score(
    predictors: Sequence[Predictor],
    shards: Sequence[str],
    output: Path,
    *,
    top_k: int = score_records.DEFAULT_TOP_K,
    batch_size: int | None = None,
    faults: Faults | None = None,
    xla: bool = True,
    progress: bool = True,
) -> ScoringSummary:
    """Writes the scores of all `shards` to `output`, one file for each, and `scores.json` when all are complete.

    Args:
      predictors: one model, or the models of its folds. A shard of a fold is scored by the model that was not trained
        on it, every other shard by the mean of all models.
      shards: paths; their base names must differ.
      output: directory of the score shards.
      top_k: K, the number of classes listed for a video.
      batch_size: number of records scored together; None: 1,024 videos, or 128 clips.
      faults: what to do about damaged shards and clips without frames; skipped videos have no scores.
      xla: compile the ranking with XLA; for the models, see `predictors.find_predictor`.
      progress: whether to show a progress bar.

    Raises:
      InputError: the models do not belong together, the model of a fold is missing, two shards have the same name,
        `output` contains scores of another model, a shard is damaged, a record does not fit the model, or a score is
        NaN.
    """
    faults, begin = faults or Faults(), time.perf_counter()
    faults.of_model(f"the model in {predictors[0].path}")
    data = predictors[0].data
    if data.num_classes > schema.MAX_STORED_CLASSES:
        raise InputError(
            f"{predictors[0].path}: a model of {data.num_classes:,} classes, and score shards store the ids of at most"
            f" {schema.MAX_STORED_CLASSES:,}; write its scores with yt8m-infer"
        )
    groups = _by_fold(predictors, shards)
    manifest = Manifest(
        tuple(str(predictor.path) for predictor in predictors),
        _fingerprint(predictors, top_k),
        data.num_classes,
        min(top_k, data.num_classes),
        data.level,
        predictors[0].folds,
        keys=data.other_keys,
    )
    files.check_no_input([output / os.path.basename(shard) for shard in shards], shards, f"--output={output}")
    sizes = {shard: size_of(shard) for shard in shards}
    counts: dict[str, int] = {}
    with (
        begun(output, manifest),
        Progress(total=sum(sizes.values()), desc="score", unit="B", unit_scale=True, disable=not progress) as bar,
        Claims(output) as claims,
    ):
        _remove_outdated(output, sizes)
        for members, group in groups:
            job = _Job(members, data, manifest.top_k, batch_size, output, claims, faults, xla, sizes, bar)
            counts |= job.run(group)
        scored, inputs = sum(counts.values()), known_inputs(output)
        for shard in shards:
            name = os.path.basename(shard)
            if name not in counts:  # scored by another process, or by an earlier run
                counts[name] = integrity.scan_shard(str(output / name)).num_records
                _restore(faults, shard, inputs.get(name))
        if not any(counts.values()):
            for name in counts:
                (output / name).unlink()
            faults.check_any(0, shards, "no video was scored")
        own = {name: inputs[name] for name in counts if name in inputs}
        manifest = finish(output, dataclasses.replace(manifest, shards=counts, inputs=own))
        claims.remove()
    return ScoringSummary(manifest, scored, time.perf_counter() - begin, faults)


class _Job:
    """Scores shards with the mean of some models, which are loaded when there is something to score."""

    def __init__(
        self,
        members: Sequence[Predictor],
        data: DataConfig,
        top_k: int,
        batch_size: int | None,
        output: Path,
        claims: Claims,
        faults: Faults,
        xla: bool,
        sizes: dict[str, int],
        bar: Progress,
    ):
        self._members, self._data, self._top_k, self._output, self._claims = members, data, top_k, output, claims
        self._faults, self._xla, self._sizes, self._bar = faults, xla, sizes, bar
        self._batch_size = batch_size or scoring_batch_size(data.level)
        self._function: Callable[[tf.Tensor], Sequence[tf.Tensor]] | None = None
        self._loading = threading.Lock()

    def run(self, shards: Sequence[str]) -> dict[str, int]:
        """Scores the missing shards that no other process has claimed, then waits for the others; returns counts."""
        counts: dict[str, int] = {}
        counts |= self._score(self._claimed(shards))
        for shard in shards:
            # One at a time: a process that waits has no claim that another process could be waiting for.
            if not self._is_done(shard) and self._claims.take(os.path.basename(shard), wait=True):
                if self._is_done(shard):
                    self._skip(shard)
                else:
                    counts |= self._score(iter([[shard]]))
        return counts

    def _claimed(self, shards: Sequence[str]) -> Iterator[list[str]]:
        taken: list[str] = []
        for shard in shards:
            if self._is_done(shard):
                self._bar.update(self._sizes[shard])
            elif self._claims.take(os.path.basename(shard)):
                if self._is_done(shard):  # by another process, since the check above
                    self._skip(shard)
                else:
                    taken.append(shard)
            if len(taken) == _CLAIMED[self._data.level]:
                yield taken
                taken = []
        if taken:
            yield taken

    def _score(self, groups: Iterator[list[str]]) -> dict[str, int]:
        rows: collections.defaultdict[str, list[tuple[np.ndarray, ...]]] = collections.defaultdict(list)
        skipped: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
        waiting: list[str] = []
        counts: dict[str, int] = {}

        shards: list[str] = []

        def claimed() -> Iterator[list[str]]:
            for group in groups:
                waiting.extend(group)
                shards.extend(group)
                yield group

        def write(until: str | None) -> None:
            while waiting and waiting[0] != until:
                shard = waiting.pop(0)
                name = os.path.basename(shard)
                kept = (row for part in rows.pop(shard, []) for row in zip(*part, strict=True))
                made_from = ScoredShard(
                    self._sizes[shard], self._faults.damaged.get(shard), tuple(skipped.pop(shard, ()))
                )
                note_input(self._output, name, made_from)
                counts[name] = score_records.write_shard(self._output / name, kept)
                self._claims.release(name)
                self._bar.update(self._sizes[shard])

        def score(batch: tuple[np.ndarray, tf.Tensor]) -> tuple[np.ndarray, Sequence[np.ndarray]]:
            owners, serialized = batch
            return owners, self._score_batch([shards[index] for index in np.unique(owners)], serialized)

        batches = read_batches(claimed(), self._batch_size, self._faults)
        for owners, results in in_order(score, batches):
            for index in np.unique(owners):
                shard = shards[index]
                write(shard)
                ids, classes, scores, empty = (result[owners == index] for result in results)
                self._check(shard, ids, scores, empty)
                skipped[shard] += [video.decode("utf-8", "backslashreplace") for video in ids[empty]]
                rows[shard].append((ids[~empty], classes[~empty], scores[~empty]))
        write(None)
        return counts

    def _score_batch(self, shards: Sequence[str], serialized: tf.Tensor) -> Sequence[np.ndarray]:
        """Returns ids, class ids and scores of records of some shards, and which of them have no frames."""
        try:
            ids, keys, empty = (result.numpy()[: len(serialized)] for result in self._run(serialized))
        except records.PARSE_FAILURES as error:
            problem = self._faults.find_bad_record(shards, self._data.records, need_whole=False)
            if problem is None:
                raise
            raise InputError(problem) from error
        return ids, *score_records.highest(keys, self._top_k), empty

    def _run(self, serialized: tf.Tensor) -> Sequence[tf.Tensor]:
        with self._loading:  # batches are scored by several threads
            if self._function is None:
                self._function = _scoring_function(self._members, self._data, self._top_k, self._batch_size, self._xla)
        return self._function(serialized)

    def _check(self, shard: str, ids: np.ndarray, scores: np.ndarray, empty: np.ndarray) -> None:
        """Refuses clips without frames, unless the policy is to skip them, and scores that are NaN."""
        if empty.any():
            self._faults.skip_empty(shard, self._data.records, int(empty.sum()))
        wrong = np.isnan(scores).any(axis=1) & ~empty
        if wrong.any():
            raise InputError(
                f"{shard}: the model in {self._members[0].path} gives video"
                f" '{ids[wrong][0].decode(errors='replace')}' a score that is NaN; train it with finite weights"
            )

    def _is_done(self, shard: str) -> bool:
        return (self._output / os.path.basename(shard)).is_file()

    def _skip(self, shard: str) -> None:
        self._claims.release(os.path.basename(shard))
        self._bar.update(self._sizes[shard])


def _scoring_function(
    members: Sequence[Predictor], data: DataConfig, top_k: int, batch_size: int, xla: bool
) -> Callable[[tf.Tensor], Sequence[tf.Tensor]]:
    """Returns a function from up to `batch_size` records to ids, keys for `highest`, and which clips are empty."""
    models = [member.load() for member in members]
    on_gpu = bool(tf.config.list_logical_devices("GPU"))

    @tf.function(autograph=False, jit_compile=xla)
    def rank(probabilities: list[tf.Tensor]) -> tf.Tensor:
        return score_records.ranking_keys(tf.add_n(probabilities) / len(probabilities))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def run(serialized: tf.Tensor) -> Sequence[tf.Tensor]:
        # Copies of the first record fill the last batch, because XLA would compile another size again.
        missing = batch_size - tf.shape(serialized)[0]
        filled = tf.ensure_shape(tf.concat([serialized, tf.repeat(serialized[:1], missing)], axis=0), [batch_size])
        batch = records.parse_records(filled, data.records)
        ids = batch.pop("id")
        empty = batch["num_frames"] == 0 if data.level == "frame" else tf.zeros([batch_size], tf.bool)
        keys = rank([tf.ensure_shape(model(batch), [batch_size, data.num_classes]) for model in models])
        if on_gpu:  # A GPU sorts fast, and then fewer keys are copied from it.
            keys = tf.math.top_k(keys, top_k, sorted=False).values
        return ids, keys, empty

    return run


def _remove_outdated(output: Path, sizes: Mapping[str, int]) -> None:
    """Removes scores of shards that have been replaced since, so that they are scored again."""
    known = known_inputs(output)
    for shard, num_bytes in sizes.items():
        name = os.path.basename(shard)
        if name not in known:  # not scored yet, or scored by a release that did not record it
            continue
        damage = known[name].damage
        if known[name].num_bytes != num_bytes or (damage and not integrity.is_damaged_as(shard, damage)):
            (output / name).unlink(missing_ok=True)


def _restore(faults: Faults, shard: str, made_from: ScoredShard | None) -> None:
    """Reports the faults that were skipped when a shard was scored earlier."""
    if made_from is None:  # scored by a release that did not record it
        return
    if made_from.damage:
        faults.skip_damage(dataclasses.replace(made_from.damage, path=shard))
    faults.num_empty += len(made_from.skipped)


def _by_fold(predictors: Sequence[Predictor], shards: Sequence[str]) -> list[tuple[list[Predictor], list[str]]]:
    """Returns groups of shards, each with the models that score it."""
    first = predictors[0]
    names = [os.path.basename(shard) for shard in shards]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"--input: two shards are named '{twice}'; scores are stored by base name; score them separately"
        )
    for predictor in predictors[1:]:
        for what in ("level", "features", "num_classes", "num_folds"):
            mine, others = getattr(first.data, what), getattr(predictor.data, what)
            if mine != others:
                raise InputError(
                    f"--model: {first.path} has data.{what} {mine}, {predictor.path} {others}; give the folds of one"
                    " model"
                )
        if predictor.folds != first.folds or not first.folds:
            reason = "of different divisions into folds" if first.folds else "without folds"
            raise InputError(f"--model: {first.path} and {predictor.path} are {reason}; give the folds of one model")
    if not first.folds:
        return [(list(predictors), list(shards))]
    of_fold = {predictor.data.fold: predictor for predictor in predictors}
    if len(of_fold) < len(predictors):
        raise InputError(
            f"--model: two of {', '.join(str(p.path) for p in predictors)} are of the same fold; give one for each fold"
        )
    groups: dict[int, list[str]] = collections.defaultdict(list)
    for shard, name in zip(shards, names, strict=True):
        groups[first.folds.get(name, -1)].append(shard)
    wanted = set(groups) - {-1} | (set(range(first.data.num_folds)) if -1 in groups else set())
    if missing := sorted(wanted - set(of_fold)):
        owner = "shards outside all folds are scored by all" if -1 in groups else "only it has not seen its shards"
        raise InputError(
            f"--model: no model of fold {missing[0]} of {first.data.num_folds} is given: {owner}; train it with"
            f" --fold={missing[0]}, and name it too"
        )
    return [
        ([of_fold[fold]] if fold >= 0 else [of_fold[f] for f in sorted(of_fold)], group)
        for fold, group in sorted(groups.items())
    ]


def _fingerprint(predictors: Sequence[Predictor], top_k: int) -> str:
    parts = sorted(predictor.fingerprint for predictor in predictors)
    return hashlib.sha256("\n".join([*parts, str(top_k)]).encode()).hexdigest()
