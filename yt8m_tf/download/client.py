"""Fetches files over HTTP: retries failed requests, continues incomplete files, and checks the result."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import requests
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

import yt8m_tf
from yt8m_tf.download.parts import CHUNK, Part

_PROGRESS = 1 << 20  # bytes of one answer after which the count of breaks starts over
_WRONG_COPIES = 3  # complete files with the wrong MD5 before the file is given up
_LONGEST_BACKOFF = 60.0  # seconds
_LONGEST_RETRY_AFTER = 3600.0  # seconds; if a server asks for a longer wait, the file is given up
# The server is busy or temporarily unavailable.
_BUSY = frozenset({408, 429, 500, 502, 503, 504})


class FetchError(Exception):
    """A file cannot be fetched; the message is one line with the address and the reason."""


class Stopped(Exception):  # noqa: N818  # no error: the main thread asked for it
    """The main thread asked for the download to end."""


@dataclasses.dataclass(frozen=True)
class Patience:
    """Time-outs and retries of requests.

    Attributes:
      timeout: seconds without a byte, after which a connection counts as broken.
      retries: number of retries without progress between them. They follow after 0, 1, 2, 4, ..., 60 seconds, or after
        the time that the server asks for (Retry-After), up to an hour.
    """

    timeout: float = 30.0
    retries: int = 8


@dataclasses.dataclass(frozen=True)
class Listener:
    """Callbacks of a download, called from the client's thread.

    Attributes:
      received: number of bytes written; negative if bytes are discarded to start over.
      sized: the size of the file, in bytes, each time that a server states it.
      waiting: the reason for a pause, before it.
    """

    received: Callable[[int], None] = lambda _: None
    sized: Callable[[int], None] = lambda _: None
    waiting: Callable[[str], None] = lambda _: None


class Client:
    """The connections of one thread.

    Args:
      patience: time-outs and retries.
      remedy: advice for an address that does not exist, for messages.
      stop: set by the thread that wants the download to end.
    """

    def __init__(self, patience: Patience, remedy: str, stop: threading.Event | None = None):
        self._patience, self._remedy, self._stop = patience, remedy, stop or threading.Event()
        self._session = requests.Session()
        # No compression: sizes and ranges must be those of the file.
        self._session.headers.update({"User-Agent": f"yt8m_tf/{yt8m_tf.__version__}", "Accept-Encoding": "identity"})

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def read(self, url: str) -> bytes:
        """Returns the contents of a small file.

        Raises:
          FetchError, Stopped: see `fetch`.
        """
        tries = _Tries(url, self._patience, self._stop)
        while True:
            try:
                with self._answer("GET", url) as response:
                    return response.content
            except _BrokenError as error:
                tries.wait(error)

    def size(self, url: str) -> int | None:
        """Returns the size of a file in bytes; None if the server does not state it.

        Raises:
          FetchError: there is no such file; see also `fetch`.
        """
        tries = _Tries(url, self._patience, self._stop)
        while True:
            try:
                with self._answer("HEAD", url, allowed=(405, 501)) as response:
                    return _length(response) if response.status_code == 200 else None
            except _BrokenError as error:
                tries.wait(error)

    def fetch(self, url: str, path: Path, md5: str, listener: Listener | None = None) -> None:
        """Downloads a file, continuing after the bytes that an earlier attempt left at `path`.

        Bytes are appended as they arrive, so a killed process loses none. If the server ignores the requested range, or
        has another file by now, the whole file is fetched again.

        Args:
          url: address of the file.
          path: the file to write, in an existing folder; it is complete when the function returns, and incomplete
            after an error.
          md5: MD5 of the whole file, in lower-case hexadecimal digits.
          listener: callbacks for progress.

        Raises:
          FetchError: the file does not exist or has another MD5, or the server fails to answer too often.
          Stopped: the download is to end.
          OSError: the file cannot be written.
        """
        listener = listener or Listener()
        tries, wrong = _Tries(url, self._patience, self._stop, listener.waiting), 0
        with Part(path, listener.received) as part:
            while part.md5() != md5:
                before = part.size
                try:
                    self._append(url, part, listener)
                    if (found := part.md5()) != md5:
                        part.start_over()
                        wrong += 1
                        if wrong == _WRONG_COPIES:
                            raise FetchError(
                                f"{url}: MD5 {found} in {wrong} attempts, but {md5} in the plan: the file"
                                f" there is damaged or has changed; {self._remedy}"
                            )
                except _BrokenError as error:
                    if part.size - before >= _PROGRESS:
                        tries.start_over()
                    tries.wait(error)

    def _append(self, url: str, part: Part, listener: Listener) -> None:
        """Requests the missing bytes, and appends them.

        Raises:
          _BrokenError: they did not arrive, or not all of them.
        """
        headers = {"Range": f"bytes={part.size}-"} if part.size else {}
        with self._answer("GET", url, headers, allowed=(206, 416) if headers else ()) as response:
            start, total = _range(response)
            if start != part.size:
                part.start_over()
                if start != 0:  # neither the whole file nor the requested range
                    raise _BrokenError(f"{response.status_code} {response.reason} to a range of bytes")
            if total is not None:
                listener.sized(total)
            for chunk in response.iter_content(CHUNK):
                if self._stop.is_set():
                    raise Stopped
                part.append(chunk)

    @contextlib.contextmanager
    def _answer(
        self, method: str, url: str, headers: dict[str, str] | None = None, allowed: tuple[int, ...] = ()
    ) -> Iterator[requests.Response]:
        """Yields an answer of status 200 or of an `allowed` one, whose body is read while the block runs.

        Raises:
          _BrokenError: there is no answer for now, or it breaks while the block runs.
          FetchError: retries are pointless.
        """
        try:
            with self._session.request(
                method, url, headers=headers, stream=True, timeout=self._patience.timeout, allow_redirects=True
            ) as response:
                status = f"{response.status_code} {response.reason}"
                if response.status_code in _BUSY:
                    raise _BrokenError(status, _retry_after(response))
                if response.status_code not in (200, *allowed):
                    raise FetchError(f"{url}: {status}; {self._remedy}")
                yield response
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _BrokenError(_reason(error, self._patience.timeout)) from error
        except requests.RequestException as error:
            raise FetchError(f"{url}: {' '.join(str(error).split())}; {self._remedy}") from error


class _BrokenError(Exception):
    """An answer did not arrive, or not completely; a retry may succeed.

    Attributes:
      retry_after: seconds that the server asks to wait.
    """

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class _Tries:
    """Counts breaks without progress between them, and waits after each."""

    def __init__(
        self, url: str, patience: Patience, stop: threading.Event, waiting: Callable[[str], None] = lambda _: None
    ):
        self._url, self._patience, self._stop, self._waiting = url, patience, stop, waiting
        self._breaks = 0

    def start_over(self) -> None:
        """Resets the count, after progress."""
        self._breaks = 0

    def wait(self, error: _BrokenError) -> None:
        """Waits after a break.

        Raises:
          FetchError: there were too many breaks.
          Stopped: the download is to end.
        """
        self._breaks += 1
        if self._breaks > self._patience.retries:
            raise FetchError(f"{self._url}: {error}; attempts: {self._breaks}; check the connection") from error
        asked = error.retry_after or 0.0
        if asked > _LONGEST_RETRY_AFTER:
            raise FetchError(
                f"{self._url}: {error}, and asks to wait for {asked / 60:,.0f} min; try again then"
            ) from error
        seconds = 0.0 if self._breaks == 1 else min(2.0 ** (self._breaks - 2), _LONGEST_BACKOFF)
        seconds = max(asked, seconds * random.uniform(0.5, 1.0))  # spreads the retries of connections
        if seconds:
            self._waiting(f"{error}, next try in {seconds:.0f} s")
        if self._stop.wait(seconds):
            raise Stopped


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """Returns the position of an answer's first byte in the file, and the size of the file; None if unknown."""
    if response.status_code == 200:
        return 0, _length(response)
    found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code != 206 or not found:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _retry_after(response: requests.Response) -> float | None:
    """Returns the seconds of the header Retry-After, which is a number or a date."""
    value = response.headers.get("Retry-After")
    try:
        return Retry().parse_retry_after(value) if value else None
    except InvalidHeader:
        return None


def _reason(error: BaseException, timeout: float) -> str:
    """Returns why a connection failed, in a few words: the system's own message, without the libraries' additions."""
    if "timed out" in str(error):
        return f"no data for {timeout:g} s"
    deepest, cause = "", error.__context__
    while cause is not None:
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            deepest = cause.strerror or str(cause)
        cause = cause.__context__
    return deepest or "the connection was cut"
