"""Shards without usable records, or replaced shards: commands fail without results, and keep no stale results."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tiny_models import FEATURES, empty_clip, tiny_data, tiny_model, tiny_records, write_shard

from yt8m_tf.codebook.kmeans import sample_frames
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import check_first_records
from yt8m_tf.data.record_check import Reader
from yt8m_tf.data.statistics import class_prior
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.saved_models import evaluate_scorer
from yt8m_tf.evaluation.segment_submissions import find_ratings
from yt8m_tf.evaluation.submissions import read_shard_labels
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.report.clip_records import find_records
from yt8m_tf.score_shards.manifest import read_manifest
from yt8m_tf.score_shards.reading import read_shard
from yt8m_tf.scoring.predictors import find_predictor
from yt8m_tf.scoring.score import score
from yt8m_tf.serving.inference import infer
from yt8m_tf.serving.scorer import load_scorer
from yt8m_tf.stacking.inputs import LeftOut, StackInputs


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel of each level, and a second frame-level one."""
    root, rng = tmp_path_factory.mktemp("models"), np.random.default_rng(7)
    for name, level in (("video", "video"), ("frame", "frame"), ("frame2", "frame")):
        data = tiny_data(level)
        export_saved_model(tiny_model(data, rng), data, root / name, precision=FLOAT32)
    return root


def _score(model: Path, shards: list[str], output: Path, faults: Faults | None = None) -> None:
    score([find_predictor(model)], shards, output, batch_size=4, faults=faults, xla=False, progress=False)


def _damage(path: str) -> bytes:
    """Flips a byte in the middle of a shard; returns it as it was."""
    content = Path(path).read_bytes()
    middle = len(content) // 2
    Path(path).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    return content


@pytest.mark.parametrize(
    "what",
    ["no TFRecord", "clips without frames", *(pytest.param(w, marks=pytest.mark.slow) for w in ("empty file", "gzip"))],
)
def test_nothing_scored_is_an_error(what: str, models: Path, rng: np.random.Generator, tmp_path: Path) -> None:
    shard = tmp_path / "x.tfrecord"
    if what == "clips without frames":
        write_shard(shard, [empty_clip(b"a"), empty_clip(b"b")])
    else:
        shard.write_bytes({"no TFRecord": b"\xff" * 99, "empty file": b"", "gzip": gzip.compress(b"x" * 99)}[what])
    message = {
        "no TFRecord": "not a TFRecord file",
        "empty file": "is empty",
        "clips without frames": "2 clips without frames",
        "gzip": "compressed with gzip: unpack it",
    }[what]
    with pytest.raises(InputError, match=f"no video was scored: .*{message}"):
        infer(str(models / "frame"), [str(shard)], tmp_path / "a" / "b" / "out.csv", faults=_skipping(), progress=False)
    with pytest.raises(InputError, match=f"no video was scored: .*{message}"):
        _score(models / "frame", [str(shard)], tmp_path / "c" / "d" / "scores", _skipping())
    assert os.listdir(tmp_path) == ["x.tfrecord"]  # directories made for the output are removed too
    # Once the shard is corrected, the same command succeeds.
    write_shard(shard, tiny_records(tiny_data("frame"), rng, 3))
    assert infer(str(models / "frame"), [str(shard)], tmp_path / "out.csv", progress=False).num_rows == 3
    _score(models / "frame", [str(shard)], tmp_path / "scores")
    assert read_manifest(tmp_path / "scores", "x").shards == {"x.tfrecord": 3}


def _evaluate(model: Path, shard: str, faults: Faults) -> None:
    evaluate_scorer(load_scorer(str(model), 1), [shard], faults=faults, progress=False)


def _sample(model: Path, shard: str, faults: Faults) -> None:
    data = tiny_data("frame").records
    sample_frames([shard], data, 9, frames_per_clip=3, seed=0, faults=faults, progress=False)


_READERS: Mapping[str, tuple[Callable[[Path, str, Faults], Any], str]] = {
    "evaluate": (_evaluate, "nothing was evaluated"),
    "kmeans": (_sample, "no frame was read"),
    "score-submission": (lambda _, shard, __: read_shard_labels(shard), "--labels: no video was read"),
    "score-submission of segments": (lambda _, shard, __: find_ratings([shard], 9), "--labels: no video was read"),
    "timeline": (lambda _, shard, __: find_records([shard], None, 1, "--input"), "--input: no video was read"),
    "the start of training": (
        lambda _, shard, own: check_first_records([shard], tiny_data("frame"), own),
        "no record was read",
    ),
    "training": (lambda _, shard, own: class_prior([shard], tiny_data("frame"), 9, own), "no training record was read"),
}


@pytest.mark.parametrize(("read", "begin"), _READERS.values(), ids=list(_READERS))
def test_nothing_read_is_an_error_that_names_a_shard(read: Any, begin: str, models: Path, tmp_path: Path) -> None:
    shard = tmp_path / "x.tfrecord"
    shard.write_bytes(b"")
    with pytest.raises(InputError, match=f"^{begin}: for example, '{shard}' is empty; "):
        read(models / "frame", str(shard), _skipping())
    shard.write_bytes(b"\xff" * 99)
    with pytest.raises(InputError, match=f"{shard}: not a TFRecord file"):
        read(models / "frame", str(shard), _skipping())


def test_evaluation_of_a_model_names_no_key_of_a_configuration(models: Path, tmp_path: Path) -> None:
    """The command has no configuration: the model decides under which keys ids are read."""
    record = tf.train.SequenceExample()
    record.context.feature["vid"].bytes_list.value.append(b"a")
    record.feature_lists.feature_list["rgb"].feature.add().bytes_list.value.append(b"x")
    shard = str(write_shard(tmp_path / "x.tfrecord", [record.SerializeToString()]))
    with pytest.raises(
        InputError, match=r"record 0: neither 'id' nor 'video_id' .*the model in .*frame reads ids"
    ) as error:
        _evaluate(models / "frame", shard, Faults(reader=Reader(has_flags=True)))
    assert "data." not in str(error.value)


def test_clips_without_frames_are_the_reason_that_nothing_was_evaluated(models: Path, tmp_path: Path) -> None:
    shard = str(write_shard(tmp_path / "x.tfrecord", [empty_clip(b"a"), empty_clip(b"b")]))
    for read in (_evaluate, _sample):
        with pytest.raises(InputError, match="2 clips without frames; give other shards"):
            read(models / "frame", shard, _skipping())


def _skipping() -> Faults:
    return Faults(on_damaged="skip", on_empty="skip")


@pytest.mark.parametrize(("model", "other"), [("frame", "video"), ("video", "frame")])
def test_shards_of_the_other_level_are_not_empty_clips(
    model: str, other: str, models: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    shard = write_shard(tmp_path / "x.tfrecord", tiny_records(tiny_data(other), rng, 3))
    message = rf"record 0, video 'v0': a {other}-level record; the model in .*{model} reads {model}-level shards"
    with pytest.raises(InputError, match=message):
        _score(models / model, [shard], tmp_path / "a" / "scores", _skipping())
    with pytest.raises(InputError, match=message):
        infer(str(models / model), [shard], tmp_path / "a" / "out.csv", faults=_skipping(), progress=False)
    assert os.listdir(tmp_path) == ["x.tfrecord"]


@pytest.mark.slow
def test_advice_is_for_the_reader_of_the_message(models: Path, rng: np.random.Generator, tmp_path: Path) -> None:
    """No message names a configuration key, as a model decides here, nor a flag that the command lacks."""
    data = tiny_data("frame", features={**FEATURES, "rgb": 24})
    shard = write_shard(tmp_path / "x.tfrecord", tiny_records(data, rng, 1))
    for reader in (Reader(), Reader(has_flags=True)):
        with pytest.raises(InputError) as error:
            _score(models / "frame", [shard], tmp_path / "scores", Faults(reader=reader))
        assert "has 24 bytes, the model in" in str(error.value) and "data." not in str(error.value)
        empty = write_shard(tmp_path / "empty.tfrecord", [empty_clip(b"a")])
        with pytest.raises(InputError) as error:
            _score(models / "frame", [empty], tmp_path / "scores", Faults(reader=reader))
        assert ("--on_empty=skip" in str(error.value)) == reader.has_flags
        _damage(shard)
        with pytest.raises(InputError) as error:
            _score(models / "frame", [shard], tmp_path / "scores", Faults(reader=reader))
        assert ("--on_damaged=skip" in str(error.value)) == reader.has_flags
        shard = write_shard(tmp_path / "x.tfrecord", tiny_records(data, rng, 1))


def test_a_shard_that_was_restored_is_scored_again(models: Path, rng: np.random.Generator, tmp_path: Path) -> None:
    """The restored shard has the same size: the recorded damage shows that it changed."""
    records = tiny_records(tiny_data("video"), rng, 9)
    shards = [write_shard(tmp_path / "x.tfrecord", records[:6]), write_shard(tmp_path / "y.tfrecord", records[6:])]
    sound = _damage(shards[0])
    _score(models / "video", shards, tmp_path / "scores", _skipping())
    count = read_manifest(tmp_path / "scores", "x").shards["x.tfrecord"]
    assert count < 6
    with pytest.raises(InputError, match=r"x\.tfrecord: damaged"):  # the skipped damage is remembered
        _score(models / "video", shards, tmp_path / "scores")
    again = _skipping()
    _score(models / "video", shards, tmp_path / "scores", again)
    assert [damage.record for damage in again.damaged.values()] == [count]
    before = (tmp_path / "scores" / "y.tfrecord").stat().st_mtime_ns
    Path(shards[0]).write_bytes(sound)
    _score(models / "video", shards, tmp_path / "scores")
    assert read_manifest(tmp_path / "scores", "x").shards == {"x.tfrecord": 6, "y.tfrecord": 3}
    assert (tmp_path / "scores" / "y.tfrecord").stat().st_mtime_ns == before


def test_rows_of_a_shard_that_was_restored_are_made_again(
    models: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    records = tiny_records(tiny_data("video"), rng, 60)
    shards = [write_shard(tmp_path / "x.tfrecord", records[:6]), write_shard(tmp_path / "y.tfrecord", records[6:])]
    sound, last = _damage(shards[0]), _damage(shards[1])
    with pytest.raises(InputError, match=r"y\.tfrecord: damaged"):  # x is finished by then
        faults = _OnlyFirst(on_damaged="skip")
        infer(str(models / "video"), shards, tmp_path / "out.csv", batch_size=2, faults=faults, progress=False)
    assert (tmp_path / "out.csv.parts" / "00000.json").exists()
    for path, content in zip(shards, (sound, last), strict=True):
        Path(path).write_bytes(content)
    summary = infer(str(models / "video"), shards, tmp_path / "out.csv", batch_size=2, progress=False)
    assert summary.num_rows == 60 and not summary.faults.damaged


class _OnlyFirst(Faults):
    """Skips the first damage, and stops at the second."""

    def skip_damage(self, damage: object) -> None:
        super().skip_damage(damage)  # type: ignore[arg-type]
        self.on_damaged = "error"


@pytest.mark.end_to_end
def test_videos_that_one_model_skipped_are_left_out_of_all(
    models: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    records = tiny_records(tiny_data("frame"), rng, 4)
    shard = write_shard(tmp_path / "x.tfrecord", [records[0], empty_clip(b"none"), *records[1:]])
    for model in ("frame", "frame2"):
        _score(models / model, [shard], tmp_path / model, _skipping())
    assert read_manifest(tmp_path / "frame", "x").inputs["x.tfrecord"].skipped == ("none",)
    inputs = StackInputs([tmp_path / "frame", tmp_path / "frame2"], ["a", "b"], [shard], on_unlabelled="negative")
    read = inputs.read(shard)
    assert read.ids.tolist() == [b"v0", b"v1", b"v2", b"v3"]
    assert inputs.check_labels(needed=False).skipped == 1 and inputs.num_videos(shard) == 4
    _damage(shard)
    for model in ("frame", "frame2"):
        _score(models / model, [shard], tmp_path / "damaged" / model, _skipping())
    directories = [tmp_path / "damaged" / model for model in ("frame", "frame2")]
    count = len(read_shard(directories[0], "x.tfrecord", read_manifest(directories[0], "x")).ids)
    inputs = StackInputs(directories, ["a", "b"], [shard])
    assert inputs.read(shard).ids.tolist() == [b"v0", b"v1", b"v2", b"v3"][:count] and count < 4
    assert inputs.check_labels(needed=False) == LeftOut(count, 0, 1, ("x.tfrecord",))


def test_an_input_is_never_written_over(models: Path, rng: np.random.Generator, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "x.tfrecord", tiny_records(tiny_data("video"), rng, 2))
    before = Path(shard).read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    for output in (Path(shard), tmp_path / "link" / "x.tfrecord"):
        with pytest.raises(InputError, match=re.escape(f"--output={output}: would write over")):
            infer(str(models / "video"), [shard], output, progress=False)
    with pytest.raises(InputError, match=re.escape(f"--output={tmp_path / 'link'}: would write over '")):
        _score(models / "video", [shard], tmp_path / "link")
    assert Path(shard).read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["link", "x.tfrecord"]


def test_parts_of_a_run_that_finished_nothing_are_replaced(
    models: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    wrong = write_shard(tmp_path / "frame.tfrecord", tiny_records(tiny_data("frame"), rng, 2))
    right = write_shard(tmp_path / "video.tfrecord", tiny_records(tiny_data("video"), rng, 2))
    with pytest.raises(InputError, match="frame-level record"):
        infer(str(models / "video"), [wrong], tmp_path / "out.csv", progress=False)
    assert infer(str(models / "video"), [right], tmp_path / "out.csv", progress=False).num_rows == 2
