"""Frame sampling against plain loops over single clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.config.frames import SamplingConfig
from yt8m_tf.data.sampling import sample

_METHODS = {
    "crop": SamplingConfig("crop", min_frames=4, max_frames=9),
    "random_frames": SamplingConfig("random_frames", count=7),
    "every_nth": SamplingConfig("every_nth", min_step=2, max_step=5),
    "random_segments": SamplingConfig("random_segments", count=6),
    "cosine": SamplingConfig("cosine", count=6),
    "farthest_first": SamplingConfig("farthest_first", count=6),
}
_LENGTHS = np.array([1, 2, 4, 6, 7, 13, 20, 20], np.int32)
_SIZE = 20


@pytest.fixture(params=_METHODS)
def method(request: pytest.FixtureRequest) -> SamplingConfig:
    return _METHODS[request.param]


@pytest.fixture
def seed(rng: np.random.Generator) -> tf.Tensor:
    return tf.constant(rng.integers(0, 2**31, 2), tf.int32)


def _clips(rng: np.random.Generator, batch: int, size: int) -> dict[str, np.ndarray]:
    """Two features of random codes, and one that encodes the frame numbers."""
    clips = {name: rng.integers(0, 256, (batch, size, d), np.uint8) for name, d in (("rgb", 9), ("audio", 4))}
    number = np.arange(size)
    return clips | {"number": np.tile(np.stack([number % 256, number // 256], axis=1).astype(np.uint8), (batch, 1, 1))}


def _sample(*arguments: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    sampled, kept = sample(*arguments)
    return {name: frames.numpy() for name, frames in sampled.items()}, kept.numpy()


def _numbers(sampled: dict[str, np.ndarray]) -> np.ndarray:
    return sampled["number"].astype(int) @ [1, 256]


def _decoded(clips: dict[str, np.ndarray], row: int, length: int) -> np.ndarray:
    joined = np.concatenate([values[row, :length].astype(np.float64) for values in clips.values()], axis=1)
    return joined * (4 / 255) + (4 / 512 - 2)


def _check_rows(clips: dict[str, np.ndarray], sampled: dict[str, Any], row: int, expected: list[int]) -> None:
    """Checks that a sampled clip consists of the frames `expected`, for every feature."""
    for name, values in clips.items():
        assert sampled[name].dtype == tf.uint8
        np.testing.assert_array_equal(sampled[name][row][: len(expected)], values[row, expected], err_msg=name)


def _check_equally_likely(drawn: np.ndarray, values: list[Any]) -> None:
    """Checks that `drawn` has exactly these values, each within five standard deviations of an equal share."""
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    np.testing.assert_array_equal(found, values)
    share = 1 / len(values)
    allowed = 5 * np.sqrt(len(drawn) * share * (1 - share))
    assert np.abs(counts - len(drawn) * share).max() < allowed, counts


@pytest.mark.parametrize("jit", [False, True])
def test_frames_unlike_the_one_before(jit: bool, rng: np.random.Generator) -> None:
    clips, count = _clips(rng, len(_LENGTHS), _SIZE), 6
    run = tf.function(lambda *inputs: sample(*inputs, _METHODS["cosine"]), jit_compile=jit)
    sampled, kept = run(clips, _LENGTHS)
    assert sampled["rgb"].shape == (8, count, 9)
    for row, length in enumerate(_LENGTHS):
        frames = _decoded(clips, row, length)
        likeness = [
            abs(frames[t] @ frames[t - 1]) / np.linalg.norm(frames[t]) / np.linalg.norm(frames[t - 1])
            for t in range(1, length)
        ]
        expected = sorted([0, *(np.argsort(likeness)[: count - 1] + 1)])
        assert kept[row] == len(expected) == min(length, count)
        _check_rows(clips, sampled, row, expected)


@pytest.mark.parametrize("jit", [False, True])
def test_farthest_frames(jit: bool, rng: np.random.Generator) -> None:
    clips, count = _clips(rng, len(_LENGTHS), _SIZE), 6
    for values in clips.values():
        values[7, 1:5] = values[7, 0]  # equal to the first frame: not taken while other frames remain
    run = tf.function(lambda *inputs: sample(*inputs, _METHODS["farthest_first"]), jit_compile=jit)
    sampled, kept = run(clips, _LENGTHS)
    assert sampled["rgb"].shape == (8, count, 9)
    for row, length in enumerate(_LENGTHS):
        frames, chosen = _decoded(clips, row, length), [0]
        while len(chosen) < min(length, count):
            nearest = [min(((frame - frames[c]) ** 2).sum() for c in chosen) for frame in frames]
            chosen.append(int(np.argmax(nearest)))
        assert kept[row] == len(chosen)
        _check_rows(clips, sampled, row, sorted(chosen))
        if row == 7:
            assert not {1, 2, 3, 4} & set(chosen)


def test_crops_are_consecutive_frames_of_every_length_and_position(rng: np.random.Generator, seed: tf.Tensor) -> None:
    config, batch = SamplingConfig("crop", min_frames=2, max_frames=3), 2000
    clips = _clips(rng, batch, 7)
    sampled, kept = _sample(clips, tf.fill([batch], 5), config, seed)
    numbers, starts = _numbers(sampled), _numbers(sampled)[:, 0]
    assert numbers.shape == (batch, 3)
    for row in range(batch):
        _check_rows(clips, sampled, row, list(range(starts[row], starts[row] + int(kept[row]))))
    _check_equally_likely(kept, [2, 3])
    _check_equally_likely(starts[kept == 2], [0, 1, 2, 3])
    _check_equally_likely(starts[kept == 3], [0, 1, 2])


def test_random_frames_are_in_order_and_include_every_frame(rng: np.random.Generator, seed: tf.Tensor) -> None:
    clips, batch, count = _clips(rng, 2000, 9), 2000, 4
    sampled, kept = _sample(clips, tf.fill([batch], 6), SamplingConfig("random_frames", count=count), seed)
    numbers = _numbers(sampled)
    assert (kept == count).all() and numbers.shape == (batch, count)
    for row in range(batch):
        _check_rows(clips, sampled, row, sorted(numbers[row]))
    _check_equally_likely(numbers.reshape(-1), [0, 1, 2, 3, 4, 5])
    # With replacement: of 6 ** 4 outcomes, 6 * 5 * 4 * 3 have no frame twice.
    different = np.mean([len(set(row)) == count for row in numbers.tolist()])
    assert different == pytest.approx(360 / 1296, abs=5 * np.sqrt(0.28 * 0.72 / batch))


def test_every_nth_frame(rng: np.random.Generator, seed: tf.Tensor) -> None:
    config, batch, size = SamplingConfig("every_nth", min_step=2, max_step=5), 2000, 11
    clips, lengths = _clips(rng, batch, size), rng.integers(6, size + 1, batch).astype(np.int32)
    sampled, kept = _sample(clips, lengths, config, seed)
    steps = _numbers(sampled)[:, 1]
    assert sampled["rgb"].shape == (batch, 6, 9)
    for row, length in enumerate(lengths):
        expected = list(range(0, length, steps[row]))
        assert kept[row] == len(expected)
        _check_rows(clips, sampled, row, expected)
    _check_equally_likely(steps, [2, 3, 4, 5])


def _cuts(sampled: dict[str, Any], row: int, kept: int, length: int) -> list[int]:
    """The first frame of each segment of a clip, found from a feature with one component per frame."""
    means = np.asarray(sampled["which"][row])
    members = [np.flatnonzero(means[i, :length] > means[i].min() + 1e-3).tolist() for i in range(kept)]
    assert [t for segment in members for t in segment] == list(range(length)), (
        "segments are in order, and contain every frame once"
    )
    return [segment[0] for segment in members]


@pytest.mark.parametrize("is_random", [False, True])
@pytest.mark.parametrize("jit", [False, True])
def test_segments_are_replaced_with_their_means(
    jit: bool, is_random: bool, rng: np.random.Generator, seed: tf.Tensor
) -> None:
    clips, config = _clips(rng, len(_LENGTHS), _SIZE), _METHODS["random_segments"]
    clips["which"] = np.tile(255 * np.eye(_SIZE, dtype=np.uint8), (8, 1, 1))
    run = tf.function(lambda *inputs: sample(*inputs, config, seed if is_random else None), jit_compile=jit)
    sampled, kept = run(clips, _LENGTHS)
    assert sampled["rgb"].shape == (8, 6, 9)
    for row, length in enumerate(_LENGTHS):
        assert kept[row] == min(length, 6)
        starts = _cuts(sampled, row, int(kept[row]), length)
        if not is_random:
            sizes = np.diff([*starts, length])
            assert sizes.max() - sizes.min() <= 1
        for name in ("rgb", "audio"):
            decoded = _decoded({name: clips[name]}, row, length)
            expected = [part.mean(axis=0) for part in np.split(decoded, starts[1:])]
            np.testing.assert_allclose(sampled[name][row, : len(starts)], expected, atol=1e-5)


def test_all_ways_of_cutting_are_equally_likely(rng: np.random.Generator, seed: tf.Tensor) -> None:
    batch = 2000
    which = np.tile(255 * np.eye(7, dtype=np.uint8), (batch, 1, 1))
    config = SamplingConfig("random_segments", count=3)
    sampled, kept = _sample({"which": which}, tf.fill([batch], 5), config, seed)
    cuts = [_cuts(sampled, row, int(kept[row]), 5)[1:] for row in range(batch)]
    _check_equally_likely(np.array(cuts), [[1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]])


def test_without_a_seed_nothing_is_random(rng: np.random.Generator) -> None:
    clips = _clips(rng, len(_LENGTHS), _SIZE)
    crop, crop_kept = sample(clips, _LENGTHS, SamplingConfig("crop", min_frames=2, max_frames=5))
    even, even_kept = sample(clips, _LENGTHS, SamplingConfig("random_frames", count=4))
    nth, nth_kept = sample(clips, _LENGTHS, SamplingConfig("every_nth", min_step=2, max_step=5))
    for row, length in enumerate(_LENGTHS):
        cropped = min(length, 5)
        start = (length - cropped) // 2
        assert (crop_kept[row], even_kept[row], nth_kept[row]) == (cropped, 4, len(range(0, length, 3)))
        _check_rows(clips, crop, row, list(range(start, start + cropped)))
        _check_rows(clips, even, row, [int(length * part) for part in (1 / 8, 3 / 8, 5 / 8, 7 / 8)])
        _check_rows(clips, nth, row, list(range(0, length, 3)))


@pytest.mark.parametrize("is_random", [False, True])
def test_neither_padding_nor_other_clips_matter(
    method: SamplingConfig, is_random: bool, rng: np.random.Generator, seed: tf.Tensor
) -> None:
    clips = _clips(rng, len(_LENGTHS), _SIZE)
    used = seed if is_random else None
    first, kept = sample(clips, _LENGTHS, method, used)
    others, lengths = _clips(rng, len(_LENGTHS), _SIZE + 5), rng.integers(1, _SIZE + 5, 8).astype(np.int32)
    for row in (0, 2, 5):  # the other clips change, and the padding of these rows is different and longer
        lengths[row] = _LENGTHS[row]
        for name, values in clips.items():
            others[name][row, : _LENGTHS[row]] = values[row, : _LENGTHS[row]]
    second, kept_again = sample(others, lengths, method, used)
    for row in (0, 2, 5):
        assert 1 <= kept[row] == kept_again[row]
        for name in clips:
            np.testing.assert_allclose(
                first[name][row, : kept[row]], second[name][row, : kept[row]], atol=1e-5, err_msg=name
            )


@pytest.mark.parametrize(
    ("size", "count"), [(303, 40), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 5), (303, 303)))]
)
def test_xla_equals_eager(
    method: SamplingConfig, size: int, count: int, rng: np.random.Generator, seed: tf.Tensor
) -> None:
    config = SamplingConfig(method.name, count=count)
    clips, lengths = _clips(rng, 4, size), np.array([1, size, size, (size + 1) // 2], np.int32)
    eager, kept = sample(clips, lengths, config, seed)
    compiled, kept_compiled = tf.function(sample, jit_compile=True)(clips, lengths, config, seed)
    np.testing.assert_array_equal(kept, kept_compiled)
    assert kept.dtype == tf.int32 and min(kept) >= 1 and max(kept) <= config.longest(size)
    for name in clips:
        assert eager[name].shape == compiled[name].shape and eager[name].shape[1] <= config.longest(size)
        for row in range(4):
            np.testing.assert_allclose(eager[name][row, : kept[row]], compiled[name][row, : kept[row]], atol=1e-5)


def test_shapes_are_known_where_the_input_shape_is(method: SamplingConfig, seed: tf.Tensor) -> None:
    fixed = tf.TensorSpec([5, 30, 8], tf.uint8), tf.TensorSpec([5, 30, 4], tf.uint8)
    counts = tf.TensorSpec([5], tf.int32)

    @tf.function
    def run(rgb: tf.Tensor, audio: tf.Tensor, num_frames: tf.Tensor) -> Any:
        return sample({"rgb": rgb, "audio": audio}, num_frames, method, seed)

    features, kept = run.get_concrete_function(*fixed, counts).structured_outputs
    shapes = [features["rgb"].shape, features["audio"].shape, kept.shape]
    assert shapes == [(5, method.longest(30), 8), (5, method.longest(30), 4), (5,)]


def test_shapes_known_only_at_run_time(method: SamplingConfig, rng: np.random.Generator, seed: tf.Tensor) -> None:
    open_specs = [tf.TensorSpec([None, None, size], tf.uint8) for size in (9, 4)]

    @tf.function(input_signature=[*open_specs, tf.TensorSpec([None], tf.int32)])
    def run(rgb: tf.Tensor, audio: tf.Tensor, num_frames: tf.Tensor) -> Any:
        return sample({"rgb": rgb, "audio": audio}, num_frames, method, seed)

    for size in (_SIZE, 3, 1):  # shorter than every count
        clips = {name: values for name, values in _clips(rng, 8, size).items() if name != "number"}
        lengths = np.minimum(_LENGTHS, size)
        known, kept = sample(clips, lengths, method, seed)
        found, kept_found = run(clips["rgb"], clips["audio"], lengths)
        np.testing.assert_array_equal(kept, kept_found)
        for name in clips:
            np.testing.assert_allclose(known[name], found[name], atol=1e-5)


def test_clips_without_frames_are_sampled_as_if_they_had_one(
    method: SamplingConfig, rng: np.random.Generator, seed: tf.Tensor
) -> None:
    clips = _clips(rng, 3, _SIZE)
    sampled, kept = sample(clips, np.array([0, 0, 5], np.int32), method, seed)
    expected, kept_expected = sample(clips, np.array([1, 1, 5], np.int32), method, seed)
    np.testing.assert_array_equal(kept, kept_expected)
    np.testing.assert_array_equal(sampled["rgb"], expected["rgb"])
