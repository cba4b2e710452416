"""Lists the files of a partition of the dataset: names, checksums, addresses, and names on disk.

For each partition the site has a plan, a JSON file of names and MD5 sums. Names end in two of 62 characters, so some
differ only in case: `trainaa`, `trainaA`. The published script stores them by number, `train0000` to `train3843`.

Source: https://research.google.com/youtube8m/download.html and the script that it serves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import string
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal

from yt8m_tf.errors import InputError

Mirror = Literal["us", "eu", "asia"]
Names = Literal["numbered", "original"]

_SITE = "http://data.yt8m.org"
_CHARACTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits
_SPLITS = ("train", "validate", "test")
# Levels by version: 1 is from 2017, 2 from 2018, 3 has the segments of 2019.
_LEVELS = {"1": ("video_level", "frame_level"), "2": ("video", "frame"), "3": ("video", "frame")}
# Names that a plan may list: no paths, and no hidden files.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclasses.dataclass(frozen=True)
class Partition:
    """A part of the dataset with its own plan, such as 2/video/train.

    Attributes:
      version: "1" for 2017, "2" for 2018, "3" for the segments of 2019.
      level: "video" or "frame"; in version 1 "video_level" or "frame_level".
      split: "train", "validate" or "test".
    """

    version: str
    level: str
    split: str

    @classmethod
    def parse(cls, text: str) -> Partition:
        """Reads VERSION/LEVEL/SPLIT.

        Raises:
          InputError: there is no such partition.
        """
        parts = text.strip("/").split("/")
        if len(parts) != 3 or parts[0] not in _LEVELS:
            raise InputError(f"--partition={text}: must be VERSION/LEVEL/SPLIT, such as 2/video/train")
        version, level, split = parts
        if level not in _LEVELS[version]:
            raise InputError(f"--partition={text}: the levels of version {version} are {_either(_LEVELS[version])}")
        if split not in _SPLITS:
            raise InputError(f"--partition={text}: the last part must be {_either(_SPLITS)}")
        return cls(version, level, split)

    def __str__(self) -> str:
        return f"{self.version}/{self.level}/{self.split}"


@dataclasses.dataclass(frozen=True)
class Server:
    """Addresses of plans and files.

    Attributes:
      plans, files: addresses without a slash at the end.
      remedy: advice for a plan or file that is missing.
    """

    plans: str
    files: str
    remedy: str

    @classmethod
    def of_mirror(cls, mirror: Mirror) -> Server:
        """Returns a server of the dataset's site."""
        address = _SITE.replace("://", f"://{mirror}.")
        return cls(_SITE, address, "check --partition, or take another --mirror")

    @classmethod
    def of_base_url(cls, base_url: str) -> Server:
        """Returns a server with plans and files below one address, `V/download_plans/...` and `V/LEVEL/SPLIT/...`.

        Raises:
          InputError: `base_url` is not an address.
        """
        if not re.match(r"https?://[^/]", base_url):
            raise InputError(f"--base_url={base_url}: must begin with http:// or https://, and name a server")
        address = base_url.rstrip("/")
        return cls(address, address, "check --partition and --base_url")

    def plan_url(self, partition: Partition) -> str:
        """Returns the address of a partition's plan."""
        return f"{self.plans}/{partition.version}/download_plans/{partition.level}_{partition.split}.json"

    def file_url(self, partition: Partition, name: str) -> str:
        """Returns the address of a file of a partition."""
        return f"{self.files}/{partition}/{name}"


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file of a partition.

    Attributes:
      name: the name in the plan, such as "trainab.tfrecord".
      md5: MD5 of its contents, in lower-case hexadecimal digits.
      number: the position of its two characters among all pairs, 1 for "ab"; None for other names.
      numbered_name: the name with a number of four digits, such as "train0001.tfrecord"; `name` without a number.
    """

    name: str
    md5: str
    number: int | None
    numbered_name: str

    def stored_name(self, names: Names) -> str:
        """Returns its name on disk."""
        return self.name if names == "original" else self.numbered_name

    def in_share(self, share: int, num_shares: int) -> bool:
        """Returns whether the file belongs to a share, numbered from 1 and assigned as in the published script."""
        return int(hashlib.md5(self.name.encode(), usedforsecurity=False).hexdigest(), 16) % num_shares == share - 1


def parse_plan(content: bytes, partition: Partition, url: str) -> list[PublishedFile]:
    """Reads the files of a partition from its plan, in the order of their numbers and names.

    Args:
      content: the plan, `{"files": {NAME: MD5, ...}}`.
      partition: the partition, whose split is part of the names.
      url: address of the plan, for messages.

    Raises:
      InputError: the content is not a plan, or lists something that is not a file name.
    """
    try:
        listed = json.loads(content)["files"]
        pairs = [(str(name), str(md5).lower()) for name, md5 in listed.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{url}: not a plan of files and their MD5 sums; check the address") from error
    for name, md5 in pairs:
        if not _FILE_NAME.fullmatch(name) or not _MD5.fullmatch(md5):
            raise InputError(
                f"{url}: lists '{name}' with MD5 '{md5}', which is not a file of the dataset; check the address"
            )
    found = [_published(name, md5, partition.split) for name, md5 in pairs]
    found.sort(key=lambda file: (file.number is None, file.number, file.name))
    uses = Counter(file.numbered_name for file in found)
    if twice := [file for file in found if uses[file.numbered_name] > 1]:
        raise InputError(f"{url}: lists two files with the same number as '{twice[0].name}'; check the address")
    return found


def select(
    found: Sequence[PublishedFile], share: tuple[int, int] | None, ranges: Sequence[range] | None
) -> list[PublishedFile]:
    """Selects the files that belong to a share, and whose numbers are in one of the ranges; None: no restriction."""
    return [
        file
        for file in found
        if (share is None or file.in_share(*share))
        and (ranges is None or (file.number is not None and any(file.number in numbers for numbers in ranges)))
    ]


def parse_share(values: Sequence[str]) -> tuple[int, int]:
    """Reads `--shard=X,Y`: the share X, from 1, of Y.

    Raises:
      InputError: the values are not two such numbers.
    """
    text = ",".join(values)
    match = re.fullmatch(r"(\d+),(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard={text}: must be X,Y with X from 1 to Y, such as 1,100 for one hundredth")
    return int(match[1]), int(match[2])


def parse_ranges(values: Sequence[str]) -> list[range]:
    """Reads `--files=A..B,C,...`: numbers of files and ranges of them, ends included.

    Raises:
      InputError: the values are not such numbers.
    """
    ranges = []
    for value in values:
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", value.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise InputError(f"--files={','.join(values)}: must be numbers of files, such as 0..99 or 0..9,42")
        ranges.append(range(first, last + 1))
    return ranges


def colliding(names: Collection[str]) -> list[str]:
    """Finds names that differ from another name only in case."""
    uses = Counter(name.lower() for name in names)
    return [name for name in names if uses[name.lower()] > 1]


def _published(name: str, md5: str, split: str) -> PublishedFile:
    match = re.fullmatch(rf"({split})([A-Za-z0-9]{{2}}|\d{{4}})(\..*)?", name)
    if not match:
        return PublishedFile(name, md5, None, name)
    code = match[2]
    number = int(code) if len(code) == 4 else len(_CHARACTERS) * _CHARACTERS.index(code[0]) + _CHARACTERS.index(code[1])
    return PublishedFile(name, md5, number, f"{split}{number:04d}{match[3] or ''}")


def _either(choices: Sequence[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
