"""The residual network on every frame, followed by layers over the sorted scores of the frames."""

from __future__ import annotations

import dataclasses
from functools import partial

import keras

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, masking
from yt8m_tf.layers.frame_sorting import RankDenseNormalization, RankScores, SortedFrames
from yt8m_tf.layers.gating import context_gating
from yt8m_tf.models.registry import model_inputs, register_model
from yt8m_tf.models.resnet_like import ResNetLikeConfig, resnet_trunk


@dataclasses.dataclass(frozen=True)
class TimeDistributedDenseSortConfig:
    """Sizes of the model.

    Attributes:
      hidden_size: units of the FCBlock over a class's sorted scores.
      dropout: rate in that block, in [0, 1).
      resnet: the network on every frame, with its own dropout rate.
    """

    hidden_size: int = 1000
    dropout: float = 0.0
    resnet: ResNetLikeConfig = dataclasses.field(default_factory=ResNetLikeConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "hidden_size")
        checks.rates(self, "dropout")


@register_model("time_distributed_dense_sort", TimeDistributedDenseSortConfig, levels=("frame",))
def build_time_distributed_dense_sort(config: TimeDistributedDenseSortConfig, spec: InputSpec) -> keras.Model:
    """`resnet_like` on each frame; the scores of each class in descending order; an FCBlock and Dense(1) over these.

    The scores [B, T, C] are sorted over time and padded with zeros to `spec.max_frames`. FCBlock(1000) and Dense(1)
    over the ranks have the same weights for all classes, and give [B, C].

    The last bias is a single number for all classes, and starts at their mean prior.

    Memory: by XLA's count on a CPU, a training step takes 9.4 GB in float32 at B = 128, T = 303, C = 3862 and the
    default sizes, and 11.3 GB with dropout on frames. `train.accumulation` divides it. The residual network on
    B * T = 39,000 frames has 5.7 GB of activations, and 0.6 GB for each gradient at a time. Scores take 0.6 GB in each
    of three copies: the scores, the sorted scores and a gradient. The hidden layer over the ranks, [B, C, 1000], would
    take 2 GB, and is never in memory in full (`RankScores`).

    Reference: https://arxiv.org/abs/1809.04403. Differences: the original sorts padding together with the frames, and
    normalises with batch statistics even in inference. Here padding is left out of sorting and of the frame network's
    statistics, and inference uses running averages.
    """
    inputs = model_inputs(spec)
    mask = masking.clip_mask(inputs)[:, : spec.max_frames]
    frames = {name: inputs[name][:, : spec.max_frames] for name in spec.features}
    trunk = resnet_trunk(frames, config.resnet, partial(blocks.fc_block, frame_mask=mask))  # [B, T, s]
    scores = blocks.dense(trunk, spec.num_outputs, "frame_logits")  # [B, T, C]
    if config.resnet.context_gating:
        scores = context_gating(scores, "frame_context_gate")
    sorted_scores, means, covariances = SortedFrames(name="sorted_frames")(scores, mask)
    normalization = RankDenseNormalization(
        config.hidden_size, spec.max_frames, momentum=0.9, epsilon=1e-5, name="rank_fc"
    )
    kernel, bias = normalization(means, covariances)  # [T, hidden_size], [hidden_size]
    logits = RankScores(config.dropout, name="logits")(sorted_scores, kernel, bias)
    return keras.Model(inputs, logits, name="time_distributed_dense_sort")
