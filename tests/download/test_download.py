"""The command: the files it fetches, their names, the files it does not change, and its messages."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from commands import Result, run_command
from faulty_server import FaultyServer, make_shards, publish

from yt8m_tf.download import directory

_FLAGS = ("--partition=2/video/train", "--timeout=0.5", "--retries=4")


def _download(server: FaultyServer, where: Path, *flags: str) -> Result:
    with server.running() as address:
        return run_command("download", *_FLAGS, f"--output_dir={where}", f"--base_url={address}", *flags)


def _contents(where: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in where.iterdir() if path.name != "download.json"}


def _numbered(shards: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"train{number:04d}.tfrecord": content for number, content in enumerate(shards.values())}


def test_a_partition_is_fetched_completely_and_only_once(tmp_path: Path) -> None:
    faults = ("cut", "503", "wrong", "stall", "no range", "429")
    shards = make_shards(12)
    server = publish(shards, lambda _, number: faults[number // 3 % 6] if number % 3 == 2 else "")
    result = _download(server, tmp_path / "data")
    assert result.returncode == 0, result.stderr
    assert _contents(tmp_path / "data") == _numbered(shards)
    assert result.stdout.splitlines() == [
        f"{tmp_path / 'data'}: 12 files of 2/video/train, 12 of them fetched now",
        f"next: yt8m-inspect {shlex.quote(str(tmp_path / 'data' / 'train*.tfrecord'))}",
    ]
    assert "12 of 12 files: 100%" in result.stderr and "left" in result.stderr and "B/s" in result.stderr
    server = publish(shards)
    again = _download(server, tmp_path / "data")
    assert again.returncode == 0 and "12 files of 2/video/train, 0 of them fetched now" in again.stdout
    assert [answer.path for answer in server.answers] == ["/2/download_plans/video_train.json"]


def test_hashes_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is hashed once, and again if it was modified."""
    shards, hashed = make_shards(3), list[str]()
    md5 = directory._md5
    monkeypatch.setattr(directory, "_md5", lambda path: hashed.append(path.name) or md5(path))
    for name, content in _numbered(shards).items():
        (tmp_path / name).write_bytes(content)
    for expected in (sorted(_numbered(shards)), [], ["train0001.tfrecord"]):
        hashed.clear()
        if expected == ["train0001.tfrecord"]:
            (tmp_path / expected[0]).touch()
        assert _download(publish(shards), tmp_path).returncode == 0
        assert hashed == expected
    record = json.loads((tmp_path / "download.json").read_text())["files"]["train0001.tfrecord"]
    assert record["source"] == "2/video/train/trainab.tfrecord" and record["size"] == 5007


def test_some_of_the_files(tmp_path: Path) -> None:
    shards = make_shards(8)
    assert _download(publish(shards), tmp_path, "--files=0..2,6").returncode == 0
    assert sorted(_contents(tmp_path)) == [f"train000{number}.tfrecord" for number in (0, 1, 2, 6)]
    for share in (1, 2):
        assert _download(publish(shards), tmp_path, f"--shard={share},2").returncode == 0
    assert _contents(tmp_path) == _numbered(shards)
    result = _download(publish(shards), tmp_path, "--files=8..9")
    assert "--files, --shard: select none of the 8 files of 2/video/train" in result.stderr


def test_original_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = make_shards(27)  # including trainaa and trainaA
    monkeypatch.setattr(directory, "_folds_case", lambda _: True)
    result = _download(publish(shards), tmp_path / "x", "--names=original")
    assert result.returncode == 1 and not (tmp_path / "x").exists()
    assert "--names=original: trainaa.tfrecord and another file differ only in case" in result.stderr
    assert _download(publish(shards), tmp_path / "x", "--names=original", "--files=0..25").returncode == 0
    monkeypatch.undo()
    assert _download(publish(shards), tmp_path / "x", "--names=original").returncode == 0
    assert _contents(tmp_path / "x") == shards
    other = _download(publish(shards), tmp_path / "x")
    assert (
        "has 27 of the files under their original names, such as trainaa.tfrecord; continue with --names="
        in other.stderr
    )
    assert other.returncode == 1 and _contents(tmp_path / "x") == shards


def test_existing_output_is_not_replaced_unasked(tmp_path: Path) -> None:
    shards = make_shards(2)
    (tmp_path / "train0001.tfrecord").write_bytes(b"my own")
    result = _download(publish(shards), tmp_path)
    assert result.returncode == 1 and _contents(tmp_path) == {"train0001.tfrecord": b"my own"}
    assert (
        "1 files there are damaged, or not those of 2/video/train, such as train0001.tfrecord; --over" in result.stderr
    )
    server = publish(shards, lambda *_: "404")
    assert _download(server, tmp_path, "--overwrite").returncode == 1
    assert _contents(tmp_path) == {"train0001.tfrecord": b"my own"}  # until the new file is complete
    assert _download(publish(shards), tmp_path, "--overwrite").returncode == 0
    assert _contents(tmp_path) == _numbered(shards)
    server = publish(shards)
    server.files |= {path.replace("video", "frame"): content for path, content in server.files.items()}
    result = _download(server, tmp_path, "--partition=2/frame/train", "--overwrite")
    assert result.returncode == 1 and _contents(tmp_path) == _numbered(shards)
    assert "train0000.tfrecord comes from 2/video/train/trainaa.tfrecord; give 2/frame/train another" in result.stderr


def test_the_plan_changes_nothing(tmp_path: Path) -> None:
    shards = make_shards(5, size=2_000_000)
    server = publish(shards)
    result = _download(server, tmp_path / "data", "--plan")
    assert result.returncode == 0 and not (tmp_path / "data").exists()
    selected, to_fetch, free = result.stdout.splitlines()
    assert selected == "2/video/train: 5 of 5 files selected, 0 fetched before"
    assert to_fetch == "to fetch: 5 files, about 10.0 MB"
    assert free.startswith(f"{tmp_path / 'data'}: ") and free.endswith(" GB free")
    assert not any(answer.sent for answer in server.answers if answer.path.endswith(".tfrecord"))


def test_a_full_disk_is_reported_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = type("Usage", (), {"free": 9_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    result = _download(publish(make_shards(2)), tmp_path / "data")
    assert result.returncode == 1 and not (tmp_path / "data").exists()
    assert (
        "0.0 MB must be fetched, but 0.0 MB are free there; make room, or fetch fewer files with --files"
        in result.stderr
    )


def test_a_disk_that_fills_up_gives_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("yt8m_tf.download.client.Part.append", fail)
    result = _download(publish(make_shards(2)), tmp_path / "data")
    assert result.returncode == 1 and result.stderr.count("error: ") == 1
    assert "No space left on device; make room there, or name another directory, and start" in result.stderr


def test_files_that_cannot_be_fetched_are_listed_once_and_the_others_fetched(tmp_path: Path) -> None:
    shards = make_shards(8)
    missing = "/2/video/train/trainac.tfrecord"
    result = _download(publish(shards, lambda path, _: "404" if path == missing else ""), tmp_path)
    assert result.returncode == 1 and len(_contents(tmp_path)) == 7
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert f"{missing}: 404 Not Found; check --partition and --base_url; run the same command again" in line
    server = publish(shards)
    assert _download(server, tmp_path).returncode == 0
    assert [answer.path for answer in server.answers if answer.method == "GET"][1:] == [missing]


def test_a_server_without_the_files_is_not_asked_for_all_of_them(tmp_path: Path) -> None:
    server = publish(make_shards(50), lambda *_: "404")
    result = _download(server, tmp_path / "data", "--connections=1")
    assert result.returncode == 1 and "404 Not Found; check --partition and --base_url (and 4 others);" in result.stderr
    assert len([answer for answer in server.answers if answer.method == "GET"]) <= 8


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ("2/video/test", "/2/download_plans/video_test.json: 404 Not Found; check --partition and --base_url"),
        ("2/vidoe/test", "--partition=2/vidoe/test: the levels of version 2 are video or frame"),
    ],
)
def test_a_partition_that_does_not_exist_gives_a_one_line_error(partition: str, message: str, tmp_path: Path) -> None:
    result = _download(publish({}), tmp_path / "data", f"--partition={partition}")
    assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.end_to_end
@pytest.mark.parametrize(("num_shards", "limits"), [(10, (5, 10)), pytest.param(50, (20, 40), marks=pytest.mark.slow)])
def test_killed_twice_while_every_third_answer_is_broken(
    num_shards: int, limits: tuple[int, int], tmp_path: Path
) -> None:
    """The processes import no framework, and fetch only interrupted or broken files again."""
    faults = ("cut", "503", "wrong", "no range", "429")
    shards, data, whole = make_shards(num_shards, size=100_000), tmp_path / "data", dict[str, int]()
    reached, killed = ([threading.Event() for _ in limits] for _ in range(2))

    def fault(_: str, number: int) -> str:
        for limit, before, after in zip(limits, reached, killed, strict=True):
            if number >= limit:  # the server stops answering until the process has been killed
                before.set()
                after.wait(30)
        return faults[number // 3 % len(faults)] if number % 3 == 2 else ""

    code = (
        "import sys; from yt8m_tf.bin import download\n"
        "try: download.run()\n"
        "finally: assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    server = publish(shards, fault)
    with server.running() as address:
        flags = (f"--output_dir={data}", f"--base_url={address}", "--timeout=20")
        command = [sys.executable, "-c", code, *_FLAGS, *flags]
        for kill, before, after in zip(
            (subprocess.Popen.kill, subprocess.Popen.terminate), reached, killed, strict=True
        ):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert before.wait(60), process.communicate()
            kill(process)
            _, errors = process.communicate(timeout=20)
            whole |= {path.name: len(server.answers) for path in data.glob("*.tfrecord") if path.name not in whole}
            after.set()
        assert process.returncode == 143 and "interrupted; run the same command again to continue" in errors
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert whole and _contents(data) == _numbered(shards)
    cut_by_kills = 0
    for original, (name, content) in zip(shards, _numbered(shards).items(), strict=True):
        path = f"/2/video/train/{original}"
        if name in whole:
            assert all(answer.path != path for answer in server.answers[whole[name] :])
        cut_by_kills += server.sent_whole(path) > len(content)
    assert cut_by_kills <= 2 * 4  # the files in progress on each connection
