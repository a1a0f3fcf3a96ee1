"""Published scores of detectors under COCO-C, to stand beside one's own, and what may be compared with them."""

from collections.abc import Iterable
from dataclasses import dataclass

from yolo_dyn.robustness.records import Performance, Summary

SOURCE = "Michaelis et al. 2019 (arXiv 1907.07484), from the raw data of robust-detection-benchmark"
MAY = (
    "rPC says how much of its own clean score a detector keeps. It and mPC may be compared where data, split and number"
    " of images are those of the row, with all 15 corruptions at 5 severities, and frost from the benchmark's textures."
)
MAY_NOT = (
    "Scores on other images, a part of the split or other classes, and detectors trained on other images or with these"
    " corruptions, may not. The published COCO scores come from images whose red and blue were exchanged before the"
    " corruption, which changes frost most, and from other random numbers: some tenths of a point mean nothing."
)
DRAWN_FROST = "Frost was drawn here, not made from the benchmark's textures: a 15th of mPC is not the benchmark's."


@dataclass(frozen=True)
class Row:
    """A detector's P, mPC and rPC in percent, by AP (over IoU 0.50 to 0.95) and AP50, as far as they are known."""

    detector: str
    data: str
    ap: tuple[float, float, float] | None
    ap50: tuple[float, float, float] | None
    own: bool = False


PUBLISHED = (
    Row("Faster R-CNN R50", "COCO val2017", (36.3, 18.2, 50.1), (58.4, 31.4, 53.7)),
    Row("Faster R-CNN R101", "COCO val2017", (38.5, 20.9, 54.3), (60.3, 34.9, 58.0)),
    Row("Faster R-CNN X101-64x4d", "COCO val2017", (41.3, 23.4, 56.6), (63.3, 38.4, 60.6)),
    Row("Faster R-CNN R50-DCN", "COCO val2017", (40.0, 22.4, 56.1), (62.0, 37.2, 60.1)),
    Row("RetinaNet R50", "COCO val2017", (35.6, 17.8, 50.1), (55.5, 29.6, 53.4)),
    Row("Cascade R-CNN R50", "COCO val2017", (40.4, 20.1, 49.7), (58.5, 31.1, 53.1)),
    Row("HTC X101-64x4d-DCN", "COCO val2017", (50.6, 32.7, 64.7), (70.1, 48.6, 69.3)),
    Row("Faster R-CNN R50", "VOC2007 test", None, (80.5, 48.6, 60.4)),
    Row("Faster R-CNN R50, stylised", "VOC2007 test", None, (80.4, 56.2, 69.9)),
)


def beside(summaries: Iterable[Summary], data: str) -> list[Row]:
    """One's own detectors on some data, then the published ones."""
    own = [Row(row.model, data, _percent(row.ap), _percent(row.ap50), own=True) for row in summaries]
    return [*own, *PUBLISHED]


def _percent(performance: Performance) -> tuple[float, float, float] | None:
    p, mpc, rpc = performance.p, performance.mpc, performance.rpc
    return None if p is None or mpc is None or rpc is None else (100 * p, 100 * mpc, 100 * rpc)
