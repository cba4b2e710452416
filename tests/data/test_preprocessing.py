"""Preprocessing of clips against plain loops over single clips in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.config.frames import PreprocessingConfig
from yt8m_tf.data.preprocessing import daubechies_3_high_pass, preprocess

_LENGTHS = np.array([1, 2, 3, 5, 9, 14, 20, 20], np.int32)
_SIZE = 20
_SIZES = {"rgb": 17, "audio": 6}
_METHODS = {
    "singular_vectors": PreprocessingConfig("singular_vectors", count=6),
    "moving_average": PreprocessingConfig("moving_average"),
    "odd window": PreprocessingConfig("moving_average", window=5),
    "high_pass": PreprocessingConfig("high_pass"),
    "low rank": PreprocessingConfig("robust_pca"),
    "sparse": PreprocessingConfig("robust_pca", part="sparse", iterations=4),
}


@pytest.fixture(params=_METHODS)
def method(request: pytest.FixtureRequest) -> PreprocessingConfig:
    return _METHODS[request.param]


def _clips(rng: np.random.Generator, size: int = _SIZE, batch: int = len(_LENGTHS)) -> np.ndarray:
    """[B, T, D] with well separated singular values, also of its first rows; rounding mixes vectors of close values."""
    width = sum(_SIZES.values())
    strength = 0.6 ** np.arange(8)
    parts = rng.normal(size=(batch, size, 8)) * strength
    return (parts @ rng.normal(size=(batch, 8, width))).astype(np.float32)


def _features(clips: np.ndarray) -> dict[str, np.ndarray]:
    return {"rgb": clips[:, :, :17], "audio": clips[:, :, 17:]}


def _run(
    clips: np.ndarray, lengths: np.ndarray, config: PreprocessingConfig, jit: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    features, kept = tf.function(preprocess, jit_compile=jit)(_features(clips), lengths, config)
    assert {name: frames.shape[2] for name, frames in features.items()} == _SIZES
    assert kept.dtype == tf.int32 and kept.shape == lengths.shape
    assert features["rgb"].shape[1] == config.longest(clips.shape[1])
    return np.concatenate([features["rgb"], features["audio"]], axis=2), kept.numpy()


def _moving_average(clip: np.ndarray, config: PreprocessingConfig) -> np.ndarray:
    before = config.window // 2
    rows = []
    for t in range(len(clip)):
        window = [clip[u] for u in range(t - before, t - before + config.window) if 0 <= u < len(clip)]
        rows.append(clip[t] - np.mean(window, axis=0))
    return np.array(rows)


def _high_pass(clip: np.ndarray, config: PreprocessingConfig) -> np.ndarray:
    taps, padding = daubechies_3_high_pass(), 10
    mirrored = np.pad(clip, [(padding, padding), (0, 0)], mode="symmetric")
    rows = []
    for m in range((len(clip) + 5) // 2):
        rows.append(sum(tap * mirrored[padding + 2 * m + 1 - k] for k, tap in enumerate(taps)))
    return np.array(rows)


def _robust_pca(clip: np.ndarray, config: PreprocessingConfig) -> np.ndarray:
    sparse, dual = np.zeros_like(clip), np.zeros_like(clip)
    mu = clip.size / (4 * np.abs(clip).sum())
    sparsity = 1 / np.sqrt(max(clip.shape))
    for _ in range(config.iterations):
        left, values, right = np.linalg.svd(clip - sparse + dual / mu, full_matrices=False)
        low_rank = left @ np.diag(np.maximum(values - 1 / mu, 0)) @ right
        rest = clip - low_rank + dual / mu
        sparse = np.sign(rest) * np.maximum(np.abs(rest) - sparsity / mu, 0)
        dual += mu * (clip - low_rank - sparse)
    return low_rank if config.part == "low_rank" else sparse


_REFERENCES: dict[str, Callable[[np.ndarray, PreprocessingConfig], np.ndarray]] = {
    "moving_average": _moving_average,
    "high_pass": _high_pass,
    "robust_pca": _robust_pca,
}
_REFERENCED = [name for name in _METHODS if name != "singular_vectors"]


@pytest.mark.parametrize(
    ("name", "jit"),
    [
        *((name, False) for name in _REFERENCED),
        *((name, True) for name in _REFERENCED if name != "low rank"),
        pytest.param("low rank", True, marks=pytest.mark.slow),  # compiles like "sparse"
    ],
)
def test_against_a_loop_over_clips(name: str, jit: bool, rng: np.random.Generator) -> None:
    config, clips = _METHODS[name], _clips(rng)
    found, kept = _run(clips, _LENGTHS, config, jit)
    for row, length in enumerate(_LENGTHS):
        expected = _REFERENCES[config.name](clips[row, :length].astype(np.float64), config)
        assert kept[row] == len(expected)
        scale = np.abs(clips[row, :length]).max()
        tolerance = 1e-3 if config.name == "robust_pca" else 1e-5  # robust_pca has the rounding of Gram matrices
        np.testing.assert_allclose(found[row, : len(expected)], expected, atol=tolerance * scale, rtol=0)
        assert not found[row, len(expected) :].any(), "padding is zero"


@pytest.mark.parametrize("jit", [False, True])
def test_singular_vectors(jit: bool, rng: np.random.Generator) -> None:
    clips = _clips(rng)
    clips[7, 1:] = clips[7, np.arange(1, _SIZE) % 3]  # only three different frames
    found, kept = _run(clips, _LENGTHS, _METHODS["singular_vectors"], jit)
    np.testing.assert_array_equal(kept, [1, 2, 3, 5, 6, 6, 6, 3])
    for row, length in enumerate(_LENGTHS):
        expected = np.linalg.svd(clips[row, :length].astype(np.float64), full_matrices=False)[2]
        for vector, one in zip(found[row, : kept[row]], expected, strict=False):
            np.testing.assert_allclose(vector * np.sign(vector @ one), one, atol=2e-3)
            assert vector[np.argmax(np.abs(vector))] > 0
        assert not found[row, kept[row] :].any()


def test_robust_pca_finds_the_added_parts(rng: np.random.Generator) -> None:
    """With enough iterations, the two parts equal those that the clip was composed of."""
    low_rank = rng.normal(size=(3, 40, 2)) @ rng.normal(size=(3, 2, 23))
    outliers = rng.normal(size=low_rank.shape) * 5 * (rng.uniform(size=low_rank.shape) < 0.04)
    clips, lengths = (low_rank + outliers).astype(np.float32), np.full(3, 40, np.int32)
    for part, expected in (("low_rank", low_rank), ("sparse", outliers)):
        found, _ = _run(clips, lengths, PreprocessingConfig("robust_pca", part=part, iterations=200))
        error = np.sqrt(((found - expected) ** 2).mean(axis=(1, 2)) / (expected**2).mean(axis=(1, 2)))
        assert np.median(error) < 0.05, error


def test_the_high_pass_filter() -> None:
    taps = np.array(daubechies_3_high_pass())
    published = [-0.3326705529509569, 0.8068915093133388, -0.4598775021193313, -0.1350110200103908]
    np.testing.assert_allclose(taps, [*published, 0.0854412738822415, 0.0352262918821007], atol=1e-14)
    assert taps @ taps == pytest.approx(1.0, abs=1e-14)
    for shift in (2, 4):  # orthogonal to its own even shifts
        assert taps[shift:] @ taps[:-shift] == pytest.approx(0.0, abs=1e-14)
    for power in (0, 1, 2):  # three vanishing moments: parabolas are removed
        assert taps @ np.arange(6.0) ** power == pytest.approx(0.0, abs=1e-12)


def test_neither_padding_nor_other_clips_matter(method: PreprocessingConfig, rng: np.random.Generator) -> None:
    clips, others = _clips(rng), _clips(rng, _SIZE + 7)
    lengths = rng.integers(1, _SIZE + 7, len(_LENGTHS)).astype(np.int32)
    for row in (0, 2, 5):
        lengths[row] = _LENGTHS[row]
        others[row, : lengths[row]] = clips[row, : lengths[row]]
        clips[row, lengths[row] :] = 1e3  # different padding, and less of it
    one, kept = _run(clips, _LENGTHS, method)
    other, kept_other = _run(others, lengths, method)
    for row in (0, 2, 5):
        assert kept[row] == kept_other[row] >= 1
        np.testing.assert_allclose(one[row, : kept[row]], other[row, : kept[row]], atol=2e-3)


@pytest.mark.parametrize("size", [1, 303])
def test_the_shortest_and_the_longest_clips(method: PreprocessingConfig, size: int, rng: np.random.Generator) -> None:
    found, kept = _run(_clips(rng, size, 2), np.array([1, size], np.int32), method)
    assert np.isfinite(found).all() and kept[0] == (3 if method.name == "high_pass" else 1)
    of_frames = {"high_pass": 154, "singular_vectors": 6}
    assert kept[1] == (of_frames.get(method.name, 303) if size == 303 else kept[0])


def test_shapes_known_only_at_run_time(method: PreprocessingConfig, rng: np.random.Generator) -> None:
    specs = [tf.TensorSpec([None, None, size]) for size in _SIZES.values()]

    @tf.function(input_signature=[*specs, tf.TensorSpec([None], tf.int32)])
    def run(rgb: tf.Tensor, audio: tf.Tensor, num_frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features, kept = preprocess({"rgb": rgb, "audio": audio}, num_frames, method)
        return tf.concat([features["rgb"], features["audio"]], axis=2), kept

    for size in (_SIZE, 4, 1):
        clips, lengths = _clips(rng, size), np.minimum(_LENGTHS, size)
        expected, kept_expected = _run(clips, lengths, method)
        found, kept = run(*_features(clips).values(), lengths)
        np.testing.assert_array_equal(kept, kept_expected)
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_clips_without_frames_are_finite(method: PreprocessingConfig, rng: np.random.Generator) -> None:
    found, kept = _run(_clips(rng, batch=2), np.array([0, 0], np.int32), method)
    assert np.isfinite(found).all() and (kept >= 1).all()
