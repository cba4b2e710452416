"""The weighted mean against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, NUM_CLASSES, check, prepare, sigmoid

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models import build_model


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_weighted_mean(average, rng):
    """Members read different features."""
    members = [
        {"name": "logistic"},
        {"name": "fcn", "hidden_sizes": [9], "features": ["rgb"]},
        {"name": "resnet_like", "inner_size": 8},
    ]
    options = {"name": "weighted_mean", "members": members, "weights": [2.0, 1.0, 5.0], "average": average}
    model, inputs, w = prepare(options, "video", rng)
    total = 0.0
    for number, (member, weight) in enumerate(zip(members, (2, 1, 5), strict=True)):
        features = {name: FEATURES[name] for name in member.get("features", FEATURES)}
        alone = build_model(
            {k: v for k, v in member.items() if k != "features"}, InputSpec("video", features, NUM_CLASSES)
        )
        for variable in alone.weights:
            variable.assign(w[f"member_{number}_{variable.path}"])
        logits = alone({name: inputs[name] for name in features}, training=False).numpy().astype("float64")
        total = total + weight / 8 * (logits if average == "logits" else sigmoid(logits))
    check(model, inputs, total if average == "logits" else np.log(total / (1 - total)))


def test_weighted_mean_of_extreme_scores():
    """Scores that round to 1 in float32 keep their order."""
    spec = InputSpec("video", {"rgb": 1}, 3)
    model = build_model({"name": "weighted_mean", "members": [{"name": "logistic"}] * 2}, spec)
    for variable in model.weights:
        variable.assign(np.array([30.0, 60.0, -50.0]) if variable.path.endswith("bias") else variable * 0)
    np.testing.assert_allclose(model({"rgb": np.zeros((1, 1), "float32")})[0], [30.0, 60.0, -50.0], rtol=1e-6)
