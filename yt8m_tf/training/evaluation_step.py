"""One evaluation step, on one device or on many replicas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.data import clips
from yt8m_tf.data.clips import prepare_clips
from yt8m_tf.metrics.batch_statistics import compiled_statistics, concatenate_statistics
from yt8m_tf.metrics.rated_pairs import rated_statistics
from yt8m_tf.training import distribution
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import compiled

# Keys of evaluation batches that are neither features nor numbers of frames.
NOT_FEATURES = frozenset({"labels", "rated_classes", "ratings", "valid"})


class EvaluationStep:
    """Scores a batch and reduces the scores to what the metrics need.

    Args:
      state: the model, and the weights that evaluation uses: their moving averages, if the run keeps them.
      spec: the input of the model.
      strategy: the strategy in whose scope `state` was created.
      xla: whether to compile with XLA: the forward pass if XLA can (`distribution.compiles_with_xla`), and the
        statistics (`compiled_statistics`).
    """

    def __init__(self, state: TrainState, spec: InputSpec, strategy: tf.distribute.Strategy, xla: bool = True):
        self._state, self._spec, self._strategy = state, spec, strategy
        self._predict = compiled(self._logits, xla and distribution.compiles_with_xla(state.model))
        self._statistics = compiled_statistics(xla)
        self._run = tf.function(lambda batch: strategy.run(self._replica_statistics, args=(batch,)), autograph=False)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Returns the `batch_statistics` of one batch, over all replicas of this worker.

        The batch contains features, "labels" and "valid". If it has "rated_classes" and "ratings" in place of labels,
        its `rated_statistics` are returned.
        """
        if distribution.is_single(self._strategy):
            return self._run(batch)
        outputs = self._run(distribution.share(self._strategy, batch))
        values = [self._strategy.experimental_local_results(value) for value in outputs.values()]
        return concatenate_statistics([dict(zip(outputs, part, strict=True)) for part in zip(*values, strict=True)])

    def _replica_statistics(self, batch: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        features = {name: batch[name] for name in batch if name not in NOT_FEATURES}
        logits = self._predict(prepare_clips(features, self._spec))
        if "ratings" in batch:
            return rated_statistics(logits, batch["rated_classes"], batch["ratings"], batch["valid"])
        return self._statistics(logits, batch["labels"], batch["valid"])

    def _logits(self, features: Mapping[str, Any]) -> tf.Tensor:
        inputs = clips.decode_features(features, self._spec)
        weights = [tf.convert_to_tensor(variable) for variable in self._state.evaluated]
        others = self._state.other_values(tf.zeros([2], tf.int32))
        logits = self._state.model.stateless_call(weights, others, inputs, training=False)[0]
        return logits[:, : self._spec.num_classes]  # without tags
