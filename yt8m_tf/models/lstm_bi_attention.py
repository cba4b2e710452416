"""Attention over the outputs of bidirectional LSTMs."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, recurrent
from yt8m_tf.layers.attention_pooling import AttentionPooling
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class LSTMBiAttentionConfig:
    """Sizes of the network; each direction of a feature's LSTM is as wide as the feature.

    Attributes:
      num_layers: number of stacked bidirectional LSTMs of each feature.
      hidden_sizes: widths of the hidden layers of the FCN.
      dropout: rate in each hidden layer of the FCN, in [0, 1).
    """

    num_layers: int = 1
    hidden_sizes: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "num_layers", "hidden_sizes")
        checks.rates(self, "dropout")


@register_model("lstm_bi_attention", LSTMBiAttentionConfig, levels=("frame",))
def build_lstm_bi_attention(config: LSTMBiAttentionConfig, spec: InputSpec) -> keras.Model:
    """For each feature x = ReLU Dense(D), a bidirectional LSTM of x, attention pooling of both; then BN and an FCN.

    On a GPU, the LSTMs run on cuDNN (`layers.recurrent`). A training step of the default sizes with B = 256 and T = 303
    then keeps about 7 GB of activations in float32, nine tenths of them for rgb: 0.6 GB of frames and x, 0.6 GB of
    outputs, 4 GB of gates and cells of the two directions, and 1.3 GB of gradients of the gates, for one direction at a
    time. With 16-bit precision it needs half of that. x and the outputs, [B, T, D] and [B, T, 2 D], are never
    concatenated.

    Reference: https://arxiv.org/abs/1809.04403. Differences: the attention's Dense(1) has no bias, which a softmax over
    frames cancels; with several LSTMs, each reads only the outputs of the one before. In the original, it also reads
    that one's input, and the outputs of all LSTMs are pooled (no configuration has more than one).
    """
    inputs = model_inputs(spec)
    mask = recurrent.clip_mask(inputs)
    pooled = []
    for name, size in spec.features.items():
        x = outputs = ops.relu(blocks.dense(inputs[name], size, f"{name}_dense"))  # [B, T, D]
        for i in range(1, config.num_layers + 1):
            outputs, _ = recurrent.masked_rnn(
                outputs, mask, "lstm", size, f"{name}_rnn{i}", sequences=True, bidirectional=True
            )  # [B, T, 2 D]
        pooled.append(AttentionPooling(name=f"{name}_attention")([x, outputs], mask))  # [B, 3 D]
    x = blocks.batch_norm(ops.concatenate(pooled, axis=-1), "bn")
    hidden = blocks.fcn(x, config.hidden_sizes, config.dropout)
    return keras.Model(inputs, blocks.class_logits(hidden, spec.num_outputs), name="lstm_bi_attention")
