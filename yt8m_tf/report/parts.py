"""Parts of a report's sections. `parts.html` lays them out; names and ids in them are plain text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from yt8m_tf.report.drawing import Picture


@dataclasses.dataclass(frozen=True)
class Named:
    """A cell with a name and, below it, of what kind that is."""

    name: str
    what: str


@dataclasses.dataclass(frozen=True)
class Share:
    """A cell with a share between 0 and 1 as a bar, and what stands beside it."""

    share: float
    text: str


Cell = str | Named | Share


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in a box of its own, which scrolls if it is too wide, and is sorted by a press on a column's title.

    Attributes:
      title: its caption, or what the heading above it says.
      columns: titles.
      rows: of cells; the first one names the row.
      num_left: columns of text; those after it hold numbers.
      tall: whether it scrolls downwards, too.
      id: of the box, for one with a field above it to search in.
      captioned: whether the title stands above it; not where a heading says the same.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    num_left: int = 1
    tall: bool = False
    id: str = ""
    captioned: bool = True

    def filled(self) -> Table:
        """The same without columns that are empty in all rows."""
        kept = [at for at in range(len(self.columns)) if at == 0 or any(row[at] != "" for row in self.rows)]
        return dataclasses.replace(
            self,
            columns=[self.columns[at] for at in kept],
            rows=[[row[at] for at in kept] for row in self.rows],
            num_left=sum(at < self.num_left for at in kept),
        )


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Titles, each with its figure."""

    figures: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Note:
    """A sentence or two on what stands around it."""

    text: str


@dataclasses.dataclass(frozen=True)
class Prose:
    """Paragraphs of plain text, and a list of remarks under a title, where there are any."""

    paragraphs: Sequence[str]
    title: str = ""
    remarks: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Listing:
    """A file's text, which is shown at a press on its summary."""

    summary: str
    text: str


@dataclasses.dataclass(frozen=True)
class Missing:
    """One line on what is not there, and the command that makes it."""

    what: str
    command: str


@dataclasses.dataclass(frozen=True)
class Columns:
    """Pictures and tables beside each other, where there is room."""

    parts: Sequence[Picture | Table]


@dataclasses.dataclass(frozen=True)
class Folded:
    """A table that is shown at a press on its summary."""

    summary: str
    table: Table


@dataclasses.dataclass(frozen=True)
class Video:
    """A video with its labels and its highest scores.

    Attributes:
      id: of the video.
      precision: average precision of its scores.
      labels: name, place among the highest scores, and whether it has one.
      scores: name of the class, score, and whether it is a label; the highest first.
    """

    id: str
    precision: float
    labels: Sequence[tuple[str, str, bool]]
    scores: Sequence[tuple[str, float, bool]]


@dataclasses.dataclass(frozen=True)
class Videos:
    """Videos of a kind."""

    title: str
    videos: Sequence[Video]


Part = Table | Picture | Tiles | Note | Prose | Listing | Missing | Columns | Folded | Videos


@dataclasses.dataclass(frozen=True)
class Section:
    """A section with a heading; `name` is where links lead to."""

    name: str
    title: str
    parts: Sequence[Part]
