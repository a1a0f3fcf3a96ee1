"""report.html: one self-contained page with the tables, curves and pictures of a sweep."""

from pathlib import Path
from typing import Any

from yolo_dyn.output.environment import environment
from yolo_dyn.output.files import write_text
from yolo_dyn.output.pages import embedded, render
from yolo_dyn.robustness import diagnosis_pictures, published
from yolo_dyn.robustness.arms import processors
from yolo_dyn.robustness.diagnosis_lines import NOT_DIAGNOSED
from yolo_dyn.robustness.error_types import SHOWN, WHOLE
from yolo_dyn.robustness.pictures import curves, grid
from yolo_dyn.robustness.records import MEAN, CellRecord, Condition
from yolo_dyn.robustness.reliability import LEAST_SCORE
from yolo_dyn.robustness.results import Sweep

TEMPLATE = Path(__file__).with_name("report.html.j2")


def write(sweep: Sweep, pictures: bool = True) -> Path:
    """Write everything that a sweep leaves behind; the page is the last.

    Files: results.json, results.csv, annotations.json (the ground truth in COCO's format), curves.png, errors.png,
    precision.png, reliability.png, grid.png, report.html.

    Args:
        sweep: finished cells.
        pictures: False if the images themselves are not at hand: without the grid.

    Returns:
        The page.
    """
    sweep.write_json()
    sweep.write_csv()
    sweep.write_truth()
    curves(sweep, sweep.folder / "curves.png")
    diagnosis_pictures.draw(sweep)
    drawn = grid(sweep, sweep.folder / "grid.png") if pictures else None
    page = sweep.folder / "report.html"
    write_text(page, html(sweep, drawn))
    return page


def html(sweep: Sweep, drawn: list[str] | None) -> str:
    """The page as text, its pictures embedded; `drawn` are the images in the grid, if there is one."""
    shown = ["curves", *diagnosis_pictures.PICTURES] + ([] if drawn is None else ["grid"])
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
        drawn=drawn,
        ran=any(record.ultralytics for record in sweep.records),  # the models here, not elsewhere
        environment=environment(),
        pictures={name: embedded(sweep.folder / f"{name}.png") for name in shown},
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
