"""HTML pages that are one file each: pictures inside, nothing fetched."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any


def render(template: Path, filters: dict[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """The page of a template, which may extend page.html.j2."""
    import jinja2

    loader = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    engine = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    engine.filters |= filters or {}
    return engine.get_template(template.name).render(**values)


def embedded(picture: Path) -> str:
    """A picture as the source of an image."""
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
