"""A page that shows when classes occur in a clip: bands over time, ratings, labels, and the video itself."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import yt8m_tf
from yt8m_tf import files
from yt8m_tf.errors import InputError
from yt8m_tf.report.clips import Annotations, Rating, WindowScores
from yt8m_tf.report.parts import Folded, Table
from yt8m_tf.report.template import render

# Suffixes and media types of videos that browsers play.
_VIDEO_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".ogv": "video/ogg"}
_LARGEST_VIDEO = 200 << 20  # bytes; base64 in the page takes 4/3 of it
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)  # seconds between ticks of the axis
_MOST_TICKS = 7


@dataclasses.dataclass(frozen=True)
class Cell:
    """A window of a band, or the mark of a rating.

    Attributes:
      left, width: position, in percent of the band's width.
      start, end: seconds.
      value: a score, or a rating, from 0 to 1.
      title: the tooltip.
    """

    left: float
    width: float
    start: float
    end: float
    value: float
    title: str


@dataclasses.dataclass(frozen=True)
class Band:
    """A class over time.

    Attributes:
      name: name of the class.
      is_label: whether the video has it as a label.
      highest: text with its highest score.
      cells: its windows that have a score.
      marks: its ratings.
    """

    name: str
    is_label: bool
    highest: str
    cells: Sequence[Cell]
    marks: Sequence[Cell]


@dataclasses.dataclass(frozen=True)
class Timeline:
    """A clip on the page.

    Attributes:
      id: id of the video.
      anchor: the target of links.
      seconds: its length, one second per frame.
      what: text on its length and windows.
      labels: names of its labels.
      bands: classes, the highest score first.
      ticks: ticks of the axis: position in percent, and text of the time.
      table: the same scores as numbers.
    """

    id: str
    anchor: str
    seconds: float
    what: str
    labels: Sequence[str]
    bands: Sequence[Band]
    ticks: Sequence[tuple[float, str]]
    table: Folded


def write_timelines(
    output: Path,
    scores: Mapping[str, WindowScores],
    annotations: Mapping[str, Annotations],
    *,
    top_k: int = 10,
    video: Path | None = None,
) -> list[Timeline]:
    """Writes the page as one self-contained file.

    Args:
      output: the page.
      scores: scores by id of the video.
      annotations: annotations by id, for videos that have any.
      top_k: number of classes shown for a video, by their highest score; rated classes are added.
      video: file of the only video, which is embedded in the page.

    Returns:
      The contents of the page.

    Raises:
      InputError: browsers cannot play the video, it is too large, or there are several clips; or the page cannot be
        written.
    """
    if video is not None and len(scores) > 1:
        raise InputError(f"--video={video}: is one video, and the page shows {len(scores)}; name one with --ids")
    source = "" if video is None else _data_url(video)
    timelines = [
        _timeline(f"video-{number}", video_id, own, annotations.get(video_id, Annotations()), top_k)
        for number, (video_id, own) in enumerate(scores.items())
    ]
    text = render(
        "timeline.html",
        title="Labels over time",
        subtitle="The higher a bar, the higher the score of the class in that window, from 0 to 1.",
        links=[(own.anchor, own.id) for own in timelines],
        timelines=timelines,
        video=source,
        footer=f"yt8m-timeline of yt8m_tf {yt8m_tf.__version__}",
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with files.whole_file(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output={output}: cannot be written ({error.strerror}); name another file") from error
    return timelines


def _timeline(anchor: str, video_id: str, own: WindowScores, known: Annotations, top_k: int) -> Timeline:
    seconds = int(max([own.ends.max(), *(rating.end for rating in known.ratings)]))
    shown = _shown_classes(own, known.ratings, top_k)
    bands = [_band(class_id, own, known, seconds) for class_id in shown]
    size, stride = int((own.ends - own.starts).max()), int(np.diff(own.starts).min(initial=seconds))
    windows = f"{len(own.starts)} windows of {size} s" + (f", one every {stride} s" if stride != size else "")
    what = f"{seconds} s, {windows}"
    if known.ratings:
        what += f"; {len(known.ratings)} ratings"
    return Timeline(
        *(video_id, anchor, seconds, what, [_name(own, label) for label in known.labels]),
        *(bands, _ticks(seconds), _table(own, known.ratings, shown)),
    )


def _shown_classes(own: WindowScores, ratings: Sequence[Rating], top_k: int) -> list[int]:
    """Returns the `top_k` classes with the highest scores and the rated classes, the highest score first."""
    highest = dict(zip(own.classes.tolist(), np.nanmax(own.scores, axis=0, initial=0).tolist(), strict=True))
    ranked = sorted(highest, key=lambda class_id: -highest[class_id])
    rated = {rating.class_id for rating in ratings}
    chosen = {*ranked[:top_k], *rated}
    return [c for c in ranked if c in chosen] + sorted(rated - set(ranked))


def _band(class_id: int, own: WindowScores, known: Annotations, seconds: int) -> Band:
    name, scores = _name(own, class_id), _scores_of(own, class_id)
    # If windows overlap, the one that started last is shown.
    ends = np.minimum(own.ends, np.append(own.starts[1:], own.ends[-1]))
    cells = []
    for start, stop, end, score in zip(*(v.tolist() for v in (own.starts, ends, own.ends, scores)), strict=True):
        if score == score:  # not NaN
            title = f"{name} {score:.3f}, {_clock(start)} to {_clock(end)}"
            cells.append(Cell(100 * start / seconds, 100 * (stop - start) / seconds, start, stop, score, title))
    marks = []
    for rating in known.ratings:
        if rating.class_id == class_id:
            said = f"rated {_in_words(rating.rating)}"
            title = f"{name} {said}, {_clock(rating.start)} to {_clock(rating.end)}"
            left, width = 100 * rating.start / seconds, 100 * (rating.end - rating.start) / seconds
            marks.append(Cell(left, width, rating.start, rating.end, rating.rating, title))
    highest = f"up to {max(cell.value for cell in cells):.2f}" if cells else "no score"
    return Band(name, class_id in known.labels, highest, cells, marks)


def _table(own: WindowScores, ratings: Sequence[Rating], shown: Sequence[int]) -> Folded:
    columns = [_scores_of(own, class_id) for class_id in shown]
    rows = []
    for number, (start, end) in enumerate(zip(own.starts.tolist(), own.ends.tolist(), strict=True)):
        said = [
            f"{_name(own, rating.class_id)} {_in_words(rating.rating)}" for rating in ratings if rating.start == start
        ]
        cells = [f"{column[number]:.3f}" if column[number] == column[number] else "" for column in columns]
        rows.append([f"{_clock(start)} to {_clock(end)}", ", ".join(said), *cells])
    titles = ["time", "ratings", *(_name(own, class_id) for class_id in shown)]
    return Folded("All scores as a table", Table("Scores of each window", titles, rows, 2, tall=True))


def _scores_of(own: WindowScores, class_id: int) -> np.ndarray:
    """Returns the scores of a class, [W]; NaN for windows without one."""
    found = own.scores[:, own.classes == class_id]
    return found[:, 0] if found.shape[1] else np.full(len(own.starts), np.nan, np.float32)


def _name(own: WindowScores, class_id: int) -> str:
    return own.names.get(class_id) or f"class {class_id}"


def _in_words(rating: float) -> str:
    if rating in (0, 1):
        return "present" if rating else "absent"
    return f"{rating:.2f}"


def _ticks(seconds: int) -> list[tuple[float, str]]:
    step = next((step for step in _STEPS if seconds / step <= _MOST_TICKS), seconds)
    return [(100 * time / seconds, _clock(time)) for time in range(0, seconds + 1, step)]


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _data_url(video: Path) -> str:
    kind = _VIDEO_TYPES.get(video.suffix.lower())
    if kind is None:
        raise InputError(
            f"--video={video}: browsers play {', '.join(_VIDEO_TYPES)}; convert it, for example with ffmpeg -i"
            f" '{video.name}' '{video.stem}.mp4'"
        )
    try:
        size = video.stat().st_size
        if size > _LARGEST_VIDEO:
            raise InputError(
                f"--video={video}: has {size >> 20:,} MiB, but at most {_LARGEST_VIDEO >> 20} fit into a page; make it"
                f" smaller, for instance with ffmpeg -i '{video.name}' -vf scale=-2:360 small.mp4"
            )
        return f"data:{kind};base64,{base64.b64encode(video.read_bytes()).decode()}"
    except OSError as error:
        raise InputError(f"--video={video}: cannot be read: {error.strerror}; check the path") from error
