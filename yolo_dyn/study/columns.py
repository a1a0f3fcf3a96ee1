"""The columns of a study's main table: what they are, how papers print them, and what has to run for them."""

from dataclasses import dataclass
from decimal import Decimal

COUNTED, SCORED, TIMED = "counted", "scored", "timed"


@dataclass(frozen=True)
class Column:
    """A column. Ours is in `unit`; the paper's figure times `scale` is in the same."""

    title: str
    kind: str  # what it takes: COUNTED from the network alone, SCORED after training, TIMED alone on the machine
    digits: int  # shown of ours
    scale: float = 1.0


COLUMNS = {
    "params": Column("parameters, M", COUNTED, 3),
    "gflops": Column("GFLOPs", COUNTED, 2),  # two for a multiply-add
    "madds": Column("multiply-adds, M", COUNTED, 1),
    "gmadds": Column("multiply-adds, G", COUNTED, 3),
    "module_params": Column("parameters of one module, M", COUNTED, 3),  # on (2, 512, 40, 40)
    "module_gflops": Column("GFLOPs of one module", COUNTED, 3),
    "AP": Column("AP", SCORED, 3, 0.01),
    "AP50": Column("AP50", SCORED, 3, 0.01),
    "AP75": Column("AP75", SCORED, 3, 0.01),
    "AP_small": Column("AP small", SCORED, 3, 0.01),
    "AP_medium": Column("AP medium", SCORED, 3, 0.01),
    "AP_large": Column("AP large", SCORED, 3, 0.01),
    "mPC": Column("mPC", SCORED, 3, 0.01),
    "rPC": Column("rPC", SCORED, 2, 0.01),
    "top1": Column("top-1", SCORED, 4, 0.01),
    "top5": Column("top-5", SCORED, 4, 0.01),
    "entropy": Column("entropy of the experts", SCORED, 3),
    "kernel_variation": Column("variation of the kernel", SCORED, 3),
    "noise_gain": Column("noise gain", SCORED, 3),
    "gain_ratio": Column("noise gain to the static one", SCORED, 3),
    "ratio": Column("time to the base's", TIMED, 2),  # of an image at batch 1
    "ms": Column("ms an image", TIMED, 1),
    "seconds": Column("s an epoch", TIMED, 1),
    "ies": Column("IES", TIMED, 1),
    "rcs": Column("RCS", TIMED, 1),
}

OF_EXPERTS = ("entropy", "kernel_variation", "noise_gain", "gain_ratio")  # as `yolo-dyn experts` measures them
OF_NOISE = ("noise_gain", "gain_ratio")


def half_a_unit(figure: Decimal) -> float:
    """Half a unit of the last digit of a printed figure: what rounding may have taken or added."""
    return float(Decimal(1).scaleb(int(figure.as_tuple().exponent)) / 2)


def agrees(ours: float, column: str, printed: Decimal) -> bool:
    """Whether a paper's figure, by the way it is rounded, may be ours."""
    return abs(ours / COLUMNS[column].scale - float(printed)) <= half_a_unit(printed) * (1 + 1e-9)
