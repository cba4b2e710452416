"""The generative model of the sample data, and its exact posterior, in NumPy only.

A video is drawn in five steps (T topics, C classes):

1. a topic t from a long-tailed distribution;
2. its true labels, every class independently with probability p[t, c]: long-tailed popularity times an affinity between
   topic and class, so that classes co-occur through topics;
3. the labels that are written, by a known noise channel like that of machine-generated labels: a true label is missed
   with probability n, and wrong ones are added at a rate for each class such that a share n of its labels is wrong and
   its frequency stays the same. Steps 2 and 3 are repeated until at least one label is written;
4. for every feature (rgb, audio), the sum of the true classes' prototypes, each times its strength, plus Gaussian
   noise. Prototypes are axes of a random orthonormal basis, and the noise has its own variance along each axis. If
   there are more classes than rgb values, a few share an axis; audio depends only on the most frequent classes;
5. (frame level) frames that vary around these features: `frames`.

Given the topic, labels are independent, and each affects only its own axis. So the probability of every written label
given the features has a closed form, `SampleModel.posterior`, and no scorer can be expected to rank better. It neglects
two small effects: values outside the interval of the quantisation are clipped (the interval ends at 6 standard
deviations of an average value), and values are rounded (the mean over frames by a few 1e-4 of a standard deviation).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from yt8m_tf import schema
from yt8m_tf.errors import InputError

FEATURE_STD = 0.3  # of a feature's values; the interval of the quantisation ends at 6 of these
SPECTRUM_DECAY = 0.35  # the noise along axis k falls as (k + 1) ** -SPECTRUM_DECAY
MAX_PROBABILITY = 0.6  # of a label given the topic; leaves room for wrong labels, as many as true labels are missing
MAX_CLASSES_PER_AXIS = 6  # the posterior sums over all subsets of the classes of an axis
# Strength of a prototype in standard deviations of the noise along its axis: the range over all classes.
STRENGTHS = {"rgb": (4.0, 6.0), "audio": (1.0, 2.0)}


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """Configuration of the sample data, except for the numbers of videos and frames.

    Attributes:
      num_classes: C.
      num_topics: T.
      labels_per_video: mean number of labels (slightly more are written, since every video has at least one).
      noise_labels: share of wrong labels, 0 to below 0.5; the same share of true labels is missing.
      rgb_size, audio_size: feature sizes D; `audio_size` 0 leaves audio out.
      seed: seed of all random numbers.
    """

    num_classes: int = 60
    num_topics: int = 12
    labels_per_video: float = 3.0
    noise_labels: float = 0.1
    rgb_size: int = schema.FEATURE_SIZES["rgb"]
    audio_size: int = schema.FEATURE_SIZES["audio"]
    seed: int = 0

    def __post_init__(self) -> None:
        most = MAX_CLASSES_PER_AXIS * self.rgb_size
        for name, value, valid, wanted in (
            ("rgb_size", self.rgb_size, self.rgb_size > 0, "at least 1"),
            ("audio_size", self.audio_size, self.audio_size >= 0, "at least 0"),
            ("num_topics", self.num_topics, self.num_topics > 0, "at least 1"),
            ("num_classes", self.num_classes, 2 <= self.num_classes <= most, f"2 to {most} (6 times --rgb_size)"),
            ("noise_labels", self.noise_labels, 0 <= self.noise_labels < 0.5, "at least 0 and below 0.5"),
            ("seed", self.seed, self.seed >= 0, "at least 0"),
        ):
            if not valid:
                raise InputError(f"--{name}={value}: give a value of {wanted}")
        if not 0 < self.labels_per_video <= self.num_classes / 2:
            wanted = f"above 0 and at most {self.num_classes / 2} (half of --num_classes)"
            raise InputError(f"--labels_per_video={self.labels_per_video}: give a value {wanted}")

    @property
    def feature_sizes(self) -> dict[str, int]:
        """Returns the size D of each feature by name."""
        sizes = {"rgb": self.rgb_size, "audio": self.audio_size}
        return {name: size for name, size in sizes.items() if size}


@dataclasses.dataclass(frozen=True)
class FeatureModel:
    """Generative model of a feature: `features = (labels @ prototypes + noise) @ basis`.

    Attributes:
      basis: [D, D], a row for each orthonormal axis.
      noise_std: [D], standard deviation of the noise along each axis.
      axes: [C], the axis of each class's prototype; meaningless if the strength is 0.
      strengths: [C], length of each class's prototype, signed; 0 for a class that does not affect this feature.
    """

    basis: np.ndarray
    noise_std: np.ndarray
    axes: np.ndarray
    strengths: np.ndarray

    def sample(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws features of videos with true labels [N, C] bool: [N, D] float32, in the quantisation's interval."""
        coordinates = rng.standard_normal((len(labels), len(self.noise_std))) * self.noise_std  # [N, D]
        rows, classes = np.nonzero(labels)
        np.add.at(coordinates, (rows, self.axes[classes]), self.strengths[classes])
        low = schema.QUANTISATION_OFFSET
        return np.clip(coordinates @ self.basis, low, low + 4.0).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class SampleModel:
    """The generative model: see the module's docstring.

    Attributes:
      topic_prior: [T], sums to 1.
      label_probability: [T, C], probability of a true label given the topic.
      miss: probability that a true label is not written.
      add: [C], probability that a class that is not a true label is written.
      features: feature name to its model. In "rgb" class c has axis c modulo the number of axes in use; in "audio"
        every class with a strength has its own axis.
    """

    topic_prior: np.ndarray
    label_probability: np.ndarray
    miss: float
    add: np.ndarray
    features: dict[str, FeatureModel]

    @property
    def written_probability(self) -> np.ndarray:
        """Returns the probability of a written label given the topic, [T, C], before videos without any are redrawn."""
        return self.label_probability * (1 - self.miss) + (1 - self.label_probability) * self.add

    @property
    def class_prior(self) -> np.ndarray:
        """Returns the share of videos with each written label, [C]."""
        some = 1 - np.prod(1 - self.written_probability, axis=1, keepdims=True)  # [T, 1]
        return self.topic_prior @ (self.written_probability / some)

    def sample(self, num_videos: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Draws videos: `sample_with_truth`, without the true labels."""
        _, written, features = self.sample_with_truth(num_videos, rng)
        return written, features

    def sample_with_truth(
        self, num_videos: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Draws videos.

        Returns:
          The true labels and the written ones, [N, C] bool each, and the features, {name: [N, D] float32}.
        """
        return self.sample_of_topics(rng.choice(len(self.topic_prior), num_videos, p=self.topic_prior), rng)

    def sample_of_topics(
        self, topics: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Draws videos of known topics [N]; the rest is as in `sample_with_truth`."""
        true = np.zeros((len(topics), len(self.add)), bool)
        written = true.copy()
        while (empty := np.flatnonzero(~written.any(axis=1))).size:
            probability = self.label_probability[topics[empty]]  # [N, C]
            true[empty] = rng.random(probability.shape) < probability
            kept = np.where(true[empty], 1 - self.miss, self.add)
            written[empty] = rng.random(probability.shape) < kept
        return true, written, {name: feature.sample(true, rng) for name, feature in self.features.items()}

    def posterior(
        self, features: dict[str, np.ndarray], batch_size: int = 64, topic_prior: np.ndarray | None = None
    ) -> np.ndarray:
        """Computes the exact probability of every written label given a video's features.

        Args:
          features: {name: [N, D]}, every feature of the model.
          batch_size: videos at a time; bounds the memory.
          topic_prior: [N, T], the prior of each video's topic, up to a factor; None: the model's prior.

        Returns:
          [N, C] float64.
        """
        priors = self.topic_prior if topic_prior is None else topic_prior
        parts = [
            self._posterior(some, priors if topic_prior is None else priors[rows])
            for rows, some in _in_batches(features, batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.add)))

    def topic_likelihood(self, features: dict[str, np.ndarray], batch_size: int = 64) -> np.ndarray:
        """Returns the likelihood of each video's features given each topic, [N, T], up to a factor for each video."""
        parts = []
        for _, some in _in_batches(features, batch_size):
            given = self._given_topic(some)
            logs = given.log_likelihood + np.log(-np.expm1(given.log_none) / given.some)
            parts.append(np.exp(logs - logs.max(axis=1, keepdims=True)))
        return np.concatenate(parts) if parts else np.zeros((0, len(self.topic_prior)))

    def _posterior(self, features: dict[str, np.ndarray], topic_prior: np.ndarray) -> np.ndarray:
        """Applies Bayes' rule; the prior of topics is [T] or [B, T]."""
        given = self._given_topic(features)
        with np.errstate(divide="ignore"):  # a topic may be impossible
            log_topic = np.log(topic_prior / given.some) + given.log_likelihood  # [B, T]
        topic = np.exp(log_topic - log_topic.max(axis=1, keepdims=True))
        total = np.sum(topic * -np.expm1(given.log_none), axis=1)  # [B]

        by_axis = given.by_axis
        result = np.empty((len(given.likelihood), by_axis.group, by_axis.num_axes))
        for g in range(by_axis.group):
            joint = np.einsum("tsa,bsa->bta", given.subset_prior * given.written[:, g], given.likelihood, optimize=True)
            result[:, g] = np.einsum("bt,bta->ba", topic, joint / given.evidence, optimize=True) / total[:, None]
        return result.reshape(len(result), -1)[:, : len(self.add)]

    def _given_topic(self, features: dict[str, np.ndarray]) -> _GivenTopic:
        """Sums over the S = 2 ** G subsets of the G classes of each of the A axes of rgb."""
        num_classes = len(self.add)
        num_axes = int(self.features["rgb"].axes.max()) + 1  # A
        by_axis = _ByAxis(num_axes, -(-num_classes // num_axes))
        subsets = by_axis.subsets[:, :, None]  # [S, G, 1]
        likelihood = self._likelihood(features, by_axis)  # [B, S, A]

        true = by_axis.arrange(self.label_probability)[:, None]  # [T, 1, G, A]
        subset_prior = np.prod(np.where(subsets == 1, true, 1 - true), axis=2)  # [T, S, A]
        written = np.where(subsets == 1, 1 - self.miss, by_axis.arrange(self.add))  # [S, G, A]: P(written | subset)
        any_written = 1 - np.prod(1 - written, axis=1)  # [S, A]

        evidence = np.einsum("tsa,bsa->bta", subset_prior, likelihood, optimize=True)
        # The probability that anything is written, given features and topic: a sum, because 1 - P(nothing) may cancel.
        share = np.einsum("tsa,bsa->bta", subset_prior * any_written, likelihood, optimize=True) / evidence
        log_none = np.log1p(-np.minimum(share, 1 - 1e-15)).sum(axis=2)  # [B, T]
        some = -np.expm1(np.sum(np.log1p(-self.written_probability), axis=1))  # [T]: something written, given the topic
        log_likelihood = np.log(evidence).sum(axis=2)  # [B, T]
        return _GivenTopic(by_axis, likelihood, subset_prior, written, evidence, log_likelihood, log_none, some)

    def _likelihood(self, features: dict[str, np.ndarray], by_axis: _ByAxis) -> np.ndarray:
        """Returns the likelihood of what is seen along an axis given a subset, [B, S, A], up to a factor per [B, A]."""
        rgb = self.features["rgb"]
        seen = (features["rgb"].astype(np.float64) @ rgb.basis.T)[:, None, : by_axis.num_axes]  # [B, 1, A]
        expected = by_axis.subsets @ by_axis.arrange(rgb.strengths)  # [S, A]
        log_likelihood = -0.5 * ((seen - expected) / rgb.noise_std[: by_axis.num_axes]) ** 2  # [B, S, A]
        if "audio" in self.features:
            audio = self.features["audio"]
            variance = audio.noise_std[audio.axes] ** 2  # [C]
            seen = (features["audio"].astype(np.float64) @ audio.basis.T)[:, audio.axes]  # [B, C]
            ratio = audio.strengths * (seen - audio.strengths / 2) / variance  # [B, C]: log odds for a label
            log_likelihood = log_likelihood + by_axis.subsets @ by_axis.arrange(ratio)
        return np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))


@dataclasses.dataclass(frozen=True)
class _GivenTopic:
    """Probabilities of B videos given the topic, from `SampleModel._given_topic`.

    Attributes:
      by_axis: how classes are arranged.
      likelihood: [B, S, A], see `SampleModel._likelihood`.
      subset_prior: [T, S, A], the probability of each subset of true labels of an axis.
      written: [S, G, A], the probability of a written label given the true ones of its axis.
      evidence: [B, T, A], the likelihood of what is seen along an axis.
      log_likelihood: [B, T], the log-likelihood of what is seen along all axes.
      log_none: [B, T], the log-probability that nothing is written, given the features.
      some: [T], the probability that anything is written.
    """

    by_axis: _ByAxis
    likelihood: np.ndarray
    subset_prior: np.ndarray
    written: np.ndarray
    evidence: np.ndarray
    log_likelihood: np.ndarray
    log_none: np.ndarray
    some: np.ndarray


def _in_batches(features: dict[str, np.ndarray], batch_size: int) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    """Yields slices of up to `batch_size` rows, with their features."""
    for start in range(0, len(next(iter(features.values()))), batch_size):
        rows = slice(start, start + batch_size)
        yield rows, {name: values[rows] for name, values in features.items()}


@dataclasses.dataclass(frozen=True)
class _ByAxis:
    """Arranges classes by axis: class c is the (c // A)-th of axis c % A; places without a class are zero."""

    num_axes: int
    group: int

    @property
    def subsets(self) -> np.ndarray:
        """Returns all subsets of a group, [S, G] of 0.0 and 1.0."""
        return np.array(list(itertools.product((0.0, 1.0), repeat=self.group)))

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """Converts [..., C] to [..., G, A]."""
        padding = [(0, 0)] * (values.ndim - 1) + [(0, self.group * self.num_axes - values.shape[-1])]
        return np.pad(values, padding).reshape(*values.shape[:-1], self.group, self.num_axes)


def make_model(config: SampleConfig) -> SampleModel:
    """Draws the parameters of a generative model; class 0 is the most frequent, as in the official vocabulary."""
    rng = np.random.default_rng([config.seed, 0])
    topic_prior = 1 / np.arange(1, config.num_topics + 1) ** 0.7
    topic_prior /= topic_prior.sum()
    label_probability = _label_probability(config, rng)
    marginal = topic_prior @ label_probability  # [C]
    order = np.argsort(-marginal, kind="stable")
    label_probability, marginal = label_probability[:, order], marginal[order]
    noise = config.noise_labels
    features = {name: _feature_model(name, size, marginal, rng) for name, size in config.feature_sizes.items()}
    return SampleModel(topic_prior, label_probability, noise, noise * marginal / (1 - marginal), features)


def _label_probability(config: SampleConfig, rng: np.random.Generator) -> np.ndarray:
    """Draws popularity times affinity, [T, C], scaled so that every topic has the same mean number of labels."""
    popularity = 1 / np.arange(1, config.num_classes + 1)
    affinity = np.exp(1.5 * rng.standard_normal((config.num_topics, config.num_classes)))
    probability = popularity * affinity
    for _ in range(100):  # to a fixed point, because the cap on the probability changes the mean
        probability *= config.labels_per_video / probability.sum(axis=1, keepdims=True)
        probability = np.clip(probability, 1e-6, MAX_PROBABILITY)
    return probability


def _feature_model(name: str, size: int, marginal: np.ndarray, rng: np.random.Generator) -> FeatureModel:
    """Draws the model of a feature; prototypes are along the axes of the largest variance."""
    num_classes = len(marginal)
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    noise_std = np.arange(1, size + 1) ** -SPECTRUM_DECAY
    axes = np.arange(num_classes) % size
    strengths = rng.uniform(*STRENGTHS[name], num_classes) * noise_std[axes]
    # Classes that share an axis differ by multiples: 1, -1, 2, -2, 3, -3. In audio only the first has a prototype.
    turn = np.arange(num_classes) // size
    strengths *= (turn // 2 + 1) * (1 - 2 * (turn % 2)) if name == "rgb" else turn == 0
    variance = np.sum(noise_std**2) + np.sum(strengths**2 * marginal * (1 - marginal))
    scale = FEATURE_STD / np.sqrt(variance / size)
    return FeatureModel(basis, noise_std * scale, axes, strengths * scale)
