"""Log-mel spectrograms of sound, the input of VGGish, in NumPy only."""

from __future__ import annotations

import functools

import numpy as np

from yt8m_tf.extraction.decoding import SAMPLE_RATE

NUM_STEPS, NUM_BANDS = 96, 64  # size of an example: steps of 10 ms, mel bands
_WINDOW, _HOP, _FFT = 400, 160, 512  # window and step in samples: 25 ms, 10 ms
_LOWEST, _HIGHEST = 125.0, 7500.0  # edges of the bands, in Hz
_OFFSET = 0.01  # is added before the logarithm


def log_mel(seconds: np.ndarray) -> np.ndarray:
    """Computes the log-mel example of each second of sound.

    VGGish divides sound into consecutive examples of 0.96 s. Here, as in YouTube-8M, examples begin at whole seconds,
    like the frames; the last 25 ms of a second are not used.

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
    """Returns triangular filters on HTK's mel scale, 1127 ln(1 + f / 700), [257, 64] float64, with weight 0 at 0 Hz."""
    bins = _mel(np.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1))[:, None]
    edges = np.linspace(_mel(_LOWEST), _mel(_HIGHEST), NUM_BANDS + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0.0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    weights[0] = 0
    return weights


@functools.cache
def _hann() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)  # periodic Hann window


def _mel(frequency: np.ndarray | float) -> np.ndarray:
    return np.asarray(1127.0 * np.log(1.0 + np.asarray(frequency) / 700.0))
