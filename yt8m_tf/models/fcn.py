"""Fully connected networks on the concatenated features of a video: plain, with a bottleneck, cyclic, ranking."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class FCNConfig:
    """Options of a fully connected network.

    Attributes:
      hidden_sizes: widths of the hidden layers.
      dropout: rate after each hidden layer, in [0, 1).
    """

    hidden_sizes: tuple[int, ...] = (1024, 1024)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "hidden_sizes")
        checks.rates(self, "dropout")


@dataclasses.dataclass(frozen=True)
class BottleneckFCNConfig:
    """Options of a fully connected network with a bottleneck.

    Attributes:
      start_size: width of the first and the last hidden layer, a multiple of 2 ** depth.
      depth: how many times the width is halved from the first layer to the middle one.
    """

    start_size: int = 2048
    depth: int = 4

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "start_size")
        checks.at_least(self, 0, "depth")
        if self.start_size % 2**self.depth:
            raise ValueError(
                f"start_size must be a multiple of 2 ** depth = {2**self.depth}, to be halved {self.depth} times, got"
                f" {self.start_size}"
            )

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Widths of all hidden layers, such as (4, 2, 1, 2, 4)."""
        narrowing = tuple(self.start_size // 2**i for i in range(self.depth + 1))
        return narrowing + narrowing[-2::-1]


@dataclasses.dataclass(frozen=True)
class CyclicFCNConfig:
    """Options of a fully connected network that applies one layer several times.

    Attributes:
      inner_size: s, width of the hidden layers.
      repeats: how many times the second layer is applied.
    """

    inner_size: int = 1024
    repeats: int = 3

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "inner_size", "repeats")


@dataclasses.dataclass(frozen=True)
class RankingFCNConfig:
    """Options of a fully connected network with a ranking layer.

    Attributes:
      inner_size: s, width of both hidden layers.
    """

    inner_size: int = 1024

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "inner_size")


@register_model("fcn", FCNConfig, levels=("video",))
def build_fcn(config: FCNConfig, spec: InputSpec) -> keras.Model:
    """Dense, dropout, ReLU for each hidden size, then Dense(C).

    Reference: https://arxiv.org/abs/1809.04403, also for `bottleneck_fcn`, `cyclic_fcn` and `ranking_fcn`.
    """
    inputs = model_inputs(spec)
    x = blocks.concat_features(inputs, spec.features)
    x = blocks.fcn(x, config.hidden_sizes, config.dropout)
    return keras.Model(inputs, blocks.class_logits(x, spec.num_outputs), name="fcn")


@register_model("bottleneck_fcn", BottleneckFCNConfig, levels=("video",))
def build_bottleneck_fcn(config: BottleneckFCNConfig, spec: InputSpec) -> keras.Model:
    """ReLU Dense layers, each half as wide as the one before, then each twice as wide; Dense(C)."""
    inputs = model_inputs(spec)
    x = blocks.concat_features(inputs, spec.features)
    x = blocks.fcn(x, config.hidden_sizes, dropout_rate=0.0)
    return keras.Model(inputs, blocks.class_logits(x, spec.num_outputs), name="bottleneck_fcn")


@register_model("cyclic_fcn", CyclicFCNConfig, levels=("video",))
def build_cyclic_fcn(config: CyclicFCNConfig, spec: InputSpec) -> keras.Model:
    """A leaky ReLU Dense(s), a second one applied `repeats` times with the same weights, Dense(C)."""
    inputs = model_inputs(spec)
    x = blocks.concat_features(inputs, spec.features)
    x = blocks.leaky_relu(blocks.dense(x, config.inner_size, "first_dense"))
    cycle = blocks.dense_layer(config.inner_size, fan_in=config.inner_size, name="cycle_dense")
    for _ in range(config.repeats):
        x = blocks.leaky_relu(cycle(x))
    return keras.Model(inputs, blocks.class_logits(x, spec.num_outputs), name="cyclic_fcn")


@register_model("ranking_fcn", RankingFCNConfig, levels=("video",))
def build_ranking_fcn(config: RankingFCNConfig, spec: InputSpec) -> keras.Model:
    """Two ReLU Dense(s), Dense(C), a softmax over classes, and one affine map for all scores of the softmax.

    Classes compete: the logits of a video are between the map's bias and bias + scale. All start at the mean prior.

    Differences: the scale starts at C, instead of a random number in +-1. Scores are 1 / C on average: 500 steps on
    real records hardly changed the original's scale and left GAP at 0.000, whereas C gives 0.59.
    """
    inputs = model_inputs(spec)
    x = blocks.concat_features(inputs, spec.features)
    x = blocks.fcn(x, (config.inner_size, config.inner_size), dropout_rate=0.0)
    scores = ops.softmax(blocks.dense(x, spec.num_outputs, "scores", dtype="float32"))  # [B, C]
    scale = keras.initializers.Constant(spec.num_outputs)
    affine = keras.layers.Dense(1, kernel_initializer=scale, dtype="float32", name="logits")  # of a single number
    return keras.Model(inputs, affine(scores[:, :, None])[:, :, 0], name="ranking_fcn")
