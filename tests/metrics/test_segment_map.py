"""MAP@K against plain implementations, and the top K of each class against a full sort."""

from __future__ import annotations

import numpy as np
import pytest

from yt8m_tf.metrics.segment_map import (
    TopSegments,
    average_precision,
    mean_average_precision,
    ratings_by_class,
)

Ratings = dict[tuple[int, int], bool]  # (segment, class) to whether the class was rated present


def _world(rng: np.random.Generator, num_segments: int, num_classes: int, ties: bool) -> tuple[np.ndarray, Ratings]:
    """Scores of all pairs, and ratings of a third; the first class is always rated absent, the last never rated."""
    scores = rng.random((num_segments, num_classes)).astype(np.float32)
    scores = np.round(scores, 1) if ties else scores
    rated = rng.random(scores.shape) < 1 / 3
    rated[:, -1] = False
    pairs = np.argwhere(rated).tolist()
    present = rng.random(scores.shape) < scores  # so that there are positives
    present[:, 0] = False
    return scores, {(segment, class_id): bool(present[segment, class_id]) for segment, class_id in pairs}


def _by_class(ratings: Ratings):
    segments, classes = np.array(list(ratings)).T
    return ratings_by_class(segments, classes, np.array(list(ratings.values())))


def _plain_map(lists: dict[int, list[int]], ratings: Ratings, k: int) -> tuple[float, float]:
    """MAP by the specification, pair by pair: the means over classes with a positive, and over those listed."""
    positives: dict[int, int] = {}
    for (_, class_id), present in ratings.items():
        positives[class_id] = positives.get(class_id, 0) + present
    found = {}
    for class_id, total in positives.items():
        if total:
            rank, hits, precisions = 0, 0, 0.0
            for segment in lists.get(class_id, [])[:k]:
                if (segment, class_id) in ratings:
                    rank += 1
                    if ratings[segment, class_id]:
                        hits += 1
                        precisions += hits / rank
            found[class_id] = precisions / total
    listed = [found[class_id] for class_id in found if class_id in lists]
    return sum(found.values()) / len(found), sum(listed) / len(listed)


def _starter_map(lists: dict[int, list[int]], ratings: Ratings, k: int) -> float:
    """MAP as in the starter code, which only works if all classes of a submission have positives.

    Each list is cut, its rated pairs get decreasing scores from 1 to 1 / n, and are ranked by them; every hit adds its
    precision times the same step of recall, 1 / positives.
    """
    means = []
    for class_id, segments in sorted(lists.items()):
        rated = [segment for segment in segments[:k] if (segment, class_id) in ratings]
        scores = [(len(rated) - place) / len(rated) for place in range(len(rated))]
        step = 1.0 / sum(present for (_, own), present in ratings.items() if own == class_id)
        hits, area = 0.0, 0.0
        for place, index in enumerate(sorted(range(len(rated)), key=lambda i: scores[i], reverse=True)):
            if ratings[rated[index], class_id]:
                hits += 1
                area += hits / (place + 1) * step
        means.append(area)
    return float(np.mean(means))


def test_by_hand() -> None:
    """Class 7 lists segments 5 (right), 2 (unknown), 9 (wrong), 4 (right), and lacks 6 (right); class 8 has no list."""
    ratings = _by_class({(5, 7): True, (9, 7): False, (4, 7): True, (6, 7): True, (1, 8): True, (1, 9): False})
    ranked = np.array([5, 2, 9, 4])
    found = mean_average_precision([(7, ranked), (9, ranked), (10, ranked)], ratings)
    assert found.average_precision == {7: pytest.approx((1 / 1 + 2 / 3) / 3), 8: 0.0}
    assert found.listed == {7} and found.num_rated == 3
    assert found.mean == pytest.approx(5 / 18) and found.mean_of_listed == pytest.approx(5 / 9)
    # Unknown pairs count towards K.
    assert mean_average_precision([(7, ranked)], ratings, k=3).average_precision[7] == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 17, 1000])
def test_equals_a_plain_implementation_and_the_starter_code(seed: int, k: int) -> None:
    rng = np.random.default_rng([seed, k])
    scores, ratings = _world(rng, 200, 6, ties=seed % 2 == 1)
    top = TopSegments(6, k)
    segments, classes = (values.ravel() for values in np.indices(scores.shape))
    top.add(segments, classes, scores.ravel())
    lists = {class_id: top.ranked(class_id)[0] for class_id in range(5) if class_id != 2}
    found = mean_average_precision(lists.items(), _by_class(ratings), k)
    plain = {class_id: ranked.tolist() for class_id, ranked in lists.items()}
    assert (found.mean, found.mean_of_listed) == pytest.approx(_plain_map(plain, ratings, k), abs=1e-12)
    with_positives = {class_id: plain[class_id] for class_id in found.listed}
    assert found.mean_of_listed == pytest.approx(_starter_map(with_positives, ratings, k), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_are_those_of_a_stable_sort_in_any_order_of_arrival(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, num_classes = 3000, 7
    segments, classes = rng.permutation(size), rng.integers(0, num_classes, size)
    scores = np.round(rng.random(size), 2).astype(np.float32)  # many are equal
    for k in (1, 5, 60, size):
        for cuts in ([], np.sort(rng.integers(0, size, 40))):
            top = TopSegments(num_classes, k)
            for part in np.split(np.arange(size), cuts):
                top.add(segments[part], classes[part], scores[part])
            for class_id in range(num_classes):
                own = np.flatnonzero(classes == class_id).tolist()
                best = sorted(own, key=lambda place: -scores[place])[:k]
                found, values = top.ranked(class_id)
                assert found.tolist() == segments[best].tolist()
                assert values.tolist() == scores[best].tolist()


def test_average_precision_is_1_with_all_first_and_0_without_hits() -> None:
    assert average_precision(np.array([True, True, False]), 2) == 1
    assert average_precision(np.array([False, False]), 2) == 0 == average_precision(np.zeros(0, bool), 1)


def test_repeated_ratings_count_as_their_mean_and_are_positive_from_one_half() -> None:
    segments, classes = np.array([3, 4, 3, 3, 9]), np.array([1, 1, 1, 2, 2])
    ratings = ratings_by_class(segments, classes, np.array([1, 0.5, 0, 0.49, 1]))
    assert ratings[1].segments.tolist() == [3, 4] and ratings[1].present.tolist() == [True, True]
    assert ratings[2].segments.tolist() == [3, 9] and ratings[2].present.tolist() == [False, True]


def test_mean_without_a_positive_rating_is_an_error() -> None:
    assert ratings_by_class(np.zeros(0, int), np.zeros(0, int), np.zeros(0)) == {}
    with pytest.raises(ValueError, match="no class has a positive rating"):
        mean_average_precision([], ratings_by_class(np.array([1]), np.array([1]), np.array([0.0])))
