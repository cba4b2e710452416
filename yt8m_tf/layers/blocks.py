"""Building blocks with the defaults of the original solution, as plain functions from a tensor to a tensor.

Each takes the explicit `name` that its layers' names start with: variable paths must be the same whenever the same
model is built, whatever else was built in the process. What has no weights is a `keras.ops` call and has no name.

Reference: "Label Denoising with Large Ensembles of Heterogeneous Neural Networks", https://arxiv.org/abs/1809.04403.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import keras
from keras import ops

from yt8m_tf.layers.frame_batch_norm import FrameBatchNormalization

NEGATIVE_SLOPE = 0.01

# From (x, units, dropout rate, name) to [..., units]: `fc_block`, or what a model puts in its place.
FCBlock = Callable[[keras.KerasTensor, int, float, str], keras.KerasTensor]


def kernel_initializer() -> keras.initializers.Initializer:
    """Uniform in +-1/sqrt(fan_in), the original's default for every kernel."""
    return keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def bias_initializer(fan_in: int) -> keras.initializers.Initializer:
    """Uniform in +-1/sqrt(fan_in), the original's default for the bias beside a kernel with that many inputs."""
    limit = fan_in**-0.5
    return keras.initializers.RandomUniform(-limit, limit)


def dense_layer(
    units: int, fan_in: int, name: str, l2: float = 0.0, dtype: str | None = None, use_bias: bool = True
) -> keras.layers.Dense:
    """A `Dense` layer with the original's initial weights, for use in more than one place; else see `dense`.

    Args:
      units: size of the output.
      fan_in: size of the input, which the initial bias depends on.
      name: of the layer.
      l2: adds `l2 * sum(kernel ** 2)` to the model's losses; the bias is spared.
      dtype: of the arithmetic; None follows the global policy.
      use_bias: False in front of batch normalisation, see `fc_block`.
    """
    return keras.layers.Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=kernel_initializer(),
        bias_initializer=bias_initializer(fan_in),
        kernel_regularizer=keras.regularizers.L2(l2) if l2 else None,
        dtype=dtype,
        name=name,
    )


def dense(
    x: keras.KerasTensor, units: int, name: str, l2: float = 0.0, dtype: str | None = None, use_bias: bool = True
) -> keras.KerasTensor:
    """Dense over the last axis: [..., D] to [..., units]; arguments as `dense_layer`."""
    return dense_layer(units, x.shape[-1], name, l2=l2, dtype=dtype, use_bias=use_bias)(x)


def batch_norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Batch normalisation over all axes but the last, with the original's epsilon and momentum."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def frame_batch_norm(
    frames: keras.KerasTensor, frame_mask: keras.KerasTensor, name: str, center: bool = True
) -> keras.KerasTensor:
    """Batch normalisation of [B, T, D] with the statistics of the real frames alone, True in the [B, T] mask.

    `center` is False where the frames go through a linear map into another batch normalisation and nowhere else: that
    would subtract the offset again.
    """
    return FrameBatchNormalization(momentum=0.9, epsilon=1e-5, center=center, name=name)(frames, frame_mask)


def dropout(x: keras.KerasTensor, rate: float, name: str) -> keras.KerasTensor:
    """Dropout at `rate`, in [0, 1)."""
    return keras.layers.Dropout(rate, name=name)(x)


def leaky_relu(x: keras.KerasTensor) -> keras.KerasTensor:
    """Leaky ReLU with the original's slope."""
    return ops.leaky_relu(x, NEGATIVE_SLOPE)


def fc_block(
    x: keras.KerasTensor, units: int, dropout_rate: float, name: str, frame_mask: keras.KerasTensor | None = None
) -> keras.KerasTensor:
    """FCBlock: Dense, batch normalisation, leaky ReLU, dropout; [..., D] to [..., units].

    For frames, [B, T, D], the [B, T] `frame_mask` keeps padding out of the batch's statistics.

    Differs from the original in that the Dense has no bias: batch normalisation subtracts it again, its gradient is
    zero but for rounding, and Adam would turn that rounding into a random walk. The function computed is the same.
    """
    x = dense(x, units, f"{name}_dense", use_bias=False)
    x = batch_norm(x, f"{name}_bn") if frame_mask is None else frame_batch_norm(x, frame_mask, f"{name}_bn")
    x = leaky_relu(x)
    return dropout(x, dropout_rate, f"{name}_dropout")


def res_block(
    x: keras.KerasTensor, inner_size: int, dropout_rate: float, name: str, block: FCBlock = fc_block
) -> keras.KerasTensor:
    """ResBlock: leaky ReLU of x + Dense(block(x)), the block `inner_size` wide; the shape stays.

    Another block than `fc_block` takes the same arguments: for padded frames `partial(fc_block, frame_mask=mask)`.
    """
    residual = block(x, inner_size, dropout_rate, f"{name}_inner")
    return leaky_relu(x + dense(residual, x.shape[-1], f"{name}_outer"))


def fcn(x: keras.KerasTensor, hidden_sizes: Sequence[int], dropout_rate: float, name: str = "fcn") -> keras.KerasTensor:
    """The hidden layers of FCN: Dense, dropout, ReLU for each size. `class_logits` completes it."""
    for i, size in enumerate(hidden_sizes, start=1):
        x = dense(x, size, f"{name}{i}_dense")
        x = ops.relu(dropout(x, dropout_rate, f"{name}{i}_dropout"))
    return x


def concat_features(tensors: Mapping[str, keras.KerasTensor], names: Iterable[str]) -> keras.KerasTensor:
    """Concatenates the named tensors along the last axis, in the order of `names`; one alone stays as it is."""
    return ops.concatenate([tensors[name] for name in names], axis=-1)


def class_logits(x: keras.KerasTensor, num_classes: int, l2: float = 0.0) -> keras.KerasTensor:
    """The last Dense of a model, [..., D] to [..., C]: named "logits" and float32 under mixed precision too."""
    return dense(x, num_classes, "logits", l2=l2, dtype="float32")
