"""A soft bag of words with a learned power, followed by the residual network."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, masking
from yt8m_tf.layers.power import SignedPower
from yt8m_tf.models.registry import model_inputs, register_model
from yt8m_tf.models.resnet_like import HalfResNetConfig, resnet_like_logits


@dataclasses.dataclass(frozen=True)
class VLADBoWConfig:
    """Sizes of the model.

    Attributes:
      n_clusters: K, the number of words of each feature.
      power: exponent of the scores before the softmax, or its initial value if it is learned; a larger one makes
        assignments harder.
      learnable_power: whether the power is learned.
      dropout: rate on the bags, in [0, 1).
      resnet: the network on top, with its own dropout rate.
    """

    n_clusters: int = 1000
    power: float = 3.0
    learnable_power: bool = True
    dropout: float = 0.1
    resnet: HalfResNetConfig = dataclasses.field(default_factory=HalfResNetConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "n_clusters")
        checks.at_least(self, 0, "power")
        checks.rates(self, "dropout")


@register_model("vlad_bow", VLADBoWConfig, levels=("frame",))
def build_vlad_bow(config: VLADBoWConfig, spec: InputSpec) -> keras.Model:
    """For each feature, softmax(Dense(K) ** power) summed over real frames, [B, K]; dropout; `resnet_like`.

    Reference: https://arxiv.org/abs/1809.04403. Difference: the reference raises even negative scores to the learned
    power, which is undefined unless the power is an integer; here a score x becomes sign(x) * |x| ** power. As in the
    reference, all features share one power.

    Memory: a training step on rgb and audio needs about eight tensors [B, T, K] at its peak: 1.3 GB in float32 at
    B = 128, T = 303 and K = 1000, and 5 GB at K = 4096.
    """
    inputs = model_inputs(spec)
    mask = masking.clip_mask(inputs)
    power = SignedPower(config.power, config.learnable_power, name="power")
    bags = {}
    for name in spec.features:
        scores = power(blocks.dense(inputs[name], config.n_clusters, f"{name}_words_dense"))  # [B, T, K]
        words = ops.softmax(scores, axis=-1)
        real = ops.expand_dims(ops.cast(mask, words.dtype), 1)  # [B, 1, T]
        bag = ops.squeeze(ops.matmul(real, words), 1)  # a matrix product: no masked copy, and no einsum for LiteRT
        bags[name] = blocks.dropout(bag, config.dropout, f"{name}_words_dropout")
    return keras.Model(inputs, resnet_like_logits(bags, config.resnet, spec.num_outputs), name="vlad_bow")
