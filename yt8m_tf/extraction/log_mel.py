"""Log-mel spectrograms of sound, as VGGish takes them. NumPy only."""

from __future__ import annotations

import functools

import numpy as np

from yt8m_tf.extraction.decoding import SAMPLE_RATE

NUM_STEPS, NUM_BANDS = 96, 64  # of an example: steps of 10 ms, mel bands
_WINDOW, _HOP, _FFT = 400, 160, 512  # samples: 25 ms, 10 ms
_LOWEST, _HIGHEST = 125.0, 7500.0  # edges of the bands, in Hz
_OFFSET = 0.01  # in front of the logarithm


def log_mel(seconds: np.ndarray) -> np.ndarray:
    """The log-mel example of each second of sound.

    VGGish's examples are of 0.96 s and follow each other; YouTube-8M's begin at whole seconds, as here, so that they
    keep step with the frames: nothing of the last 25 ms of a second is in one.

    Args:
      seconds: [N, 16000] float32 in [-1, 1].

    Returns:
      [N, 96, 64] float32, log(mel + 0.01) of magnitudes.
    """
    starts = np.arange(NUM_STEPS)[:, None] * _HOP + np.arange(_WINDOW)  # [96, 400]
    spectrum = np.abs(np.fft.rfft(seconds[:, starts] * _hann(), _FFT))  # [N, 96, 257]
    return np.log(spectrum @ mel_matrix() + _OFFSET).astype(np.float32)


@functools.cache
def mel_matrix() -> np.ndarray:
    """[257, 64] float64: triangles on HTK's mel scale, 1127 ln(1 + f / 700), without the constant part of a signal."""
    bins = _mel(np.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1))[:, None]
    edges = np.linspace(_mel(_LOWEST), _mel(_HIGHEST), NUM_BANDS + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0.0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    weights[0] = 0
    return weights


@functools.cache
def _hann() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)  # periodic


def _mel(frequency: np.ndarray | float) -> np.ndarray:
    return np.asarray(1127.0 * np.log(1.0 + np.asarray(frequency) / 700.0))
