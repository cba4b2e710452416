"""Linear systems with a kernel matrix of tens of thousands of rows, in float32 and in the memory of one matrix.

Blocked, left-looking Cholesky factorisation (G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th edition, 2013,
section 4.2): the lower triangle of the matrix is overwritten by its factor L. Only the diagonal blocks are factored and
inverted in float64, which takes little time and makes the result as accurate as float32 products allow. `numpy.linalg`
would need a second copy of the matrix, which for 35,000 rows has 5 GB, or 10 in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

BLOCK = 2048

# Called once for each block of rows of each function.
Advance = Callable[[], object]


def _nothing() -> None:
    """Reports no progress."""


def gaussian(first: np.ndarray, second: np.ndarray, gamma: float) -> np.ndarray:
    """Computes exp(-gamma / 2 * squared distances) of points [P, D] and [Q, D], float32; returns [P, Q] float32."""
    squares = np.sum(np.square(first), axis=1)[:, None] + np.sum(np.square(second), axis=1)
    # A copy, because the `syrk` that NumPy would call for A @ A.T fails for large arrays in its OpenBLAS.
    distances = np.maximum(squares - 2 * (first @ second.T.copy()), 0.0)
    return np.exp(distances * np.float32(-gamma / 2))


def gaussian_kernel(
    points: np.ndarray, gamma: float, ridge: float, block: int = BLOCK, advance: Advance = _nothing
) -> np.ndarray:
    """Computes the lower triangle of K + ridge I, with K = exp(-gamma / 2 * squared distances).

    Args:
      points: [M, D] float32.
      gamma: at least 0.
      ridge: is added to the diagonal.
      block: rows of a block.
      advance: see `Advance`.

    Returns:
      [M, M] float32; above the blocks on the diagonal it has undefined values, whose memory is never touched.
    """
    kernel = np.empty((len(points), len(points)), np.float32)
    for start, end in _blocks(len(points), block):
        kernel[start:, start:end] = gaussian(points[start:], points[start:end], gamma)
        advance()
    kernel[np.diag_indices(len(points))] += np.float32(ridge)
    return kernel


def factorise(kernel: np.ndarray, block: int = BLOCK, advance: Advance = _nothing) -> list[np.ndarray]:
    """Overwrites the part of a matrix below its diagonal blocks by that of its Cholesky factor L; M^3 / 3 FLOP.

    Args:
      kernel: [M, M] float32, symmetric and positive definite; only its lower triangle is read.
      block: rows of a block.
      advance: see `Advance`.

    Returns:
      The inverses of the diagonal blocks of L, [block, block] float32 each; the last one may be smaller.

    Raises:
      numpy.linalg.LinAlgError: the matrix is not positive definite in float32.
    """
    inverses = []
    for start, end in _blocks(len(kernel), block):
        if start:  # all earlier columns at once: one product, and one pass over this column
            rows = kernel[start:end, :start].T.copy()  # see `gaussian`
            kernel[start:, start:end] -= kernel[start:, :start] @ rows
        # By TensorFlow, because NumPy's factorisation is ten times as slow if another process uses the processor.
        with tf.device("CPU"):
            lower = tf.linalg.cholesky(kernel[start:end, start:end].astype(np.float64))
            inverse = tf.linalg.triangular_solve(lower, np.eye(end - start)).numpy().astype(np.float32)
        if not np.isfinite(inverse).all():
            raise np.linalg.LinAlgError("the matrix is not positive definite in float32")
        inverses.append(inverse)
        kernel[end:, start:end] = kernel[end:, start:end] @ inverses[-1].T
        advance()
    return inverses


def solve(factor: np.ndarray, inverses: list[np.ndarray], targets: np.ndarray, advance: Advance = _nothing) -> None:
    """Overwrites targets T by the solution W of L L^T W = T; 2 M^2 C FLOP.

    Args:
      factor: [M, M] float32, from `factorise`.
      inverses: what `factorise` returned.
      targets: [M, C] float32.
      advance: see `Advance`.
    """
    blocks = _blocks(len(factor), len(inverses[0]))
    for inverse, (start, end) in zip(inverses, blocks, strict=True):
        targets[start:end] = inverse @ targets[start:end]
        targets[end:] -= factor[end:, start:end] @ targets[start:end]
        advance()
    for inverse, (start, end) in zip(reversed(inverses), reversed(blocks), strict=True):
        targets[start:end] = inverse.T @ targets[start:end]
        targets[:start] -= factor[start:end, :start].T @ targets[start:end]
        advance()


def inverse_diagonal(factor: np.ndarray, inverses: list[np.ndarray], advance: Advance = _nothing) -> np.ndarray:
    """Computes the diagonal of (L L^T)^-1: the sums of squares of the columns of L^-1; M^3 / 3 FLOP.

    Only one column of blocks of L^-1 is in memory.

    Args:
      factor: [M, M] float32, from `factorise`.
      inverses: what `factorise` returned.
      advance: see `Advance`.

    Returns:
      [M] float64, positive.
    """
    diagonal = np.empty(len(factor))
    blocks = _blocks(len(factor), len(inverses[0]))
    for column, (start, end) in enumerate(blocks):
        found = np.empty((len(factor) - start, end - start), np.float32)
        found[: end - start] = inverses[column]
        for row in range(column + 1, len(blocks)):
            first, last = blocks[row]
            known = found[: first - start]
            found[first - start : last - start] = -inverses[row] @ (factor[first:last, start:first] @ known)
        diagonal[start:end] = np.einsum("ij,ij->j", found, found, dtype=np.float64)
        advance()
    return diagonal


def _blocks(count: int, block: int) -> list[tuple[int, int]]:
    """Returns the first row of each block, and the row after its last one."""
    return [(start, min(start + block, count)) for start in range(0, count, block)]
