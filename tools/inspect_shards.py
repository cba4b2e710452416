"""Prints what shards hold, whatever their level and version; needs no configuration.

One row a shard, then the totals: records, bytes, level, the key of the video id, features with their sizes, labels per
labelled video (min/mean/max), share of videos without labels, range of label ids, frames per clip (min/mean/max), and
damage. Damaged shards are described up to the first damage, the exit status is then 1, and their good records can be
saved:

  python tools/inspect_shards.py "/data/train*.tfrecord" --salvage_to=/data/salvaged --json=shards.json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import app, flags

from yt8m_tf.console.quiet import import_quietly
from yt8m_tf.errors import InputError

_JSON = flags.DEFINE_string("json", None, "Also write what is printed to this file.")
_SALVAGE_TO = flags.DEFINE_string("salvage_to", None, "Write the good records of damaged shards to this directory.")


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0 for sound shards, 1 for damage, 2 for arguments that cannot be used."""
    import_quietly()
    from shard_report import run

    try:
        return run(argv[1:], _JSON.value, _SALVAGE_TO.value)
    except InputError as error:
        print(f"inspect_shards: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    app.run(main)
