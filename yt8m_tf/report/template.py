"""Fills the templates of this directory; all values are escaped as plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Returns the text of a page.

    Args:
      template: the file name of the template.
      values: the variables of the template.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names and ids are data
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda part: type(part).__name__.lower()
    return environment.get_template(template).render(**values)
