"""The mixture-of-experts head of YouTube-8M's starter code."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from yt8m_tf.layers import blocks


@keras.saving.register_keras_serializable(package="yt8m_tf")
class MixtureOfExperts(keras.layers.Layer):
    """For each class, a gated mixture of logistic experts and a dummy expert of probability 0: [B, D] to [B, C].

    P(class) = sum over m < M of softmax(gates)[m] * sigmoid(experts[m]), with M experts and M + 1 gates for each
    class. The output is the log-odds of P, computed in log space.

    Reference: `MoeModel` of https://github.com/google/youtube-8m/blob/master/video_level_models.py, whose gates have no
    bias either. Differences: logits instead of probabilities, the initial weights, and a penalty of
    `l2 * sum(w ** 2)`, twice that of slim's regulariser.

    Args:
      num_classes: C.
      num_mixtures: M, the number of experts of each class, without the dummy.
      l2: weight of the sum of squares of both kernels in the model's losses.
      dtype: float32 by default, even with mixed precision.
      **kwargs: arguments of every layer: name (a model's last layer is called "logits"), trainable.

    Example:
      >>> import numpy as np, yt8m_tf
      >>> yt8m_tf.MixtureOfExperts(num_classes=20, num_mixtures=2)(np.zeros((3, 16), "float32")).shape.as_list()
      [3, 20]
    """

    def __init__(
        self, num_classes: int, num_mixtures: int = 2, l2: float = 0.0, *, dtype: str = "float32", **kwargs: Any
    ) -> None:
        for argument, value in (("num_classes", num_classes), ("num_mixtures", num_mixtures)):
            if value < 1:
                raise ValueError(f"MixtureOfExperts: {argument} must be at least 1, got {value}")
        super().__init__(dtype=dtype, **kwargs)
        self.num_classes = num_classes
        self.num_mixtures = num_mixtures
        self.l2 = l2

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the kernels of gates and experts, and the experts' bias; columns are grouped by class."""
        size = input_shape[-1]
        assert size is not None
        self.gate_kernel = self._kernel("gate_kernel", (size, self.num_classes * (self.num_mixtures + 1)))
        self.expert_kernel = self._kernel("expert_kernel", (size, self.num_classes * self.num_mixtures))
        self.bias = self.add_weight(
            shape=(self.num_classes * self.num_mixtures,), initializer=blocks.bias_initializer(size), name="bias"
        )

    def call(self, inputs: Any) -> Any:
        """Maps [B, D] to logits [B, C]."""
        gates = ops.reshape(ops.matmul(inputs, self.gate_kernel), (-1, self.num_classes, self.num_mixtures + 1))
        experts = ops.matmul(inputs, self.expert_kernel) + self.bias
        return mixture_log_odds(gates, ops.reshape(experts, (-1, self.num_classes, self.num_mixtures)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """[B, C]."""
        return (input_shape[0], self.num_classes)

    def _kernel(self, name: str, shape: tuple[int, int]) -> keras.Variable:
        regularizer = keras.regularizers.L2(self.l2) if self.l2 else None
        return self.add_weight(shape=shape, initializer=blocks.kernel_initializer(), regularizer=regularizer, name=name)


def mixture_log_odds(gates: Any, experts: Any) -> Any:
    """Computes the log-odds of sum over m of softmax(gates)[m] * sigmoid(experts[m]), without the probability itself.

    Args:
      gates: [..., M + 1] logits of the mixture; the last one is the dummy expert's.
      experts: [..., M] logits of the other experts.

    Returns:
      [...] log P - log(1 - P). The normaliser of the gates cancels, because it is in both terms.
    """
    gates = gates - ops.stop_gradient(ops.max(gates, axis=-1, keepdims=True))  # avoids underflow of small terms
    mixed, dummy = gates[..., :-1], gates[..., -1:]
    log_yes = ops.logsumexp(mixed + ops.log_sigmoid(experts), axis=-1)
    log_no = ops.logsumexp(ops.concatenate([mixed + ops.log_sigmoid(-experts), dummy], axis=-1), axis=-1)
    return log_yes - log_no
