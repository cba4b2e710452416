"""The weighted mean of models, for every relation of batch size, number of classes and number of members."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models import build_model


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize(("members", "classes"), [(1, 3), (2, 2), (2, 3), (3, 3), (3, 1)])
def test_against_numpy(members: int, classes: int, average: str, rng: np.random.Generator) -> None:
    weights = rng.uniform(0.5, 3.0, members)
    options = {"members": [{"name": "logistic"}] * members, "weights": weights.tolist(), "average": average}
    model = build_model({"name": "weighted_mean", **options}, InputSpec("video", {"rgb": 5}, classes))
    layers = [model.get_layer(f"member_{i}").get_layer(f"member_{i}_logits") for i in range(members)]
    for layer in layers:
        for variable in layer.weights:
            variable.assign(rng.normal(size=variable.shape))
    compiled = {size: tf.function(model, input_signature=None) for size in (1, 2, 3, 4, 7)}
    for size, function in compiled.items():  # a graph for each batch size, as XLA compiles it
        inputs = rng.normal(size=(size, 5)).astype("float32")
        logits = np.stack([inputs @ np.asarray(own.kernel) + np.asarray(own.bias) for own in layers]).astype(float)
        shares = (weights / weights.sum())[:, None, None]
        if average == "logits":
            expected = (logits * shares).sum(0)
        else:
            mean = (_sigmoid(logits) * shares).sum(0)
            expected = np.log(mean) - np.log1p(-mean)
        for result in (model({"rgb": inputs}), function({"rgb": tf.constant(inputs)})):
            np.testing.assert_allclose(np.asarray(result), expected, rtol=2e-5, atol=2e-5)
