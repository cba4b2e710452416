"""Activations by name."""

from __future__ import annotations

import numpy as np
import pytest

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.models import build_model
from yt8m_tf.models.activations import activations

_SPEC = InputSpec(features={"rgb": 8, "audio": 4}, num_classes=6)


def test_the_input_of_the_logits_and_any_layer(rng: np.random.Generator) -> None:
    model = build_model("fcn", _SPEC, hidden_sizes=[7, 5])
    features = {name: rng.normal(size=(3, size)).astype(np.float32) for name, size in _SPEC.features.items()}
    found = activations(model, _SPEC, ["embeddings", "logits", "fcn1_dense"])(features)
    kernel, bias = (np.asarray(value) for value in model.get_layer("logits").get_weights())
    np.testing.assert_allclose(found["embeddings"] @ kernel + bias, found["logits"], atol=1e-5)
    np.testing.assert_allclose(found["logits"], model(features), atol=1e-6)
    first = model.get_layer("fcn1_dense").get_weights()
    joined = np.concatenate([features["rgb"], features["audio"]], axis=1)
    np.testing.assert_allclose(found["fcn1_dense"], joined @ first[0] + first[1], atol=1e-5)


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(InputError, match=r"has no layer 'logit'.*did you mean 'logits'"):
        activations(build_model("logistic", _SPEC), _SPEC, ["logit"])
