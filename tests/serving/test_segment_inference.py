"""yt8m-infer --segments: windows against the model itself, submissions, scores of whole videos, resuming, faults."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from commands import run_command
from shards import codes_of, decoded_mean, frame_record
from tiny_models import NUM_CLASSES, empty_clip, float_scores, tiny_data, tiny_model, tiny_records, write_shard

from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.export.additions import Additions
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.serving import segment_scorer
from yt8m_tf.serving.segment_formats import join_submission
from yt8m_tf.serving.segment_inference import infer_segments
from yt8m_tf.serving.segment_scorer import SAME_MODEL
from yt8m_tf.serving.segment_submission import read_submission
from yt8m_tf.serving.windows import Windows, cut_clip

COUNTS = (5, 37, 0, 3)  # clips of each shard: more than are scored together, and none
CLASSES = [2, 3, 5, 11, 29]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two SavedModels for clips that return 20 of 30 classes, their models, shards, and all records."""
    root, rng = tmp_path_factory.mktemp("segments"), np.random.default_rng(7)
    data = tiny_data("frame")
    models = {name: tiny_model(data, rng) for name in ("one", "two")}
    for name, model in models.items():
        export_saved_model(model, data, root / name, precision=FLOAT32)
    shards = [tiny_records(data, rng, count, prefix=f"s{i}_") for i, count in enumerate(COUNTS)]
    paths = [write_shard(root / f"test{i}.tfrecord", shard) for i, shard in enumerate(shards)]
    (root / "classes.csv").write_text("Index\n" + "".join(f"{c}\n" for c in CLASSES))
    return root, data, models, paths, [record for shard in shards for record in shard]


WINDOWS = Windows()  # of 5 frames


def run(world, output: Path, windows: Windows = WINDOWS, **options):
    return infer_segments(str(world[0] / "one"), world[3], output, windows, progress=False, **options)


def plain_windows(record: bytes, size: int, stride: int, context: int = 0) -> tuple[str, dict[int, bytes]]:
    """The id of a clip and, by start, a separate record for the frames of each window that all features have."""
    clip = tf.train.SequenceExample.FromString(record)
    length = min(len(own.feature) for own in clip.feature_lists.feature_list.values())
    found = {}
    for start in range(0, length, stride):
        window = tf.train.SequenceExample.FromString(record)
        for own in window.feature_lists.feature_list.values():
            del own.feature[min(start + size + context, length) :]
            del own.feature[: max(start - context, 0)]
        found[start] = window.SerializeToString()
    return clip.context.feature["id"].bytes_list.value[0].decode(), found


def plain_scores(
    world, size: int, stride: int, model: str = "one", context: int = 0
) -> dict[str, dict[int, dict[int, float]]]:
    """The scores of all classes, by video and start."""
    windows = [plain_windows(record, size, stride, context) for record in world[4]]
    scores = iter(float_scores(world[2][model], world[1], [own for _, found in windows for own in found.values()]))
    found: dict[str, dict[int, dict[int, float]]] = {}
    for video, starts in windows:
        found[video] = {}
        for start in starts:
            row = next(scores)
            found[video][start] = dict(enumerate(row.tolist()))
    return found


def whole_scores(world, model: str, k: int) -> dict[str, dict[int, float]]:
    """The k highest classes of each whole clip, with their scores, by video."""
    rows = float_scores(world[2][model], world[1], world[4])
    ids = [plain_windows(record, 5, 5)[0] for record in world[4]]
    return {video: {int(c): float(row[c]) for c in np.argsort(-row)[:k]} for video, row in zip(ids, rows, strict=True)}


def best_segments(scores: dict[str, dict[int, dict[int, float]]], class_id: int) -> list[tuple[float, str]]:
    """The scores and names of the segments that have a class."""
    found = [
        (pairs[class_id], f"{video}:{start}")
        for video, starts in scores.items()
        for start, pairs in starts.items()
        if class_id in pairs
    ]
    return sorted(found, key=lambda pair: -pair[0])


@pytest.mark.parametrize(("size", "stride"), [pytest.param(5, 5, marks=pytest.mark.slow), (4, 3)])
def test_json_lines_have_the_highest_listed_classes_of_every_window(world, tmp_path: Path, size, stride) -> None:
    summary = run(
        world, tmp_path / "out", Windows(size, stride), layout="jsonl", classes=world[0] / "classes.csv", batch_size=8
    )
    rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    expected = plain_scores(world, size, stride)
    assert [row["id"] for row in rows] == list(expected) and summary.num_rows == summary.num_scored == sum(COUNTS)
    for row in rows:
        assert [segment["start"] for segment in row["segments"]] == list(expected[row["id"]])
        assert all(0 < segment["end"] - segment["start"] <= size for segment in row["segments"])
        for segment in row["segments"]:
            listed = {c: s for c, s in expected[row["id"]][segment["start"]].items() if c in CLASSES}
            assert segment["ids"] == sorted(listed, key=lambda c: -listed[c])
            np.testing.assert_allclose(segment["scores"], [listed[c] for c in segment["ids"]], atol=1e-6)


@pytest.mark.parametrize(
    "video_model", [*(pytest.param(m, marks=pytest.mark.slow) for m in (None, SAME_MODEL)), "two", "two, its highest"]
)
def test_a_submission_ranks_the_segments_of_each_class(
    world, tmp_path: Path, monkeypatch, video_model: str | None
) -> None:
    """In the last case, the video model returns only its highest classes, like SavedModels from elsewhere."""
    model = str(world[0] / "two") if video_model not in (None, SAME_MODEL) else video_model
    highest = video_model == "two, its highest"
    if highest:
        real = segment_scorer.class_scorer

        def of_highest(scorer, classes, batch_size, most_frames=None, signature=""):
            own = real(scorer, classes, batch_size, most_frames, signature)
            return own if most_frames else dataclasses.replace(own, all_classes=None)

        monkeypatch.setattr(segment_scorer, "class_scorer", of_highest)
    run(world, tmp_path / "out.csv", classes=world[0] / "classes.csv", video_model=model)
    expected = plain_scores(world, 5, 5)
    if video_model:
        videos = whole_scores(world, "one" if video_model == SAME_MODEL else "two", 20 if highest else NUM_CLASSES)
        expected = {
            video: {s: {c: v * videos[video][c] for c, v in p.items() if c in videos[video]} for s, p in own.items()}
            for video, own in expected.items()
        }
    lists = dict(read_submission(tmp_path / "out.csv", CLASSES))
    assert list(lists) == CLASSES and not (tmp_path / "out.csv.parts").exists()
    for class_id, names in lists.items():
        best = best_segments(expected, class_id)
        assert {name.decode() for name in names} == {name for _, name in best}
        scores = {name: score for score, name in best}
        ranked = [scores[name.decode()] for name in names]
        np.testing.assert_allclose(ranked, sorted(ranked, reverse=True), atol=1e-6)
    assert sum(map(len, lists.values())) > 100


def test_among_equal_scores_the_lowest_classes_are_written(world) -> None:
    """With or without `top_k`, equal scores are kept in the order of the classes, up to the limit."""
    scorer = segment_scorer.load_segment_scorer(str(world[0] / "one"), world[3], WINDOWS, top_k=4)
    scores = np.array([[0.5, 0.25, 0.5, 0.75, 0.5, 0.0], [0.0, 0.0, 0.25, 0.25, 0.25, 0.25]], np.float32)
    classes = np.broadcast_to(np.arange(6), scores.shape)
    for top_k in (4, None):
        found, _, keep = dataclasses.replace(scorer, top_k=top_k)._selected(classes, scores)
        assert [row[own].tolist()[:4] for row, own in zip(found, keep, strict=True)] == [[3, 0, 2, 4], [2, 3, 4, 5]]


def test_top_k_and_no_list_of_classes(world, tmp_path: Path) -> None:
    run(world, tmp_path / "out.csv", top_k=1)
    segments = [name for _, names in read_submission(tmp_path / "out.csv", range(NUM_CLASSES)) for name in names]
    assert sorted(segments) == sorted(f"{v}:{s}".encode() for v, own in plain_scores(world, 5, 5).items() for s in own)


def test_equal_scores_keep_the_order_of_the_shards_and_lists_end_at_k(world, tmp_path: Path) -> None:
    parts = []

    def join(paths, output, num_classes, classes):
        parts.extend(path.read_bytes() for path in paths)
        for number, content in enumerate(parts):
            (tmp_path / f"{number}.pairs").write_bytes(content)
        join_submission(paths, output, num_classes, classes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yt8m_tf.serving.segment_formats.join_submission", join)
        run(world, tmp_path / "whole.csv", classes=world[0] / "classes.csv")
    paths = [tmp_path / f"{number}.pairs" for number in range(len(parts))]
    join_submission(paths, tmp_path / "cut.csv", NUM_CLASSES, CLASSES, k=3)
    whole, cut = (dict(read_submission(tmp_path / f"{name}.csv", CLASSES)) for name in ("whole", "cut"))
    assert cut == {class_id: names[:3] for class_id, names in whole.items()}
    join_submission([paths[1], paths[1]], tmp_path / "twice.csv", NUM_CLASSES, CLASSES)  # every score occurs twice
    twice = (tmp_path / "twice.csv").read_bytes().splitlines()[1].split(b",")[1].split()
    assert twice[::2] == twice[1::2] and len(twice) > 2


@pytest.mark.parametrize("layout", [pytest.param("csv", marks=pytest.mark.slow), "jsonl"])
def test_a_resumed_run_ends_with_the_same_bytes(world, tmp_path: Path, monkeypatch, layout: str) -> None:
    run(world, tmp_path / "whole", layout=layout)
    real, calls = segment_scorer.SegmentScorer.__call__, []

    def interrupted(self, serialized):
        calls.append(len(serialized))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, serialized)

    monkeypatch.setattr(segment_scorer.SegmentScorer, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "out", layout=layout)
    assert calls[:2] == [5, 32]
    with pytest.raises(InputError, match="contains parts of a run that differs in segments;"):
        run(world, tmp_path / "out", Windows(4, 4), layout=layout)
    calls.extend([0] * 3)
    assert run(world, tmp_path / "out", layout=layout).num_scored == sum(COUNTS) - COUNTS[0]
    assert calls[6:] == [32, 5, 3]
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.end_to_end
def test_clips_without_frames_and_damaged_shards_are_left_out_on_request(world, tmp_path: Path) -> None:
    good = world[4][:2]
    paths = [write_shard(tmp_path / f"{n}.tfrecord", [empty_clip(b"e"), record]) for n, record in enumerate(good)]
    damaged = Path(paths[0])
    damaged.write_bytes(damaged.read_bytes()[:-3])
    own = (*world[:3], paths)
    with pytest.raises(InputError, match="damaged at byte"):
        run(own, tmp_path / "out", layout="jsonl")
    with pytest.raises(InputError, match=r"0\.tfrecord: record 0"):
        run(own, tmp_path / "out", layout="jsonl", faults=Faults("skip"))
    faults = Faults("skip", "skip")
    assert run(own, tmp_path / "out", layout="jsonl", faults=faults).num_rows == 1
    assert faults.num_empty == 2 and list(faults.damaged) == [paths[0]]
    assert json.loads((tmp_path / "out").read_text())["id"] == plain_windows(good[1], 5, 5)[0]


def test_unscorable_input_gives_a_one_line_error(world, tmp_path: Path) -> None:
    model, shards = f"--saved_model={world[0] / 'one'}", f"--input={world[0]}/test*.tfrecord"

    def fails(*flags: str) -> str:
        result = run_command("infer", model, shards, f"--output={tmp_path / 'out'}", *flags)
        assert result.returncode == 1 and result.stderr.count("\n") == 1 and not (tmp_path / "out").exists()
        return result.stderr

    assert "--segments=0: give SIZE or SIZE:STRIDE, from 1 to 303" in fails("--segments=0")
    assert "--segments=5:5:5: give SIZE" in fails("--segments=5:5:5")
    assert "--format=parquet: segments are written as csv" in fails("--segments=5", "--format=parquet")
    assert "--classes=x.csv: is for segments; add --segments=5" in fails("--classes=x.csv")
    assert "--mean_with=a,b: is for segments; add --segments=5" in fails("--mean_with=a,b")
    assert "--threshold=0.5: is not for --segments" in fails("--segments=5", "--threshold=0.5")
    assert "--video_model=none: no saved_model.pb there" in fails("--segments=5", "--video_model=none")


def test_models_and_shards_of_videos_and_ids_with_spaces_are_refused(world, tmp_path: Path, rng) -> None:
    data = tiny_data("video")
    export_saved_model(tiny_model(data, rng), data, tmp_path / "videos", precision=FLOAT32)
    with pytest.raises(InputError, match="--segments: the model reads records of the video level"):
        infer_segments(str(tmp_path / "videos"), world[3], tmp_path / "out", WINDOWS)
    with pytest.raises(InputError, match="reads frame-level shards"):
        shard = write_shard(tmp_path / "videos.tfrecord", tiny_records(data, rng, 2))
        infer_segments(str(world[0] / "one"), [shard], tmp_path / "out", WINDOWS, progress=False)
    shard = write_shard(tmp_path / "clips.tfrecord", tiny_records(tiny_data("frame"), rng, 2, prefix="a b"))
    with pytest.raises(InputError, match="video 'a b0': an id in a submission must not have spaces"):
        infer_segments(str(world[0] / "one"), [shard], tmp_path / "out", WINDOWS, progress=False)


def test_a_model_of_videos_scores_windows_by_their_means(world, tmp_path: Path, rng) -> None:
    data = tiny_data("video")
    model = tiny_model(data, rng)
    export_saved_model(model, data, tmp_path / "m", precision=FLOAT32, additions=Additions(frames=True))
    infer_segments(
        str(tmp_path / "m"), world[3][:1], tmp_path / "out", WINDOWS, layout="jsonl", progress=False, signature="frames"
    )
    rows = [json.loads(line)["segments"] for line in (tmp_path / "out").read_text().splitlines()]
    for row, record in zip(rows, world[4], strict=False):
        for segment, window in zip(row, plain_windows(record, 5, 5)[1].values(), strict=True):
            codes = codes_of(tf.train.SequenceExample.FromString(window))
            length = min(map(len, codes.values()))
            means = {name: decoded_mean(own[:length]).astype(np.float32)[None] for name, own in codes.items()}
            expected = 1 / (1 + np.exp(-np.asarray(model(means, training=False))[0]))
            np.testing.assert_allclose(segment["scores"], expected[segment["ids"]], atol=1e-5)
    assert len(rows) == COUNTS[0]


def test_the_command_scores_sample_clips(world, tmp_path: Path) -> None:
    output = tmp_path / "segments.csv"
    result = run_command(
        *("infer", f"--saved_model={world[0] / 'one'}", f"--input={world[0]}/test*.tfrecord", f"--output={output}"),
        *("--segments=5:2", f"--classes={world[0] / 'classes.csv'}", "--video_model=same"),
    )
    assert result.returncode == 0, result.stderr
    assert f"{output}: {sum(COUNTS)} videos of 4 shards" in result.stdout
    assert [class_id for class_id, _ in read_submission(output, CLASSES)] == CLASSES
    last = f"next: yt8m-score-submission --submission={output} --labels='{world[0]}/test*.tfrecord'"
    assert result.stdout.splitlines()[-1] == f"{last} --classes={world[0] / 'classes.csv'}"


def test_a_model_sees_the_context_of_its_training_and_can_be_averaged_with_others(world, tmp_path: Path) -> None:
    root, data, models, *_ = world
    metadata = {"experiment": {"data": {"segments": {"size": 5, "context": 3}}}}
    export_saved_model(models["two"], data, tmp_path / "context", precision=FLOAT32, metadata=metadata)
    result = run_command(
        *("infer", f"--saved_model={root / 'one'}", f"--input={root}/test*.tfrecord", f"--output={tmp_path / 'out'}"),
        *("--segments=5:4", "--format=jsonl", "--top_k=30", f"--mean_with={tmp_path / 'context'}"),
    )
    assert result.returncode == 0, result.stderr
    without, with_context = plain_scores(world, 5, 4), plain_scores(world, 5, 4, "two", 3)
    for line in (tmp_path / "out").read_text().splitlines():
        video, segments = json.loads(line).values()
        assert [segment["start"] for segment in segments] == list(without[video])
        for segment in segments:
            one, two = (own[video][segment["start"]] for own in (without, with_context))
            expected = [(one[c] + two[c]) / 2 for c in segment["ids"]]
            np.testing.assert_allclose(segment["scores"], expected, atol=1e-6)


def test_models_that_cannot_be_averaged_are_refused(world, tmp_path: Path, rng) -> None:
    other = tiny_data("frame", num_classes=31)
    export_saved_model(tiny_model(other, rng), other, tmp_path / "other", precision=FLOAT32)
    with pytest.raises(InputError, match=r"--mean_with=.*other: predicts 31 classes, and the first model 30;"):
        run(world, tmp_path / "out", mean_with=[str(tmp_path / "other")])


def test_a_timeline_shows_the_scores_of_a_model_and_of_json_lines(world, tmp_path: Path) -> None:
    """Both pages are equal, and their table shows the model's own scores."""
    model, shards, ids = f"--saved_model={world[0] / 'one'}", f"{world[0]}/test*.tfrecord", "--ids=s3_1,s1_30"
    lines = tmp_path / "x.jsonl"
    result = run_command("infer", model, f"--input={shards}", f"--output={lines}", "--segments=5", "--format=jsonl")
    last = f"next: yt8m-timeline --input={lines} --labels='{shards}' --output=timeline.html"
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == last, result.stderr
    pages = []
    for name, flags in (
        ("model", [model, f"--input={shards}"]),
        ("lines", [f"--input={lines}", f"--labels={shards}"]),
    ):
        page = tmp_path / f"{name}.html"
        result = run_command("timeline", *flags, ids, f"--output={page}", "--top_k=2")
        assert result.returncode == 0 and f"written: {page} (0.0 MB)" in result.stdout, result.stderr
        pages.append(page.read_text())
    assert pages[0] == pages[1]
    expected = plain_scores(world, 5, 5)
    for video, section in zip(("s3_1", "s1_30"), pages[0].split("<section ")[1:], strict=True):
        assert f"Video {video} " in section and section.count("<li>class ") == 3  # its labels
        best = {c: max(own[c] for own in expected[video].values()) for c in range(NUM_CLASSES)}
        highest = sorted(best, key=lambda c: -best[c])[:2]
        assert re.findall(r"<b>class (\d+)</b>", section) == [str(c) for c in highest]
        shown = re.findall(r'data-value="([\d.]+)"', section)
        scores = [own[c] for c in highest for own in expected[video].values()]
        np.testing.assert_allclose(np.array(shown, float), scores, atol=6e-4)


def test_windows_are_frames_that_all_features_have(world) -> None:
    frames = {"rgb": np.arange(22, dtype=np.uint8).reshape(11, 2), "audio": np.arange(10, dtype=np.uint8)[:, None]}
    for record in (*world[4][:10], frame_record(b"shorter", [1], **frames)):
        video, expected = plain_windows(record, 5, 3)
        cut = cut_clip(record, Windows(5, 3))
        assert (cut.video_id.decode(), list(cut.starts)) == (video, list(expected))
        for own, other in zip(cut.records, expected.values(), strict=True):
            found, wanted = (tf.train.SequenceExample.FromString(r) for r in (own, other))
            assert found.feature_lists == wanted.feature_lists and "labels" not in found.context.feature
    assert cut.num_frames == 10 and list(cut.starts) == [0, 3, 6, 9]  # of the last clip, whose audio ends first
    assert cut_clip(empty_clip(b"e"), Windows()).records == []
