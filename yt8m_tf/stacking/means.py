"""Means of models' scores, and the weights of the best mean. Rows are candidates; NaN is an unlisted class."""

from __future__ import annotations

import numpy as np
from scipy import optimize

# The bounds of a score in a mean of logits, because float16 rounds to 0 and 1. A class that a model
# does not list has the lower bound, which is about the 100th highest of 3,862 scores.
_LOWEST, _HIGHEST = 1e-4, 1 - 2.0**-12


def _listed(scores: np.ndarray) -> np.ndarray:
    """Returns scores as float32, 0 for NaN, in row-major order, because the rounding of sums depends on the layout."""
    return np.nan_to_num(scores.astype(np.float32, order="C"))


def plain_mean(scores: np.ndarray) -> np.ndarray:
    """Returns the mean of scores [R, M], [R] float32; a class that a model does not list has the score 0."""
    return _listed(scores).mean(axis=1)


def logit_mean(scores: np.ndarray) -> np.ndarray:
    """Returns the probability whose log-odds are the mean of those of scores [R, M]: [R] float32, at least 1e-4."""
    clipped = np.clip(_listed(scores), _LOWEST, _HIGHEST)
    return (1 / (1 + np.exp(-np.log(clipped / (1 - clipped)).mean(axis=1)))).astype(np.float32)


def weighted_mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the mean of scores [R, M] with weights [M], [R] float32; unlisted classes have the score 0."""
    return _listed(scores) @ weights.astype(np.float32)


def fit_weights(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fits the weights of the mean that maximises the likelihood of the labels.

    With weights that sum to 1, both p = sum w_m p_m and 1 - p = sum w_m (1 - p_m) are mixtures of the models'
    probabilities of the outcome, so the loss is convex in the weights.

    Args:
      scores: [R, M] in [0, 1], NaN if a model does not list the class, which counts as 0.
      labels: [R] bool.

    Returns:
      [M] float64, at least 0, with a sum of 1.
    """
    given = np.clip(_listed(scores), 1e-6, 1 - 1e-6)
    likelihoods = np.where(labels[:, None], given, 1 - given)  # [R, M], of the outcome

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = (likelihoods @ weights.astype(np.float32)).astype(np.float64)
        gradient = -(likelihoods.T @ (1 / mixed).astype(np.float32)).astype(np.float64) / len(mixed)
        return -float(np.log(mixed).mean()), gradient

    num_models = scores.shape[1]
    found = optimize.minimize(
        loss_and_gradient,
        np.full(num_models, 1 / num_models),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * num_models,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-10, "maxiter": 200},
    )
    weights = np.maximum(found.x, 0)
    return weights / weights.sum()
