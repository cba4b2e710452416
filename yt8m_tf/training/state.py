"""All variables of a training run: weights, batch statistics, optimizer slots, moving averages, accumulators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from yt8m_tf.config.experiment import ExperimentConfig

# Dynamic loss scaling (mixed_float16): the scale is halved on overflow, but not below 1, and doubled after
# LOSS_SCALE_INTERVAL steps without overflow.
_FIRST_LOSS_SCALE = 2.0**15
LOSS_SCALE_INTERVAL = 2000


class TrainState:
    """The model's variables and all others that training needs; it must be created in the scope of the strategy.

    Args:
      model: a functional model whose layers are all named.
      experiment: determines which variables are needed, by optimizer, moving average, accumulation and precision.

    Attributes:
      model: the model.
      trainable: its trainable variables (`tf.Variable`, or a strategy's).
      statistics: its other variables that training changes: those of batch normalisation, but not constants.
      slots: for each trainable variable a tuple of the variable, the optimizer's slots (`slot_names`), and
        the variable's moving average if the run keeps one.
      evaluated: the weights that evaluation and export use: the moving averages, or the weights themselves.
      accumulators: summed gradients, separate on each replica; empty without accumulation.
      loss_scale: the scale of the loss, the number of steps since it last changed, and the number of steps in a row
        that were skipped at the lowest scale because gradients were not finite; None except with mixed_float16.
    """

    def __init__(self, model: keras.Model, experiment: ExperimentConfig):
        config = experiment.train
        self.model = model
        self.trainable = [variable.value for variable in model.trainable_variables]
        self._others = model.non_trainable_variables
        changed = {
            id(variable)
            for layer in model._flatten_layers()  # includes the layers of nested models
            if isinstance(layer, keras.layers.BatchNormalization)
            for variable in layer.non_trainable_variables
        }
        self._is_statistic = [id(variable) in changed for variable in self._others]
        self.statistics = [variable.value for variable in self._others if id(variable) in changed]
        self._slot_names = experiment.optimizer.slot_names
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
        """Returns all variables that a checkpoint contains, by name.

        Names are `model/<path>`, `slots/m/<path>` (if the optimizer has it), `slots/v/<path>`, `ema/<path>`,
        `loss_scale/scale` and `loss_scale/steps`.
        """
        paths = [variable.path for variable in self.model.trainable_variables]
        others = [variable for variable in self._others if not _is_seed(variable)]
        variables = {f"model/{path}": value for path, value in zip(paths, self.trainable, strict=True)}
        variables |= {f"model/{variable.path}": variable.value for variable in others}
        for path, slots in zip(paths, self.slots, strict=True):
            names = (*(f"slots/{name}" for name in self._slot_names), "ema")[: len(slots) - 1]
            variables |= {f"{name}/{path}": slot for name, slot in zip(names, slots[1:], strict=True)}
        if self.loss_scale is not None:
            # Without the number of skipped steps: a resumed run counts from 0 again.
            variables |= {"loss_scale/scale": self.loss_scale[0], "loss_scale/steps": self.loss_scale[1]}
        return variables

    def other_values(self, seed: tf.Tensor) -> list[tf.Tensor]:
        """Returns the values of all non-trainable variables, with new states of random generators.

        Each generator (of dropout or noise) gets its own state, a function of `seed` ([2] integers). Other values, such
        as batch statistics, are unchanged.
        """
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
        """Returns the scale by which the loss is multiplied before the backward pass."""
        return 1.0 if self.loss_scale is None else tf.convert_to_tensor(self.loss_scale[0])

    def next_loss_scale(self, norm: tf.Tensor) -> list[tuple[Any, tf.Tensor]]:
        """Returns the loss scale's variables with their new values, given the norm of the last gradient."""
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
        """Returns the number of most recent steps in a row skipped at the lowest loss scale: scalar float32."""
        return tf.constant(0.0) if self.loss_scale is None else tf.convert_to_tensor(self.loss_scale[2])

    def unless_skipped(self, new: Any, old: Any, norm: tf.Tensor) -> Any:
        """Returns `new`, or `old` if the step is skipped because the gradient's norm is not finite in mixed_float16.

        Both are tensors of the same shape; `old` may also be a variable.
        """
        return new if self.loss_scale is None else tf.where(tf.math.is_finite(norm), new, old)


def _variable(value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)


def _is_seed(variable: Any) -> bool:
    return variable.name == "seed_generator_state"
