"""The training loop, the same for one device, several devices and several machines."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import operator
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf import locks, models, run_dir
from yt8m_tf.codebook.centroids import load_centroids
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.console.command_line import list_flag
from yt8m_tf.console.progress import Progress
from yt8m_tf.data import pipeline, shards, statistics
from yt8m_tf.data.batch_stream import BatchStream, BesideRecords
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.integrity import Damage
from yt8m_tf.errors import InputError, Interrupted
from yt8m_tf.metrics.accumulator import MetricAccumulator, Metrics
from yt8m_tf.metrics.evaluate import Accumulator, evaluate
from yt8m_tf.metrics.rated_pairs import RatedAccumulator, RatedMetrics
from yt8m_tf.models.registry import parse_experiment, set_output_bias
from yt8m_tf.score_shards import soft_labels
from yt8m_tf.training import checkpoints, distribution, initial_weights, inputs, memory, resume
from yt8m_tf.training.evaluation_step import EvaluationStep
from yt8m_tf.training.fold_runs import ShardFolds
from yt8m_tf.training.inputs import Inputs
from yt8m_tf.training.interruption import Interruption
from yt8m_tf.training.opening import opening_facts
from yt8m_tf.training.profile import Profile
from yt8m_tf.training.schedule import Plateau, planned_factor
from yt8m_tf.training.sessions import Session
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import TrainStep
from yt8m_tf.training.summaries import Summaries
from yt8m_tf.training.teacher import load_teacher
from yt8m_tf.vocabulary import load_verticals

T = TypeVar("T")

# Number of skipped updates in a row, at the lowest loss scale (mixed_float16), after which a run fails.
_MOST_SKIPPED = 20


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of a run that are not part of its configuration.

    Except for `init_from`, `init_exclude` and `on_changed_inputs`, they affect only rounding and which random numbers
    are drawn.

    Attributes:
      data_dir: the base of the configuration's relative patterns.
      workdir: the run directory.
      xla: compile with XLA, which draws other random numbers for dropout (not for mixup or the order of the data).
      steps_per_call: updates made by one call of the compiled function.
      checkpoint_minutes: the most minutes between checkpoints; every evaluation saves one, too.
      evaluation_batch_size: examples in an evaluation batch, over the replicas of one worker; None takes
        `pipeline.scoring_batch_size`.
      init_from: runs, checkpoints or SavedModels with initial weights; a resumed run ignores them.
      init_exclude: patterns of variables that `init_from` leaves out.
      on_changed_inputs: what to do if a resumed run finds other shards, soft labels or teachers than it started with.
      histograms: write the weights' distributions for TensorBoard at every evaluation.
      profile: steps to trace for TensorBoard's profiler (`profile.Profile`).
      progress: show progress bars.
    """

    data_dir: str
    workdir: Path
    xla: bool = True
    steps_per_call: int = 4
    checkpoint_minutes: float = 10.0
    evaluation_batch_size: int | None = None
    init_from: tuple[Path, ...] = ()
    init_exclude: tuple[str, ...] = ()
    on_changed_inputs: Literal["error", "accept"] = "error"
    histograms: bool = False
    profile: range | None = None
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """Result of a run.

    Attributes:
      step: the last step.
      best_gap: the highest GAP@20 on the validation set; for rated segments, the highest MAP.
      best_step: the step that reached it.
      metric: the name of that metric.
      stopped_early: whether the run stopped before its last epoch.
      skipped: a line for each kind of record that was skipped, over all workers; empty except on the chief.
    """

    step: int
    best_gap: float
    best_step: int
    stopped_early: bool
    metric: str = Metrics.BEST_BY
    skipped: tuple[str, ...] = ()


def train(
    experiment: ExperimentConfig, options: RunOptions, strategy: tf.distribute.Strategy, faults: Faults
) -> TrainResult:
    """Trains a model, or resumes a run that was interrupted.

    The run directory must be new, or contain a run of the same configuration (`run_dir.prepared`). Every process of a
    multi-worker run calls this with the same arguments; `workdir` must be on storage that all of them share.

    Raises:
      InputError: something is wrong with the configuration, the data or a checkpoint; the message is one line.
    """
    is_chief = distribution.worker_index(strategy) == 0
    with contextlib.ExitStack() as stack:
        try:
            with contextlib.ExitStack() as beginning:
                if is_chief:
                    stack.enter_context(locks.exclusive(options.workdir, "--workdir", "trains"))
                    beginning.enter_context(run_dir.prepared(options.workdir, experiment, parse_experiment))
                    run_dir.read_history(options.workdir)  # reports a damaged file before an epoch, not after it
                    run_dir.read_sessions(options.workdir)
                    checkpoints.remove_unfinished(options.workdir)
                resume.check_shared(strategy, options.workdir)
                run = _Run(experiment, options, strategy, faults)
            return run.run()
        except tf.errors.OpError as error:
            if not distribution.lost_a_worker(strategy, error):
                raise
            raise InputError(
                "another worker has ended, and its own message says why; run the same command again on all workers,"
                " and the run continues from its last checkpoint"
            ) from error


class _Run:
    """The state of a training run; `run` is the loop itself."""

    def __init__(
        self, experiment: ExperimentConfig, options: RunOptions, strategy: tf.distribute.Strategy, faults: Faults
    ):
        self.experiment, self.options, self.strategy, self.faults = experiment, options, strategy, faults
        self.is_chief = distribution.worker_index(strategy) == 0
        self.show = options.progress and self.is_chief
        data, config = experiment.data, experiment.train
        self.train_shards, self.validation_shards, folds = shards.split_shards(data, options.data_dir)
        if self.is_chief:
            run_dir.keep_folds(options.workdir, folds)
        self.interruption, self.evaluation_due, self.compiled = Interruption(), False, False
        self.membership, self.rate = None, ""
        if data.verticals:
            self.membership = load_verticals(data.vocabulary, data.num_classes, data.verticals, options.data_dir)
        self._check_first_records()
        saved = resume.saved_state(options.workdir, experiment, strategy, self.show)
        self.inputs: Inputs | None = None
        if self.is_chief:
            self.inputs = inputs.look(self.train_shards, self.validation_shards, experiment.labels, options.data_dir)
            if options.on_changed_inputs == "error":
                resume.check_inputs(options.workdir, saved, self.inputs)
        keras.utils.set_random_seed(config.seed)
        with strategy.scope():
            model = build_for_training(experiment)
            if saved is None:
                if "centroids" in experiment.model:
                    load_centroids(model, experiment.model["centroids"], data.sizes, options.data_dir)
                memory.fill(model, self.train_shards, data, faults, self.membership, self.show)
                if config.prior_bias != "none":
                    set_output_bias(model, self._prior())
            self.state = TrainState(model, experiment)
            judged_on = self.validation_shards if saved is None else ()  # checked once
            self.teacher = load_teacher(experiment, options.data_dir, self.train_shards, judged_on)
        self.step, self.best_step, self.plateau, positions = 0, 0, Plateau(), None
        variables = self.state.named()
        if saved is not None:
            checkpoints.restore(options.workdir, saved.step, variables)
            self.step, self.best_step, positions = saved.step, saved.best_step, saved.positions
            self.plateau, self.evaluation_due = saved.plateau, saved.evaluation_due
        elif options.init_from:
            resume.check_same_inputs(experiment, options.init_from)
            initial_weights.init_from(options.init_from, variables, options.init_exclude)
        weights = None
        if config.target_reweighting:
            weights = statistics.target_weights(self._class_prior, config.target_reweighting)
        self.train_step = TrainStep(
            self.state, experiment, strategy, options.xla, weights, self.membership, self.teacher
        )
        self.evaluation_step = EvaluationStep(self.state, data.spec, strategy, options.xla)
        self.stream = self._open_stream(positions)
        tensorboard = run_dir.event_directory(options.workdir) if self.is_chief else None
        self.profile = Profile(tensorboard, options.profile, config.total_steps)
        self.summaries = Summaries(options.workdir if self.is_chief else None, experiment, fresh=saved is None)

    def run(self) -> TrainResult:
        config = self.experiment.train
        if self.is_chief:
            shown = self.train_shards, self.validation_shards
            facts = opening_facts(self.experiment, self.state.model, self.strategy, *shown)
            self.session = Session(self.options.workdir, self.step, facts)
            for name, text in (facts | {"run": str(self.options.workdir)}).items() if self.show else ():
                Progress.write(f"{name}: {text}")
        if self.step and self.show:
            Progress.write(
                f"continuing the run in {self.options.workdir} at step {self.step:,} of {config.total_steps:,}"
            )
        bar = Progress(total=config.total_steps, initial=self.step, desc="train", unit="step", disable=not self.show)
        with self.summaries, self.profile, bar, self.interruption:
            while self.evaluation_due or (self.step < config.total_steps and not self._stopped_early()):
                if not self.evaluation_due:
                    self._train_epoch(bar)
                    self.evaluation_due = True
                    self._save()  # an evaluation takes long, and may fail
                self._evaluate(bar)
                self.evaluation_due = False
                self._save()
            if self._stopped_early():
                bar.total = self.step  # the bar is full: nothing is left to do
        kind = RatedMetrics if self.experiment.data.segments else Metrics
        ending = self._stopped_early(), kind.BEST_BY, self._skipped()
        return TrainResult(self.step, self.plateau.best_gap, self.best_step, *ending)

    def _train_epoch(self, bar: Progress) -> None:
        """Trains up to the next evaluation."""
        config, options = self.experiment.train, self.options
        end = (self.step // config.steps_per_epoch + 1) * config.steps_per_epoch
        log_from, log_time, losses, waited = self.step, time.perf_counter(), 0.0, self.stream.seconds_waited
        timed_from, timed = log_from, log_time  # for the rate
        saved_time = time.perf_counter()
        if not self.compiled:
            bar.set_postfix_str("compiling the first update")
        while self.step < end:
            count = options.steps_per_call if self.step + options.steps_per_call <= end else 1
            rates = [self._learning_rate(self.step + i) for i in range(count)]
            start = time.perf_counter()
            with self.profile.call(self.step, count):
                batches = [
                    distribution.share(self.strategy, next(self.stream)) for _ in range(count * config.accumulation)
                ]
                wishes = self._wishes(saved_time)
                outputs = self.train_step.train(batches, self.step, rates, wishes)
                loss = float(outputs["loss"])
            if not math.isfinite(loss) and config.precision != "mixed_float16":
                raise InputError(
                    f"the loss is {loss / count} at step {self.step}; lower optimizer.learning_rate ({rates[0]:g} here)"
                    f" or optimizer.clip_norm{self._where_to_change()}"
                )
            losses, self.step = losses + loss, self.step + count
            if not self.compiled:
                self._tell_compiled(bar, time.perf_counter() - start)
                timed_from, timed = self.step, time.perf_counter()
            if (skipped := int(outputs["skipped"])) >= _MOST_SKIPPED:
                raise InputError(
                    f"the last {skipped} updates up to step {self.step} were skipped: their gradients are not finite in"
                    " float16 at the lowest loss scale, so training makes no progress; train into another --workdir"
                    " with --set=train.precision=mixed_bfloat16 (or float32), or with a lower optimizer.learning_rate"
                    f" ({rates[-1]:g} here)"
                )
            bar.set_postfix_str(f"loss {loss / count:.5f}{self.rate}", refresh=False)
            bar.update(count)
            now = time.perf_counter()
            if self.step == end or now - log_time > 10.0:
                if only_compiled := self.step == timed_from:  # only the first call so far
                    timed_from, timed = log_from, log_time
                seconds, steps = now - log_time, self.step - log_from
                values = {
                    "loss": losses / steps,
                    "learning_rate": rates[-1],
                    "gradient_norm": float(outputs["gradient_norm"]),
                    "examples_per_second": (self.step - timed_from) * config.batch_size / (now - timed),
                    "data_wait_share": (self.stream.seconds_waited - waited) / seconds,
                }
                self.summaries.scalars(self.step, "train", values)
                self.rate = "" if only_compiled else f", {values['examples_per_second']:,.0f} examples/s"
                log_from, log_time, losses, waited = self.step, now, 0.0, self.stream.seconds_waited
                timed_from, timed = log_from, log_time
            # Agreed between all workers: saving begins with a collective, which all must reach at the same step.
            wants_to_save, wants_to_end = (float(wish) > 0 for wish in outputs["wishes"])
            if wants_to_end or (wants_to_save and self.step < end):
                self.evaluation_due = self.step == end
                self._save()
                saved_time = now
            if wants_to_end:
                raise self._interrupted()

    def _tell_compiled(self, bar: Progress, seconds: float) -> None:
        """Excludes the first call, which compiles the step, from the bar's rate and time left; reports its time."""
        self.compiled = True
        bar.unpause()
        if self.show:
            bar.write(f"compiled in {seconds:.0f} s, not counted in rate and time left")

    def _check_first_records(self) -> None:
        data, need_labels = self.experiment.data, not soft_labels.replace_labels(self.experiment.labels)
        try:
            pipeline.check_first_records(self.train_shards, data, self.faults, need_labels)
            pipeline.check_first_records(self.validation_shards, data, self.faults)
            held_out = "data.train" if data.num_folds else "data.validation"
            pipeline.check_any_record(self.validation_shards, data, self.faults, held_out)
        except InputError as error:
            if mixed := inputs.mixed_levels(self.train_shards, self.validation_shards):
                raise InputError(mixed) from error
            raise

    def _skipped(self) -> tuple[str, ...]:
        """Returns a line for each kind of record that the workers skipped, and nothing except on the chief."""
        workers = distribution.gather_texts(self.strategy, json.dumps(dataclasses.asdict(self.faults)))
        # With data.split=record every worker reads every record, so that all count the same ones.
        added = max if self.experiment.data.split == "record" else operator.add
        together = Faults(on_unlabelled=self.faults.on_unlabelled)
        for own in map(json.loads, workers):
            together.damaged |= {path: Damage(**damage) for path, damage in own.pop("damaged").items()}
            for name, count in own.items():
                if isinstance(count, int):
                    setattr(together, name, added(getattr(together, name), count))
        return tuple(together.summary()) if self.is_chief else ()

    def _where_to_change(self) -> str:
        """Returns the advice to use a new --workdir, as a directory with checkpoints refuses another configuration."""
        workdir = self.options.workdir
        if checkpoints.latest_state(workdir) is None:
            return ""
        return f", in a new --workdir; {list_flag('init_from', workdir)} starts there from the best weights of this run"

    def _wishes(self, saved_time: float) -> tuple[float, float]:
        """Returns whether this worker is due to save, and whether it was interrupted: above 0 for yes."""
        late = time.perf_counter() - saved_time > 60.0 * self.options.checkpoint_minutes
        return float(self.is_chief and late), float(self.interruption.number is not None)

    def _interrupted(self) -> Interrupted:
        number = self.interruption.number
        return Interrupted(
            f"{'interrupted' if number else 'another worker was interrupted'}; step {self.step:,} is saved in"
            f" {self.options.workdir}; run the same command again to continue from there",
            number or signal.SIGTERM,
        )

    def _evaluate(self, bar: Progress) -> None:
        """Evaluates on the validation set; updates the schedule, early stopping and the best checkpoint."""
        start = time.perf_counter()
        metrics = self._validation_metrics()
        scalars = metrics.scalars()
        is_best = self.plateau.update(scalars[metrics.BEST_BY], self.experiment.schedule)
        self.best_step = self.step if is_best else self.best_step
        epoch = self.step // self.experiment.train.steps_per_epoch
        if not self.is_chief:
            return
        self.summaries.evaluation(self.step, metrics, is_best)
        if self.options.histograms:
            self.summaries.histograms(self.step, self.state)
        entry = {
            "step": self.step,
            "epoch": epoch,
            **scalars,
            **metrics.counts(),
            "seconds": round(time.perf_counter() - start, 3),
        }
        run_dir.append_history(self.options.workdir, entry)
        if self.show:
            names = [name for name in ("gap_at_20", "hit_at_1", "perr", "map") if name in scalars]
            shown = "  ".join(f"{name} {scalars[name]:.4f}" for name in names)
            bar.write(
                f"epoch {epoch}, step {self.step:,}: {shown}  bce {scalars['bce']:.6f}{'  (best)' if is_best else ''}"
            )

    def _validation_metrics(self) -> Metrics | RatedMetrics:
        experiment, workers = self.experiment, distribution.num_workers(self.strategy)
        worker = distribution.worker_index(self.strategy)
        own = shards.worker_share(self.validation_shards, worker, workers)
        batch_size = self.options.evaluation_batch_size or pipeline.scoring_batch_size(experiment.data.level)
        limit = experiment.train.validation_examples
        stream: Any = pipeline.evaluation_stream(own, experiment.data, batch_size, faults=self.faults) if own else ()
        if limit is not None:
            stream = pipeline.limited(stream, limit * (worker + 1) // workers - limit * worker // workers)
        if workers == 1:  # several workers stop together, at the next step
            stream = pipeline.at_least_one(stream, own, self.faults, "data.validation: nothing was evaluated")
            stream = self._until_interrupted(stream)
        kind = RatedAccumulator if experiment.data.segments else MetricAccumulator
        accumulator: Accumulator[Metrics | RatedMetrics] = kind(experiment.data.num_classes)
        return evaluate(
            self.evaluation_step,
            stream,
            accumulator,
            gather=functools.partial(distribution.gather, self.strategy),
            progress=self.show,
            leave=False,
        )

    def _until_interrupted(self, stream: Iterable[T]) -> Iterator[T]:
        for item in stream:
            if self.interruption.number is not None:
                raise self._interrupted()
            yield item

    def _save(self) -> None:
        positions = distribution.gather(self.strategy, {"position": np.array([self.stream.position], np.int64)})
        if self.is_chief:
            state = {
                "best_step": self.best_step,
                "positions": positions["position"].tolist(),
                "plateau": dataclasses.asdict(self.plateau),
                "evaluation_due": self.evaluation_due,
                "inputs": dataclasses.asdict(self.inputs) if self.inputs else None,
            }
            checkpoints.save(self.options.workdir, self.step, self.state.named(), state)
            self.session.update(self.step)

    def _learning_rate(self, step: int) -> float:
        experiment = self.experiment
        planned = planned_factor(experiment.schedule, step, experiment.train.total_steps)
        return experiment.optimizer.learning_rate * planned * self.plateau.factor

    def _stopped_early(self) -> bool:
        patience = self.experiment.train.early_stopping_patience
        return patience is not None and self.plateau.since_best > patience

    def _prior(self) -> np.ndarray:
        if self.experiment.train.prior_bias == "uniform":
            return statistics.uniform_prior(self.experiment.data.num_classes, self.membership)
        return self._class_prior

    @functools.cached_property
    def _class_prior(self) -> np.ndarray:
        data, config = self.experiment.data, self.experiment.train
        if data.segments:
            return statistics.rating_prior(self.train_shards, data, config.prior_examples, self.faults)
        return statistics.class_prior(self.train_shards, data, config.prior_examples, self.faults, self.membership)

    def _open_stream(self, positions: Sequence[int] | None) -> BatchStream:
        experiment, strategy = self.experiment, self.strategy
        worker, workers = distribution.worker_index(strategy), distribution.num_workers(strategy)
        position = 0
        if positions:
            by_shard = experiment.data.split == "shard"
            position = resume.positions_of(self.options.workdir, positions, workers, by_shard)[worker]
        return pipeline.training_stream(
            self.train_shards,
            experiment.data,
            experiment.train.batch_size // experiment.train.accumulation,
            seed=experiment.train.seed,
            faults=self.faults,
            position=position,
            worker=worker,
            num_workers=workers,
            replicas=distribution.local_replicas(strategy),
            beside=self._beside_records(),
        )

    def _beside_records(self) -> Callable[[Sequence[str]], BesideRecords] | None:
        """Returns the reader of data beside the records: stored soft labels, or each video's fold for the teachers."""
        if self.teacher is not None:
            return functools.partial(ShardFolds, self.teacher.shard_folds) if self.teacher.num_folds else None
        labels, data = self.experiment.labels, self.experiment.data
        return soft_labels.beside(labels, self.options.data_dir, data)


def build_for_training(experiment: ExperimentConfig) -> keras.Model:
    """Builds the model in `train.precision`, with batch normalisation synchronized if `train.sync_batch_norm`."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(experiment.train.precision)
    try:
        model = models.build_model(experiment.model, experiment.data.spec)
    finally:
        keras.config.set_dtype_policy(policy)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = experiment.train.sync_batch_norm
    return model
