"""Stacked LSTMs and GRUs with a head: the starter code's LSTM, and the bidirectional ones of the second place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, recurrent
from yt8m_tf.layers.gating import context_gating
from yt8m_tf.models.heads import StarterMoEConfig, head_logits
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class RNNConfig:
    """The stack and its head. The defaults are the starter code's LSTM.

    Attributes:
      cell: "lstm" or "gru".
      hidden_sizes: width of each layer's output, from the bottom up.
      bidirectional_layers: number of layers, from the bottom up, that read a clip in both directions; each direction
        has half of the width.
      late_fusion: whether each feature has a stack, with the last states concatenated; if not, one stack reads the
        concatenated features.
      feature_hidden_sizes: with late fusion, maps names of features to the `hidden_sizes` of their stacks, if
        different.
      input_projection: whether frames go through batch normalisation, a Dense of the same width, batch normalisation
        and ReLU6 before each stack.
      cell_state: whether the head reads the top LSTM's c instead of its output h.
      context_gating: whether to apply context gating to the last state.
      head: the last layer.
    """

    cell: recurrent.FusedCell = "lstm"
    hidden_sizes: tuple[int, ...] = (1024, 1024)
    bidirectional_layers: int = 0
    late_fusion: bool = False
    feature_hidden_sizes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    input_projection: bool = False
    cell_state: bool = False
    context_gating: bool = False
    head: StarterMoEConfig = dataclasses.field(default_factory=StarterMoEConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 0, "bidirectional_layers")
        if self.cell_state and self.cell != "lstm":
            raise ValueError(f"cell_state must be false with cell {self.cell}, which has no state except its output")
        if self.feature_hidden_sizes and not self.late_fusion:
            raise ValueError("feature_hidden_sizes needs late_fusion: one stack has one list of hidden_sizes")
        self._check_stack("hidden_sizes", self.hidden_sizes)
        for name, sizes in self.feature_hidden_sizes.items():
            self._check_stack(f"feature_hidden_sizes.{name}", sizes)

    def _check_stack(self, name: str, sizes: tuple[int, ...]) -> None:
        if min(sizes, default=0) < 1:
            raise ValueError(f"{name} must contain numbers from 1, one for each layer, got {sizes}")
        if self.bidirectional_layers > len(sizes):
            raise ValueError(
                f"bidirectional_layers must be at most the number of layers, got {self.bidirectional_layers} with"
                f" {name} {sizes}"
            )
        if odd := [size for size in sizes[: self.bidirectional_layers] if size % 2]:
            raise ValueError(f"{name} must be even where a layer is bidirectional, got {odd[0]}")


@register_model("rnn", RNNConfig, levels=("frame",))
def build_rnn(config: RNNConfig, spec: InputSpec) -> keras.Model:
    """Recurrent layers over frames; the state of the top layer after the last frame it reads; a head.

    On a GPU, the layers run on cuDNN; see `layers.recurrent` for memory. They have the initial weights of that module,
    and LSTMs have a forget bias of one, as in both references.

    References: `LstmModel` of https://github.com/google/youtube-8m: two LSTMs of 1024, h, a mixture of experts.
    `Lstmbidirect`, `GRUbidirect` and `GRUbidirect_branchedBN` of https://github.com/miha-skalic/youtube8mchallenge, the
    code of Skalic and Austin: a bidirectional layer, 512 wide in each direction, below a forward layer of 1024. The
    head reads the c of an LSTM, or the h of a GRU, which may be gated; heads are logistic or mixtures of experts. The
    model with a stack for each feature is 1024 wide for rgb, 128 for audio, and projects the frames first.
    Differences from these: the reset gate of a GRU is applied after the matrix product, as in cuDNN, and its gates do
    not start with a bias of one.
    """
    inputs = model_inputs(spec)
    mask = recurrent.clip_mask(inputs)
    if config.late_fusion:
        branches = {f"{name}_": (inputs[name], config.feature_hidden_sizes.get(name)) for name in spec.features}
    else:
        branches = {"": (blocks.concat_features(inputs, spec.features), None)}  # [B, T, D]
    states = []
    for prefix, (frames, sizes) in branches.items():
        if config.input_projection:
            frames = _projection(frames, mask, f"{prefix}projection")
        states.append(_last_state(frames, mask, config, sizes or config.hidden_sizes, f"{prefix}rnn"))
    x = ops.concatenate(states, axis=-1)
    if config.context_gating:
        x = context_gating(x, "state_gate")
    return keras.Model(inputs, head_logits(x, config.head, spec.num_outputs), name="rnn")


def _projection(frames: keras.KerasTensor, mask: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Applies batch normalisation of real frames, Dense, batch normalisation, ReLU6; keeps the shape [B, T, D]."""
    x = blocks.frame_batch_norm(frames, mask, f"{name}_input_bn", center=False)
    x = blocks.dense(x, frames.shape[-1], f"{name}_dense", use_bias=False)
    return ops.relu6(blocks.frame_batch_norm(x, mask, f"{name}_bn"))


def _last_state(
    x: keras.KerasTensor, mask: keras.KerasTensor, config: RNNConfig, sizes: Sequence[int], name: str
) -> keras.KerasTensor:
    """Applies a stack of layers to [B, T, D] and returns the top layer's last state, of all its directions."""
    states: list[keras.KerasTensor] = []
    for i, size in enumerate(sizes, start=1):
        both_ways = i <= config.bidirectional_layers
        x, states = recurrent.masked_rnn(
            x,
            mask,
            config.cell,
            size // 2 if both_ways else size,
            f"{name}{i}",
            sequences=i < len(sizes),
            bidirectional=both_ways,
            unit_forget_bias=True,
        )
    # x is the last h of each direction; an LSTM's states are h and c, and then those of the second direction.
    return ops.concatenate(states[1::2], axis=-1) if config.cell_state else x
