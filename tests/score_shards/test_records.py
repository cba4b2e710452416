"""Score records: plain protobuf reads what was written, and reading inverts writing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.data import integrity
from yt8m_tf.errors import InputError
from yt8m_tf.locks import Claims
from yt8m_tf.score_shards import records
from yt8m_tf.score_shards.manifest import Manifest, finish, read_manifest, start
from yt8m_tf.score_shards.reading import join, read_shard

Row = tuple[bytes, np.ndarray, np.ndarray]


def _rows(rng: np.random.Generator, count: int, classes: int = 40, most: int = 7) -> list[Row]:
    """Rows of different lengths, in the order of the format."""
    rows = []
    for number in range(count):
        length = int(rng.integers(1, most + 1))
        chosen = rng.choice(classes, length, replace=False)
        scores = rng.choice(rng.random(5), length).astype(np.float16)  # including equal ones
        order = np.lexsort([chosen, -scores.astype(np.float64)])
        rows.append((f"v{number}".encode(), chosen[order], scores[order]))
    return rows


def _manifest(**changes: object) -> Manifest:
    values = {"model": ("m",), "fingerprint": "f", "num_classes": 40, "top_k": 7, "level": "video", **changes}
    return Manifest(**values)  # type: ignore[arg-type]


def _write(directory: Path, rng: np.random.Generator, count: int = 9) -> list[Row]:
    rows = _rows(rng, count)
    start(directory, _manifest())
    finish(directory, _manifest(shards={"a": records.write_shard(directory / "a", rows)}))
    return rows


def test_highest_ranks_the_rounded_scores(rng: np.random.Generator) -> None:
    """The reference sorts the rounded scores; some of them are equal only after rounding."""
    scores = rng.random((6, 30)).astype(np.float32)
    scores[:, 10:20] = scores[:, :10] + np.float32(1e-5)
    scores[0, :3] = 0.0, 1.0, 1.0
    keys = records.ranking_keys(tf.constant(scores)).numpy()
    classes, found = records.highest(keys, 12)
    for row, rounded in enumerate(scores.astype(np.float16)):
        expected = sorted(range(30), key=lambda c: (-float(rounded[c]), c))[:12]
        assert classes[row].tolist() == expected
        assert found[row].tolist() == rounded[expected].tolist()
    assert records.highest(keys, 100)[0].shape == (6, 30)
    few = tf.math.top_k(keys, 12, sorted=False).values.numpy()  # as on a GPU
    for value, same in zip(records.highest(few, 12), (classes, found), strict=True):
        np.testing.assert_array_equal(value, same)


def test_a_record_has_the_documented_format(rng: np.random.Generator) -> None:
    (row,) = _rows(rng, 1)
    features = tf.train.Example.FromString(records.encode(*row)).features.feature
    assert set(features) == {"id", "class_ids", "scores"}
    assert features["id"].bytes_list.value[0] == row[0]
    assert np.frombuffer(features["class_ids"].bytes_list.value[0], "<u2").tolist() == row[1].tolist()
    assert np.frombuffer(features["scores"].bytes_list.value[0], "<f2").tolist() == row[2].tolist()


def test_round_trip(rng: np.random.Generator, tmp_path: Path) -> None:
    rows = _write(tmp_path, rng)
    found = read_shard(tmp_path, "a", read_manifest(tmp_path, "--x"))
    assert found.ids.tolist() == [row[0] for row in rows]
    assert found.classes.shape == (len(rows), 7) and found.scores.dtype == np.float16
    for number, (_, classes, scores) in enumerate(rows):
        assert found.classes[number].tolist() == classes.tolist() + [-1] * (7 - len(classes))
        assert found.scores[number, : len(scores)].tolist() == scores.tolist()


def test_an_empty_shard(tmp_path: Path, rng: np.random.Generator) -> None:
    _write(tmp_path, rng, count=0)
    assert len(read_shard(tmp_path, "a", read_manifest(tmp_path, "--x")).ids) == 0


def test_join_by_id(rng: np.random.Generator, tmp_path: Path) -> None:
    _write(tmp_path, rng)
    found = read_shard(tmp_path, "a", read_manifest(tmp_path, "--x"))
    assert join(found.ids, found).tolist() == list(range(9))
    order = rng.permutation(9)
    assert join(found.ids[order], found).tolist() == order.tolist()
    assert join(np.array([b"v3", b"none", b"v0"], object), found).tolist() == [3, -1, 0]
    assert found.at(order[:2]).ids.tolist() == found.ids[order[:2]].tolist()


def test_a_truncated_shard(rng: np.random.Generator, tmp_path: Path) -> None:
    _write(tmp_path, rng)
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content[:-5])
    with pytest.raises(InputError, match=r"a: damaged at byte \d+, record 8 .*make the scores of this shard again"):
        read_shard(tmp_path, "a", read_manifest(tmp_path, "--x"))
    end = _record_ends(tmp_path / "a", content)[-2]
    (tmp_path / "a").write_bytes(content[:end])  # between two records: only the count shows it
    with pytest.raises(InputError, match="contains 8 videos, not the 9 of its manifest"):
        read_shard(tmp_path, "a", read_manifest(tmp_path, "--x"))


def _record_ends(path: Path, content: bytes) -> list[int]:
    path.write_bytes(content)
    sizes = [len(record) + 16 for record in integrity.good_records(str(path))]
    return np.cumsum(sizes).tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 7}, r"has a class id \d+, but there are 7 classes"),
        ({"top_k": 2}, "not a score shard of up to 2 classes a video"),
    ],
)
def test_score_shards_that_contradict_the_manifest(
    changes: dict[str, int], message: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    _write(tmp_path, rng)
    with pytest.raises(InputError, match=message):
        read_shard(tmp_path, "a", _manifest(shards={"a": 9}, **changes))


def test_records_of_another_kind(tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "a")) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with pytest.raises(InputError, match="not a score shard"):
        read_shard(tmp_path, "a", _manifest(shards={"a": 1}))


@pytest.mark.parametrize("score", [np.nan, 1.5, -0.25])
def test_scores_that_are_not_probabilities(score: float, tmp_path: Path) -> None:
    records.write_shard(tmp_path / "a", [(b"bad", np.array([1]), np.array([score]))])
    with pytest.raises(InputError, match="a score of video 'bad' is not a probability"):
        read_shard(tmp_path, "a", _manifest(shards={"a": 1}))


def test_a_shard_without_scores(rng: np.random.Generator, tmp_path: Path) -> None:
    _write(tmp_path, rng)
    with pytest.raises(InputError, match="no scores of shard 'b'"):
        read_shard(tmp_path, "b", read_manifest(tmp_path, "--x"))


def test_manifests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--scores=.*: no scores there"):
        read_manifest(tmp_path / "s", "--scores")
    start(tmp_path / "s", _manifest())
    with pytest.raises(InputError, match="the scores are not finished; repeat the command"):
        read_manifest(tmp_path / "s", "--scores")
    start(tmp_path / "s", _manifest(model=("moved",)))  # another process, or a second attempt
    start(tmp_path / "s", _manifest(fingerprint="other"))  # nothing was scored yet
    with Claims(tmp_path / "s") as claims:
        claims.take("a")
        with pytest.raises(InputError, match="contains scores of another model"):
            start(tmp_path / "s", _manifest())  # another process is working on it
    start(tmp_path / "s", _manifest())
    (tmp_path / "s" / "a").touch()
    with pytest.raises(InputError, match="contains scores of another model"):
        start(tmp_path / "s", _manifest(fingerprint="other"))
    finish(tmp_path / "s", _manifest(shards={"b": 2}))
    finish(tmp_path / "s", _manifest(shards={"a": 1}))
    assert dict(read_manifest(tmp_path / "s", "").shards) == {"a": 1, "b": 2}
    with pytest.raises(InputError, match="contains scores of another model"):
        start(tmp_path / "s", _manifest(top_k=5))
    (tmp_path / "s" / "scores.json").write_text("{")
    with pytest.raises(InputError, match=r"scores\.json: cannot be read"):
        read_manifest(tmp_path / "s", "")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory|File exists"):
        start(tmp_path / "file", _manifest())
