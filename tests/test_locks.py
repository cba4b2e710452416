"""Locks: one holder at a time, released when the process dies, and optional on file systems without locks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from yt8m_tf.errors import InputError
from yt8m_tf.locks import Claims, exclusive
from yt8m_tf.locks import holder as holder_of

_CLAIM = """
import pathlib, sys, time
from yt8m_tf.locks import Claims
claims = Claims(pathlib.Path(sys.argv[1]))
print(claims.take("a"), flush=True)
time.sleep(600)
"""
_EXCLUSIVE = """
import pathlib, sys, time
from yt8m_tf.locks import exclusive
with exclusive(pathlib.Path(sys.argv[1]), "--workdir"):
    print(True, flush=True)
    time.sleep(600)
"""


@contextmanager
def _holder(code: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Starts another process, waits until it holds its lock, and kills it at the end if it is still running."""
    with subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "True\n"
            yield process
        finally:
            process.kill()


def test_one_process_at_a_time_and_none_after_its_death(tmp_path: Path) -> None:
    with _holder(_CLAIM, tmp_path) as holder, Claims(tmp_path) as claims:
        assert not claims.take("a")
        assert claims.take("b")
        holder.send_signal(signal.SIGKILL)
        start = time.monotonic()
        assert claims.take("a", wait=True)
        assert time.monotonic() - start < 60
    with Claims(tmp_path) as claims:  # both were released
        assert claims.take("a") and claims.take("b")
        claims.remove()
    assert not os.listdir(tmp_path)


def test_another_thread_may_release_a_claim(tmp_path: Path) -> None:
    with Claims(tmp_path) as claims, Claims(tmp_path) as others:
        assert claims.take("a") and not others.take("a")
        thread = threading.Thread(target=claims.release, args=("a",))
        thread.start()
        thread.join()
        assert others.take("a")


def test_locks_that_were_removed_are_made_again(tmp_path: Path) -> None:
    with Claims(tmp_path) as claims, Claims(tmp_path) as others:
        assert claims.take("a")
        claims.remove()
        assert others.take("a") and not claims.take("a")


def test_only_one_process_uses_a_directory(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with _holder(_EXCLUSIVE, directory) as holder:
        with pytest.raises(InputError) as caught, exclusive(directory, "--workdir", "trains"):
            pytest.fail("entered")
        who = f"process {holder.pid} on {socket.gethostname()}"
        assert str(caught.value) == f"--workdir={directory}: another process trains there ({who}); wait for it to end"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with exclusive(directory, "--workdir"):
            assert (directory / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert not os.listdir(directory)
    directory.rmdir()
    with pytest.raises(ZeroDivisionError), exclusive(directory, "--workdir"):
        assert holder_of(directory) == f"process {os.getpid()} on {socket.gethostname()}"
        1 / 0  # noqa: B018
    assert not directory.exists() and holder_of(directory) == ""  # made for the lock, and still empty


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_every_process_gets_all_files(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", missing)
    with Claims(tmp_path) as claims, Claims(tmp_path) as others:
        assert claims.take("a", wait=True) and others.take("a") and others.take("b", wait=True)
        claims.remove()
    with exclusive(tmp_path, "--workdir"), exclusive(tmp_path, "--workdir"):
        pass
    assert not os.listdir(tmp_path)


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Claims(tmp_path / "file").take("a")
    with pytest.raises(InputError) as caught, exclusive(tmp_path / "file", "--workdir"):
        pytest.fail("entered")
    told = "cannot be written (File exists); name another place"
    assert str(caught.value) == f"--workdir={tmp_path / 'file'}: {told}"
