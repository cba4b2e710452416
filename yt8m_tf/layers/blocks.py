"""Building blocks with the defaults of the original solution, as plain functions of tensors.

Each takes an explicit `name`, the prefix of its layers' names: a model's variable paths must not depend on other
models in the process. Blocks without weights are `keras.ops` calls and take no name.

Reference: "Label Denoising with Large Ensembles of Heterogeneous Neural Networks", https://arxiv.org/abs/1809.04403.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import keras
from keras import ops

from yt8m_tf.layers.frame_batch_norm import FrameBatchNormalization

NEGATIVE_SLOPE = 0.01

# Maps (x, units, dropout rate, name) to [..., units]: `fc_block`, or a model's replacement for it.
FCBlock = Callable[[keras.KerasTensor, int, float, str], keras.KerasTensor]


def kernel_initializer() -> keras.initializers.Initializer:
    """Returns the original's default for kernels, uniform in +-1/sqrt(fan_in)."""
    return keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def bias_initializer(fan_in: int) -> keras.initializers.Initializer:
    """Returns the original's default for the bias of a kernel with `fan_in` inputs, uniform in +-1/sqrt(fan_in)."""
    limit = fan_in**-0.5
    return keras.initializers.RandomUniform(-limit, limit)


def dense_layer(
    units: int, fan_in: int, name: str, l2: float = 0.0, dtype: str | None = None, use_bias: bool = True
) -> keras.layers.Dense:
    """Creates a `Dense` layer with the original's initial weights, to be called several times; see also `dense`.

    Args:
      units: size of the output.
      fan_in: size of the input, on which the initial bias depends.
      name: name of the layer.
      l2: adds `l2 * sum(kernel ** 2)` to the model's losses; the bias has no penalty.
      dtype: precision of the arithmetic; None follows the global policy.
      use_bias: False before batch normalisation, see `fc_block`.
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
    """Applies a Dense layer to the last axis, [..., D] to [..., units]; arguments as in `dense_layer`."""
    return dense_layer(units, x.shape[-1], name, l2=l2, dtype=dtype, use_bias=use_bias)(x)


def batch_norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Applies batch normalisation over all axes except the last, with the original's epsilon and momentum."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def frame_batch_norm(
    frames: keras.KerasTensor, frame_mask: keras.KerasTensor, name: str, center: bool = True
) -> keras.KerasTensor:
    """Applies batch normalisation to [B, T, D], with statistics of real frames only: those True in the mask [B, T].

    `center` may be False if only a linear map lies between the output and another batch normalisation, which would
    subtract the offset again.
    """
    return FrameBatchNormalization(momentum=0.9, epsilon=1e-5, center=center, name=name)(frames, frame_mask)


def dropout(x: keras.KerasTensor, rate: float, name: str) -> keras.KerasTensor:
    """Applies dropout at `rate`, in [0, 1)."""
    return keras.layers.Dropout(rate, name=name)(x)


def leaky_relu(x: keras.KerasTensor) -> keras.KerasTensor:
    """Applies a leaky ReLU with the original's slope."""
    return ops.leaky_relu(x, NEGATIVE_SLOPE)


def fc_block(
    x: keras.KerasTensor, units: int, dropout_rate: float, name: str, frame_mask: keras.KerasTensor | None = None
) -> keras.KerasTensor:
    """Applies FCBlock: Dense, batch normalisation, leaky ReLU, dropout; [..., D] to [..., units].

    For frames [B, T, D], `frame_mask`, [B, T], excludes padding from the batch's statistics.

    Unlike in the original, the Dense has no bias. Batch normalisation would subtract it again, so its gradient would be
    zero except for rounding errors, which Adam would turn into a random walk. The computed function is the same.
    """
    x = dense(x, units, f"{name}_dense", use_bias=False)
    x = batch_norm(x, f"{name}_bn") if frame_mask is None else frame_batch_norm(x, frame_mask, f"{name}_bn")
    x = leaky_relu(x)
    return dropout(x, dropout_rate, f"{name}_dropout")


def res_block(
    x: keras.KerasTensor, inner_size: int, dropout_rate: float, name: str, block: FCBlock = fc_block
) -> keras.KerasTensor:
    """Applies ResBlock: leaky ReLU of x + Dense(block(x)), with a block of width `inner_size`; keeps the shape.

    A block other than `fc_block` takes the same arguments; for padded frames use `partial(fc_block, frame_mask=mask)`.
    """
    residual = block(x, inner_size, dropout_rate, f"{name}_inner")
    return leaky_relu(x + dense(residual, x.shape[-1], f"{name}_outer"))


def fcn(x: keras.KerasTensor, hidden_sizes: Sequence[int], dropout_rate: float, name: str = "fcn") -> keras.KerasTensor:
    """Applies the hidden layers of FCN: Dense, dropout, ReLU for each size. `class_logits` completes it."""
    for i, size in enumerate(hidden_sizes, start=1):
        x = dense(x, size, f"{name}{i}_dense")
        x = ops.relu(dropout(x, dropout_rate, f"{name}{i}_dropout"))
    return x


def concat_features(tensors: Mapping[str, keras.KerasTensor], names: Iterable[str]) -> keras.KerasTensor:
    """Concatenates the named tensors along the last axis, in the order of `names`."""
    return ops.concatenate([tensors[name] for name in names], axis=-1)


def class_logits(x: keras.KerasTensor, num_classes: int, l2: float = 0.0) -> keras.KerasTensor:
    """Applies a model's last Dense, [..., D] to [..., C], named "logits"; float32 even with mixed precision."""
    return dense(x, num_classes, "logits", l2=l2, dtype="float32")
