"""Names, numbers and shares of the published files."""

from __future__ import annotations

import itertools
import json
import string

import pytest

from yt8m_tf.download import plan
from yt8m_tf.errors import InputError

_TRAIN = plan.Partition("2", "video", "train")
_MD5 = "0123456789abcdef" * 2


def _parse(*names: str, partition: plan.Partition = _TRAIN) -> list[plan.PublishedFile]:
    content = json.dumps({"files": dict.fromkeys(names, _MD5)}).encode()
    return plan.parse_plan(content, partition, "http://x/plan.json")


def test_numbers_are_positions_among_all_pairs() -> None:
    """The numbers equal the positions in `itertools.product`, as in the published script."""
    alphabet = string.ascii_lowercase + string.ascii_uppercase + string.digits
    pairs = ["".join(pair) for pair in itertools.product(alphabet, repeat=2)]
    found = _parse(*(f"train{pair}.tfrecord" for pair in reversed(pairs)))
    assert [file.name for file in found] == [f"train{pair}.tfrecord" for pair in pairs]
    assert [file.numbered_name for file in found] == [f"train{number:04d}.tfrecord" for number in range(3844)]
    assert [file.number for file in found] == list(range(3844))
    assert [pairs.index(pair) for pair in ("aa", "ab", "99")] == [0, 1, 3843]


def test_other_names_stay() -> None:
    found = _parse("train0007.tfrecord", "README.txt")
    assert [(file.numbered_name, file.number) for file in found] == [("train0007.tfrecord", 7), ("README.txt", None)]
    assert [file.name for file in plan.select(found, None, [range(10)])] == ["train0007.tfrecord"]


def test_shares_are_those_of_the_published_script() -> None:
    """MD5 sums of the names from `md5sum`; each share is the last two hexadecimal digits mod 4, plus 1."""
    digits = {"trainaa.tfrecord": 0xC9, "trainab.tfrecord": 0x71, "trainac.tfrecord": 0x87, "trainad.tfrecord": 0x2E}
    found = _parse(*digits)
    for share in range(1, 5):
        wanted = [name for name, last in digits.items() if last % 4 == share - 1]
        assert [file.name for file in plan.select(found, (share, 4), None)] == wanted


def test_selection_of_numbers() -> None:
    found = _parse(*(f"train{number:04d}.tfrecord" for number in range(20)))
    ranges = plan.parse_ranges(["0..2", "7", "18..30"])
    assert [file.number for file in plan.select(found, None, ranges)] == [0, 1, 2, 7, 18, 19]


@pytest.mark.parametrize("values", [["3..1"], ["a"], ["-1"], ["1.2"], [""]])
def test_invalid_numbers(values: list[str]) -> None:
    with pytest.raises(InputError, match=r"--files=.*such as 0\.\.99"):
        plan.parse_ranges(values)


@pytest.mark.parametrize("values", [["1"], ["0", "100"], ["101", "100"], ["1", "2", "3"], ["x", "y"]])
def test_invalid_shares(values: list[str]) -> None:
    with pytest.raises(InputError, match=r"--shard=.*such as 1,100"):
        plan.parse_share(values)
    assert plan.parse_share(["1", "100"]) == (1, 100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2/video", "must be VERSION/LEVEL/SPLIT"),
        ("4/video/train", "must be VERSION/LEVEL/SPLIT"),
        ("1/video/train", "the levels of version 1 are video_level or frame_level"),
        ("2/frame_level/train", "the levels of version 2 are video or frame"),
        ("2/video/val", "train, validate or test"),
    ],
)
def test_partitions_that_do_not_exist(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--partition={text}: .*{message}"):
        plan.Partition.parse(text)


def test_addresses_of_all_versions() -> None:
    site, own = plan.Server.of_mirror("eu"), plan.Server.of_base_url("http://x/y/")
    for text, name in (
        ("1/video_level/train", "video_level_train"),
        ("2/frame/test", "frame_test"),
        ("3/frame/validate", "frame_validate"),
    ):
        partition = plan.Partition.parse(text)
        assert str(partition) == text
        assert site.plan_url(partition) == f"http://data.yt8m.org/{text[0]}/download_plans/{name}.json"
        assert site.file_url(partition, "a.tfrecord") == f"http://eu.data.yt8m.org/{text}/a.tfrecord"
        assert own.plan_url(partition) == f"http://x/y/{text[0]}/download_plans/{name}.json"
        assert own.file_url(partition, "a.tfrecord") == f"http://x/y/{text}/a.tfrecord"
    with pytest.raises(InputError, match=r"--base_url=ftp://x: must begin with http"):
        plan.Server.of_base_url("ftp://x")


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"files": 3}',
        b'{"files": {"../../x": "%s"}}' % _MD5.encode(),
        b'{"files": {".hidden": "%s"}}' % _MD5.encode(),
        b'{"files": {"trainaa.tfrecord": "x"}}',
        b'{"files": {"trainaa.tfrecord": "%s", "train0000.tfrecord": "%s"}}' % ((_MD5.encode(),) * 2),
    ],
)
def test_an_invalid_plan_is_refused(content: bytes) -> None:
    """Invalid plans are refused, including those with paths: a server could otherwise place files anywhere."""
    with pytest.raises(InputError, match=r"^http://x/plan.json: .*check the address"):
        plan.parse_plan(content, _TRAIN, "http://x/plan.json")


def test_names_that_differ_only_in_case() -> None:
    assert plan.colliding(["trainaa", "trainaA", "trainab", "x"]) == ["trainaa", "trainaA"]
