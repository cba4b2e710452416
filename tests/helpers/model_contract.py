"""Set-up of the contract tests: a small model for each registered name, random weights and inputs."""

import functools

import keras
import numpy as np
import pytest
from tiny_options import COMPILED, EXPORTED, FRAME_OPTIONS, NUM_TAGS, OPTIONS, REPLICATED, REPRESENTATIVES

from yt8m_tf.config import strict_yaml
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models import build_model, model_names, registry

FEATURES, NUM_CLASSES, MAX_FRAMES = {"rgb": 12, "audio": 5}, 7, 9
LONGEST = 303  # number of frames of the longest clips in the data
PADDING = -1.9921875  # what uint8 zeros decode to
CASES = [(name, level) for name in model_names() for level in registry.registration(name).levels]
FRAME_CASES = [name for name, level in CASES if level == "frame"]
every_model = pytest.mark.parametrize(("name", "level"), CASES)


def _first(names):
    """Parametrizes a test by all models; those not in `names` are marked slow."""
    cases = [pytest.param(*case, marks=[pytest.mark.slow] * (case not in names)) for case in CASES]
    return pytest.mark.parametrize(("name", "level"), cases)


quicker_first, exported_first, replicated_first, compiled_first = (
    _first(names) for names in (REPRESENTATIVES, EXPORTED, REPLICATED, COMPILED)
)
every_frame_model = pytest.mark.parametrize("name", FRAME_CASES)


def options_of(name, level):
    return {"name": name, **OPTIONS[name], **(FRAME_OPTIONS.get(name, {}) if level == "frame" else {})}


def build(name, level, features=None, max_frames=MAX_FRAMES, options=None, make=build_model):
    spec = InputSpec(level, features or FEATURES, NUM_CLASSES, max_frames, NUM_TAGS.get(name, 0))
    return make(options or options_of(name, level), spec)


@functools.cache
def _shared(name, level, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = build(name, level)
    finally:
        keras.config.set_dtype_policy("float32")
    return model, [variable.numpy() for variable in model.weights]


def shared(name, level, policy="float32"):
    """Returns the model that all tests of a process share, with its initial weights; its layers must not be changed."""
    model, values = _shared(name, level, policy)
    for variable, value in zip(model.weights, values, strict=True):
        variable.assign(value)
    return model


def randomised(name, level, rng):
    """Returns the shared model with random weights."""
    model = shared(name, level)
    randomise(model, rng)
    return model


def without_randomness(name, level):
    """Returns all options of a model, with every rate and switch of dropout, and every scale of noise, at zero."""

    def off(options):
        random = ("dropout", "layer_dropout", "noise_scale")
        return {
            key: off(value) if isinstance(value, dict) else type(value)(0) if key in random else value
            for key, value in options.items()
        }

    return off(strict_yaml.to_dict(registry.model_config(options_of(name, level)))) | {"name": name}


def num_outputs(name):
    return NUM_CLASSES + NUM_TAGS.get(name, 0)


def randomise(model, rng):
    """Gives all weights and batch statistics random values that cannot hide errors."""
    for variable in model.weights:
        if variable.path.endswith("moving_variance"):
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif variable.dtype in ("int32", "uint16"):  # ids of classes or videos
            variable.assign(rng.integers(0, NUM_CLASSES, variable.shape))
        elif not variable.path.endswith("seed_generator_state"):
            # Not near 0: a scale of one element could hide everything.
            values = rng.normal(0.0, 0.5, variable.shape)
            variable.assign(values + np.copysign(0.1, values))


def random_inputs(level, rng, num_frames=(3, 1, MAX_FRAMES, 6), length=MAX_FRAMES, features=None):
    batch_size = len(num_frames)
    features = features or FEATURES
    if level == "video":
        return {name: rng.normal(size=(batch_size, size)).astype("float32") for name, size in features.items()}
    inputs = {name: np.full((batch_size, length, size), PADDING, "float32") for name, size in features.items()}
    for frames in inputs.values():
        for clip, count in zip(frames, num_frames, strict=True):
            clip[:count] = rng.normal(size=clip[:count].shape)
    return inputs | {"num_frames": np.array(num_frames, "int32")}


def predict(model, inputs):
    return model(inputs, training=False).numpy()


def assert_same_logits(actual, expected):
    """Compares logits up to rounding errors, as a small logit can be the difference of large terms."""
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 + 1e-6 * np.abs(expected).max())
