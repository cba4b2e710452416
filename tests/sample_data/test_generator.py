"""The generative model of the sample data against Bayes' rule by brute force, and its samples."""

import dataclasses
import itertools

import numpy as np
import pytest

from yt8m_tf.sample_data.generator import SampleConfig, make_model
from yt8m_tf.sample_data.tally import global_average_precision, top_pairs

CONFIG = SampleConfig(num_classes=24, num_topics=4, rgb_size=32, audio_size=8, seed=3)


def gap(scores, labels):
    return global_average_precision(*top_pairs(scores, labels), int(labels.sum()))


def brute_force_posterior(model, features):
    """Applies Bayes' rule to every topic, set of true labels and set of written labels, with full covariances."""
    num_topics, num_classes = model.label_probability.shape
    subsets = np.array(list(itertools.product((False, True), repeat=num_classes)))
    joint = np.zeros((num_topics, len(subsets)))  # topic, written labels
    for t in range(num_topics):
        table = np.zeros((len(subsets), len(subsets)))  # true labels, written labels
        for i, true in enumerate(subsets):
            prior = np.prod(np.where(true, model.label_probability[t], 1 - model.label_probability[t]))
            for j, written in enumerate(subsets):
                chance = np.where(true, 1 - model.miss, model.add)
                table[i, j] = prior * np.prod(np.where(written, chance, 1 - chance))
        table[:, ~subsets.any(axis=1)] = 0  # a video without written labels is drawn again
        table /= table.sum()
        for i, true in enumerate(subsets):
            density = 1.0
            for name, part in model.features.items():
                prototypes = part.strengths[:, None] * part.basis[part.axes]
                error = features[name] - prototypes[true].sum(axis=0)
                covariance = part.basis.T @ np.diag(part.noise_std**2) @ part.basis
                density *= np.exp(-0.5 * error @ np.linalg.solve(covariance, error))
            joint[t] += model.topic_prior[t] * density * table[i]
    return joint.sum(axis=0) @ subsets / joint.sum()


@pytest.mark.parametrize(
    ("rgb_size", "audio_size", "noise"),
    [(4, 3, 0.2), (4, 2, 0.0), (2, 2, 0.1), (1, 0, 0.3)],
    ids=["an axis each", "no wrong labels", "two classes on an axis", "three classes on an axis, no audio"],
)
def test_posterior_is_bayes_rule(rgb_size, audio_size, noise):
    rng = np.random.default_rng()
    config = SampleConfig(3, 2, 1.2, noise, rgb_size, audio_size, seed=int(rng.integers(1000)))
    model = make_model(config)
    _, drawn = model.sample(6, rng)
    arbitrary = {name: rng.normal(0, 0.5, values.shape) for name, values in drawn.items()}
    for features in (drawn, arbitrary):
        expected = [
            brute_force_posterior(model, {k: v[i].astype(float) for k, v in features.items()}) for i in range(6)
        ]
        np.testing.assert_allclose(model.posterior(features, batch_size=4), expected, rtol=0, atol=1e-9)


def test_sampler_and_posterior_agree():
    model = make_model(CONFIG)
    labels, features = model.sample(4000, np.random.default_rng())
    bound = 6 * np.sqrt(model.class_prior / 4000)
    assert np.all(np.abs(model.posterior(features).mean(axis=0) - labels.mean(axis=0)) < bound)
    assert np.all(np.abs(model.class_prior - labels.mean(axis=0)) < bound)


def test_labels_have_the_stated_noise_a_long_tail_and_co_occurrence():
    model = make_model(dataclasses.replace(CONFIG, noise_labels=0.2, rgb_size=64))
    clear = {k: dataclasses.replace(v, noise_std=v.noise_std / 20) for k, v in model.features.items()}
    labels, features = dataclasses.replace(model, features=clear).sample(6000, np.random.default_rng())
    rgb = clear["rgb"]
    true = (features["rgb"] @ rgb.basis.T)[:, rgb.axes] / rgb.strengths > 0.5  # noise-free features show true labels
    assert np.sum(labels & ~true) / labels.sum() == pytest.approx(0.2, abs=0.02)
    assert np.sum(true & ~labels) / true.sum() == pytest.approx(0.2, abs=0.03)
    assert labels.sum(axis=1).min() >= 1
    assert 2.9 < labels.sum() / 6000 < 3.5
    frequency = labels.mean(axis=0)
    assert frequency[0] > 10 * frequency[-1]
    ratio = (true.T.astype(float) @ true / 6000) / np.outer(true.mean(axis=0), true.mean(axis=0))
    often = ratio[:8, :8][~np.eye(8, dtype=bool)]  # 1 where two classes are independent
    assert often.max() > 1.4


def test_wrong_parameters_score_worse():
    model = make_model(CONFIG)
    labels, features = model.sample(8000, np.random.default_rng())

    def log_loss(other):
        scores = np.clip(other.posterior(features), 1e-9, 1 - 1e-9)
        return -np.mean(np.where(labels, np.log(scores), np.log1p(-scores)))

    reverse = dataclasses.replace(model, label_probability=model.label_probability[:, ::-1])
    mixed = np.tile(model.topic_prior @ model.label_probability, (len(model.topic_prior), 1))
    no_topics = dataclasses.replace(model, label_probability=mixed)
    no_noise = dataclasses.replace(model, miss=0.0, add=np.zeros_like(model.add))
    loose = {name: dataclasses.replace(part, noise_std=part.noise_std * 3) for name, part in model.features.items()}
    wrong_std = dataclasses.replace(model, features=loose)
    for other in (reverse, no_topics, no_noise, wrong_std):
        assert log_loss(model) < log_loss(other)
    assert gap(model.posterior(features), labels) > gap(wrong_std.posterior(features), labels) + 0.02


def test_a_linear_model_gets_near_the_best_reachable_score():
    model, rng = make_model(CONFIG), np.random.default_rng()
    (train, seen), (labels, features) = model.sample(3000, rng), model.sample(2000, rng)
    inputs, test_inputs = (np.hstack([*f.values(), np.ones((len(f["rgb"]), 1))]) for f in (seen, features))
    gram = inputs.T @ inputs + np.eye(inputs.shape[1])
    learnt = gap(test_inputs @ np.linalg.solve(gram, inputs.T @ train), labels)
    best = gap(model.posterior(features), labels)
    prior = gap(np.broadcast_to(model.class_prior, labels.shape), labels)
    assert prior + 0.2 < learnt < best < 0.99


def test_four_classes_on_an_axis():
    model = make_model(SampleConfig(num_classes=900, rgb_size=256))
    labels, features = model.sample(40, np.random.default_rng())
    scores = model.posterior(features)
    assert scores.shape == (40, 900)
    assert np.all((scores >= 0) & (scores <= 1 + 1e-9))
    assert gap(scores, labels) > 0.5
