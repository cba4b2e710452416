"""HTML of text, tables and pictures. What is not `Markup` already is escaped: names and ids are data."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from yt8m_tf.report.drawing import Picture


class Markup(str):
    """Text that is HTML already."""


def markup(value: object) -> Markup:
    """A value as HTML."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def joined(parts: Iterable[object], by: str = "\n") -> Markup:
    """Parts one after the other."""
    return Markup(by.join(markup(part) for part in parts))


def element(tag: str, content: object, **attributes: object) -> Markup:
    """`<tag ...>content</tag>`; a trailing underscore of an attribute's name is dropped, others become hyphens."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for name, value in attributes.items()
    )
    return Markup(f"<{tag}{given}>{markup(content)}</{tag}>")


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], num_left: int = 1, **options: str
) -> Markup:
    """A table in a box of its own, which scrolls if it is too wide, and is sorted by a press on a column's title.

    Args:
      title: its caption.
      columns: titles.
      rows: of cells; the first one names the row.
      num_left: columns of text; those after it hold numbers.
      options: attributes of the box; `class_="tall"` for one that scrolls downwards too.
    """
    sides = ["text" if number < num_left else "number" for number in range(len(columns))]
    heads = [
        element("th", element("button", name, type="button"), scope="col", class_=side)
        for name, side in zip(columns, sides, strict=True)
    ]
    body = []
    for row in rows:
        cells = [
            element("td" if number else "th", cell, class_=side, **({} if number else {"scope": "row"}))
            for number, (cell, side) in enumerate(zip(row, sides, strict=True))
        ]
        body.append(element("tr", joined(cells, "")))
    parts = [
        element("caption", title),
        element("thead", element("tr", joined(heads, ""))),
        element("tbody", joined(body)),
    ]
    box = {"role": "region", "tabindex": "0", "aria_label": title, **options}
    box["class_"] = f"scroll {box.get('class_', '')}".strip()
    return element("div", element("table", joined(parts)), **box)


def bar(share: float, kind: str = "") -> Markup:
    """A share between 0 and 1 as a bar; the figure itself stands beside it."""
    return Markup(f'<span class="bar {kind}" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i></span>')


def figure(picture: Picture) -> Markup:
    """A picture with its caption."""
    source = "data:image/svg+xml;base64," + base64.b64encode(picture.svg.encode()).decode()
    image = Markup(f'<img src="{source}" alt="{html.escape(picture.alt)}" data-name="{html.escape(picture.name)}">')
    return element("figure", joined([image, element("figcaption", picture.caption)] if picture.caption else [image]))


def side_by_side(parts: Iterable[object]) -> Markup:
    """Pictures and tables beside each other, where there is room."""
    return element("div", joined(parts), class_="columns")


def missing(what: str, command: str) -> Markup:
    """One line on what is not there, and the command that makes it."""
    return element("p", joined([what, ": ", element("code", command)], ""), class_="missing")


def section(name: str, title: str, parts: Sequence[object]) -> Markup:
    """A section with a heading."""
    return element(
        "section", joined([element("h2", title, id=f"{name}-title"), *parts]), id=name, aria_labelledby=f"{name}-title"
    )
