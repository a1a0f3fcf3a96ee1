"""report.html: one self-contained page with the tables, curves and pictures of a sweep."""

import base64
from pathlib import Path
from typing import Any

from yolo_dyn.robustness import scores
from yolo_dyn.robustness.pictures import curves, grid
from yolo_dyn.robustness.results import Sweep, condition, environment

TEMPLATE = Path(__file__).with_name("report.html.j2")


def write(sweep: Sweep) -> Path:
    """Write everything that a sweep leaves behind; the page is the last.

    Files: results.json, results.csv, annotations.json (the ground truth in COCO's format), curves.png, grid.png,
    report.html.

    Returns:
        The page.
    """
    sweep.write_json()
    sweep.write_csv()
    sweep.write_truth()
    curves(sweep, sweep.folder / "curves.png")
    drawn = grid(sweep, sweep.folder / "grid.png")
    page = sweep.folder / "report.html"
    page.write_text(html(sweep, drawn), encoding="utf-8")
    return page


def html(sweep: Sweep, drawn: list[str]) -> str:
    """The page as text, its pictures embedded."""
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATE.parent)
    engine = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    engine.filters |= {"score": _score, "signed": lambda value: f"{value:+.3f}", "condition": condition}
    conditions = list(dict.fromkeys(condition(record) for record in sweep.records))
    return engine.get_template(TEMPLATE.name).render(
        sweep=sweep,
        conditions=conditions,
        found={(record["model"], condition(record)): record for record in sweep.records},
        names=list(scores.SCORES),
        drawn=drawn,
        environment=environment(),
        pictures={name: _embedded(sweep.folder / f"{name}.png") for name in ("curves", "grid")},
    )


def _score(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def _embedded(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
