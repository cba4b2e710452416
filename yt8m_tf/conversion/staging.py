"""Temporary files of encoded features, from which shards are written: a file for each part of a source.

Several processes write parts. A complete part is not made again: its name is a hash of its inputs, that is, the files
with their sizes and times, and the encoding. Labels and splits are not inputs; they are added when shards are written.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from yt8m_tf import files
from yt8m_tf.config import strict_yaml
from yt8m_tf.conversion.encoding import Encoded, EncodingError, Storage, encode
from yt8m_tf.conversion.videos import Chunk, Problem, Reader
from yt8m_tf.errors import InputError, plain
from yt8m_tf.processes import follow

STAGING = ".staging"
_MEAN = np.dtype("<f4")


@dataclasses.dataclass(frozen=True)
class StagedVideo:
    """Location of a video's features.

    Attributes:
      source: the origin of the features.
      offset: position of the first byte in the part's file.
      num_frames: T; 0 if there are only means.
    """

    source: str
    offset: int
    num_frames: int


@dataclasses.dataclass(frozen=True)
class StagedPart:
    """The record of a part.

    Attributes:
      videos: videos by id.
      problems: (source, id, problem) of videos that were left out.
      outside: name of a feature to the number of its values outside the range of the codes.
      num_values: name of a feature to the number of its values.
    """

    videos: Mapping[str, StagedVideo]
    problems: tuple[tuple[str, ...], ...]
    outside: Mapping[str, int]
    num_values: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Staging:
    """A directory of parts.

    Attributes:
      folder: path of the directory.
      reader: the reader of the source.
      sizes: feature name to D.
      storage: storage format of frames.
    """

    folder: Path
    reader: Reader
    sizes: Mapping[str, int]
    storage: Storage

    def key(self, chunk: Chunk) -> str:
        """Returns a part's name, a hash of all its inputs."""
        stats = [(path, (stat := os.stat(path)).st_size, stat.st_mtime_ns) for path in chunk.paths]
        means = [repr(self.reader), stats, chunk.names, chunk.part, list(self.sizes.items()), repr(self.storage)]
        return hashlib.sha256(json.dumps(means).encode()).hexdigest()[:32]

    def read(self, key: str) -> StagedPart:
        """Reads the record of a complete part."""
        part: StagedPart = strict_yaml.read_json(self._about(key), StagedPart, "remove it; that part is made again")
        return part

    def load(self, key: str, video: StagedVideo) -> Encoded:
        """Loads the features of a video of a part."""
        frames, means = {}, {}
        dtype = np.dtype("u1" if self.storage.dtype == "uint8" else self.storage.dtype).newbyteorder("<")
        with self._bytes(key).open("rb") as file:
            file.seek(video.offset)
            for name, size in self.sizes.items():
                if video.num_frames:
                    values = np.fromfile(file, dtype, video.num_frames * size)
                    frames[name] = values.reshape(video.num_frames, size)
                means[name] = np.fromfile(file, _MEAN, size)
        return Encoded(frames, means)

    def make(self, chunk: Chunk, key: str) -> None:
        """Writes a part, whose files appear once they are complete."""
        videos: dict[str, StagedVideo] = {}
        problems: list[Problem] = []
        outside, num_values = Counter[str](), Counter[str]()
        with files.whole_file(self._bytes(key)) as temporary, temporary.open("wb") as file:
            for found in self.reader.read(chunk):
                if isinstance(found, Problem):
                    problems.append(found)
                    continue
                if found.id in videos:
                    problems.append(Problem(found.source, found.id, f"{videos[found.id].source} has this id, too"))
                    continue
                try:
                    encoded = encode(found.features, self.sizes, self.storage)
                except EncodingError as error:
                    problems.append(Problem(found.source, found.id, str(error)))
                    continue
                videos[found.id] = StagedVideo(found.source, file.tell(), encoded.num_frames)
                outside.update(encoded.outside)
                num_values.update(encoded.num_values)
                for name in self.sizes:
                    if encoded.num_frames:
                        file.write(encoded.frames[name].tobytes())
                    file.write(encoded.means[name].astype(_MEAN).tobytes())
        part = StagedPart(videos, tuple(tuple(map(plain, problem)) for problem in problems), outside, num_values)
        files.write_json(self._about(key), strict_yaml.to_dict(part))

    def make_missing(self, chunks: Mapping[str, Chunk], jobs: int) -> Iterator[str]:
        """Makes missing parts in several processes; yields the key of each part once it is complete.

        Args:
          chunks: chunks by their keys.
          jobs: number of processes; 1: run in this process.

        Raises:
          InputError: a source cannot be read, or a process was killed.
        """
        missing = [key for key in chunks if not self._about(key).exists()]
        yield from (key for key in chunks if key not in set(missing))
        if jobs == 1 or len(missing) < 2:
            for key in missing:
                self.make(chunks[key], key)
                yield key
            return
        context = multiprocessing.get_context("spawn")  # a forked TensorFlow hangs
        workers = concurrent.futures.ProcessPoolExecutor(min(jobs, len(missing)), context, follow, (os.getpid(),))
        try:
            futures = {workers.submit(self.make, chunks[key], key): key for key in missing}
            for future in concurrent.futures.as_completed(futures):
                future.result()
                yield futures[future]
        except BrokenProcessPool as error:
            raise InputError(
                "--jobs: a process was killed, perhaps because memory ran out; run the command again with fewer --jobs"
            ) from error
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            workers.shutdown(cancel_futures=True)

    def _bytes(self, key: str) -> Path:
        return self.folder / f"{key}.features"

    def _about(self, key: str) -> Path:
        return self.folder / f"{key}.json"
