"""One training step, on one device or on many replicas.

The arithmetic of a step is a pure function (`keras.Model.stateless_call`) of weights, batch statistics, a batch and a
seed. It returns a loss, gradients and new batch statistics. Everything random is a function of (seed, step, replica).

On one device the whole step, the update included, is one XLA computation. On several, XLA compiles the forward and
backward passes (it cannot compile reductions over replicas), gradients are reduced to their mean, and every replica
makes the same update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.data import clips
from yt8m_tf.data.clips import prepare_clips
from yt8m_tf.losses import losses
from yt8m_tf.training import distribution, mixup, optimizers
from yt8m_tf.training.disturbance import disturb
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.teacher import Teacher

Batch = Mapping[str, Any]


class TrainStep:
    """The compiled training step of one model.

    Args:
      state: the model and all other variables of a training run.
      experiment: loss, optimizer, mixup, precision.
      strategy: the strategy in whose scope `state` was created.
      xla: whether to compile with XLA, if XLA can (`distribution.compiles_with_xla`).
      target_weights: see `losses.make_loss`.
      membership: [C, V], nonzero if a class belongs to a tag; None for data without tags.
      teacher: created in the scope of the strategy; None without a teacher.
    """

    def __init__(
        self,
        state: TrainState,
        experiment: ExperimentConfig,
        strategy: tf.distribute.Strategy,
        xla: bool = True,
        target_weights: np.ndarray | None = None,
        membership: np.ndarray | None = None,
        teacher: Teacher | None = None,
    ):
        self._state, self._experiment, self._strategy = state, experiment, strategy
        self._train, self._spec = experiment.train, experiment.data.spec
        self._single = distribution.is_single(strategy)
        self._loss = losses.make_loss(experiment.loss, self._spec.num_classes, target_weights)
        self._membership, self._teacher = membership, teacher
        self._num_replicas = strategy.num_replicas_in_sync
        # Batch statistics over all replicas need a reduction within the forward pass, which XLA cannot compile.
        xla = xla and (self._single or not self._train.sync_batch_norm) and distribution.compiles_with_xla(state.model)
        xla = xla and (teacher is None or teacher.compiles_with_xla)
        single = self._single
        self._compiled = compiled(self._compute_and_update if single else self._compute, xla, single)
        self._accumulating = compiled(self._compute_and_accumulate if single else self._compute, xla, single)
        self._updating = compiled(self._update_from_accumulators, xla and single, single)
        self._run_many, self._run_part = _function(self._steps), _function(self._part)
        self._run_update = _function(self._apply_accumulated)

    def train(
        self, batches: Sequence[Batch], step: int, learning_rates: Sequence[float], wishes: Sequence[float] = (0.0,)
    ) -> dict[str, tf.Tensor]:
        """Makes one update for each of `learning_rates`.

        Args:
          batches: `accumulation` parts for each update, each as `distribution.share` gives it.
          step: number of earlier updates.
          learning_rates: one for each update.
          wishes: this worker's requests, such as to save: positive for each that it makes, 0 for the others; of the
            same length in every worker.

        Returns:
          "loss": float64 sum of the updates' mean losses, without penalties on weights. "gradient_norm": that of the
          last update, before clipping. "skipped": the number of most recent updates in a row that were skipped at the
          lowest loss scale; 0 except with mixed_float16. A skipped update changes only the scale. "wishes": the mean of
          all workers' wishes, which is positive if any worker makes the request; it is reduced with the gradients.
        """
        step_tensor, rates = tf.constant(step, tf.int64), tf.constant(learning_rates, tf.float32)
        wished = tf.constant(wishes, tf.float32, [len(wishes)])
        if self._train.accumulation == 1:
            return self._run_many(tuple(batches), step_tensor, rates, wished)
        total = tf.constant(0.0, tf.float64)
        for update, rate in enumerate(rates):
            before = self._statistics_to_keep()
            for part in range(self._train.accumulation):
                batch = batches[update * self._train.accumulation + part]
                number = (step + update) * self._train.accumulation + part
                total += self._run_part(batch, tf.constant(number, tf.int64)) / self._train.accumulation
            norm, agreed = self._run_update(step_tensor + update, rate, wished, before)
        return {"loss": total, "gradient_norm": norm, "wishes": agreed, "skipped": self._state.num_skipped()}

    def _statistics_to_keep(self) -> list[tf.Tensor]:
        """Returns copies of the batch statistics if an update, whose parts change them, may be skipped."""
        if self._state.loss_scale is None:
            return []
        return [tf.identity(tf.convert_to_tensor(variable)) for variable in self._state.statistics]

    # The methods below run inside tf.function.

    def _steps(
        self, batches: tuple[Batch, ...], step: tf.Tensor, rates: tf.Tensor, wishes: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        total = tf.constant(0.0, tf.float64)
        norm, agreed = tf.constant(0.0), wishes
        for i, batch in enumerate(batches):
            number = step + i
            outputs = self._strategy.run(self._replica_step, args=(batch, number, rates[i], wishes, self._compiled))
            if not self._single:
                loss, gradients, statistics, norm, agreed = outputs
                self._update_replicas(gradients, norm, number, rates[i])
                self._assign_replicas(self._state.statistics, statistics, norm)
                outputs = loss, norm, agreed
            loss, norm, agreed = (self._strategy.experimental_local_results(output)[0] for output in outputs)
            total += tf.cast(loss, tf.float64)
        return {"loss": total, "gradient_norm": norm, "wishes": agreed, "skipped": self._state.num_skipped()}

    def _part(self, batch: Batch, number: tf.Tensor) -> tf.Tensor:
        """Adds one part of a batch to the accumulated gradients."""
        outputs = self._strategy.run(self._replica_part, args=(batch, number))
        if self._single:
            return tf.cast(outputs, tf.float64)
        loss, statistics = outputs
        self._assign_replicas(self._state.statistics, statistics, 0.0)
        return tf.cast(self._strategy.experimental_local_results(loss)[0], tf.float64)

    def _apply_accumulated(
        self, step: tf.Tensor, rate: tf.Tensor, wishes: tf.Tensor, before: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if self._single:
            return self._strategy.run(self._updating, args=(step, rate, before)), wishes
        gradients, norm, agreed = self._strategy.run(self._reduce_accumulators, args=(wishes,))
        self._update_replicas(gradients, norm, step, rate)
        for variable, old in zip(self._state.statistics if before else (), before, strict=True):
            self._strategy.extended.update(variable, self._restore, args=(old, norm), group=False)
        norm, agreed = (self._strategy.experimental_local_results(value)[0] for value in (norm, agreed))
        return norm, agreed

    # The methods below run on each replica.

    def _replica_step(
        self, batch: Batch, step: tf.Tensor, rate: tf.Tensor, wishes: tf.Tensor, compute: Callable[..., Any]
    ) -> Any:
        batch, weights, seed = self._prepare(batch, step)
        if self._single:
            return *compute(batch, weights, seed, step, rate), wishes
        own = compute(batch, weights, seed), tf.identity(wishes)
        (loss, gradients, statistics), agreed = self._mean_over_replicas(own)
        gradients, norm = self._clip(gradients)
        return loss, gradients, statistics, norm, agreed

    def _replica_part(self, batch: Batch, number: tf.Tensor) -> Any:
        batch, weights, seed = self._prepare(batch, number)
        if self._single:
            return self._accumulating(batch, weights, seed)
        loss, gradients, statistics = self._accumulating(batch, weights, seed)
        self._accumulate(gradients)  # on each replica separately; reduced once, before the update
        return self._mean_over_replicas((loss, statistics))

    def _reduce_accumulators(self, wishes: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        gradients, agreed = self._mean_over_replicas((self._take_accumulated(), tf.identity(wishes)))
        return *self._clip(gradients), agreed

    def _mean_over_replicas(self, outputs: Any) -> Any:
        total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.nest.flatten(outputs))
        return tf.nest.pack_sequence_as(outputs, [value / self._num_replicas for value in total])

    def _prepare(self, batch: Batch, number: tf.Tensor) -> tuple[Batch, tf.Tensor, tf.Tensor]:
        """Prepares a batch for the compiled part of a step.

        Returns:
          The batch with its frames sampled, the weights of mixup ([B]; [0] without mixup), and a seed for dropout and
          noise.
        """
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.random.experimental.stateless_fold_in([self._train.seed, 0x5EED], number)
        seed = tf.random.experimental.stateless_fold_in(seed, replica)
        mixup_seed, model_seed, frames_seed = tf.unstack(tf.random.split(seed, 3))
        batch = prepare_clips(batch, self._spec, frames_seed)
        if not self._train.mixup_alpha:
            return batch, tf.zeros([0]), model_seed
        return batch, mixup.draw_weights(mixup_seed, tf.shape(batch["labels"])[0], self._train.mixup_alpha), model_seed

    # The methods below are compiled by XLA if `xla` is set.

    def _compute(self, batch: Batch, weights: tf.Tensor, seed: tf.Tensor) -> Any:
        """Computes the mean loss of a batch, its gradients, and the new batch statistics."""
        inputs = clips.decode_features(batch, self._spec)
        targets, known = self._targets(batch)
        if "soft_classes" in batch:
            labels = self._experiment.labels
            soft = batch["soft_classes"], batch["soft_scores"]
            targets = losses.soften(targets, *soft, labels.weight, labels.unlisted_classes == "hard")
        if self._membership is not None:
            targets = losses.with_tags(targets, self._membership)
        if self._train.mixup_alpha:
            inputs, targets = mixup.mix(inputs, targets, weights)
        if (train := self._train).feature_noise or train.feature_dropout:
            own_seed = tf.random.experimental.stateless_fold_in(seed, 0xF0)
            inputs = disturb(inputs, own_seed, train.feature_noise, train.feature_dropout)
        if self._teacher is not None:
            share = self._experiment.labels.weight
            targets = share * self._taught(inputs, batch, weights) + (1.0 - share) * targets
        values = [tf.convert_to_tensor(variable) for variable in self._state.trainable]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            logits, others, penalties = self._state.model.stateless_call(
                values, self._state.other_values(seed), inputs, training=True, return_losses=True
            )
            loss = self._loss(logits, targets, known)
            scaled = tf.add_n([loss, *penalties]) * self._state.loss_scale_value()
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(scaled, values)]
        return loss, gradients, self._state.only_statistics(others)

    def _taught(self, inputs: Mapping[str, tf.Tensor], batch: Batch, weights: tf.Tensor) -> tf.Tensor:
        """Returns the teacher's scores of a batch, [B, C], followed by those of its tags if the data has tags."""
        assert self._teacher is not None
        folds = None
        if self._teacher.num_folds:
            folds = tf.one_hot(batch["teacher_fold"], self._teacher.num_folds)
            if self._train.mixup_alpha:
                folds = mixup.mix_rows(folds, weights[:, None])
        scores = self._teacher.scores(inputs, folds)
        return scores if self._membership is None else losses.with_tags(scores, self._membership)

    def _targets(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns the hard targets of a batch, [B, C], and for segments a mask of the rated ones."""
        if self._experiment.data.segments is None:
            return losses.dense_targets(batch["labels"], self._spec.num_classes), None
        return losses.rated_targets(batch["rated_classes"], batch["ratings"], self._spec.num_classes)

    def _compute_and_update(
        self, batch: Batch, weights: tf.Tensor, seed: tf.Tensor, step: tf.Tensor, rate: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        loss, gradients, statistics = self._compute(batch, weights, seed)
        gradients, norm = self._clip(gradients)
        for variable, value in zip(self._state.statistics, statistics, strict=True):
            self._assign_unless_skipped(variable, value, norm)
        self._update(gradients, norm, step, rate)
        return loss, norm

    def _compute_and_accumulate(self, batch: Batch, weights: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        loss, gradients, statistics = self._compute(batch, weights, seed)
        _assign(self._state.statistics, statistics)
        self._accumulate(gradients)
        return loss

    def _update_from_accumulators(self, step: tf.Tensor, rate: tf.Tensor, before: Sequence[tf.Tensor]) -> tf.Tensor:
        gradients, norm = self._clip(self._take_accumulated())
        for variable, old in zip(self._state.statistics if before else (), before, strict=True):
            self._restore(variable, old, norm)
        self._update(gradients, norm, step, rate)
        return norm

    def _accumulate(self, gradients: Sequence[tf.Tensor]) -> None:
        for accumulator, gradient in zip(self._state.accumulators, gradients, strict=True):
            accumulator.assign_add(gradient / self._train.accumulation)

    def _take_accumulated(self) -> list[tf.Tensor]:
        gradients = [tf.identity(accumulator) for accumulator in self._state.accumulators]
        with tf.control_dependencies(gradients):
            for accumulator in self._state.accumulators:
                accumulator.assign(tf.zeros_like(accumulator))
        return gradients

    def _clip(self, gradients: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        scale = self._state.loss_scale_value()
        return optimizers.clip_by_global_norm(
            [gradient / scale for gradient in gradients], self._experiment.optimizer.clip_norm
        )

    def _update(self, gradients: Sequence[tf.Tensor], norm: tf.Tensor, step: tf.Tensor, rate: tf.Tensor) -> None:
        for slots, gradient in zip(self._state.slots, gradients, strict=True):
            self._update_variable(slots[0], slots[1:], gradient, norm, step, rate)
        for variable, value in self._state.next_loss_scale(norm):
            variable.assign(value)

    def _update_variable(
        self,
        variable: Any,
        slots: Sequence[Any],
        gradient: tf.Tensor,
        norm: tf.Tensor,
        step: tf.Tensor,
        rate: tf.Tensor,
    ) -> None:
        """Updates a variable, the optimizer's slots and its moving average, in place."""
        count = tf.cast(step, tf.float32)
        old = [tf.convert_to_tensor(value) for value in (variable, *slots)]
        new = list(optimizers.update(self._experiment.optimizer, old[0], gradient, old[1:], count, rate))
        if self._train.ema_decay is not None:
            # The decay is smaller at first: otherwise the average would stay near the initial weights for long.
            decay = tf.minimum(self._train.ema_decay, (1.0 + count) / (10.0 + count))
            new.append(old[-1] + (1.0 - decay) * (new[0] - old[-1]))
        new = [self._state.unless_skipped(after, before, norm) for after, before in zip(new, old, strict=True)]
        _assign((variable, *slots), new)

    def _assign_unless_skipped(self, variable: Any, value: tf.Tensor, norm: tf.Tensor) -> None:
        variable.assign(self._state.unless_skipped(value, variable, norm))

    def _restore(self, variable: Any, old: tf.Tensor, norm: tf.Tensor) -> None:
        """Undoes the changes of a batch statistic by the parts of a skipped update."""
        variable.assign(self._state.unless_skipped(variable, old, norm))

    # The methods below run across replicas.

    def _update_replicas(self, gradients: Any, norm: Any, step: tf.Tensor, rate: tf.Tensor) -> None:
        for slots, gradient in zip(self._state.slots, gradients, strict=True):

            def update(variable: Any, *arguments: Any) -> None:
                self._update_variable(variable, arguments[:-2], arguments[-2], arguments[-1], step, rate)

            self._strategy.extended.update(slots[0], update, args=(*slots[1:], gradient, norm), group=False)
        for variable, value in self._state.next_loss_scale(self._strategy.experimental_local_results(norm)[0]):
            self._strategy.extended.update(variable, _assign_one, args=(value,), group=False)

    def _assign_replicas(self, variables: Sequence[Any], values: Sequence[Any], norm: Any) -> None:
        for variable, value in zip(variables, values, strict=True):
            self._strategy.extended.update(variable, self._assign_unless_skipped, args=(value, norm), group=False)


def _function(python_function: Callable[..., Any]) -> Callable[..., Any]:
    return tf.function(python_function, autograph=False)


def compiled(python_function: Callable[..., Any], xla: bool, single: bool = False) -> Callable[..., Any]:
    """Compiles with XLA or, without XLA on a `single` device, to a function traced once for all steps of a call.

    With several replicas and without XLA the function is returned unchanged, because a reduction over replicas must not
    be in a nested `tf.function`.
    """
    if not xla and not single:
        return python_function
    return tf.function(python_function, autograph=False, jit_compile=True if xla else None)


def _assign_one(variable: Any, value: tf.Tensor) -> None:
    variable.assign(value)


def _assign(variables: Sequence[Any], values: Sequence[tf.Tensor]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
