"""The configured losses as a Keras loss."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from yt8m_tf.config.experiment import LossConfig
from yt8m_tf.errors import InputError
from yt8m_tf.keras_fit.loss import Loss
from yt8m_tf.losses.losses import make_loss


@pytest.mark.parametrize(
    ("name", "options", "num_tags"),
    [("bce", {}, 0), ("soft_ranking", {"negatives": 3}, 0), ("bce_labels_tags", {"tag_weight": 3.0}, 2)],
)
def test_is_the_loss_of_the_configuration(
    name: str, options: dict[str, float], num_tags: int, rng: np.random.Generator
) -> None:
    logits = rng.normal(size=(6, 9)).astype(np.float32)
    targets = (rng.random((6, 9)) < 0.3).astype(np.float32)
    loss = Loss(name, num_tags=num_tags, **options)
    expected = float(make_loss(LossConfig(name, **options), 9 - num_tags)(logits, targets))  # type: ignore[arg-type]
    assert float(loss(targets, logits)) == pytest.approx(expected, abs=1e-6)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(again(targets, logits)) == pytest.approx(expected, abs=1e-6)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(InputError, match=r"loss.negative'"):
        Loss("soft_ranking", negative=3)
