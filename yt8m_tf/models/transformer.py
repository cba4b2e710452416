"""The original solution's variant of a transformer encoder."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, masking
from yt8m_tf.layers.attention import PositionedSelfAttention
from yt8m_tf.models.registry import model_inputs, register_model
from yt8m_tf.schema import MAX_FRAMES


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the encoder.

    Attributes:
      inner_size: width of each head and of each layer's output.
      num_layers: number of attention layers.
      num_heads: number of heads in each layer.
      dropout: rate at the end of each layer, in [0, 1).
      max_length: number of frames after which position codes repeat.
      biases: whether queries and values have biases. The original has none; runs from before this key existed have
        them.
    """

    inner_size: int = 500
    num_layers: int = 1
    num_heads: int = 1
    dropout: float = 0.0
    max_length: int = MAX_FRAMES
    biases: bool = False

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "inner_size", "num_layers", "num_heads", "max_length")
        checks.rates(self, "dropout")


@register_model("transformer", TransformerConfig, levels=("frame",))
def build_transformer(config: TransformerConfig, spec: InputSpec) -> keras.Model:
    """Layers of self-attention (see `PositionedSelfAttention`), Dense, dropout and ReLU; the mean over real frames.

    There are neither residual connections nor normalisation, as in the original.

    Memory: two or three [B, heads, T, T] tensors for each layer, 0.2 GB each in float32 at B = 512, T = 303 and one
    head. More is needed for the frames, with and without their codes (0.7 GB each), and for queries, keys, values and
    outputs (0.3 GB each). A training step takes 3.5 GB by XLA's count on a CPU.

    Reference: https://arxiv.org/abs/1809.04403. Differences: by mistake, the published code applies a sigmoid inside
    the model and then a cross-entropy that expects logits. It initialises the kernels of the heads, one tensor with
    three axes, with a standard deviation of 0.0019 (1152 to 500); here each is initialised like any Dense, with 0.017.
    """
    inputs = model_inputs(spec)
    mask = masking.clip_mask(inputs)
    x = blocks.concat_features(inputs, spec.features)  # [B, T, D]
    for i in range(1, config.num_layers + 1):
        layer = PositionedSelfAttention(
            config.inner_size, config.num_heads, config.max_length, config.biases, name=f"layer{i}_attention"
        )
        x = blocks.dense(layer(x, mask), config.inner_size, f"layer{i}_dense")  # [B, T, inner_size]
        x = ops.relu(blocks.dropout(x, config.dropout, f"layer{i}_dropout"))
    logits = blocks.class_logits(masking.masked_mean(x, mask), spec.num_outputs)
    return keras.Model(inputs, logits, name="transformer")
