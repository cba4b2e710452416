"""Clips of scenes with known classes, ratings of their segments, and the exact posterior of the ratings.

A scene is drawn as `generator` draws a video: a topic, true classes, the classes that raters write (some are wrong),
and features. A clip has a main topic. Each of its scenes has this topic with probability `SAME_TOPIC`, or else a topic
that is drawn anew, so that the rest of a clip helps to recognise a scene. The frames of a scene vary around its
features. A scene consists of whole segments (the last one may have a few more frames), so a segment that starts at a
multiple of `SIZE` is within one scene.

The choice of the (segment, class) pairs to rate depends only on the features, as if a model had proposed candidates. A
pair is any segment of the clip, with a class that is likely, by the posterior, to occur somewhere in the clip. So the
choice adds no information on ratings, and the posterior of a scene is the best score of its segments. The posterior
neglects only the variation of frames within a scene: about 0.03 along an axis, where the noise is ten times as large.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from yt8m_tf import schema
from yt8m_tf.data.record_writing import Ratings
from yt8m_tf.sample_data.frames import frames_with_mean
from yt8m_tf.sample_data.generator import SampleModel

SIZE = 5  # frames of a segment
SAME_TOPIC = 0.8
# Strength of prototypes in a scene, as a share of that in a video: low enough for the context to matter.
STRENGTH = 0.5
RATINGS_PER_CLIP = 5
MOST_SCENES = 6


@dataclasses.dataclass(frozen=True)
class Clips:
    """N clips of M scenes in all.

    Attributes:
      lengths: [N], number of frames of each clip.
      clip_of: [M], the clip of each scene, ascending.
      starts: [M], the first frame of each scene, a multiple of `SIZE`.
      true, written: [M, C] bool, the true classes of each scene, and those that raters write.
      frames: the frames of each clip, {name: [T, D] uint8}.
      means: {name: [M, D]}, the decoded mean of each scene.
    """

    lengths: np.ndarray
    clip_of: np.ndarray
    starts: np.ndarray
    true: np.ndarray
    written: np.ndarray
    frames: list[dict[str, np.ndarray]]
    means: dict[str, np.ndarray]

    @property
    def stops(self) -> np.ndarray:
        """Returns the frame after the last one of each scene, [M]."""
        last = np.append(self.clip_of[1:] != self.clip_of[:-1], True)
        return np.where(last, self.lengths[self.clip_of], np.append(self.starts[1:], 0))

    def any_scene(self, of_scenes: np.ndarray) -> np.ndarray:
        """Returns whether any scene of a clip has a class, [M, C] bool to [N, C]."""
        return np.logical_or.reduceat(of_scenes, self.first, axis=0)

    def highest(self, of_scenes: np.ndarray) -> np.ndarray:
        """Returns the highest value of a clip's scenes, [M, C] to [N, C]."""
        return np.maximum.reduceat(of_scenes, self.first, axis=0)

    def some_scene(self, of_scenes: np.ndarray) -> np.ndarray:
        """Returns the probability that any scene of a clip has a class, if scenes are independent: [M, C] to [N, C]."""
        return -np.expm1(np.add.reduceat(np.log1p(-np.minimum(of_scenes, 1 - 1e-15)), self.first, axis=0))

    def clip_means(self) -> dict[str, np.ndarray]:
        """Returns the decoded mean over all frames of each clip, {name: [N, D]}."""
        weights = (self.stops - self.starts)[:, None]
        return {
            name: np.add.reduceat(values * weights, self.first, axis=0) / self.lengths[:, None]
            for name, values in self.means.items()
        }

    @property
    def first(self) -> np.ndarray:
        """Returns the first scene of each clip, [N]."""
        return np.searchsorted(self.clip_of, np.arange(len(self.lengths)))


def scene_model(model: SampleModel) -> SampleModel:
    """Converts a model of videos to one of scenes, whose prototypes are weaker."""
    features = {
        name: dataclasses.replace(own, strengths=own.strengths * STRENGTH) for name, own in model.features.items()
    }
    return dataclasses.replace(model, features=features)


def draw_clips(model: SampleModel, lengths: np.ndarray, rng: np.random.Generator) -> Clips:
    """Draws N clips; `lengths` [N] are their numbers of frames, each at least 1."""
    scenes = [_scene_starts(int(length), rng) for length in lengths]
    clip_of = np.repeat(np.arange(len(lengths)), [len(starts) for starts in scenes])
    starts = np.concatenate(scenes)
    main, other = (
        rng.choice(len(model.topic_prior), size, p=model.topic_prior) for size in (len(lengths), len(starts))
    )
    topics = np.where(rng.random(len(starts)) < SAME_TOPIC, main[clip_of], other)
    true, written, features = model.sample_of_topics(topics, rng)
    clips = Clips(lengths, clip_of, starts, true, written, [], {name: np.empty_like(v) for name, v in features.items()})
    frames: list[dict[str, list[np.ndarray]]] = [{name: [] for name in features} for _ in lengths]
    for scene, (clip, start, stop) in enumerate(zip(clip_of, starts, clips.stops, strict=True)):
        for name, values in features.items():
            codes = frames_with_mean(values[scene], np.zeros(stop - start, np.int64), rng)
            frames[clip][name].append(codes)
            clips.means[name][scene] = codes.mean(axis=0) * schema.QUANTISATION_STEP + schema.QUANTISATION_OFFSET
    clips.frames.extend({name: np.concatenate(parts) for name, parts in own.items()} for own in frames)
    return clips


def scene_posteriors(model: SampleModel, clips: Clips) -> dict[str, np.ndarray]:
    """Computes the probability that raters write each class for each scene, [M, C].

    Returns:
      "segment": given only the scene's frames; "clip": given all frames of the clip.
    """
    likelihood = model.topic_likelihood(clips.means)  # [M, T]
    fresh = (likelihood @ model.topic_prior)[:, None]  # [M, 1], likelihood if the topic is drawn anew
    logs = np.log(SAME_TOPIC * likelihood + (1 - SAME_TOPIC) * fresh)  # [M, T], likelihood given the clip's topic
    others = np.log(model.topic_prior) + np.add.reduceat(logs, clips.first, axis=0)[clips.clip_of] - logs
    main = np.exp(others - others.max(axis=1, keepdims=True))
    main /= main.sum(axis=1, keepdims=True)  # [M, T], the clip's topic given its other scenes
    topic_prior = SAME_TOPIC * main + (1 - SAME_TOPIC) * model.topic_prior
    return {
        "segment": model.posterior(clips.means),
        "clip": model.posterior(clips.means, topic_prior=topic_prior),
    }


@dataclasses.dataclass(frozen=True)
class RatedPairs:
    """R rated (segment, class) pairs.

    Attributes:
      clips, scenes, starts, classes: [R] int, ordered by clip, start and class.
      present: [R] bool, whether the class is rated present.
    """

    clips: np.ndarray
    scenes: np.ndarray
    starts: np.ndarray
    classes: np.ndarray
    present: np.ndarray

    def of_clips(self, num_clips: int) -> Iterator[Ratings]:
        """Yields the ratings of each clip, as its record contains them."""
        bounds = np.searchsorted(self.clips, np.arange(num_clips + 1))
        for first, last in itertools.pairwise(bounds.tolist()):
            starts, classes, present = (v[first:last] for v in (self.starts, self.classes, self.present))
            yield Ratings(starts.tolist(), (starts + SIZE).tolist(), classes.tolist(), present.astype(float).tolist())


def rate(clips: Clips, posterior: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> RatedPairs:
    """Rates up to `RATINGS_PER_CLIP` pairs of each clip.

    Args:
      clips: the clips.
      posterior: [M, C], see `scene_posteriors`; pairs are drawn in proportion to its highest value in the clip.
      classes: the classes that are rated, ascending.
      rng: source of the choice.
    """
    highest = clips.highest(posterior)[:, classes]  # [N, K]
    found: list[tuple[np.ndarray, ...]] = []
    for clip, weights in enumerate(highest):
        segments = np.arange(0, clips.lengths[clip], SIZE)
        # The Gumbel top-k trick: the highest keys are pairs drawn without replacement, in proportion to the weights.
        keys = np.log(weights) + rng.gumbel(size=(len(segments), len(classes)))
        pairs = np.sort(np.argsort(-keys, axis=None)[:RATINGS_PER_CLIP])
        rows, columns = np.divmod(pairs, len(classes))
        found.append((np.full(len(pairs), clip), segments[rows], classes[columns]))
    clip_of, starts, rated = (np.concatenate(parts) for parts in zip(*found, strict=True))
    # Scenes are ordered by clip and start, and so are their keys.
    span = int(clips.lengths.max()) + 1
    scenes = np.searchsorted(clips.clip_of * span + clips.starts, clip_of * span + starts, side="right") - 1
    return RatedPairs(clip_of, scenes, starts, rated, clips.written[scenes, rated])


def _scene_starts(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draws the first frames of scenes: 2 to 6 scenes, or fewer if there are fewer whole segments."""
    whole = max(num_frames // SIZE, 1)
    count = min(int(rng.integers(2, MOST_SCENES + 1)), whole)
    return np.concatenate([[0], np.sort(1 + rng.choice(whole - 1, count - 1, replace=False)) * SIZE]).astype(np.int64)
