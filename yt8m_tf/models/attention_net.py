"""Layers of attention, each of which reads the frames and the results of all earlier layers."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, masking
from yt8m_tf.layers.attention import FrameClipDense
from yt8m_tf.layers.attention_pooling import AttentionPooling
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class AttentionNetConfig:
    """Sizes of the network.

    The original has five variants. Variant 1 has the defaults. The others have a dropout of 0.3. Variant 2 has the
    default sizes, variant 3 has 5 layers of 512, and variant 4 has 4 layers of 768. Variant 5 is like variant 4, with
    layer_dropout and without batch_norm.

    Attributes:
      hidden_size: h, the width of every attention layer.
      num_layers: attention layers.
      dropout: rate in each hidden layer of the FCN, in [0, 1).
      layer_dropout: whether to apply dropout to the output of layer i at a rate of i / 10; for at most 9 layers.
      batch_norm: whether to normalise the input of the FCN.
      hidden_sizes: widths of the hidden layers of the FCN.
    """

    hidden_size: int = 1024
    num_layers: int = 3
    dropout: float = 0.0
    layer_dropout: bool = False
    batch_norm: bool = True
    hidden_sizes: tuple[int, ...] = (4096, 4096)

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "hidden_size", "num_layers", "hidden_sizes")
        checks.rates(self, "dropout")
        if self.layer_dropout and self.num_layers > 9:
            raise ValueError(f"num_layers must be at most 9 with layer_dropout, got {self.num_layers}")


@register_model("attention_net", AttentionNetConfig, levels=("frame",))
def build_attention_net(config: AttentionNetConfig, spec: InputSpec) -> keras.Model:
    """Layers of attention pooling, each of which extends the frames by its result; the mean over frames; an FCN.

    u starts as the features of a frame. In every layer v = ReLU Dense(h)(u), c = the sum over frames of v weighted by a
    softmax over time of Dense(1)(v), and u becomes [u, c]. Then follow the mean of u over real frames, batch
    normalisation and an FCN.

    u is never computed as a tensor. Only its first part differs between the frames of a clip, so the frames and
    [c, c, ...] are kept separately (`FrameClipDense`), and the mean of u is the mean of the frames followed by
    [c, c, ...].

    Memory: a training step needs the frames (0.6 GB in float32 at B = 400 and T = 303), and about three tensors
    [B, T, h] for each layer (0.5 GB each): 5.1 GB by XLA's count on a CPU, and 2.6 GB for variant 5 at B = 150, where
    dropout makes new frames for every layer.

    Reference: https://arxiv.org/abs/1809.04403. Differences: the original applies dropout to each repetition of c
    separately, here it is applied once for all frames; the attention's Dense(1) has no bias, which the softmax would
    cancel.
    """
    inputs = model_inputs(spec)
    mask = masking.clip_mask(inputs)
    frames = blocks.concat_features(inputs, spec.features)  # [B, T, D]
    clip = None  # [B, i * h] after layer i
    for i in range(1, config.num_layers + 1):
        hidden = ops.relu(_hidden(frames, clip, config.hidden_size, f"layer{i}_dense"))  # [B, T, h]
        attended = AttentionPooling(name=f"layer{i}_attention")([hidden], mask)  # [B, h]
        clip = attended if clip is None else ops.concatenate([clip, attended], axis=-1)
        if config.layer_dropout:
            frames = blocks.dropout(frames, i / 10, f"layer{i}_frames_dropout")
            clip = blocks.dropout(clip, i / 10, f"layer{i}_clip_dropout")
    x = ops.concatenate([masking.masked_mean(frames, mask), clip], axis=-1)
    if config.batch_norm:
        x = blocks.batch_norm(x, "bn")
    hidden = blocks.fcn(x, config.hidden_sizes, config.dropout)
    return keras.Model(inputs, blocks.class_logits(hidden, spec.num_outputs), name="attention_net")


def _hidden(frames: keras.KerasTensor, clip: keras.KerasTensor | None, units: int, name: str) -> keras.KerasTensor:
    """Applies a Dense to each frame, concatenated with its clip's vector if there is one yet."""
    if clip is None:
        return blocks.dense(frames, units, name)
    layer = FrameClipDense(
        units,
        kernel_initializer=blocks.kernel_initializer(),
        bias_initializer=blocks.bias_initializer(frames.shape[-1] + clip.shape[-1]),
        name=name,
    )
    return layer(frames, clip)
