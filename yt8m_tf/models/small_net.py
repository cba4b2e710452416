"""The six small nets of the second level, and the final network on top of their trunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks
from yt8m_tf.models.registry import model_inputs, register_model

TrunkName = Literal["a", "b", "c", "d", "e", "f"]


@dataclasses.dataclass(frozen=True)
class _Trunk:
    """Widths of a trunk: hidden layers, each with batch normalisation and `activation`, and an output with ReLU.

    `of_rgb` and `of_others` are layers of single features, `joint` those of the concatenated features.
    """

    activation: Callable[[Any], Any]
    joint: tuple[int, ...]
    output: int
    of_rgb: tuple[int, ...] = ()
    of_others: tuple[int, ...] = ()


def _swish(x: Any) -> Any:
    return x * ops.sigmoid(x)


def _leaky_relu(x: Any) -> Any:
    return ops.leaky_relu(x, 0.2)


_TRUNKS: Mapping[str, _Trunk] = {
    "a": _Trunk(_swish, (1024, 1024), 1024),
    "b": _Trunk(ops.relu, (1024,), 1024),
    "c": _Trunk(_leaky_relu, (), 1024, (1024,), (256,)),
    "d": _Trunk(_swish, (), 1024, (1024, 1024), (256, 256)),
    "e": _Trunk(ops.relu, (4096,) * 4, 2048),
    "f": _Trunk(ops.relu, (2048,) * 5, 2048),
}


@dataclasses.dataclass(frozen=True)
class SmallNetConfig:
    """Options of the six small nets.

    Attributes:
      variant: "a" to "f".
      width: factor of all widths.
      momentum: momentum of batch normalisation's moving averages. Short runs need less than the published 0.999, with
        which the averages would still depend on their initial values.
      unit_inputs: whether to divide the concatenated features of a video by their Euclidean norm.
    """

    variant: TrunkName = "a"
    width: float = 1.0
    momentum: float = 0.999
    unit_inputs: bool = False

    def __post_init__(self) -> None:
        checks.rates(self, "momentum")
        if self.width <= 0:
            raise ValueError(f"width must be positive, got {self.width}")


@dataclasses.dataclass(frozen=True)
class FinalNetworkConfig:
    """Options of the final network.

    Attributes:
      trunks: the trunks whose outputs it reads.
      hidden_sizes: widths of its own hidden layers.
      train_trunks: whether to fine-tune the trunks; if not, they are frozen, including their batch statistics.
      width, momentum, unit_inputs: see `SmallNetConfig`; `width` applies to the trunks and to the hidden layers.
    """

    trunks: tuple[TrunkName, ...] = ("a", "b", "c", "d", "e", "f")
    hidden_sizes: tuple[int, ...] = (8192, 6000)
    train_trunks: bool = True
    width: float = 1.0
    momentum: float = 0.999
    unit_inputs: bool = False

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "hidden_sizes")
        checks.rates(self, "momentum")
        if self.width <= 0:
            raise ValueError(f"width must be positive, got {self.width}")
        if not self.trunks or len(set(self.trunks)) < len(self.trunks):
            raise ValueError(f"trunks must name one or more different trunks, got {', '.join(self.trunks) or 'none'}")


@register_model("small_net", SmallNetConfig, levels=("video",))
def build_small_net(config: SmallNetConfig, spec: InputSpec) -> keras.Model:
    """One of the six small nets, students of the second level: a trunk, then Dense(C).

    The hidden layers of the trunks are Dense without bias, batch normalisation of epsilon 1e-3 and momentum 0.999, and
    an activation. a: 2 x 1024, swish. b: 1024, ReLU. c: 1024 on rgb and 256 on audio (and on any other feature), leaky
    ReLU of slope 0.2, concatenated. d: as c, with two layers each, and swish. e: 4 x 4096, ReLU. f: 5 x 2048, ReLU.
    Each trunk ends with Dense(1024), or Dense(2048) for e and f, and ReLU.

    Reference: https://arxiv.org/abs/1809.04403. Differences: the last Dense has a bias, which starts at the prior. In
    evaluation and export, batch normalisation uses its moving averages; the published code does not pass
    `training` to it, and so uses the statistics of the batch there, too.
    """
    inputs = model_inputs(spec)
    trunk = _trunk(_features(inputs, config.unit_inputs, spec), config.variant, config.width, config.momentum, spec)
    return keras.Model(inputs, _logits(trunk, spec), name=f"small_net_{config.variant}")


@register_model("final_network", FinalNetworkConfig, levels=("video",))
def build_final_network(config: FinalNetworkConfig, spec: InputSpec) -> keras.Model:
    """The final network: trunks of the small nets, then Dense(8192), BN, ReLU, Dense(6000), BN, ReLU, Dense(C).

    Its own layers read the outputs of the trunks, concatenated with the features. The trunks have the variable paths of
    `small_net`, so trained ones can be loaded with --init_from=RUN_A,RUN_B,... --init_exclude='hidden*,logits/*'.

    Reference: https://arxiv.org/abs/1809.04403. Differences: as in `small_net`.
    """
    inputs = model_inputs(spec)
    features = _features(inputs, config.unit_inputs, spec)
    trunks = [_trunk(features, name, config.width, config.momentum, spec) for name in config.trunks]
    frozen = keras.Model(inputs, trunks)
    for layer in frozen.layers:
        layer.trainable = config.train_trunks
    x = ops.concatenate([*trunks, *(features[name] for name in spec.features)], axis=-1)
    for number, size in enumerate(config.hidden_sizes, start=1):
        x = _hidden(x, _scaled(size, config.width), ops.relu, config.momentum, f"hidden{number}")
    return keras.Model(inputs, _logits(x, spec), name="final_network")


def _features(
    inputs: Mapping[str, keras.KerasTensor], unit_inputs: bool, spec: InputSpec
) -> dict[str, keras.KerasTensor]:
    """Returns the features; with `unit_inputs`, divided by the Euclidean norm of their concatenation."""
    features = {name: inputs[name] for name in spec.features}
    if not unit_inputs:
        return features
    squares = [ops.sum(ops.square(x), axis=-1, keepdims=True) for x in features.values()]
    scale = ops.rsqrt(ops.maximum(ops.sum(ops.concatenate(squares, axis=-1), axis=-1, keepdims=True), 1e-24))
    return {name: x * scale for name, x in features.items()}


def _trunk(
    features: Mapping[str, keras.KerasTensor], name: str, width: float, momentum: float, spec: InputSpec
) -> keras.KerasTensor:
    """Returns the output of one trunk, [B, its width]."""
    trunk = _TRUNKS[name]
    branches = []
    for feature in spec.features:
        x = features[feature]
        sizes = trunk.of_rgb if feature == "rgb" else trunk.of_others
        for number, size in enumerate(sizes, start=1):
            x = _hidden(x, _scaled(size, width), trunk.activation, momentum, f"{name}_{feature}{number}")
        branches.append(x)
    x = ops.concatenate(branches, axis=-1)
    for number, size in enumerate(trunk.joint, start=1):
        x = _hidden(x, _scaled(size, width), trunk.activation, momentum, f"{name}_joint{number}")
    output = keras.layers.Dense(_scaled(trunk.output, width), use_bias=False, name=f"{name}_output_dense")
    return ops.relu(output(x))


def _hidden(
    x: keras.KerasTensor, units: int, activation: Callable[[Any], Any], momentum: float, name: str
) -> keras.KerasTensor:
    x = keras.layers.Dense(units, use_bias=False, name=f"{name}_dense")(x)
    return activation(keras.layers.BatchNormalization(momentum=momentum, epsilon=1e-3, name=f"{name}_bn")(x))


def _logits(x: keras.KerasTensor, spec: InputSpec) -> keras.KerasTensor:
    return blocks.class_logits(x, spec.num_outputs)


def _scaled(size: int, width: float) -> int:
    return max(1, round(size * width))
