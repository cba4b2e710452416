"""Locks of score shards: one holder at a time, and none that outlives its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from yt8m_tf.locks import Claims

_HOLDER = """
import sys, time, pathlib
from yt8m_tf.scores.claims import Claims
claims = Claims(pathlib.Path(sys.argv[1]))
print(claims.take("a"), flush=True)
time.sleep(600)
"""


def test_one_process_at_a_time_and_none_after_its_death(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    with Claims(tmp_path) as claims:
        assert not claims.take("a")
        assert claims.take("b")
        holder.send_signal(signal.SIGKILL)
        start = time.monotonic()
        assert claims.take("a", wait=True)
        assert time.monotonic() - start < 60
    holder.wait()
    holder.stdout.close()
    with Claims(tmp_path) as claims:  # both were given back
        assert claims.take("a") and claims.take("b")
        claims.remove()
    assert not os.listdir(tmp_path)
