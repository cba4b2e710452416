"""Residual networks that predict the verticals that classes belong to beside the classes.

The trunk is a whole `resnet_like` with `inner_size` outputs, then ReLU. Outputs are classes first, then verticals.

Reference: https://arxiv.org/abs/1809.04403. The recurrent ones are in the spirit of "Learning Structured Inference
Neural Networks with Label Relations", https://arxiv.org/abs/1511.05616, which passes messages both ways between levels
of labels. The original gives no width of the RNN and no number of repeats: the defaults are ours.
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
      inner_size: width of the trunk's output, which the heads read.
      resnet: the trunk, with an `inner_size` of its own; it has no logits to gate.
    """

    inner_size: int = 2000
    resnet: ResNetLikeConfig = dataclasses.field(default_factory=ResNetLikeConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "inner_size")
        if self.resnet.context_gating:
            raise ValueError(
                "resnet.context_gating gates logits, which the trunk of a hierarchy has none of; turn it off"
            )


@dataclasses.dataclass(frozen=True)
class RNNHierarchyConfig(FFHierarchyConfig):
    """As `FFHierarchyConfig`, and those of the RNN.

    Attributes:
      hidden_size: of the RNN in each direction.
      cell: its kind: "rnn" (tanh, the original's), "gru" or "lstm".
    """

    hidden_size: int = 1024
    cell: Cell = "rnn"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, 1, "hidden_size")


@dataclasses.dataclass(frozen=True)
class RepRNNHierarchyConfig(RNNHierarchyConfig):
    """As `RNNHierarchyConfig`, narrower.

    Attributes:
      repeats: how many times the RNN is applied.
    """

    hidden_size: int = 512
    repeats: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, 1, "repeats")


@register_model("resnet_ff_hierarchy", FFHierarchyConfig, levels=("video",))
def build_ff_hierarchy(config: FFHierarchyConfig, spec: InputSpec) -> keras.Model:
    """The verticals from the trunk's output x, then the classes from x with the verticals' logits beside it.

    Raises:
      InputError: the data has no verticals.
    """
    inputs, x = _inputs_and_trunk("resnet_ff_hierarchy", config, spec)
    tags = _tag_logits(x, spec)
    classes = blocks.class_logits(ops.concatenate([x, tags], axis=-1), spec.num_classes)
    return _model("resnet_ff_hierarchy", inputs, classes, tags)


@register_model("resnet_rnn_hierarchy", RNNHierarchyConfig, levels=("video",))
def build_rnn_hierarchy(config: RNNHierarchyConfig, spec: InputSpec) -> keras.Model:
    """A bidirectional RNN over two steps, verticals and classes, which both read the trunk's output.

    Each level's logits are a Dense of the RNN's output at its step, [B, 2 * hidden_size], so that verticals hear of
    classes and classes of verticals.

    Raises:
      InputError: the data has no verticals.
    """
    inputs, x = _inputs_and_trunk("resnet_rnn_hierarchy", config, spec)
    levels = _bidirectional(config)(_level_sequence(x))
    return _model("resnet_rnn_hierarchy", inputs, *_level_logits(levels, spec))


@register_model("resnet_rep_rnn_hierarchy", RepRNNHierarchyConfig, levels=("video",))
def build_rep_rnn_hierarchy(config: RepRNNHierarchyConfig, spec: InputSpec) -> keras.Model:
    """As rnn, with the same RNN applied several times, each time to its own output.

    A Dense brings the trunk's output to the width of the RNN's, 2 * `hidden_size`, first.

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
    """The model's inputs, and ReLU of a whole `resnet_like` with `inner_size` outputs."""
    if not spec.num_tags:
        raise InputError(
            f"configuration key 'data.verticals': model '{name}' predicts verticals beside the classes; set it to their"
            " number in data.vocabulary, 25 in YouTube-8M 2018"
        )
    inputs = model_inputs(spec)
    return inputs, ops.relu(blocks.dense(resnet_trunk(inputs, config.resnet), config.inner_size, "trunk_dense"))


def _bidirectional(config: RNNHierarchyConfig) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    """A layer from [B, T, D] to [B, T, 2 * hidden_size], forward beside backward, for use more than once.

    `keras.layers.Bidirectional` would give the weights other paths when it comes back from a `.keras` file.
    """
    forward = recurrent_layer(config.cell, config.hidden_size, "levels_forward", return_sequences=True)
    backward = recurrent_layer(config.cell, config.hidden_size, "levels_backward", True, go_backwards=True)
    return lambda x: ops.concatenate([forward(x), ops.flip(backward(x), axis=1)], axis=-1)


def _level_sequence(x: keras.KerasTensor) -> keras.KerasTensor:
    """[B, D] to [B, 2, D], the same vector for both levels."""
    return keras.layers.RepeatVector(_LEVELS, name="repeat")(x)


def _level_logits(levels: keras.KerasTensor, spec: InputSpec) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """[B, C] and [B, V] from the [B, 2, D] of verticals and classes."""
    return blocks.class_logits(levels[:, 1], spec.num_classes), _tag_logits(levels[:, 0], spec)


def _tag_logits(x: keras.KerasTensor, spec: InputSpec) -> keras.KerasTensor:
    """[B, D] to [B, V] float32, from the layer that starts at the prior of verticals."""
    return blocks.dense(x, spec.num_tags, "tag_logits", dtype="float32")


def _model(
    name: str, inputs: dict[str, keras.KerasTensor], classes: keras.KerasTensor, tags: keras.KerasTensor
) -> keras.Model:
    return keras.Model(inputs, ops.concatenate([classes, tags], axis=-1), name=name)  # [B, C + V]
