import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_models import empty_clip, float_scores, tiny_data, tiny_model, tiny_records, write_shard

from yt8m_tf.data.batches import read_batches
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.integrity import Damage
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.serving import inference
from yt8m_tf.serving.inference import infer
from yt8m_tf.serving.metadata import read_context, read_data
from yt8m_tf.serving.parts import Parts
from yt8m_tf.serving.scorer import load_scorer
from yt8m_tf.serving.submission import format_rows

# Records of each shard: more than a batch of 8, less than one, none.
COUNTS = (5, 19, 0, 3, 8, 1)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of each level, and its SavedModel."""
    found, rng = {}, np.random.default_rng(3)
    for level in ("video", "frame"):
        data, directory = tiny_data(level), tmp_path_factory.mktemp("models") / level
        model = tiny_model(data, rng)
        export_saved_model(model, data, directory, precision=FLOAT32)
        found[level] = model, directory
    return found


@pytest.fixture
def exported(rng, tmp_path, request, models):
    """A model of a level (video unless parametrised), its SavedModel, shards of `COUNTS`, and all their records."""
    level = getattr(request, "param", "video")
    data = tiny_data(level)
    model, directory = models[level]
    shutil.copytree(directory, tmp_path / "model")
    records = [tiny_records(data, rng, count, prefix=f"s{i}_") for i, count in enumerate(COUNTS)]
    shards = [write_shard(tmp_path / f"test{i}.tfrecord", shard) for i, shard in enumerate(records)]
    return model, data, str(tmp_path / "model"), shards, records


def read_csv(path):
    """{id: {class: score}}, in file order."""
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["VideoId", "LabelConfidencePairs"]
    numbers = {video_id: pairs.split(" ") for video_id, pairs in rows}
    assert len(numbers) == len(rows)
    return {name: dict(zip(map(int, n[::2]), map(float, n[1::2]), strict=True)) for name, n in numbers.items()}


def run(exported, output, faults=None, shards=None, **options):
    return infer(
        exported[2], shards or exported[3], output, faults=faults, progress=False, **{"batch_size": 8} | options
    )


@pytest.mark.parametrize("exported", ["video", "frame"], indirect=True)
def test_rows_contain_the_models_highest_scores(exported, tmp_path):
    model, data, _, _, records = exported
    summary = run(exported, tmp_path / "out.csv")

    serialized = [record for shard in records for record in shard]
    ids = [f"s{i}_{j}" for i, count in enumerate(COUNTS) for j in range(count)]
    rows = read_csv(tmp_path / "out.csv")
    assert list(rows) == ids
    assert (summary.num_rows, summary.num_scored) == (len(ids), len(ids))
    for name, expected in zip(ids, float_scores(model, data, serialized), strict=True):
        assert len(rows[name]) == 20
        assert list(rows[name].values()) == sorted(rows[name].values(), reverse=True)
        for (index, score), best in zip(rows[name].items(), -np.sort(-expected), strict=False):
            assert score == pytest.approx(expected[index], abs=1e-6)
            assert score == pytest.approx(best, abs=1e-6)
    assert not (tmp_path / "out.csv.parts").exists()


def test_a_model_of_other_features_than_the_packaged_records(models, tmp_path):
    with pytest.raises(InputError, match=r"validate0139\.tfrecord: .*'mean_rgb' .*1024.* reads 48; give shards of"):
        infer(str(models["video"][1]), list_shards(["examples"]), tmp_path / "out.csv", progress=False)


def test_top_k(exported, tmp_path):
    run(exported, tmp_path / "20.csv")
    run(exported, tmp_path / "3.csv", top_k=3)
    full, short = read_csv(tmp_path / "20.csv"), read_csv(tmp_path / "3.csv")
    assert {name: list(pairs.items())[:3] for name, pairs in full.items()} == {
        n: list(p.items()) for n, p in short.items()
    }
    with pytest.raises(InputError, match=r"--top_k=21: the model gives the 20 highest"):
        run(exported, tmp_path / "21.csv", top_k=21)


@pytest.mark.parametrize("batches_before", [1, 2, 4])
def test_resumed_run_ends_with_the_same_bytes_and_scores_only_missing_videos(
    exported, tmp_path, monkeypatch, batches_before
):
    run(exported, tmp_path / "whole.csv")
    scored = []
    real = inference.Selection.rows

    def interrupted(selection, ids, classes, scores):
        if len(scored) >= batches_before:
            raise KeyboardInterrupt
        scored.append(len(ids))
        return real(selection, ids, classes, scores)

    monkeypatch.setattr(inference.Selection, "rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(exported, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.csv.parts").glob("*.csv")}
    done = sum(COUNTS[: len(finished)])

    written = []
    monkeypatch.setattr(inference.Selection, "rows", lambda *rows: written.append(list(rows[1])) or real(*rows))
    monkeypatch.setattr(Parts, "assemble", lambda parts: None)
    summary = run(exported, tmp_path / "out.csv")
    assert summary.num_scored == sum(COUNTS) - done
    assert sum(map(len, written)) == sum(COUNTS) - done
    assert {n: (tmp_path / "out.csv.parts" / n).stat().st_mtime_ns for n in finished} == finished

    monkeypatch.undo()
    run(exported, tmp_path / "out.csv")  # every part is finished: this run only assembles them
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_batches_do_not_depend_on_where_a_run_starts(exported):
    shards = exported[3]
    whole = list(read_batches([shards], 8, Faults()))
    assert [len(owners) for owners, _ in whole] == [8, 8, 8, 8, 4]
    later = list(read_batches([shards], 8, Faults(), first=1, used=11))
    for (owners, records), (same_owners, same_records) in zip(whole[2:], later, strict=True):
        np.testing.assert_array_equal(owners, same_owners)
        assert records.numpy().tolist() == same_records.numpy().tolist()


def test_batches_span_groups(exported):
    """The records are those of the shards, in order."""
    shards = exported[3]
    whole = list(read_batches([shards], 8, Faults()))
    for groups in ([[shard] for shard in shards], [shards[:2], shards[2:]]):
        for (owners, records), (same_owners, same_records) in zip(
            read_batches(groups, 8, Faults()), whole, strict=True
        ):
            np.testing.assert_array_equal(owners, same_owners)
            assert records.numpy().tolist() == same_records.numpy().tolist()
    expected = [record for shard in shards for record in tf.data.TFRecordDataset(shard).as_numpy_iterator()]
    assert [record for _, records in whole for record in records.numpy()] == expected


def test_parts_of_another_run_are_refused(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(Parts, "assemble", lambda parts: None)
    run(exported, tmp_path / "out.csv")
    with pytest.raises(InputError, match=r"out\.csv\.parts contains parts of a run that differs in input and top_k;"):
        run(exported, tmp_path / "out.csv", top_k=3, shards=exported[3][:2])
    vocabulary = tmp_path / "model" / "assets" / "more.txt"
    vocabulary.write_text("another model")
    with pytest.raises(InputError, match="that differs in model;"):
        run(exported, tmp_path / "out.csv")


def damage(path, record, records):
    """Flips a bit in the data of a record; returns the byte at which the record starts."""
    offset = sum(len(r) + 16 for r in records[:record])
    content = bytearray(Path(path).read_bytes())
    content[offset + 12 + 5] ^= 1
    Path(path).write_bytes(content)
    return offset


def test_damaged_shard_is_named(exported, tmp_path):
    _, _, _, shards, records = exported
    offset = damage(shards[1], 7, records[1])
    with pytest.raises(
        InputError, match=rf"test1\.tfrecord: damaged at byte {offset}, record 7 .*fetch the shard again"
    ):
        run(exported, tmp_path / "out.csv")


def test_a_run_continues_after_damage_is_repaired_or_skipped(exported, tmp_path):
    shards = exported[3]
    run(exported, tmp_path / "whole.csv")
    sound = Path(shards[4]).read_bytes()
    Path(shards[4]).write_bytes(sound[:-9])
    with pytest.raises(InputError, match="record 7"):
        run(exported, tmp_path / "out.csv")
    Path(shards[4]).write_bytes(sound)
    summary = run(exported, tmp_path / "out.csv")
    assert 0 < summary.num_scored < sum(COUNTS)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_skipping_keeps_the_good_records_and_reports_the_damage(exported, tmp_path, monkeypatch):
    _, _, _, shards, records = exported
    run(exported, tmp_path / "sound.csv")
    damage(shards[1], 7, records[1])
    damage(shards[4], 0, records[4])
    monkeypatch.setattr(Parts, "assemble", lambda parts: None)
    first = run(exported, tmp_path / "out.csv", Faults("skip"))
    monkeypatch.undo()
    resumed = run(exported, tmp_path / "out.csv", Faults("skip"))

    for summary in (first, resumed):
        assert [(d.path, d.record) for d in summary.faults.damaged.values()] == [(shards[1], 7), (shards[4], 0)]
        assert len(summary.faults.summary()) == 2
        assert summary.num_rows == 5 + 7 + 3 + 1
    sound, kept = read_csv(tmp_path / "sound.csv"), read_csv(tmp_path / "out.csv")
    assert list(kept) == [n for n in sound if not n.startswith("s4_") and (n[:3] != "s1_" or int(n[3:]) < 7)]
    for name, pairs in kept.items():
        assert pairs == pytest.approx(sound[name], abs=1e-6)


@pytest.mark.parametrize("exported", ["frame"], indirect=True)
def test_clips_without_frames(exported, rng, tmp_path):
    data = exported[1]
    records = tiny_records(data, rng, 3)
    shard = write_shard(tmp_path / "empty.tfrecord", [records[0], empty_clip(b"none"), *records[1:]])
    with pytest.raises(InputError, match=r"empty\.tfrecord: record 1, video 'none': no frames at all"):
        run(exported, tmp_path / "out.csv", shards=[shard])

    summary = run(exported, tmp_path / "out.csv", Faults(on_empty="skip"), shards=[shard])
    assert summary.faults.num_empty == 1
    assert list(read_csv(tmp_path / "out.csv")) == ["v0", "v1", "v2"]


@pytest.mark.parametrize("on_empty", ["error", pytest.param("skip", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("exported", "other"), [("frame", "video"), ("video", "frame")], indirect=["exported"])
def test_record_of_the_other_level_is_named(exported, other, on_empty, rng, tmp_path):
    shard = write_shard(tmp_path / "other.tfrecord", tiny_records(tiny_data(other), rng, 2))
    with pytest.raises(InputError, match=rf"other\.tfrecord: record 0, video 'v0': a {other}-level record") as error:
        run(exported, tmp_path / "out.csv", Faults(on_empty=on_empty), shards=[exported[3][0], shard])
    assert "\n" not in str(error.value)


def test_without_metadata_the_shard_is_named(exported, rng, tmp_path):
    (tmp_path / "model" / "assets" / "metadata.json").unlink()
    shard = write_shard(tmp_path / "other.tfrecord", tiny_records(tiny_data("frame"), rng, 2))
    with pytest.raises(InputError, match=r"other\.tfrecord: a record that the model in .* cannot read") as error:
        run(exported, tmp_path / "out.csv", shards=[shard])
    assert "\n" not in str(error.value)


def test_nan_scores_name_the_video(exported, tmp_path, rng):
    model, data = exported[:2]
    model.get_layer("norm").moving_variance.assign(-np.ones(64))  # the square root does not exist
    export_saved_model(model, data, tmp_path / "broken", precision=FLOAT32)
    with pytest.raises(
        InputError, match=r"test0\.tfrecord: the model in .*broken gives video 's0_0' a score that is NaN"
    ):
        infer(str(tmp_path / "broken"), exported[3], tmp_path / "out.csv", progress=False)


def save_module(path, function, **specs):
    module = tf.Module()
    module.function = tf.function(function)
    signatures = {"serving_default": module.function.get_concrete_function(**specs)} if specs else {}
    tf.saved_model.save(module, str(path), signatures=signatures)
    return str(path)


def test_any_saved_model_with_such_a_signature_is_accepted(exported, tmp_path):
    def foreign(serialized):
        count = tf.shape(serialized)[0]
        scores = tf.tile([[0.75, 0.5, 0.25]], [count, 1])
        return {
            "video_id": tf.strings.as_string(tf.strings.length(serialized)),
            "class_indexes": tf.tile([[4, 2, 9]], [count, 1]),
            "predictions": scores,
        }

    path = save_module(tmp_path / "foreign", foreign, serialized=tf.TensorSpec([None], tf.string, name="serialized"))
    infer(path, exported[3][:1], tmp_path / "out.csv", progress=False)
    first = (tmp_path / "out.csv").read_text().splitlines()[1]
    assert first == f"{len(exported[4][0][0])},4 0.7500000 2 0.5000000 9 0.2500000"


def test_unusable_models_are_refused(tmp_path):
    strings = tf.TensorSpec([None], tf.string, name="examples")
    floats = tf.TensorSpec([None, 3], tf.float32, name="rgb")
    with pytest.raises(InputError, match=r"--saved_model=.*nowhere: no saved_model\.pb"):
        load_scorer(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no signature 'serving_default'"):
        load_scorer(save_module(tmp_path / "a", lambda examples: examples))
    with pytest.raises(InputError, match=r"takes rgb: float32 \(None, 3\), not one string tensor"):
        load_scorer(save_module(tmp_path / "b", lambda rgb: {"predictions": rgb}, rgb=floats))
    with pytest.raises(InputError, match=r"does not give video_id \(it gives: x\)"):
        load_scorer(save_module(tmp_path / "c", lambda examples: {"x": examples}, examples=strings))
    (tmp_path / "c" / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"cannot be loaded") as error:
        load_scorer(str(tmp_path / "c"))
    assert "\n" not in str(error.value)


def test_unusable_outputs_are_refused_before_the_work(exported, tmp_path):
    with pytest.raises(InputError, match=r"--output=.*is a directory"):
        run(exported, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--output=.*file/out\.csv: cannot be written"):
        run(exported, tmp_path / "file" / "out.csv")


def test_rows_equal_plain_formatting(rng):
    ids = [b"a", b"abcdefghijk", b"x,y", b'say "hi"', *(b"%04d" % i for i in range(60))]
    classes = rng.integers(0, 3862, (64, 20))
    scores = rng.random((64, 20)).astype(np.float32)
    scores[0, :5] = [1.0, 0.0, 4e-8, 6e-8, 0.99999997]
    names = ["a", "abcdefghijk", '"x,y"', '"say ""hi"""', *(f"{i:04d}" for i in range(60))]
    expected = "".join(
        f"{name},{' '.join(f'{c} {s:.7f}' for c, s in zip(*row, strict=True))}\n"
        for name, *row in zip(names, classes.tolist(), scores.tolist(), strict=True)
    )
    assert format_rows(ids, classes, scores).decode() == expected
    assert format_rows([], classes[:0], scores[:0]) == b""


def test_a_finished_part_lists_the_records_read(tmp_path):
    parts = Parts(tmp_path / "out.csv", {"model": "m"}, [50, 70])
    parts.add(b"a,1 0.5\n", 2, 1)
    parts.finish_shard(Damage("p", 2, 9, "r"))
    parts.add(b"half of the next shard", 1, 1)  # and then the process is killed

    assert Parts(tmp_path / "out.csv", {"model": "m"}, [51, 70]).finished == []  # the shard is a different one now
    again = Parts(tmp_path / "out.csv", {"model": "m"}, [50, 70])
    assert [(part.num_records, part.num_rows, part.damage.record) for part in again.finished] == [(2, 1, 2)]
    again.add(b"b,2 0.5\n", 1, 1)
    again.finish_shard()
    again.assemble()
    assert (tmp_path / "out.csv").read_text() == "VideoId,LabelConfidencePairs\na,1 0.5\nb,2 0.5\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_metadata_of_the_run_is_plain_json(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(Parts, "assemble", lambda parts: None)
    run(exported, tmp_path / "out.csv")
    content = json.loads((tmp_path / "out.csv.parts" / "run.json").read_text())
    assert content["input"] == exported[3]


@pytest.mark.parametrize("name", ["run.json", "00000.json"])
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '{"rows": 1}', "[" * 100_000, '{"num_bytes": "50"}', "\ufeff{}"]
)
def test_damaged_parts_are_named(name, content, tmp_path):
    parts = Parts(tmp_path / "out.csv", {"model": "m"}, [50])
    parts.add(b"a,1 0.5\n", 1, 1)
    parts.finish_shard()
    (parts.directory / name).write_text(content)
    with pytest.raises(InputError, match=r"out\.csv\.parts.* (remove .* to start over|delete it to start over)"):
        Parts(tmp_path / "out.csv", {"model": "m"}, [50])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": {"rgb": "x"}}, r"assets/metadata\.json: configuration key 'data\.features\.rgb'"),
        ({"new_key": 1}, r"assets/metadata\.json: unknown key 'data\.new_key'"),
    ],
)
def test_metadata_that_describes_no_data_is_named(change, message, tmp_path):
    (tmp_path / "assets").mkdir()
    content = {"data": {"level": "video"} | change, "versions": {"yt8m_tf": "0"}}
    (tmp_path / "assets" / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_data(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b"{", b"", b"\xff\xfe", b'{"versions": {"yt8m_tf": "0"}}'],
    ids=["deep", "cut", "empty", "bytes", "without data"],
)
def test_damaged_metadata_is_named_and_does_not_count_as_missing(content, tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "metadata.json").write_bytes(content)
    for read in (read_data, read_context):
        with pytest.raises(InputError, match=r"assets/metadata\.json: .*; export or fetch the model again"):
            read(tmp_path)


def test_metadata_may_be_missing_or_of_others(tmp_path):
    assert read_data(tmp_path) is None and read_context(tmp_path) == 0
    (tmp_path / "assets").mkdir()
    for content in ("[]", "{}", '{"versions": 1}', '{"data": {}}'):
        (tmp_path / "assets" / "metadata.json").write_text(content)
        assert read_data(tmp_path) is None and read_context(tmp_path) == 0
