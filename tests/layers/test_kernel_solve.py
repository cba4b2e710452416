import numpy as np
import pytest

from yt8m_tf.layers import kernel_solve

# M of one block, of several, and of several and a smaller one.
SIZES = pytest.mark.parametrize(("count", "block"), [(50, 64), (60, 20), (67, 20), (41, 40), (33, 1)])
RIDGE = 0.05


def system(rng, count, block):
    """The kernel matrix with its ridge, in float64 by its definition, and what `factorise` makes of the float32 one."""
    points = (rng.normal(size=(count, 7)) / 2).astype("float32")
    differences = points.astype("float64")[:, None] - points[None]
    exact = np.exp(-0.35 * np.sum(differences**2, axis=2)) + RIDGE * np.eye(count)
    kernel = kernel_solve.gaussian_kernel(points, 0.7, RIDGE, block)
    np.testing.assert_allclose(np.tril(kernel), np.tril(exact), atol=1e-6)
    return exact, kernel, kernel_solve.factorise(kernel, block)


@SIZES
def test_solution(count, block, rng):
    exact, factor, inverses = system(rng, count, block)
    targets = rng.normal(size=(count, 3)).astype("float32")
    expected = np.linalg.solve(exact, targets)
    kernel_solve.solve(factor, inverses, targets)
    np.testing.assert_allclose(targets, expected, atol=3e-5 * np.abs(expected).max())


@SIZES
def test_diagonal_of_the_inverse(count, block, rng):
    exact, factor, inverses = system(rng, count, block)
    diagonal = kernel_solve.inverse_diagonal(factor, inverses)
    np.testing.assert_allclose(diagonal, np.diag(np.linalg.inv(exact)), rtol=3e-5)


@SIZES
def test_factor(count, block, rng):
    """Below the diagonal blocks it is L; the blocks themselves are given as inverses."""
    exact, factor, inverses = system(rng, count, block)
    lower = np.linalg.cholesky(exact)
    for number, inverse in enumerate(inverses):
        start, end = number * block, min((number + 1) * block, count)
        np.testing.assert_allclose(inverse @ lower[start:end, start:end], np.eye(end - start), atol=3e-5)
        np.testing.assert_allclose(factor[end:, start:end], lower[end:, start:end], atol=1e-5)


def test_nothing_above_the_diagonal_blocks_is_read(rng):
    points = rng.normal(size=(50, 3)).astype("float32")
    results = []
    for above in (0.0, np.nan):
        kernel = kernel_solve.gaussian_kernel(points, 1.0, RIDGE, 20)
        for start in (20, 40):
            kernel[:start, start : start + 20] = above
        inverses, targets = kernel_solve.factorise(kernel, 20), np.ones((50, 1), "float32")
        kernel_solve.solve(kernel, inverses, targets)
        results.append((targets, kernel_solve.inverse_diagonal(kernel, inverses)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_progress_counts_blocks(rng):
    points, calls = rng.normal(size=(67, 3)).astype("float32"), []
    kernel = kernel_solve.gaussian_kernel(points, 1.0, RIDGE, 20, lambda: calls.append("kernel"))
    inverses = kernel_solve.factorise(kernel, 20, lambda: calls.append("factor"))
    kernel_solve.solve(kernel, inverses, np.ones((67, 1), "float32"), lambda: calls.append("solve"))
    kernel_solve.inverse_diagonal(kernel, inverses, lambda: calls.append("diagonal"))
    assert calls == ["kernel"] * 4 + ["factor"] * 4 + ["solve"] * 8 + ["diagonal"] * 4


def test_a_matrix_that_is_not_positive_definite():
    with pytest.raises(np.linalg.LinAlgError):
        kernel_solve.factorise(-np.eye(4, dtype="float32"))
