"""A network whose hidden layer is bilinear in its input and in learned combinations of the input."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.layers import blocks
from yt8m_tf.layers.bilinear import Bilinear
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class BilinearFCNConfig:
    """Sizes of the network.

    Attributes:
      rank: R, the number of learned combinations.
      inner_size: width of the hidden layer.
      dropout: rate on the hidden layer, in [0, 1).
      first_rgb: number of rgb values to read, the first ones; 512 in the original's variant; null: all.
      second: whether a second bilinear layer follows the first.
    """

    rank: int = 64
    inner_size: int = 1024
    dropout: float = 0.0
    first_rgb: int | None = None
    second: bool = False

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "rank", "inner_size")
        checks.rates(self, "dropout")
        if self.first_rgb is not None:
            checks.at_least(self, 1, "first_rgb")


@register_model("bilinear_fcn", BilinearFCNConfig, levels=("video",))
def build_bilinear_fcn(config: BilinearFCNConfig, spec: InputSpec) -> keras.Model:
    """h = Dense(R)(x); y = tanhshrink(Bilinear(x, tanhshrink(h))); if `second`, tanhshrink(Bilinear(y, h)); Dense(C).

    x is the concatenation of the features, and tanhshrink(x) is x - tanh(x). As in the original, the second bilinear
    layer reads h without tanhshrink. The kernel of `Bilinear` has D * R * `inner_size` weights: 75 million with
    D = 1152 and R = 64.

    Reference: https://arxiv.org/abs/1809.04403, which omits the details.

    Raises:
      InputError: `first_rgb` is more than the number of rgb values.
    """
    inputs = model_inputs(spec)
    features = dict(inputs)
    if config.first_rgb is not None:
        if config.first_rgb > (size := spec.features.get("rgb", 0)):
            raise InputError(
                f"configuration key 'model.first_rgb': {config.first_rgb} is more than the {size} rgb values of"
                " data.features; lower it, or leave it out"
            )
        features["rgb"] = features["rgb"][:, : config.first_rgb]
    x = blocks.concat_features(features, spec.features)  # [B, D]
    h = blocks.dense(x, config.rank, "rank_dense")  # [B, R]
    y = _tanhshrink(Bilinear(config.inner_size, name="bilinear1")(x, _tanhshrink(h)))
    if config.second:
        y = _tanhshrink(Bilinear(config.inner_size, name="bilinear2")(y, h))
    y = blocks.dropout(y, config.dropout, "dropout")
    return keras.Model(inputs, blocks.class_logits(y, spec.num_outputs), name="bilinear_fcn")


def _tanhshrink(x: keras.KerasTensor) -> keras.KerasTensor:
    """Computes x - tanh(x) in float32: near zero it is about x ** 3 / 3, and bfloat16 would lose the difference."""
    return ops.tanh_shrink(ops.cast(x, "float32"))
