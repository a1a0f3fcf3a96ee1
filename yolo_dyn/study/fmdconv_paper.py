"""Figures of the FMDConv paper: IES and RCS of its Tables 2-7, and whether they follow from the columns beside them.

Figures are kept as they are printed, since their digits say how they were rounded. (Section 4.3 gives two scores that
are not those of the tables: RCS 241.08 where Table 3 has 492.82, and IES 153.16 where Table 4 has 153.57.)
"""

from dataclasses import dataclass
from decimal import Decimal

from yolo_dyn.study.tradeoff_scores import ies, rcs

CIFAR, IMAGENET = 60_000, 1_281_167  # N: both splits of CIFAR, the train split of ImageNet
Interval = tuple[float, float]


@dataclass(frozen=True)
class Published:
    """A row of a table, as printed."""

    model: str
    top1: str  # percent
    seconds: str  # of an epoch
    ies: str = ""
    rcs: str = ""

    @property
    def fraction(self) -> Interval:
        low, high = rounded(self.top1)
        return low / 100, high / 100

    def ies_by_columns(self) -> Interval:
        """What IES can be, given how top-1 and seconds were rounded."""
        (fast, slow), (low, high) = rounded(self.seconds), self.fraction
        return ies(fast, high), ies(slow, low)

    def rcs_by_columns(self, images: int) -> Interval:
        """What RCS can be, given how top-1 and seconds were rounded."""
        (fast, slow), (low, high) = rounded(self.seconds), self.fraction
        return rcs(slow, low, images), rcs(fast, high, images)

    def images_by_columns(self) -> Interval:
        """What N can be, given how RCS, top-1 and seconds were rounded."""
        (fast, slow), (low, high), (least, most) = rounded(self.seconds), self.fraction, rounded(self.rcs)
        return least * fast / high, most * slow / low


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    name: str
    images: int  # N
    rows: tuple[Published, ...]


TABLES = (
    Table(
        "Table 2: CIFAR-10, ResNet-18",
        CIFAR,
        (
            Published("no attention", "89.7", "47.01"),
            Published("channel attention", "90.83", "59.54", "65.65", "915.32"),
            Published("kernel attention, K=2", "90.15", "144.72", "160.53", "373.76"),
            Published("kernel attention, K=4", "90.6", "205.54", "226.87", "264.47"),
            Published("spatial attention", "90.41", "112.63", "124.58", "481.63"),
            Published("filter attention", "90.82", "60.01", "66.08", "908.05"),
        ),
    ),
    Table(
        "Table 3: CIFAR-10, ResNet-18",
        CIFAR,
        (
            Published("CondConv", "81.19", "100.50", "123.78", "484.72"),
            Published("DynamicConv", "85.19", "104.05", "122.14", "491.24"),
            Published("ODConv", "93.82", "223.61", "238.34", "251.74"),
            Published("FMDConv", "94.21", "114.7", "121.75", "492.82"),
        ),
    ),
    Table(
        "Table 4: CIFAR-100, ResNet-18",
        CIFAR,
        (
            Published("CondConv", "66.80", "108.50", "162.42", "369.40"),
            Published("DynamicConv", "67.21", "105.98", "157.68", "380.50"),
            Published("ODConv", "72.63", "222.1", "305.79", "196.21"),
            Published("FMDConv", "74.99", "115.16", "153.57", "390.71"),
        ),
    ),
    Table(
        "Table 5: ImageNet, ResNet-18",
        IMAGENET,
        (
            Published("CondConv, K=8", "71.99", "625.68", "869.12", "1474.10"),
            Published("DynamicConv, K=4", "72.76", "618.45", "849.98", "1507.28"),
            Published("ODConv, K=4", "73.09", "1236.14", "1691.26", "757.52"),
            Published("FMDConv, K=4", "73.21", "620.34", "847.34", "1511.98"),
        ),
    ),
    Table(
        "Table 6: ImageNet, ResNet-50",
        IMAGENET,
        (
            Published("CondConv, K=8", "75.20", "990.12", "1316.65", "973.05"),
            Published("DynamicConv, K=4", "75.82", "1008.54", "1330.18", "963.16"),
            Published("ODConv, K=4", "78.32", "1780.35", "2273.17", "563.60"),
            Published("FMDConv, K=4", "78.34", "1028.57", "1099.25", "975.79"),
        ),
    ),
    Table(
        "Table 7: ImageNet, MobileNetV2 x0.5",
        IMAGENET,
        (
            Published("CondConv, K=8", "66.41", "83.27", "125.39", "10217.64"),
            Published("DynamicConv, K=4", "68.75", "85.62", "124.54", "10287.34"),
            Published("ODConv, K=4", "70.21", "119.21", "169.79", "7545.57"),
            Published("FMDConv, K=4", "70.23", "87.37", "124.41", "10298.31"),
        ),
    ),
)


def rounded(figure: str) -> Interval:
    """The numbers that are rounded to a printed figure: half a unit of its last digit to either side."""
    value = Decimal(figure)
    half = Decimal(1).scaleb(int(value.as_tuple().exponent)) / 2
    return float(value - half), float(value + half)


def images_by_columns(table: Table) -> Interval:
    """What N can be so that the whole column RCS follows, given how RCS, top-1 and seconds were rounded."""
    spans = [row.images_by_columns() for row in table.rows if row.rcs]
    return max(low for low, _ in spans), min(high for _, high in spans)


def overlap(a: Interval, b: Interval) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def errata() -> list[str]:
    """The scores that do not follow from the columns beside them, however these were rounded."""
    found = []
    for table in TABLES:
        for row in table.rows:
            for score, printed, span in _scores(table, row):
                if printed and not overlap(rounded(printed), span):
                    where = f"{table.name}, {row.model}"
                    found.append(f"{where}: {score} {printed}, by its columns {span[0]:.2f} to {span[1]:.2f}")
    return found


def _scores(table: Table, row: Published) -> list[tuple[str, str, Interval]]:
    return [("IES", row.ies, row.ies_by_columns()), ("RCS", row.rcs, row.rcs_by_columns(table.images))]


def tradeoff_paper() -> str:
    """Print IES and RCS of the FMDConv paper's tables beside what their own columns give, and where the two differ."""
    lines, count = [], 0
    for table in TABLES:
        low, high = images_by_columns(table)
        lines.append(f"{table.name}; N = {table.images:,} (by the column RCS {low:,.0f} to {high:,.0f})")
        heads = "".join(f"{name:>10}{'by its columns':>23}  " for name in ("IES", "RCS"))
        lines.append(f"{'':<24}{'top-1, %':>9}{'seconds':>9}{heads}".rstrip())
        for row in table.rows:
            line = f"{row.model:<24}{row.top1:>9}{row.seconds:>9}"
            for _, printed, span in _scores(table, row):
                mark = "" if not printed else "=" if overlap(rounded(printed), span) else "!"
                line += f"{printed or '-':>10}{f'{span[0]:.2f} to {span[1]:.2f}':>23}{mark:>2}"
                count += bool(printed)
            lines.append(line.rstrip())
        lines.append("")
    wrong = errata()
    lines.append(
        f"{len(wrong)} of {count} scores do not follow from the columns beside them, however these were rounded:"
    )
    return "\n".join([*lines, *(f"  {line}" for line in wrong)])
