"""Log-mel examples against plain sums of the formulas."""

from __future__ import annotations

import numpy as np

from yt8m_tf.extraction.log_mel import log_mel, mel_matrix


def _mel(frequency: float) -> float:
    return 1127.0 * np.log(1.0 + frequency / 700.0)


def _slow_step(samples: np.ndarray, step: int) -> np.ndarray:
    """Computes one step of 25 ms, [64], with a Fourier sum for each bin and a triangle for each band."""
    window = np.array([0.5 - 0.5 * np.cos(2 * np.pi * n / 400) for n in range(400)])
    values = samples[160 * step : 160 * step + 400] * window
    n = np.arange(400)
    magnitudes = [abs(np.sum(values * np.exp(-2j * np.pi * k * n / 512))) for k in range(257)]
    edges = [_mel(125) + i * (_mel(7500) - _mel(125)) / 65 for i in range(66)]
    bands = []
    for band in range(64):
        low, middle, high = edges[band : band + 3]
        total = 0.0
        for k in range(1, 257):
            mel = _mel(k * 16000 / 512)
            if low < mel <= middle:
                total += magnitudes[k] * (mel - low) / (middle - low)
            elif middle < mel < high:
                total += magnitudes[k] * (high - mel) / (high - middle)
        bands.append(np.log(total + 0.01))
    return np.array(bands)


def test_against_sums(rng: np.random.Generator) -> None:
    seconds = rng.uniform(-1, 1, (2, 16000)).astype(np.float32)
    examples = log_mel(seconds)
    assert examples.shape == (2, 96, 64) and examples.dtype == np.float32
    for second, step in ((0, 0), (0, 95), (1, 42)):
        np.testing.assert_allclose(examples[second, step], _slow_step(seconds[second], step), atol=1e-5)


def test_silence_and_a_tone() -> None:
    """Silence is log 0.01 everywhere; 1 kHz is loudest in the band whose centre is nearest in mel."""
    time = np.arange(16000) / 16000
    examples = log_mel(np.stack([np.zeros(16000), np.sin(2 * np.pi * 1000 * time)]).astype(np.float32))
    np.testing.assert_allclose(examples[0], np.log(0.01), atol=1e-6)
    middles = np.linspace(_mel(125), _mel(7500), 66)[1:-1]
    assert set(examples[1].argmax(axis=1)) == {int(np.abs(middles - _mel(1000)).argmin())}


def test_the_constant_part_of_a_signal_is_left_out() -> None:
    assert not mel_matrix()[0].any() and mel_matrix().shape == (257, 64)
