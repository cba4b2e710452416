"""The walkthrough of docs/OWN_VIDEOS.md: from a folder of videos to class names for new ones, in six commands."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from backbones import write_picture_model
from commands import Result, run_command
from videos import SHAPES, TONES, Clip

from yt8m_tf.training.checkpoints import load_trained

_GUIDE = Path(__file__).resolve().parent.parent / "docs" / "OWN_VIDEOS.md"
_PITCHES = ("low", "middle", "high")


def _commands() -> list[list[str]]:
    """The first six commands of the guide, as a shell splits them."""
    lines = [line for line in _GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith("yt8m-")]
    return [shlex.split(line) for line in lines[:6]]


def _labels(number: int) -> list[str]:
    return [SHAPES[number % 3], f"{_PITCHES[number // 3 % 3]} tone"]


def _write_clips(folder: Path, numbers: range) -> None:
    for number in numbers:
        Clip(SHAPES[number % 3], TONES[number // 3 % 3], number).write(folder / f"clip_{number:03d}.mp4")


def _walk(place: Path, train: int, validate: int, new: int, epochs: int) -> dict[str, Result]:
    """Runs the commands, after making the label table, the clips and the backbone."""
    _write_clips(place / "videos", range(train + validate))
    _write_clips(place / "new", range(10_000, 10_000 + new))
    (place / "videos" / "broken.mp4").write_bytes(b"no video")
    with (place / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "labels", "split"])
        for number in range(train + validate):
            split = "train" if number < train else "validate"
            table.writerow([f"clip_{number:03d}", ";".join(_labels(number)), split])
        table.writerow(["broken", "disc", "train"])
    write_picture_model(place / "backbone.keras", widths=(128, 512))
    commands = _commands()
    assert [command[0] for command in commands] == [
        f"yt8m-{name}" for name in ("extract", "inspect", "train", "evaluate", "export", "infer")
    ]
    # These only save time: no processes, no compilation, and fewer epochs in the short walkthrough.
    more = {
        "extract": ["--jobs=0"],
        "train": ["--xla=false", "--steps_per_call=1", f"--set=train.epochs={epochs}"],
        "evaluate": ["--xla=false"],
    }
    results = {}
    for name, *arguments in commands:
        command = name.removeprefix("yt8m-")
        results[command] = run_command(command, *arguments, *more.get(command, ()))
        assert results[command].returncode == 0, f"{name}: {results[command].stderr}"
    assert "1 cannot be used" in results["extract"].stdout
    assert not list(place.glob("names.txt?*"))  # no intermediate shard is left behind
    return results


def _named(place: Path) -> dict[str, set[str]]:
    """The names in names.txt, by video id."""
    found = {}
    for line in (place / "names.txt").read_text(encoding="utf-8").splitlines():
        video_id, _, names = line.partition(": ")
        found[video_id] = set(re.findall(r"(?:^|, )(.*?) [\d.]+(?=,|$)", names))
    return found


@pytest.mark.end_to_end
def test_the_short_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = _walk(tmp_path, train=18, validate=9, new=2, epochs=1)
    assert "next: yt8m-train --config=first_level/logistic.yaml" in results["extract"].stdout
    assert (
        "features: {rgb: 1280, audio: 64}, num_classes: 6, vocabulary: ../vocabulary.csv}" in results["extract"].stdout
    )
    assert _named(tmp_path).keys() == {"clip_10000", "clip_10001"}
    before = (tmp_path / "names.txt").read_bytes()
    # Equivalent commands, and one-line errors.
    (tmp_path / "new" / "broken.mp4").write_bytes(b"no video")
    infer = ("infer", "--saved_model=exported/mine/1", "--input=new", "--threshold=thresholds.csv", "--format=names")
    recipe = "rgb=keras:backbone.keras,audio=log_mel"
    again = run_command(*infer, f"--extract={recipe}", "--output=again.txt")
    assert again.returncode == 0, again.stderr
    assert "new/broken.mp4: cannot be opened: Invalid data" in again.stdout
    assert (tmp_path / "again.txt").read_bytes() == before
    for flags, message in (
        (["--extract=mine", "--max_seconds=9"], "--max_seconds: already set by --extract=mine; leave the flag out"),
        (["--extract=videos"], "extraction.json: cannot be read"),
        (["--extract=rgb=keras:none.keras"], "none.keras: no such file"),
        (["--extract=audio=log_mel"], "takes the feature 'rgb' with 1,280 values, and the recipe makes only audio"),
    ):
        refused = run_command(*infer, *flags, "--output=refused.txt")
        assert refused.returncode == 1 and message in refused.stderr, refused.stderr
        assert refused.stderr.count("yt8m-infer: error:") == 1 and not (tmp_path / "refused.txt").exists()


@pytest.mark.slow
def test_the_walk_names_the_contents_of_the_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _walk(tmp_path, train=135, validate=45, new=18, epochs=10)
    metrics = json.loads((tmp_path / "runs" / "mine" / "evaluation" / "metrics.json").read_text())
    assert metrics["metrics"]["gap_at_20"] >= 0.95
    named = _named(tmp_path)
    right = [named[f"clip_{number}"] == set(_labels(number)) for number in range(10_000, 10_018)]
    assert np.mean(right) >= 0.9


@pytest.mark.slow
def test_training_starts_from_a_model_of_other_classes(
    tmp_path: Path, make_learnable_shards: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the flags of the guide's command, everything except the head comes from the first run."""
    (line,) = [line for line in _GUIDE.read_text(encoding="utf-8").splitlines() if "--init_from=" in line]
    exclude = next(flag for flag in shlex.split(line) if flag.startswith("--init_exclude="))
    monkeypatch.chdir(tmp_path)
    small = (
        "--set=model={inner_size: 4, dropout: 0.0, av_blocks: 1, concat_blocks: 1}",
        "--xla=false",
        "--steps_per_call=1",
    )
    data = "--set=data={{features: {{rgb: 8, audio: 4}}, num_classes: {}}}"
    frozen = "--set=optimizer.learning_rate=1e-30"
    for name, classes, more in (
        ("large", 10, ()),
        ("transfer", 6, ("--init_from=runs/large", exclude, frozen)),
    ):
        shards = make_learnable_shards(tmp_path / name, train=1, validate=1, each=32, classes=classes)
        where = (f"--data_dir={shards}", f"--workdir=runs/{name}")
        train = "--set=train={batch_size: 32, epochs: 1, steps_per_epoch: 1}"
        config = "--config=first_level/resnet_like_mixup.yaml"
        result = run_command("train", config, data.format(classes), train, *small, *where, *more)
        assert result.returncode == 0, result.stderr
    large, transfer = (load_trained(tmp_path / "runs" / name, "last").model for name in ("large", "transfer"))
    before = {variable.path: variable.numpy() for variable in large.trainable_variables}
    assert [v.path for v in transfer.trainable_variables if v.path.startswith("logits/")] == [
        "logits/kernel",
        "logits/bias",
    ]
    for variable in transfer.trainable_variables:
        if not variable.path.startswith("logits/"):
            np.testing.assert_allclose(variable.numpy(), before[variable.path], atol=1e-6, err_msg=variable.path)
    assert transfer.count_params() != large.count_params()
