"""A file server on 127.0.0.1 that gives faulty answers on purpose, and records what it sent."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import socket
import string
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock

import numpy as np


@dataclasses.dataclass(frozen=True)
class Answer:
    """A response of the server.

    Attributes:
      path: the requested path.
      method: "GET" or "HEAD".
      start: the first byte of the requested range, 0 for the whole file.
      sent: number of bytes of the file that were sent.
      fault: see `FaultyServer`; "" for a correct answer.
    """

    path: str
    method: str
    start: int
    sent: int
    fault: str


class FaultyServer:
    """Serves files, and gives faulty answers to some requests.

    Args:
      files: maps paths to contents.
      fault: maps the path and the number of earlier GETs, without those of plans, to the fault of the answer: "" for
        none, "cut" (the connection breaks half-way), "unsized cut" (the same, without Content-Length), "stall" (nothing
        is sent after one half), "wrong" (other bytes, whose MD5 differs), "no range" (the whole file, whatever the
        requested range), "other range" (from the second byte on), or a status such as "404", "429 after 1" and "503
        after 2" with the header Retry-After.
    """

    def __init__(self, files: Mapping[str, bytes], fault: Callable[[str, int], str] = lambda path, number: ""):
        self.files, self.fault, self.answers = dict(files), fault, list[Answer]()
        self.lock, self.closed = threading.Lock(), threading.Event()
        self._num_gets = 0

    def next_fault(self, path: str) -> str:
        """Returns the fault of the next GET."""
        with self.lock:
            number, self._num_gets = self._num_gets, self._num_gets + (not path.endswith(".json"))
        return self.fault(path, number)

    def sent_whole(self, path: str) -> int:
        """Returns the number of bytes of a file that were sent in correct answers."""
        return sum(answer.sent for answer in self.answers if answer.path == path and not answer.fault)

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """A context in which the server runs; yields the address."""
        handler = type("Handler", (_Handler,), {"owner": self})
        with _Server(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                with mock.patch.dict(os.environ, no_proxy="127.0.0.1"):
                    yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                self.closed.set()
                server.shutdown()
                thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores the errors of clients that were killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    owner: FaultyServer
    protocol_version = "HTTP/1.1"
    timeout = 5  # of an idle connection

    def log_message(self, *_: object) -> None:
        """Prints nothing."""

    def do_HEAD(self) -> None:
        content = self.owner.files.get(self.path)
        self._head(200 if content is not None else 404, {"Content-Length": str(len(content or b""))})
        self._note(0, 0, "")

    def do_GET(self) -> None:
        content, fault = self.owner.files.get(self.path), self.owner.next_fault(self.path)
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))) else 0
        if content is None:
            fault = "404"
        if status := re.match(r"(\d+)(?: after (.*))?$", fault):
            self._head(int(status[1]), {"Content-Length": "0"} | ({"Retry-After": status[2]} if status[2] else {}))
            self._note(start, 0, fault)
            return
        assert content is not None
        if start >= len(content) and start and fault != "no range":
            self._head(416, {"Content-Length": "0"})
            self._note(start, 0, "416")
            return
        self._send(content, start, fault)

    def _send(self, content: bytes, start: int, fault: str) -> None:
        first = {"no range": 0, "other range": 1}.get(fault, start)
        body = content[first:]
        headers = {} if fault == "unsized cut" else {"Content-Length": str(len(body))}
        is_part = bool(start) and fault != "no range"
        if is_part:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._head(206 if is_part else 200, headers)
        if fault == "wrong":
            body = bytes(255 - byte for byte in body)
        is_broken = fault in ("cut", "unsized cut", "stall")
        sent = body[: len(body) // 2] if is_broken else body
        self._note(start, len(sent), fault)
        with contextlib.suppress(ConnectionError):
            self.wfile.write(sent)
            if fault == "stall":
                self.connection.settimeout(0.01)
                while not self.owner.closed.is_set() and not self._hung_up():
                    pass
            if is_broken:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

    def _hung_up(self) -> bool:
        try:
            return not self.connection.recv(1)
        except TimeoutError:
            return False

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _note(self, start: int, sent: int, fault: str) -> None:
        with self.owner.lock:
            self.owner.answers.append(Answer(self.path, self.command, start, sent, fault))


def make_shards(num_shards: int, size: int = 5000) -> dict[str, bytes]:
    """Returns random contents by original names, trainaa.tfrecord, trainab.tfrecord, ..., all of different sizes."""
    rng = np.random.default_rng(3)
    return {f"traina{string.ascii_letters[i]}.tfrecord": rng.bytes(size + 7 * i) for i in range(num_shards)}


def publish(shards: Mapping[str, bytes], fault: Callable[[str, int], str] = lambda path, number: "") -> FaultyServer:
    """Returns a server of the partition 2/video/train; `fault` applies only to its files, not to the plan."""
    plan = {"files": {name: hashlib.md5(content).hexdigest() for name, content in shards.items()}}
    files = {f"/2/video/train/{name}": content for name, content in shards.items()}
    files["/2/download_plans/video_train.json"] = json.dumps(plan).encode()
    return FaultyServer(files, lambda path, number: "" if path.endswith(".json") else fault(path, number))
