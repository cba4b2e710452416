import numpy as np
import pytest

from yt8m_tf.layers import kernel_support

COUNT, CENTRES, NUM_CLASSES, GAMMA, RIDGE = 60, 12, 5, 0.9, 0.1


@pytest.fixture
def points(rng):
    found = rng.normal(size=(COUNT, 6))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype("float32")


@pytest.fixture
def targets(rng):
    return (rng.uniform(size=(COUNT, NUM_CLASSES)) < 0.2).astype("float32")


def matrix(points):
    """[M, M] float64, by the formula."""
    x = points.astype("float64")
    return np.exp(-GAMMA / 2 * np.sum((x[:, None] - x[None]) ** 2, axis=2))


def dense(duals):
    return np.concatenate([duals.centres, duals.others.toarray()])


def test_with_room_for_all_duals_it_is_the_exact_solution(points, targets):
    duals = kernel_support.fit(points, targets, CENTRES, COUNT * NUM_CLASSES, GAMMA, RIDGE)
    expected = np.linalg.solve(matrix(points) + RIDGE * np.eye(COUNT), targets)
    np.testing.assert_allclose(dense(duals), expected, atol=2e-4)
    own = 1 / np.diag(np.linalg.inv(matrix(points) + RIDGE * np.eye(COUNT))) - RIDGE
    np.testing.assert_allclose(duals.own[CENTRES:], own[CENTRES:], atol=1e-4)
    of_centres = np.linalg.inv(matrix(points[:CENTRES]) + RIDGE * np.eye(CENTRES))
    np.testing.assert_allclose(duals.own[:CENTRES], 1 / np.diag(of_centres) - RIDGE, atol=1e-4)


def test_each_class_is_solved_exactly_on_its_support(points, targets):
    entries = 70  # of 48 * 5
    duals = kernel_support.fit(points, targets, CENTRES, entries, GAMMA, RIDGE)
    found, others = dense(duals), duals.others.toarray()
    assert np.count_nonzero(others) == entries
    for column in range(NUM_CLASSES):
        used = np.flatnonzero(np.concatenate([np.ones(CENTRES), others[:, column]]))
        system = matrix(points[used]) + RIDGE * np.eye(len(used))
        expected = np.linalg.solve(system, targets[used, column].astype("float64"))
        np.testing.assert_allclose(found[used, column], expected, atol=2e-4)


def test_the_support_has_the_labels_and_the_largest_errors(points, targets, monkeypatch):
    """Tests one growth: those that come to the labels have the largest errors of the solution on the labels."""
    monkeypatch.setattr(kernel_support, "ROUNDS", 2)
    labels = np.count_nonzero(targets[CENTRES:])
    first = dense(kernel_support.fit(points, targets, CENTRES, labels, GAMMA, RIDGE))
    second = kernel_support.fit(points, targets, CENTRES, labels + 10, GAMMA, RIDGE).others.toarray()
    present = targets[CENTRES:] > 0
    np.testing.assert_array_equal(first[CENTRES:] != 0, present)
    errors = np.abs((matrix(points) @ first - targets)[CENTRES:])
    least = np.sort(errors[~present])[-10]
    np.testing.assert_array_equal(second != 0, present | (errors >= least))


def test_little_room_takes_from_the_largest_supports(points, rng):
    targets = np.zeros((COUNT, NUM_CLASSES), "float32")
    targets[:, 0] = 1
    targets[20:24, 1] = 1
    duals = kernel_support.fit(points, targets, CENTRES, 12, GAMMA, RIDGE)
    counts = np.count_nonzero(duals.others.toarray(), axis=0)
    assert counts[1] >= 4 and counts[0] > 0 and counts.sum() <= 12


def test_large_supports_are_limited(points, targets, monkeypatch):
    monkeypatch.setattr(kernel_support, "_LARGEST", 5)
    duals = kernel_support.fit(points, targets, CENTRES, COUNT * NUM_CLASSES, GAMMA, RIDGE)
    assert np.count_nonzero(duals.others.toarray(), axis=0).max() == 5


def test_only_centres(points, targets):
    duals = kernel_support.fit(points, targets, COUNT, 10, GAMMA, RIDGE)
    expected = np.linalg.solve(matrix(points) + RIDGE * np.eye(COUNT), targets)
    np.testing.assert_allclose(duals.centres, expected, atol=2e-4)
    assert duals.others.shape == (0, NUM_CLASSES) and duals.own.shape == (COUNT,)


def test_reports_all_its_steps(points, targets):
    done = []
    kernel_support.fit(points, targets, CENTRES, 70, GAMMA, RIDGE, done.append)
    assert sum(done) == kernel_support.steps(NUM_CLASSES)


def test_ridge_too_small(points):
    """Tests videos that come twice, without a ridge: the pivot of every second one is nothing but rounding."""
    twice = np.concatenate([points[:CENTRES], np.repeat(points[CENTRES:], 2, axis=0)])
    with pytest.raises(np.linalg.LinAlgError):
        kernel_support.fit(twice, np.ones((len(twice), 2), "float32"), CENTRES, 2 * len(twice), GAMMA, 0.0)
