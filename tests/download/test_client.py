"""Downloading a single file from a server that fails in realistic ways."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from faulty_server import FaultyServer

from yt8m_tf.download.client import Client, FetchError, Listener, Patience, Stopped
from yt8m_tf.download.parts import CHUNK

_CONTENT = np.random.default_rng(1).bytes(600_000)  # several chunks
_MD5 = hashlib.md5(_CONTENT).hexdigest()
_PATIENCE = Patience(timeout=5.0, retries=2)
_STALLED = Patience(timeout=0.2, retries=2)


def _server(*faults: str, otherwise: str = "") -> FaultyServer:
    """A server of one file whose first answers have these faults."""
    return FaultyServer({"/x": _CONTENT}, lambda _, number: faults[number] if number < len(faults) else otherwise)


def _fetch(server: FaultyServer, path: Path, listener: Listener | None = None) -> None:
    patience = _STALLED if "stall" in {server.fault("/x", 0), server.fault("/x", 99)} else _PATIENCE
    with server.running() as address, Client(patience, "look again") as client:
        client.fetch(f"{address}/x", path, _MD5, listener)


def _check_starts(server: FaultyServer, starts: Sequence[int]) -> None:
    """Checks that each request starts where the previous answer ended, or up to two chunks earlier."""
    assert len(server.answers) == len(starts)
    for answer, start in zip(server.answers, starts, strict=True):
        assert max(0, start - 2 * CHUNK) <= answer.start <= start


_HALF = len(_CONTENT) // 2


@pytest.mark.parametrize(
    ("faults", "starts"),
    [
        ((), [0]),
        (("cut",), [0, _HALF]),
        (("stall",), [0, _HALF]),
        (("503",), [0, 0]),
        (("429",), [0, 0]),
        (("cut", "no range"), [0, _HALF]),  # the whole file arrives, and the partial one is discarded
        (("cut", "other range"), [0, _HALF, 0]),
        (("cut", "cut"), [0, _HALF, _HALF + _HALF // 2]),
        (("wrong",), [0, 0]),
        (("cut", "wrong"), [0, _HALF, 0]),  # the part belongs to another file
    ],
)
def test_the_whole_file_arrives(
    faults: Sequence[str], starts: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda *_: 0.01)  # the pause after the second consecutive break
    server, received, sizes = _server(*faults), list[int](), list[int]()
    _fetch(server, tmp_path / "x", Listener(received.append, sizes.append))
    assert (tmp_path / "x").read_bytes() == _CONTENT
    _check_starts(server, starts)
    assert sum(received) == len(_CONTENT) and sizes[-1] == len(_CONTENT)


@pytest.mark.parametrize(
    ("part", "starts"),
    [
        (_CONTENT[:1000], [1000]),
        (_CONTENT, []),  # it was complete, but not yet renamed
        (_CONTENT + b"x", [len(_CONTENT) + 1, 0]),  # answered with 416
        (b"x" * 1000, [1000, 0]),  # part of another file
    ],
)
def test_an_interrupted_download_continues(part: bytes, starts: Sequence[int], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(part)
    server = _server()
    _fetch(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == _CONTENT
    assert [answer.start for answer in server.answers] == list(starts)


def test_an_answer_without_a_length_is_checked(tmp_path: Path) -> None:
    """Without Content-Length, a broken connection looks like the end."""
    server = _server("unsized cut")
    _fetch(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == _CONTENT
    _check_starts(server, [0, 0])


def test_waits_as_long_as_the_server_asks(tmp_path: Path) -> None:
    server, waits = _server("429 after 1"), list[str]()
    began = time.monotonic()
    _fetch(server, tmp_path / "x", Listener(waiting=waits.append))
    assert 1.0 <= time.monotonic() - began < 3.0
    assert len(waits) == 1 and waits[0] == "429 Too Many Requests, next try in 1 s"


@pytest.mark.parametrize(
    ("fault", "message", "num_answers"),
    [
        ("404", "404 Not Found; look again", 1),
        ("403", "403 Forbidden; look again", 1),
        ("503 after 7200", "503 Service Unavailable, and asks to wait for 120 min; try again then", 1),
        ("503 after soon", "503 Service Unavailable; attempts: 3; check the connection", 3),
        ("stall", "no data for 0.2 s; attempts: 3; check the connection", 3),
        ("cut", "the connection was cut; attempts: 3; check the connection", 3),
        ("wrong", f"in 3 attempts, but {_MD5} in the plan: the file there is damaged or has changed; look again", 3),
    ],
)
def test_a_server_that_never_sends_the_file(
    fault: str, message: str, num_answers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A one-line error with the address and the reason; the number of attempts is limited."""
    monkeypatch.setattr("random.uniform", lambda *_: 0.01)
    server = _server(otherwise=fault)
    with pytest.raises(FetchError) as error:
        _fetch(server, tmp_path / "x")
    assert message in str(error.value) and str(error.value).startswith("http://127.0.0.1:")
    assert "\n" not in str(error.value) and len(server.answers) == num_answers


def test_a_server_that_does_not_exist(tmp_path: Path) -> None:
    with _server().running() as address:
        pass
    client = Client(Patience(retries=0), "look again")
    for ask in (client.read, client.size, lambda url: client.fetch(url, tmp_path / "x", _MD5)):
        with pytest.raises(FetchError, match=r"/x: Connection refused; attempts: 1; check the connection$"):
            ask(f"{address}/x")


def test_breaks_after_progress_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More breaks than retries, each after enough bytes to count as progress."""
    monkeypatch.setattr("yt8m_tf.download.client._PROGRESS", 1000)
    server = _server(*["cut"] * 5)
    _fetch(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == _CONTENT and len(server.answers) == 6


def test_ends_on_request(tmp_path: Path) -> None:
    """A download stops while it waits for a server that asks for a long pause, and between two pieces."""
    stop = threading.Event()
    for fault, listener in (
        ("503 after 60", Listener(waiting=lambda _: stop.set())),
        ("", Listener(sized=lambda _: stop.set())),
    ):
        stop.clear()
        with _server(fault).running() as address, Client(_PATIENCE, "", stop) as client, pytest.raises(Stopped):
            client.fetch(f"{address}/x", tmp_path / "x", _MD5, listener)


def test_sizes_and_small_files() -> None:
    for read in (Client.read, Client.size):
        _check(read, _server("503"))


def _check(read: Callable[[Client, str], object], server: FaultyServer) -> None:
    with server.running() as address, Client(_PATIENCE, "look again") as client:
        assert read(client, f"{address}/x") in (_CONTENT, len(_CONTENT))
        with pytest.raises(FetchError, match="404 Not Found; look again"):
            read(client, f"{address}/y")
