"""Downloads shards of YouTube-8M from the dataset's servers, verifies them, and fetches none twice.

Broken connections, busy servers and interruptions lose nothing: the same command resumes, also within a file. Every
file is compared with the MD5 sum that the site publishes, and gets its name only if it matches; download.json in
--output_dir records the verified files, so that they are not hashed again.

--partition is VERSION/LEVEL/SPLIT: 2/video/train, 2/frame/validate, 2/video/test, ... of the 2018 version (video level
12 GB, frame level 1.5 TB), 1/video_level/train, 1/frame_level/train, ... of 2017, 3/frame/validate and 3/frame/test of
the segments of 2019. Each has 3,844 files, train0000 to train3843.

Example:

  yt8m-download --partition=2/video/train --output_dir='DATA/2/video'
  yt8m-download --partition=2/frame/train --files=0..99 --output_dir='DATA/2/frame' --mirror=eu --plan
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from yt8m_tf.bin.launch import launch

if TYPE_CHECKING:
    from yt8m_tf.download.download import Survey

_PARTITION = flags.DEFINE_string("partition", None, "Partition to fetch: VERSION/LEVEL/SPLIT.", required=True)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Directory for the shards.", required=True)
_FILES = flags.DEFINE_list("files", None, "Fetch only these files, by number: ranges and numbers such as 0..99,200.")
_SHARD = flags.DEFINE_list(
    "shard",
    None,
    "Only the share X,Y of the files: 1,100 for one hundredth, the same as the site's own script fetches.",
)
_NAMES = flags.DEFINE_enum(
    "names",
    "numbered",
    ["numbered", "original"],
    "Store files as train0000.tfrecord, or as the site has them: trainaa.",
)
_MIRROR = flags.DEFINE_enum("mirror", "us", ["us", "eu", "asia"], "Server to fetch from; the nearest one is fastest.")
_BASE_URL = flags.DEFINE_string(
    "base_url", None, "Your own server, with plans below URL/2/download_plans/ and files below URL/2/video/train/."
)
_CONNECTIONS = flags.DEFINE_integer("connections", 4, "Files that are fetched at once.", lower_bound=1, upper_bound=64)
_TIMEOUT = flags.DEFINE_float(
    "timeout", 30.0, "Seconds without a byte after which a connection counts as broken.", lower_bound=0.01
)
_RETRIES = flags.DEFINE_integer(
    "retries", 8, "Retries of a file without any progress before it counts as failed.", lower_bound=0
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace existing files that differ from the published ones.")
_PLAN = flags.DEFINE_bool("plan", False, "Only print how many files and bytes are missing.")


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.bin.usage import next_command
    from yt8m_tf.download.client import Patience
    from yt8m_tf.download.download import Request, download, survey
    from yt8m_tf.download.plan import Partition, Server, parse_ranges, parse_share
    from yt8m_tf.errors import Interrupted

    partition = Partition.parse(_PARTITION.value)
    request = Request(
        partition,
        Server.of_mirror(_MIRROR.value) if _BASE_URL.value is None else Server.of_base_url(_BASE_URL.value),
        files.local_path(_OUTPUT_DIR.value, "--output_dir"),
        share=None if _SHARD.value is None else parse_share(_SHARD.value),
        ranges=None if _FILES.value is None else parse_ranges(_FILES.value),
        names=_NAMES.value,
        connections=_CONNECTIONS.value,
        overwrite=_OVERWRITE.value,
        patience=Patience(_TIMEOUT.value, _RETRIES.value),
    )
    if _PLAN.value:
        print(_plan_text(survey(request), f"{partition}", f"{request.directory}"))
        return
    try:
        found = download(request)
    except KeyboardInterrupt as error:
        raise Interrupted.like(error, "interrupted; run the same command again to continue") from error
    print(
        f"{request.directory}: {found.num_selected:,} files of {partition}, {len(found.missing):,} of them fetched now"
    )
    print(next_command("inspect", str(request.directory / f"{partition.split}*.tfrecord")))


def _plan_text(found: Survey, partition: str, directory: str) -> str:
    from yt8m_tf.console.tables import size

    there = found.num_selected - len(found.missing)
    lines = [f"{partition}: {found.num_selected:,} of {found.num_published:,} files selected, {there:,} fetched before"]
    if found.missing:
        total = "unknown size" if found.num_bytes is None else f"about {size(found.num_bytes)}"
        parts = f", of which {size(found.num_fetched)} were fetched before" if found.num_fetched else ""
        lines.append(f"to fetch: {len(found.missing):,} files, {total}{parts}")
    lines.append(f"{directory}: {size(found.num_free)} free")
    return "\n".join(lines)


def run() -> None:
    """Runs the console script."""
    launch(main, framework=False)


if __name__ == "__main__":
    run()
