"""Fetches files over HTTP whatever the server does: tries again, goes on within a file, checks what came."""

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

_PROGRESS = 1 << 20  # bytes of one answer after which a break counts as the first one
_WRONG_COPIES = 3  # whole files with another MD5 than the plan's, before the file is given up
_LONGEST_BACKOFF = 60.0  # seconds
_LONGEST_RETRY_AFTER = 3600.0  # seconds; a server that asks for more is not waited for
# A server that is busy or out of order for now.
_BUSY = frozenset({408, 429, 500, 502, 503, 504})


class FetchError(Exception):
    """Something cannot be fetched; the message is one line that names the address and the reason."""


class Stopped(Exception):  # noqa: N818  # no error: the main thread asked for it
    """The download is to end."""


@dataclasses.dataclass(frozen=True)
class Patience:
    """Time-outs and retries of requests.

    Attributes:
      timeout: seconds without a byte, after which a connection counts as broken.
      retries: tries after the first one, without progress between them. They come after 0, 1, 2, 4, ..., 60 seconds,
        or after what the server asks for (Retry-After), up to an hour.
    """

    timeout: float = 30.0
    retries: int = 8


@dataclasses.dataclass(frozen=True)
class Listener:
    """Callbacks of a download, called from the client's thread.

    Attributes:
      received: bytes that were written; negative where they are thrown away to start over.
      sized: the size of the file, in bytes, each time a server says it.
      waiting: why nothing happens, before a pause.
    """

    received: Callable[[int], None] = lambda _: None
    sized: Callable[[int], None] = lambda _: None
    waiting: Callable[[str], None] = lambda _: None


class Client:
    """The connections of one thread.

    Args:
      patience: how long to wait.
      remedy: what to do about an address that there is not, for messages.
      stop: set by the thread that wants the download to end.
    """

    def __init__(self, patience: Patience, remedy: str, stop: threading.Event | None = None):
        self._patience, self._remedy, self._stop = patience, remedy, stop or threading.Event()
        self._session = requests.Session()
        # As they are stored: sizes and ranges are those of the file.
        self._session.headers.update({"User-Agent": f"yt8m_tf/{yt8m_tf.__version__}", "Accept-Encoding": "identity"})

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def read(self, url: str) -> bytes:
        """The contents of a small file.

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
        """The size of a file in bytes; None where the server does not say.

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
        """Writes a file, going on behind the bytes that an earlier attempt left at `path`.

        Bytes are appended as they come, so that a process that is killed loses none. A server that ignores the range
        asked for, or that has another file by now, is asked for all of it.

        Args:
          url: of the file.
          path: where to write; its folder exists. It is whole when the function returns, and a part after an error.
          md5: of the whole file, in lower-case hexadecimal digits.
          listener: who is told what happens.

        Raises:
          FetchError: no file there, one of another MD5, or a server that does not answer for too long.
          Stopped: the download is to end.
          OSError: it cannot be written.
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
                                f"{url}: {wrong} times a file of MD5 {found}, and the plan says {md5}: the copy"
                                f" there is damaged, or another one; {self._remedy}"
                            )
                except _BrokenError as error:
                    if part.size - before >= _PROGRESS:
                        tries.start_over()
                    tries.wait(error)

    def _append(self, url: str, part: Part, listener: Listener) -> None:
        """Asks for what is missing, and appends it.

        Raises:
          _BrokenError: it did not come, or not all of it.
        """
        headers = {"Range": f"bytes={part.size}-"} if part.size else {}
        with self._answer("GET", url, headers, allowed=(206, 416) if headers else ()) as response:
            start, total = _range(response)
            if start != part.size:
                part.start_over()
                if start != 0:  # it sends neither the file nor what was asked for
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
        """An answer of status 200, or of one that is `allowed`, whose body is read while the block runs.

        Raises:
          _BrokenError: there is none for now, or it breaks while the block runs.
          FetchError: there will be none.
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
    """An answer did not come, or not to its end; another one may.

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
        """Something came meanwhile."""
        self._breaks = 0

    def wait(self, error: _BrokenError) -> None:
        """Waits after a break.

        Raises:
          FetchError: there were too many.
          Stopped: the download is to end.
        """
        self._breaks += 1
        if self._breaks > self._patience.retries:
            raise FetchError(f"{self._url}: {error}, {self._breaks} times; check the connection") from error
        asked = error.retry_after or 0.0
        if asked > _LONGEST_RETRY_AFTER:
            raise FetchError(
                f"{self._url}: {error}, and asks to wait for {asked / 60:,.0f} min; try again then"
            ) from error
        seconds = 0.0 if self._breaks == 1 else min(2.0 ** (self._breaks - 2), _LONGEST_BACKOFF)
        seconds = max(asked, seconds * random.uniform(0.5, 1.0))  # connections that broke together come back apart
        if seconds:
            self._waiting(f"{error}, next try in {seconds:.0f} s")
        if self._stop.wait(seconds):
            raise Stopped


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """The position in the file of the first byte of an answer, and the size of the file; None for what is not known."""
    if response.status_code == 200:
        return 0, _length(response)
    found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code != 206 or not found:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _retry_after(response: requests.Response) -> float | None:
    """The seconds of the header, which holds a number or a date."""
    value = response.headers.get("Retry-After")
    try:
        return Retry().parse_retry_after(value) if value else None
    except InvalidHeader:
        return None


def _reason(error: BaseException, timeout: float) -> str:
    """Returns why a connection failed, in a few words: the system's own message, without the libraries' additions."""
    if "timed out" in str(error):
        return f"nothing came for {timeout:g} s"
    deepest, cause = "", error.__context__
    while cause is not None:
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            deepest = cause.strerror or str(cause)
        cause = cause.__context__
    return deepest or "the connection was cut"
