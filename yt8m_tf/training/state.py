"""All variables of a training run: weights, batch statistics, optimizer slots, moving averages, accumulators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.training import optimizers

# Dynamic loss scaling (mixed_float16): halve on overflow, down to 1, double after so many steps without one.
_FIRST_LOSS_SCALE = 2.0**15
LOSS_SCALE_INTERVAL = 2000


class TrainState:
    """Makes, in the scope of the strategy, every variable that training needs beside the model's own.

    Args:
      model: a functional model whose layers are all named.
      experiment: says which variables are needed: optimizer, moving average, accumulation, precision.

    Attributes:
      model: the model.
      trainable: its trainable variables (`tf.Variable`, or a strategy's).
      statistics: its other variables that training changes: those of batch normalisation, and no constants.
      slots: for each trainable variable itself, the optimizer's averages (`optimizers.slot_names`), and its moving
        average if one is kept.
      evaluated: the weights that evaluation and export use: the moving averages, or the weights themselves.
      accumulators: summed gradients, each replica its own; empty without accumulation.
      loss_scale: the scale of the loss, the steps since it last changed, and the steps in a row that were skipped, for
        gradients that are not finite, at the lowest scale; None but for mixed_float16.
    """

    def __init__(self, model: keras.Model, experiment: ExperimentConfig):
        config = experiment.train
        self.model = model
        self.trainable = [variable.value for variable in model.trainable_variables]
        self._others = model.non_trainable_variables
        changed = {
            id(variable)
            for layer in model._flatten_layers()  # those of a model within it, too
            if isinstance(layer, keras.layers.BatchNormalization)
            for variable in layer.non_trainable_variables
        }
        self._is_statistic = [id(variable) in changed for variable in self._others]
        self.statistics = [variable.value for variable in self._others if id(variable) in changed]
        self._slot_names = optimizers.slot_names(experiment.optimizer)
        zeros = [[_variable(tf.zeros(value.shape)) for _ in self._slot_names] for value in self.trainable]
        averages = [_variable(tf.convert_to_tensor(v)) for v in self.trainable] if config.ema_decay is not None else []
        self.evaluated = averages or self.trainable
        self.slots = [
            (value, *own, *averages[i : i + 1])
            for i, (value, own) in enumerate(zip(self.trainable, zeros, strict=True))
        ]
        self.accumulators = [
            tf.Variable(
                tf.zeros(value.shape),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for value in (self.trainable if config.accumulation > 1 else ())
        ]
        half = config.precision == "mixed_float16"
        start = (_FIRST_LOSS_SCALE, 0.0, 0.0)
        self.loss_scale = tuple(_variable(tf.constant(value)) for value in start) if half else None

    def named(self) -> dict[str, Any]:
        """Every variable that a checkpoint holds: `model/<path>`, `slots/m/<path>` (where the optimizer keeps it),
        `slots/v/<path>`, `ema/<path>`."""
        paths = [variable.path for variable in self.model.trainable_variables]
        others = [variable for variable in self._others if not _is_seed(variable)]
        variables = {f"model/{path}": value for path, value in zip(paths, self.trainable, strict=True)}
        variables |= {f"model/{variable.path}": variable.value for variable in others}
        for path, slots in zip(paths, self.slots, strict=True):
            names = (*(f"slots/{name}" for name in self._slot_names), "ema")[: len(slots) - 1]
            variables |= {f"{name}/{path}": slot for name, slot in zip(names, slots[1:], strict=True)}
        if self.loss_scale is not None:
            # Without the count of skipped steps: a run that goes on counts anew.
            variables |= {"loss_scale/scale": self.loss_scale[0], "loss_scale/steps": self.loss_scale[1]}
        return variables

    def other_values(self, seed: tf.Tensor) -> list[tf.Tensor]:
        """Values for all non-trainable variables: batch statistics as they are, and the states of random generators
        (dropout's, noise's), each its own function of `seed` ([2] integers)."""
        seeds = tf.random.split(tf.cast(seed, tf.int32), max(1, len(self._others)))
        return [
            tf.cast(seeds[i], variable.dtype) if _is_seed(variable) else tf.convert_to_tensor(variable.value)
            for i, variable in enumerate(self._others)
        ]

    def only_statistics(self, others: Sequence[Any]) -> list[tf.Tensor]:
        """Selects the values of `statistics` among those of all non-trainable variables."""
        pairs = zip(self._is_statistic, others, strict=True)
        return [tf.convert_to_tensor(value) for is_statistic, value in pairs if is_statistic]

    def loss_scale_value(self) -> tf.Tensor | float:
        """The loss scale, which the loss is multiplied by before the backward pass."""
        return 1.0 if self.loss_scale is None else tf.convert_to_tensor(self.loss_scale[0])

    def next_loss_scale(self, norm: tf.Tensor) -> list[tuple[Any, tf.Tensor]]:
        """The loss scale's variables and their new values, given the last gradient's norm."""
        if self.loss_scale is None:
            return []
        scale, steps, skipped = (tf.convert_to_tensor(variable) for variable in self.loss_scale)
        finite = tf.math.is_finite(norm)
        grown = steps + 1.0 >= LOSS_SCALE_INTERVAL
        new_scale = tf.where(finite, tf.where(grown, scale * 2.0, scale), tf.maximum(scale / 2.0, 1.0))
        new_steps = tf.where(finite & ~grown, steps + 1.0, 0.0)
        new_skipped = tf.where(finite | (scale > 1.0), 0.0, skipped + 1.0)
        return list(zip(self.loss_scale, (new_scale, new_steps, new_skipped), strict=True))

    def num_skipped(self) -> tf.Tensor:
        """The steps in a row, up to the last, that were skipped at the lowest loss scale: scalar float32."""
        return tf.constant(0.0) if self.loss_scale is None else tf.convert_to_tensor(self.loss_scale[2])

    def unless_skipped(self, new: Any, old: Any, norm: tf.Tensor) -> Any:
        """`new`, or `old` where the gradient's norm says that this step is skipped, as it is on an overflow in float16;
        tensors, or a variable for `old`, of one shape."""
        return new if self.loss_scale is None else tf.where(tf.math.is_finite(norm), new, old)


def _variable(value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)


def _is_seed(variable: Any) -> bool:
    return variable.name == "seed_generator_state"
