"""IES and RCS of the FMDConv paper's Tables 2-7, out of the study files: do they follow from the columns beside them?

Figures are kept as they are printed, since their digits say how they were rounded. (Section 4.3 gives two scores that
are not those of the tables: RCS 241.08 where Table 3 has 492.82, and IES 153.16 where Table 4 has 153.57.)
"""

import functools
from dataclasses import dataclass
from decimal import Decimal

from yolo_dyn.output.outcome import Text
from yolo_dyn.runs.tradeoff.scores import ies, rcs
from yolo_dyn.study.columns import half_a_unit
from yolo_dyn.study.definition import read_study, studies

# N, by data: both splits of CIFAR, the train split of ImageNet
IMAGES = {"cifar10": 60_000, "cifar100": 60_000, "imagenet": 1_281_167}
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
    title: str
    images: int  # N
    rows: tuple[Published, ...]


@functools.cache
def tables() -> tuple[Table, ...]:
    """The tables whose study files have IES or RCS."""
    found = []
    for study in map(read_study, studies()):
        rows = tuple(
            Published(arm.what, *(str(arm.paper.get(column, "")) for column in ("top1", "seconds", "ies", "rcs")))
            for arm in study.arms.values()
        )
        if any(row.ies or row.rcs for row in rows):
            found.append(Table(study.paper.rpartition(", ")[2], study.title, IMAGES[study.data], rows))
    return tuple(found)


def rounded(figure: str) -> Interval:
    """The numbers that are rounded to a printed figure: half a unit of its last digit to either side."""
    half = half_a_unit(Decimal(figure))
    return float(figure) - half, float(figure) + half


def images_by_columns(table: Table) -> Interval:
    """What N can be so that the whole column RCS follows, given how RCS, top-1 and seconds were rounded."""
    spans = [row.images_by_columns() for row in table.rows if row.rcs]
    return max(low for low, _ in spans), min(high for _, high in spans)


def overlap(a: Interval, b: Interval) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def errata() -> list[str]:
    """The scores that do not follow from the columns beside them, however these were rounded."""
    found = []
    for table in tables():
        for row in table.rows:
            for score, printed, span in _scores(table, row):
                if printed and not overlap(rounded(printed), span):
                    where = f"{table.name}, {row.model}"
                    found.append(f"{where}: {score} {printed}, by its columns {span[0]:.2f} to {span[1]:.2f}")
    return found


def _scores(table: Table, row: Published) -> list[tuple[str, str, Interval]]:
    return [("IES", row.ies, row.ies_by_columns()), ("RCS", row.rcs, row.rcs_by_columns(table.images))]


def tradeoff_paper() -> Text:
    """Set IES and RCS of the FMDConv paper's tables beside what their own columns give, and where the two differ."""
    lines, count = [], 0
    for table in tables():
        low, high = images_by_columns(table)
        lines.append(f"{table.name}: {table.title}; N = {table.images:,} (by the column RCS {low:,.0f} to {high:,.0f})")
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
    return Text("\n".join([*lines, *(f"  {line}" for line in wrong)]))
