"""Adam, AdamW and RMSprop as plain functions of one variable and its slots.

The training step reduces the gradient over replicas, clips it by its global norm, and calls `update` on every variable.
Keras's own optimizers sum gradients once more over replicas and clip each replica's gradient separately (TF 2.21, Keras
3.15), so that N replicas give other results than one. Plain functions avoid both, and run inside XLA. The results equal
those of `keras.optimizers.Adam` and `AdamW`, and of `RMSprop` except for the position of epsilon (see the tests).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from yt8m_tf.config.experiment import OptimizerConfig

# Number of layers into which a large gradient is cut for its sum of squares, and the smallest size of a layer.
_LAYERS, _SMALLEST_LAYER = 16, 4096


def clip_by_global_norm(gradients: Sequence[tf.Tensor], clip_norm: float | None) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Scales all gradients by one factor so that their joint norm is at most `clip_norm`.

    Args:
      gradients: the reduced gradients.
      clip_norm: the bound; None leaves the gradients as they are.

    Returns:
      The gradients, and their global norm before clipping (scalar float32; not finite if any gradient is not).
    """
    norm = tf.sqrt(tf.add_n([_sum_of_squares(gradient) for gradient in gradients]))
    if clip_norm is None:
        return list(gradients), norm
    scale = clip_norm / tf.maximum(norm, clip_norm)
    return [gradient * scale for gradient in gradients], norm


def _sum_of_squares(gradient: tf.Tensor) -> tf.Tensor:
    """Returns the sum of squares of all elements, scalar float32; the shape of `gradient` must be static.

    A large gradient is first cut into layers that are added up, in one pass of vector instructions. For a plain sum,
    XLA on a CPU uses a tree of windows, which costs as much as Adam's own pass (docs/BENCHMARKS.md).
    """
    size = gradient.shape.num_elements()
    if size < _LAYERS * _SMALLEST_LAYER:
        return tf.reduce_sum(tf.square(gradient))
    flat, width = tf.reshape(gradient, [-1]), size // _LAYERS
    total = tf.add_n([tf.square(flat[start : start + width]) for start in range(0, width * _LAYERS, width)])
    return tf.reduce_sum(total) + tf.reduce_sum(tf.square(flat[width * _LAYERS :]))


def decays(config: OptimizerConfig, shape: Sequence[int]) -> bool:
    """Returns whether weight decay applies to a variable of this shape: matrices, not biases or BN parameters."""
    return config.name == "adamw" and len(shape) >= 2


def update(
    config: OptimizerConfig,
    value: tf.Tensor,
    gradient: tf.Tensor,
    slots: Sequence[tf.Tensor],
    step: tf.Tensor,
    learning_rate: tf.Tensor,
) -> tuple[tf.Tensor, ...]:
    """Makes one step of the configured optimizer; arguments as in `adam_update`, slots as in `config.slot_names`.

    Returns:
      The new value and the new slots.
    """
    if config.name == "rmsprop":
        return rmsprop_update(config, value, gradient, slots[0], learning_rate)
    return adam_update(config, value, gradient, (slots[0], slots[1]), step, learning_rate)


def rmsprop_update(
    config: OptimizerConfig, value: tf.Tensor, gradient: tf.Tensor, mean_square: tf.Tensor, learning_rate: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes one step of RMSprop, without momentum or centring.

    Args:
      config: gives rho and epsilon.
      value: the variable's value, float32 of any shape.
      gradient: its gradient, of the same shape.
      mean_square: running average of the gradient's square, zeros at first; its bias is not corrected.
      learning_rate: scalar float32.

    Returns:
      The new value and the new average.

    References:
      Hinton, https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf. Epsilon is outside the root and
      rho is 0.99, as in PyTorch's RMSprop, with which the original was trained. Keras adds epsilon under the root,
      where the same 1e-8 would outweigh gradients below 1e-4. With a mean over thousands of classes most are smaller.
    """
    mean_square = mean_square + (tf.square(gradient) - mean_square) * (1.0 - config.rho)
    return value - learning_rate * gradient / (tf.sqrt(mean_square) + config.epsilon), mean_square


def adam_update(
    config: OptimizerConfig,
    value: tf.Tensor,
    gradient: tf.Tensor,
    moments: tuple[tf.Tensor, tf.Tensor],
    step: tf.Tensor,
    learning_rate: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Makes one step of Adam, or of AdamW if the configuration says so.

    Args:
      config: gives betas, epsilon and weight decay.
      value: the variable's value, float32 of any shape.
      gradient: its gradient, of the same shape.
      moments: running averages of the gradient and of its square, zeros at first.
      step: updates made before this one (scalar float32), for the correction of the averages' bias.
      learning_rate: scalar float32.

    Returns:
      The new value and the two new moments.

    References:
      Kingma and Ba, https://arxiv.org/abs/1412.6980; Loshchilov and Hutter, https://arxiv.org/abs/1711.05101. Epsilon
      is outside the bias correction, as in Keras and in section 2 of the former. PyTorch adds it to the corrected root,
      where it counts for less in the first few thousand steps.
    """
    first = moments[0] + (gradient - moments[0]) * (1.0 - config.beta_1)
    second = moments[1] + (tf.square(gradient) - moments[1]) * (1.0 - config.beta_2)
    count = step + 1.0
    correction = tf.sqrt(1.0 - tf.pow(config.beta_2, count)) / (1.0 - tf.pow(config.beta_1, count))
    change = learning_rate * correction * first / (tf.sqrt(second) + config.epsilon)
    if decays(config, value.shape):
        value = value - learning_rate * config.weight_decay * value
    return value - change, first, second
