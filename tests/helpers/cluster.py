"""Starts multi-worker training on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys


def start_workers(number: int, *flags: str) -> list[subprocess.Popen[str]]:
    """Starts yt8m-train as the workers of one cluster on this machine."""
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{probe.getsockname()[1]}" for probe in probes]
    for probe in probes:
        probe.close()
    processes = []
    for worker in range(number):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "yt8m_tf.bin.train", *flags],
                env=os.environ | {"TF_CONFIG": json.dumps(cluster)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return processes
