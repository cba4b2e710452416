"""Parts of a report's sections. `parts.html` lays them out; names and ids in them are plain text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from yt8m_tf.report.drawing import Picture


@dataclasses.dataclass(frozen=True)
class Named:
    """A cell with a name and, below it, the kind of the named thing."""

    name: str
    what: str


@dataclasses.dataclass(frozen=True)
class Share:
    """A cell with a share between 0 and 1 as a bar, and the text beside it."""

    share: float
    text: str


Cell = str | Named | Share


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in its own box, which scrolls if it is too wide; a click on a column's title sorts it.

    Attributes:
      title: its caption, or the text of the heading above it.
      columns: titles.
      rows: lists of cells; the first cell names the row.
      num_left: number of columns of text; the others are numbers.
      tall: whether it scrolls vertically, too.
      id: id of the box, if there is a search field above it.
      captioned: whether the title is shown above it; False if a heading has the same text.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    num_left: int = 1
    tall: bool = False
    id: str = ""
    captioned: bool = True

    def filled(self) -> Table:
        """Returns the table without columns that are empty in all rows."""
        kept = [at for at in range(len(self.columns)) if at == 0 or any(row[at] != "" for row in self.rows)]
        return dataclasses.replace(
            self,
            columns=[self.columns[at] for at in kept],
            rows=[[row[at] for at in kept] for row in self.rows],
            num_left=sum(at < self.num_left for at in kept),
        )


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Titles, each with a value as text."""

    figures: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Note:
    """A sentence or two on the parts around it."""

    text: str


@dataclasses.dataclass(frozen=True)
class Prose:
    """Paragraphs of plain text and, optionally, a list of remarks with a title."""

    paragraphs: Sequence[str]
    title: str = ""
    remarks: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Listing:
    """The text of a file, shown by a click on its summary."""

    summary: str
    text: str


@dataclasses.dataclass(frozen=True)
class Missing:
    """One line that says what is missing, and the command that creates it."""

    what: str
    command: str


@dataclasses.dataclass(frozen=True)
class Columns:
    """Pictures and tables side by side, if there is room."""

    parts: Sequence[Picture | Table]


@dataclasses.dataclass(frozen=True)
class Folded:
    """A table that is shown by a click on its summary."""

    summary: str
    table: Table


@dataclasses.dataclass(frozen=True)
class Video:
    """A video with its labels and its highest scores.

    Attributes:
      id: id of the video.
      precision: average precision of its scores.
      labels: name, rank among the highest scores, and whether it has a rank.
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
    """A section with a heading; `name` is the target of links."""

    name: str
    title: str
    parts: Sequence[Part]
