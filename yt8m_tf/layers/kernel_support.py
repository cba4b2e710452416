"""Kernel ridge regression whose classes have few duals each: a subset of the videos for every class.

The exact solution has a dual for every video and class, which is most of the model's size, and nearly all of them are
small. Here all classes share the videos that are called centres, and each class has further videos of its own, its
support. On these videos the system of the class is solved exactly; it is a "subset of data" approximation (C. E.
Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006, section 8.3.3), with other data for each
class. The support is an active set: it starts with the videos of the class, and grows by those whose score is furthest
from their label, wherever in the matrix of scores these are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.linalg import lapack, solve_triangular

from yt8m_tf.layers.kernel_solve import gaussian

ROUNDS = 4  # the start, and how often the support grows
# The most videos in the support of a class, because the time of its system grows with the cube of their number.
_LARGEST = 8192
_BLOCK = 4096  # rows of the kernel matrix that are computed at a time

Advance = Callable[[int], object]


def _nothing(steps: int) -> None:
    """Reports no progress."""


@dataclasses.dataclass(frozen=True)
class SparseDuals:
    """Duals of M videos, of which the first R are the centres.

    Attributes:
      centres: [R, C] float32, duals of the centres.
      others: [M - R, C] float32, duals of the other videos, nearly all of them 0.
      own: [M] float32, what the kernel value of a video with itself loses if the video is scored as if it were not
        there, the mean over the classes that it supports; see `KernelRidge`. For centres, the support of the classes
        is left out of it, so that it is slightly too high.
    """

    centres: np.ndarray
    others: sparse.csc_array
    own: np.ndarray


def steps(num_classes: int) -> int:
    """Returns how many steps `fit` reports."""
    return (ROUNDS + 1) * num_classes


def fit(
    points: np.ndarray,
    targets: np.ndarray,
    centres: int,
    entries: int,
    gamma: float,
    ridge: float,
    advance: Advance = _nothing,
) -> SparseDuals:
    """Chooses the support of all classes, and solves for the duals.

    With A = K + ridge I, and its parts c of the centres and r of the other videos, the duals of a class with the
    support I are those of S_II w = b_I, where S = A_rr - A_rc A_cc^-1 A_cr and b = T_r - A_rc A_cc^-1 T_c.

    Args:
      points: [M, D] float32; the centres come first.
      targets: [M, C] float32, the labels.
      centres: R, from 1 to M.
      entries: the most duals of videos that are no centres, of all classes together.
      gamma: the kernel is exp(-gamma / 2 * squared distance).
      ridge: is added to the diagonal of the kernel matrix.
      advance: is called with numbers of steps done; see `steps`.

    Raises:
      numpy.linalg.LinAlgError: the ridge is too small for float32.
    """
    num_classes = targets.shape[1]
    kernel_of_centres = gaussian(points[:centres], points, gamma).astype(np.float64)
    system = kernel_of_centres[:, :centres] + ridge * np.eye(centres)
    lower = np.linalg.cholesky(system)
    own = np.empty(len(points), np.float32)
    own[:centres] = 1 / np.sum(np.square(np.linalg.inv(lower)), axis=0) - ridge
    whitened = solve_triangular(lower, kernel_of_centres[:, centres:], lower=True).astype(np.float32)  # [R, M - R]
    labels = solve_triangular(lower, targets[:centres].astype(np.float64), lower=True).astype(np.float32)  # [R, C]
    complement = _complement(points[centres:], whitened, gamma, ridge)
    rest = targets[centres:] - whitened.T.copy() @ labels
    advance(num_classes)
    member = targets[centres:] > 0
    for number in range(1, ROUNDS + 1):
        _limit(member, entries)
        others, own[centres:] = _solve(complement, rest, member, number == ROUNDS, ridge, advance)
        if number < ROUNDS:
            errors = rest - (others.T.tocsr() @ complement).T
            _grow(member, errors, (entries - int(np.count_nonzero(member))) // (ROUNDS - number))
    centre_duals = solve_triangular(lower, labels - (others.T @ whitened.T).T, lower=True, trans=1)
    return SparseDuals(centre_duals.astype(np.float32), others, own)


def _complement(points: np.ndarray, whitened: np.ndarray, gamma: float, ridge: float) -> np.ndarray:
    """Returns S, the Schur complement of the centres, [M - R, M - R] float32."""
    found = np.empty((len(points), len(points)), np.float32)
    for start in range(0, len(points), _BLOCK):
        rows = slice(start, start + _BLOCK)
        found[rows] = gaussian(points[rows], points, gamma) - whitened[:, rows].T.copy() @ whitened
    found[np.diag_indices(len(points))] += np.float32(ridge)
    return found


def _limit(member: np.ndarray, entries: int) -> None:
    """Takes videos from the largest supports, if they or all supports together are too large."""
    counts: np.ndarray = np.count_nonzero(member, axis=0)
    most = _LARGEST
    while np.minimum(counts, most).sum() > entries:  # only if there is no room for the labels themselves
        most = most * 3 // 4
    for column in np.flatnonzero(counts > most):
        member[np.flatnonzero(member[:, column])[most:], column] = False


def _grow(member: np.ndarray, errors: np.ndarray, count: int) -> None:
    """Adds the `count` highest absolute errors outside of the support to it."""
    if count <= 0:
        return
    sizes = np.where(member, np.float32(0), np.abs(errors)).ravel()
    count = min(count, int(np.count_nonzero(sizes)))
    if count:
        least = np.partition(sizes, -count)[-count]
        member.ravel()[np.flatnonzero(sizes >= least)[:count]] = True


def _solve(
    complement: np.ndarray, rest: np.ndarray, member: np.ndarray, last: bool, ridge: float, advance: Advance
) -> tuple[sparse.csc_array, np.ndarray]:
    """Solves the system of every class on its support.

    Returns:
      Duals [M - R, C]; and, if this is the `last` round, what `SparseDuals.own` describes, otherwise zeros.
    """
    values, rows, ends = [], [], [0]
    total, times = np.zeros(len(rest)), np.zeros(len(rest))
    for column in range(rest.shape[1]):
        support = np.flatnonzero(member[:, column])
        rows.append(support)
        ends.append(ends[-1] + len(support))
        if len(support):
            factor, failed = lapack.spotrf(complement[support[:, None], support[None]].T, lower=1, overwrite_a=1)
            if failed:
                raise np.linalg.LinAlgError("the matrix is not positive definite in float32")
            values.append(lapack.spotrs(factor, rest[support, column], lower=1)[0])
            if last:
                total[support] += 1 / np.diagonal(lapack.spotri(factor, lower=1, overwrite_c=1)[0]) - ridge
                times[support] += 1
        advance(1)
    flat = np.concatenate(values) if values else np.zeros(0, np.float32)
    duals = sparse.csc_array((flat, np.concatenate(rows), np.array(ends)), shape=rest.shape)
    return duals, (total / np.maximum(times, 1)).astype(np.float32)
