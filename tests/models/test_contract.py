"""The contract of every registered model. A new model needs one line in `OPTIONS`."""

import itertools
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from model_contract import (
    LONGEST,
    MAX_FRAMES,
    PADDING,
    assert_same_logits,
    build,
    compiled_first,
    every_frame_model,
    every_model,
    num_outputs,
    predict,
    quicker_first,
    random_inputs,
    randomise,
    randomised,
    shared,
    without_randomness,
)
from tiny_options import OPTIONS, STARTING_PROBABILITY

import yt8m_tf
from yt8m_tf.losses import losses
from yt8m_tf.models import model_names, registry


def test_every_registered_model_is_tested():
    assert sorted(OPTIONS) == model_names()
    families = {registry.registration(name).builder.__module__.rpartition(".")[2] for name in model_names()}
    parity = {path.stem.removeprefix("test_parity_") for path in Path(__file__).parent.glob("test_parity_*.py")}
    assert parity == families


@every_model
def test_output_is_float32_logits(name, level, rng):
    outputs = shared(name, level)(random_inputs(level, rng), training=True)
    assert outputs.shape == (4, num_outputs(name))
    assert outputs.dtype == tf.float32


def check_every_feature_is_used(name, level, features, rng):
    """Predicts a batch and, in the same call, copies of it with one feature changed in each."""
    inputs = random_inputs(level, rng, features=features)
    batch = {key: np.concatenate([values] * (1 + len(features))) for key, values in inputs.items()}
    for place, feature in enumerate(features, start=1):
        batch[feature][4 * place : 4 * place + 4] += 1.0

    def unused():
        """Features that no logit depends on; with few units, this can happen by chance, if all of them are at zero."""
        model = build(name, level, features)
        if name in ("kernel_ridge", "nearest_neighbors", "sparse_kernel_ridge"):  # their memory is empty
            randomise(model, rng)
        before, *changed = np.split(predict(model, batch), 1 + len(features))
        effects = [np.abs(after - before).max() for after in changed]
        return {feature for feature, effect in zip(features, effects, strict=True) if not effect > 1e-5}

    assert any(not (found := unused()) for _ in range(5)), f"{found} is not used"


@every_model
def test_uses_all_features_of_the_data(name, level, rng):
    check_every_feature_is_used(name, level, {"audio": 5, "rgb": 12, "faces": 4}, rng)


@quicker_first
def test_works_with_a_single_feature(name, level, rng):
    for features in ({"rgb": 12}, {"audio": 5}):
        check_every_feature_is_used(name, level, features, rng)


@quicker_first
def test_output_is_float32_in_mixed_precision(name, level, rng):
    model = shared(name, level, "mixed_bfloat16")
    outputs = model(random_inputs(level, rng), training=True)
    assert outputs.dtype == tf.float32
    assert np.isfinite(outputs.numpy()).all()
    assert all(variable.dtype == "float32" for variable in model.trainable_variables)


@every_model
def test_every_weight_gets_a_gradient(name, level, rng):
    model = randomised(name, level, rng)
    inputs, targets = random_inputs(level, rng), rng.uniform(size=(4, num_outputs(name)))
    with tf.GradientTape() as tape:
        loss = losses.bce(model(inputs, training=False), targets)
    variables = [variable.value for variable in model.trainable_variables]
    for variable, gradient in zip(model.trainable_variables, tape.gradient(loss, variables), strict=True):
        assert gradient is not None and np.abs(gradient).max() > 1e-7, variable.path


@every_frame_model
def test_padding_changes_nothing(name, rng):
    model = randomised(name, "frame", rng)
    inputs = random_inputs("frame", rng, num_frames=(4, 1, 3), length=MAX_FRAMES)
    reference = predict(model, inputs)
    shorter = {key: value[:, :4] if value.ndim == 3 else value for key, value in inputs.items()}
    longer = {key: np.pad(v, ((0, 0), (0, 5), (0, 0))) if v.ndim == 3 else v for key, v in inputs.items()}
    other = {key: np.where(v == np.float32(PADDING), 100.0, v) if v.ndim == 3 else v for key, v in inputs.items()}
    for padded in (shorter, longer, other):
        assert_same_logits(predict(model, padded), reference)


@every_frame_model
def test_every_real_frame_counts(name, rng):
    model = randomised(name, "frame", rng)
    inputs = random_inputs("frame", rng, num_frames=(1, MAX_FRAMES))
    # Shifted far in both directions, no frame keeps its nearest centroid.
    shifts = (0.0, 1.0, 100.0, -100.0)
    batch = {key: np.concatenate([values] * len(shifts)) for key, values in inputs.items()}
    for clip, shift in enumerate(np.repeat(shifts, 2)):  # the last frame of each clip
        batch["rgb"][clip, inputs["num_frames"][clip % 2] - 1] += shift
    outputs = predict(model, batch).reshape(len(shifts), 2, -1)
    assert np.isfinite(outputs[0]).all()
    effects = np.abs(outputs[1:] - outputs[0]).max(axis=2)  # [shifts, clips]
    assert (effects.max(axis=0) > 1e-4).all()


def check_rest_of_the_batch(model, level, rng, num_frames):
    """Compares batches of one, two (the members of a mean), three, and as many as classes with one whole batch."""
    randomise(model, rng)
    inputs = random_inputs(level, rng, num_frames=num_frames, length=num_frames[0])
    together = predict(model, inputs)
    assert np.isfinite(together).all()
    ends = np.cumsum([0, 1, 2, 3, together.shape[1]])
    for start, end in itertools.pairwise(ends):
        rows = np.arange(start, end) % len(num_frames)
        part = predict(model, {key: value[rows] for key, value in inputs.items()})
        assert_same_logits(part, together[rows])


@every_model
def test_rest_of_the_batch_changes_nothing(name, level, rng):
    check_rest_of_the_batch(shared(name, level), level, rng, (MAX_FRAMES, 1, 5, 6))


@pytest.mark.slow
@every_frame_model
def test_rest_of_the_batch_changes_nothing_in_clips_of_the_records_length(name, rng):
    check_rest_of_the_batch(build(name, "frame", max_frames=LONGEST), "frame", rng, (LONGEST, 1, 150, 6))


@every_model
def test_variable_paths_are_the_same_in_every_build(name, level):
    """Variable paths do not depend on earlier builds, even under another precision."""
    first, second = (
        [variable.path for variable in shared(name, level, policy).weights] for policy in ("float32", "mixed_bfloat16")
    )
    assert first == second
    assert len(set(first)) == len(first)


@quicker_first
def test_keras_file_round_trip(name, level, rng, tmp_path):
    model = randomised(name, level, rng)
    inputs = random_inputs(level, rng)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(predict(loaded, inputs), predict(model, inputs))
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]


@pytest.mark.slow
def test_keras_file_in_a_new_process(rng, tmp_path):
    model = build("linear_combinations", "frame")
    randomise(model, rng)
    inputs = random_inputs("frame", rng)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "inputs.npz", **inputs)
    program = (
        "import sys, keras, numpy as np, yt8m_tf.models\n"
        "model = keras.saving.load_model(sys.argv[1] + '/model.keras', compile=False)\n"
        "outputs = model(dict(np.load(sys.argv[1] + '/inputs.npz')), training=False)\n"
        "np.save(sys.argv[1] + '/outputs.npy', outputs)\n"
    )
    root = Path(yt8m_tf.__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=root)
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), predict(model, inputs), rtol=1e-6, atol=1e-6)


def loss_in_training(model, inputs, targets):
    """The loss including penalties."""
    loss = losses.bce(model(inputs, training=True), targets)
    return tf.add_n([loss, *model.losses]) if model.losses else loss


def loss_and_gradients(model, inputs, targets):
    with tf.GradientTape() as tape:
        loss = loss_in_training(model, inputs, targets)
    return loss, tape.gradient(loss, [variable.value for variable in model.trainable_variables])


def batch_to_learn(name, level, rng):
    inputs = {key: tf.constant(value) for key, value in random_inputs(level, rng).items()}
    return inputs, tf.constant(rng.integers(0, 2, (4, num_outputs(name))), tf.float32)


@every_model
def test_a_step_against_the_gradient_lowers_the_loss(name, level, rng):
    """The loss in training falls by as much as the gradient predicts, with the same dropout masks before and after."""
    model = shared(name, level)
    if name.endswith("kernel_ridge"):  # with an empty memory only its offset would have an effect
        randomise(model, rng)
    inputs, targets = batch_to_learn(name, level, rng)
    seeds = [(v, v.numpy()) for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]
    before, gradients = loss_and_gradients(model, inputs, targets)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        variable.assign_sub(1e-4 * tf.sign(gradient))  # like Adam's first step
    for seed, value in seeds:
        seed.assign(value)
    after = loss_in_training(model, inputs, targets)
    promised = 1e-4 * sum(np.abs(gradient).sum() for gradient in gradients)
    assert float(before - after) == pytest.approx(promised, rel=0.5) and promised > 1e-5


@compiled_first
def test_training_step_compiles_and_learns(name, level, rng):
    """XLA computes the same gradients as TensorFlow without XLA."""
    model = build(name, level, options=without_randomness(name, level))
    inputs, targets = batch_to_learn(name, level, rng)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=True)
    def step():
        loss, gradients = loss_and_gradients(model, inputs, targets)
        optimizer.apply(gradients, model.trainable_variables)
        return loss, gradients

    _, plain = loss_and_gradients(model, inputs, targets)
    _, compiled = step()
    largest = max(np.abs(gradient).max() for gradient in plain)
    for variable, one, other in zip(model.trainable_variables, plain, compiled, strict=True):
        assert np.abs(one - other).max() <= 1e-3 * largest, variable.path
    history = [float(step()[0]) for _ in range(30)]
    assert np.isfinite(history).all()
    assert np.mean(history[-5:]) < history[0]


@every_model
def test_output_starts_at_the_prior(name, level, rng):
    model = shared(name, level)
    prior = rng.uniform(1e-4, 0.9, num_outputs(name))
    registry.set_output_bias(model, prior)
    for variable in model.trainable_variables:
        if variable.path.endswith("kernel"):
            variable.assign(np.zeros(variable.shape))
    probability = STARTING_PROBABILITY.get(name, lambda p: p)(prior)
    expected = np.tile(np.log(probability / (1 - probability)), (4, 1))
    np.testing.assert_allclose(predict(model, random_inputs(level, rng)), expected, rtol=1e-5, atol=1e-5)
