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
      num_layers: bidirectional LSTMs of each feature, one on top of the other.
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
    """For each feature x = ReLU Dense(D), beside it its bidirectional LSTM, attention over frames; BN, FCN on top.

    Runs on cuDNN where there is a GPU (`layers.recurrent`). A training step of the default sizes with B = 256 and
    T = 303 keeps about 7 GB of activations there in float32, nine tenths of them rgb's: 0.6 GB of frames and x, 0.6 GB
    of outputs, 4 GB of gates and cells of the two directions, and 1.3 GB of one direction's gradients of the gates at a
    time; half of that with 16-bit precision. x and the outputs, [B, T, D] and [B, T, 2 D], are never put side by side.

    Reference: https://arxiv.org/abs/1809.04403. Where we differ: the attention's Dense(1) has no bias, which a softmax
    over frames cancels; of several LSTMs each reads the outputs before it alone, where the original feeds it their
    input, too, and pools the outputs of all (no configuration has more than one).
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
