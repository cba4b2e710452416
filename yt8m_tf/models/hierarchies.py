"""Residual networks that predict verticals, to which classes belong, in addition to the classes.

The trunk is a whole `resnet_like` with `inner_size` outputs, then ReLU. Outputs are classes first, then verticals.

Reference: https://arxiv.org/abs/1809.04403. The recurrent ones follow the idea of "Learning Structured Inference
Neural Networks with Label Relations", https://arxiv.org/abs/1511.05616, which passes messages in both directions
between levels of labels. The original states neither the width of the RNN nor the number of repeats; these defaults are
our own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.layers import blocks
from yt8m_tf.layers.recurrent import Cell, recurrent_layer
from yt8m_tf.models.registry import model_inputs, register_model
from yt8m_tf.models.resnet_like import ResNetLikeConfig, resnet_trunk

_LEVELS = 2  # verticals, then classes


@dataclasses.dataclass(frozen=True)
class FFHierarchyConfig:
    """Sizes of the network.

    Attributes:
      inner_size: width of the trunk's output, the input of the heads.
      resnet: the trunk, with its own `inner_size`; it has no logits, so `context_gating` must be off.
    """

    inner_size: int = 2000
    resnet: ResNetLikeConfig = dataclasses.field(default_factory=ResNetLikeConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "inner_size")
        if self.resnet.context_gating:
            raise ValueError("resnet.context_gating gates logits, but the trunk of a hierarchy has none; turn it off")


@dataclasses.dataclass(frozen=True)
class RNNHierarchyConfig(FFHierarchyConfig):
    """Sizes as in `FFHierarchyConfig`, and those of the RNN.

    Attributes:
      hidden_size: width of the RNN in each direction.
      cell: "rnn" (tanh, as in the original), "gru" or "lstm".
    """

    hidden_size: int = 1024
    cell: Cell = "rnn"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, 1, "hidden_size")


@dataclasses.dataclass(frozen=True)
class RepRNNHierarchyConfig(RNNHierarchyConfig):
    """Sizes as in `RNNHierarchyConfig`, with smaller defaults.

    Attributes:
      repeats: number of times that the RNN is applied.
    """

    hidden_size: int = 512
    repeats: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, 1, "repeats")


@register_model("resnet_ff_hierarchy", FFHierarchyConfig, levels=("video",))
def build_ff_hierarchy(config: FFHierarchyConfig, spec: InputSpec) -> keras.Model:
    """Verticals from the trunk's output x, then classes from the concatenation of x and the verticals' logits.

    Raises:
      InputError: the data has no verticals.
    """
    inputs, x = _inputs_and_trunk("resnet_ff_hierarchy", config, spec)
    tags = _tag_logits(x, spec)
    classes = blocks.class_logits(ops.concatenate([x, tags], axis=-1), spec.num_classes)
    return _model("resnet_ff_hierarchy", inputs, classes, tags)


@register_model("resnet_rnn_hierarchy", RNNHierarchyConfig, levels=("video",))
def build_rnn_hierarchy(config: RNNHierarchyConfig, spec: InputSpec) -> keras.Model:
    """A bidirectional RNN over two steps, verticals and classes, both with the trunk's output as input.

    The logits of a level are a Dense of the RNN's output at its step, [B, 2 * hidden_size], so verticals depend on the
    step of classes and vice versa.

    Raises:
      InputError: the data has no verticals.
    """
    inputs, x = _inputs_and_trunk("resnet_rnn_hierarchy", config, spec)
    levels = _bidirectional(config)(_level_sequence(x))
    return _model("resnet_rnn_hierarchy", inputs, *_level_logits(levels, spec))


@register_model("resnet_rep_rnn_hierarchy", RepRNNHierarchyConfig, levels=("video",))
def build_rep_rnn_hierarchy(config: RepRNNHierarchyConfig, spec: InputSpec) -> keras.Model:
    """`resnet_rnn_hierarchy` with the same RNN applied several times, each time to its own output.

    A Dense layer first maps the trunk's output to the width of the RNN's output, 2 * `hidden_size`.

    Raises:
      InputError: the data has no verticals.
    """
    inputs, x = _inputs_and_trunk("resnet_rep_rnn_hierarchy", config, spec)
    levels = _level_sequence(blocks.dense(x, 2 * config.hidden_size, "levels_dense"))
    layer = _bidirectional(config)
    for _ in range(config.repeats):
        levels = layer(levels)  # [B, 2, 2 * hidden_size]
    return _model("resnet_rep_rnn_hierarchy", inputs, *_level_logits(levels, spec))


def _inputs_and_trunk(
    name: str, config: FFHierarchyConfig, spec: InputSpec
) -> tuple[dict[str, keras.KerasTensor], keras.KerasTensor]:
    """Returns the model's inputs, and the ReLU of a whole `resnet_like` with `inner_size` outputs."""
    if not spec.num_tags:
        raise InputError(
            f"configuration key 'data.verticals': model '{name}' predicts verticals, too; set it to their"
            " number in data.vocabulary, 25 in YouTube-8M 2018"
        )
    inputs = model_inputs(spec)
    return inputs, ops.relu(blocks.dense(resnet_trunk(inputs, config.resnet), config.inner_size, "trunk_dense"))


def _bidirectional(config: RNNHierarchyConfig) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    """Returns a reusable bidirectional layer from [B, T, D] to [B, T, 2 * hidden_size].

    With `keras.layers.Bidirectional`, the paths of the weights would change when a `.keras` file is loaded.
    """
    forward = recurrent_layer(config.cell, config.hidden_size, "levels_forward", return_sequences=True)
    backward = recurrent_layer(config.cell, config.hidden_size, "levels_backward", True, go_backwards=True)
    return lambda x: ops.concatenate([forward(x), ops.flip(backward(x), axis=1)], axis=-1)


def _level_sequence(x: keras.KerasTensor) -> keras.KerasTensor:
    """Repeats [B, D] to [B, 2, D], the same vector for both levels."""
    return keras.layers.RepeatVector(_LEVELS, name="repeat")(x)


def _level_logits(levels: keras.KerasTensor, spec: InputSpec) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Returns the logits of classes [B, C] and verticals [B, V] from the RNN's output, [B, 2, D], verticals first."""
    return blocks.class_logits(levels[:, 1], spec.num_classes), _tag_logits(levels[:, 0], spec)


def _tag_logits(x: keras.KerasTensor, spec: InputSpec) -> keras.KerasTensor:
    """Maps [B, D] to the verticals' logits, [B, V] float32, whose bias starts at their prior."""
    return blocks.dense(x, spec.num_tags, "tag_logits", dtype="float32")


def _model(
    name: str, inputs: dict[str, keras.KerasTensor], classes: keras.KerasTensor, tags: keras.KerasTensor
) -> keras.Model:
    return keras.Model(inputs, ops.concatenate([classes, tags], axis=-1), name=name)  # [B, C + V]
