"""The losses of the configurations as a Keras loss."""

from __future__ import annotations

from typing import Any

import keras

from yt8m_tf.config import strict_yaml
from yt8m_tf.config.experiment import LossConfig
from yt8m_tf.losses.losses import make_loss


@keras.saving.register_keras_serializable(package="yt8m_tf")
class Loss(keras.losses.Loss):
    """A loss on logits, with the name and the options of a configuration's `loss` section (`LossConfig`).

    For `y_true` [B, C] in [0, 1] and `y_pred` [B, C] logits it is a float32 scalar, the mean over the batch; ranking
    losses compare the scores of the whole batch. Sample weights multiply the scalar, so leave them out.

    Args:
      loss: "bce", "soft_ranking", "lsep", ...
      num_tags: V, the number of outputs that are tags, which come last; for "bce_labels_tags".
      name: the name in Keras; None: that of the loss.
      **options: options of `LossConfig`, such as `negatives=30`.

    Raises:
      InputError: the loss or an option does not exist, or a value is out of range.

    Example:
      >>> import numpy as np, yt8m_tf
      >>> loss = yt8m_tf.Loss("bce")
      >>> round(float(loss(np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]]))), 4)  # ln 2
      0.6931
      >>> yt8m_tf.Loss("bec")
      Traceback (most recent call last):
        ...
      yt8m_tf.errors.InputError: configuration key 'loss.name': 'bec' is not one of bce, mse, ...
    """

    def __init__(self, loss: str = "bce", *, num_tags: int = 0, name: str | None = None, **options: Any) -> None:
        self._config: LossConfig = strict_yaml.parse(LossConfig, {"name": loss, **options}, "loss")
        self._num_tags, self._options = num_tags, options
        super().__init__(name=name or loss)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Maps targets [B, C] and logits [B, C] to a float32 scalar."""
        return make_loss(self._config, y_pred.shape[-1] - self._num_tags)(y_pred, y_true)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"loss": self._config.name, "num_tags": self._num_tags, "name": self.name, **self._options}
