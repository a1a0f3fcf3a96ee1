"""report.html: one self-contained page with the tables, curves and pictures of a sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolo_dyn.output.environment import environment
from yolo_dyn.output.files import write_text
from yolo_dyn.output.pages import render
from yolo_dyn.robustness import diagnosis_pictures, published, viewer
from yolo_dyn.robustness.arms import processors
from yolo_dyn.robustness.diagnosis_lines import NOT_DIAGNOSED
from yolo_dyn.robustness.error_types import SHOWN, WHOLE
from yolo_dyn.robustness.pictures import curves, grid, most_different, spread_conditions
from yolo_dyn.robustness.records import MEAN, CellRecord, Condition
from yolo_dyn.robustness.reliability import LEAST_SCORE
from yolo_dyn.robustness.results import Sweep

TEMPLATE, STYLE, SCRIPT = (Path(__file__).with_name(f"report.{ending}") for ending in ("html.j2", "css", "js"))
KINDS = (  # what the viewer shows or hides, and whether it is shown at first
    ("truth", "truth", False),
    ("found", "found", True),
    ("missed", "missed", True),
    ("alarms", "false alarms", True),
)


def write(sweep: Sweep, formats: Sequence[str] = ("png",), images: bool = True) -> Path:
    """Write everything that a sweep leaves behind; the page is the last.

    Files: results.json, results.csv, annotations.json (the ground truth in COCO's format), the pictures curves, errors,
    precision, reliability and grid, report.html.

    Args:
        sweep: finished cells.
        formats: of the pictures.
        images: False if the images themselves are not at hand: without the grid and the page's viewer.

    Returns:
        The page.
    """
    sweep.write_json()
    sweep.write_csv()
    sweep.write_truth()
    found = spread_conditions(sweep, conf=0.25) if images else {}
    for ending in dict.fromkeys(formats):
        curves(sweep, sweep.folder / f"curves.{ending}")
        diagnosis_pictures.draw(sweep, ending)
        if images:
            grid(sweep, sweep.folder / f"grid.{ending}", found)
    chosen = most_different(found, viewer.IMAGES) if images else []
    page = sweep.folder / "report.html"
    write_text(page, html(sweep, chosen))
    return page


def html(sweep: Sweep, chosen: list[int]) -> str:
    """The page as text; `chosen` are the numbers of images that its viewer may show, the most telling one first."""
    filters = {"score": _score, "signed": _signed, "percent": _percent, "absent": _absent}
    return render(
        TEMPLATE,
        filters,
        sweep=sweep,
        conditions=sweep.conditions,
        scores={(record.model, record.condition): record.scores for record in sweep.records},
        names=list(sweep.scoring.scores),
        rules=sweep.scoring,
        types=SHOWN,
        whole=WHOLE,
        least=LEAST_SCORE,
        published=published,
        mean=Condition(MEAN),
        processors=processors(sweep.arms),
        viewer=bool(chosen),
        kinds=KINDS,
        least_shown=viewer.LEAST,
        content=viewer.content(sweep, chosen),
        style=STYLE.read_text(encoding="utf-8"),
        script=SCRIPT.read_text(encoding="utf-8"),
        ran=any(record.ultralytics for record in sweep.records),  # the models here, not elsewhere
        environment=environment(),
    )


def _score(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: Any) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _absent(record: CellRecord) -> str:
    """Why a cell does not tell what goes wrong."""
    return "; ".join(record.diagnosis.missing) if record.diagnosis else NOT_DIAGNOSED


def _percent(value: Any) -> str:
    return "-" if value is None else f"{value:.1f}"
