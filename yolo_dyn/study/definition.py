"""A study as data: one YAML that says which arms are trained on what, what is measured, and what a paper found.

The keys are the fields of `Study` and `Arm`. Figures of a paper are kept as they are printed, since their digits say
how they were rounded.
"""

import typing
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from yolo_dyn.errors import MissingFileError, YoloDynError, nearest
from yolo_dyn.output.arguments import GreyLevels, ImageSize, OrDefault, lacks
from yolo_dyn.output.files import is_yaml
from yolo_dyn.study.columns import COLUMNS, OF_EXPERTS, OF_NOISE

FOLDER = Path(__file__).parent / "tables"  # the studies that come with the package
TASKS = ("detect", "classify")
SPLITS = ("train", "val", "test")
Figures = dict[str, Decimal]  # by column


@dataclass(frozen=True)
class Arm:
    """What is trained, what it is compared with, and what the paper found."""

    model: str = ""  # model YAML; none for an arm that only the paper has
    what: str = ""  # in words
    to: str = ""  # the arm it is compared with; the study's base by default
    seeds: list[int] = field(default_factory=list)  # the study's by default
    options: dict[str, Any] = field(default_factory=dict)  # of all rows of a layer: {SGDM: {razor_ratio: 0.25}}
    train: dict[str, Any] = field(default_factory=dict)  # arguments of the stock trainer, beside the study's
    noise: bool = False  # trained with Gaussian noise, as `yolo-dyn noise-recipe` has it
    paper: Figures = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)  # column -> why our count is not the paper's; else the study's
    left_out: str = ""  # why the arm is not trained


@dataclass(frozen=True)
class Study:
    """Arms, and what they share."""

    title: str
    arms: dict[str, Arm]
    columns: list[str]  # of the main table, names in `columns.COLUMNS`
    base: str = ""  # the arm that others are compared with
    paper: str = ""  # which table of which paper
    text: str = ""  # what is to be known before the figures are read
    limits: list[str] = field(default_factory=list)  # what the figures do not show
    task: str = "detect"
    data: str = ""  # data YAML, or folder of pictures by class; data= on the command line comes first
    split: str = "val"  # that numbers are from
    classes: OrDefault = 0  # of counted networks; those of their YAML if it is 0
    imgsz: ImageSize = 640  # of counted and timed networks, pixels
    train: dict[str, Any] = field(default_factory=dict)  # arguments of the stock trainer; cfg names a recipe
    seeds: list[int] = field(default_factory=lambda: [0])
    sigmas: list[GreyLevels] = field(default_factory=list)  # of Gaussian noise, for detectors, in grey levels
    module: dict[str, Any] = field(default_factory=dict)  # {layer, shape} of the columns about one module
    why: dict[str, str] = field(default_factory=dict)  # column -> why our counts are not the paper's
    besides: bool = False  # multiply-adds hold norms and means too, as the paper's do
    questions: list[dict[str, str]] = field(default_factory=list)  # {ask, arm, to}
    panels: dict[str, dict[str, Any]] = field(default_factory=dict)  # title -> {arms, seeds} of the picture
    name: str = ""  # the file's, without suffix
    source: str = ""  # what it was asked for by: its name, or the path of a file of one's own

    @property
    def metric(self) -> str:
        """What tests and pictures are about."""
        return "AP" if self.task == "detect" else "top1"

    def trained(self) -> dict[str, Arm]:
        """The arms that are not left out."""
        return {name: arm for name, arm in self.arms.items() if not arm.left_out}

    def seeds_of(self, arm: str) -> list[int]:
        return self.arms[arm].seeds or self.seeds

    def compared_to(self, arm: str) -> str:
        """The arm that an arm is compared with; empty for the base itself."""
        to = self.arms[arm].to or self.base
        return "" if to == arm else to


def studies() -> dict[str, Path]:
    """The studies that come with the package, by name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}


def read_study(name: str) -> Study:
    """Read a study by the name of one that comes with the package, or by the path of a file of one's own.

    Raises:
        YoloDynError: if there is none, or the file holds what no study has; it names file and key.
    """
    file = Path(name) if is_yaml(name) else studies().get(name)
    if file is None:
        known = studies()
        raise YoloDynError(f"unknown study {name!r}{nearest(name, known)} (known: {', '.join(known)}; or a YAML file)")
    if not file.is_file():
        raise MissingFileError(f"the study {name} does not exist")
    try:
        text = file.read_text(encoding="utf-8")
        content, printed = yaml.safe_load(text), yaml.load(text, _Printed)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise YoloDynError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    return replace(_study(content, printed, str(file)), source=name)


class _Printed(yaml.SafeLoader):
    """Numbers as they are written: 4.10 has two decimals."""


def _as_printed(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Decimal:
    try:
        return Decimal(node.value)
    except InvalidOperation:  # .inf, 0x10: no figure of a table
        return Decimal(
            str(loader.construct_yaml_float(node) if "float" in node.tag else loader.construct_yaml_int(node))
        )


for _tag in ("float", "int"):
    _Printed.add_constructor(f"tag:yaml.org,2002:{_tag}", _as_printed)


def _study(content: Any, printed: Any, file: str) -> Study:
    if not isinstance(content, dict) or not isinstance(content.get("arms"), dict) or not content["arms"]:
        raise YoloDynError(f"{file}: arms must be a mapping of names to arms")
    arms = {}
    for name, arm in content["arms"].items():
        place = f"{file}, arms, {name}"
        _check(arm, Arm, place)
        figures = printed["arms"][name].get("paper", {})
        _check_figures(figures, f"{place}, paper")
        arms[str(name)] = Arm(**{**arm, "paper": figures})
        if not arms[str(name)].model and not arms[str(name)].left_out:
            raise YoloDynError(f"{place}: model is missing, the YAML of a network; or left_out, why it has none")
    _check({**content, "arms": arms}, Study, file)
    study = Study(**{**content, "arms": arms, "name": Path(file).stem})
    _check_study(study, file)
    return study


def _check(found: Any, kind: type, place: str) -> None:
    """Raise if a mapping has other keys than a dataclass, or values of another kind."""
    if not isinstance(found, dict):
        raise YoloDynError(f"{place}: a mapping is needed, got {found!r}")
    hints = typing.get_type_hints(kind, include_extras=True)
    known = [key for key in hints if key not in ("name", "source")]
    for key, value in found.items():
        if key not in known:
            raise YoloDynError(f"{place}: unknown key {key!r}{nearest(str(key), known)} (keys: {', '.join(known)})")
        one_for_many = typing.get_origin(hints[key]) is list and isinstance(value, str)
        accepted = "a list" if one_for_many else lacks(value, hints[key])
        if accepted:
            raise YoloDynError(f"{place}: {key} must be {accepted}, got {value!r}")
    missing = [f.name for f in fields(kind) if f.default is f.default_factory and f.name not in found]
    if missing:
        raise YoloDynError(f"{place}: {missing[0]} is missing")


def _check_figures(figures: Any, place: str) -> None:
    for column, figure in figures.items() if isinstance(figures, dict) else ():
        if column not in COLUMNS:
            raise YoloDynError(f"{place}: unknown column {column!r}{nearest(column, COLUMNS)} ({', '.join(COLUMNS)})")
        if not isinstance(figure, Decimal) or not figure.is_finite():
            raise YoloDynError(f"{place}: {column} must be a number as it is printed, got {figure!r}")


def _check_study(study: Study, file: str) -> None:
    if study.task not in TASKS:
        raise YoloDynError(f"{file}: task must be one of {', '.join(TASKS)}, got {study.task!r}")
    for column in study.columns:
        if column not in COLUMNS:
            raise YoloDynError(
                f"{file}, columns: unknown column {column!r}{nearest(str(column), COLUMNS)} ({', '.join(COLUMNS)})"
            )
        if column in OF_EXPERTS and study.task != "detect":
            raise YoloDynError(f"{file}, columns: {column} is for detectors, and task is {study.task}")
        if column in OF_NOISE and not any(study.sigmas):
            raise YoloDynError(f"{file}, columns: {column} needs noise: sigmas with one above 0, got {study.sigmas}")
    named = {"base": study.base} if study.base else {}
    named |= {f"arms, {name}, to": arm.to for name, arm in study.arms.items() if arm.to}
    for number, question in enumerate(study.questions):
        if set(question) != {"ask", "arm", "to"}:
            raise YoloDynError(f"{file}, questions: each must have the keys ask, arm and to, got {question!r}")
        named |= {f"questions, {number}, {key}": question[key] for key in ("arm", "to")}
    for title, panel in study.panels.items():
        if not set(panel) <= {"arms", "seeds"} or lacks(panel.get("arms"), list[str]) or isinstance(panel["arms"], str):
            raise YoloDynError(f"{file}, panels, {title}: must have the keys arms and, maybe, seeds, got {panel!r}")
        named |= {f"panels, {title}, {arm}": arm for arm in panel["arms"]}
    for place, arm in named.items():
        if arm not in study.arms:
            raise YoloDynError(f"{file}, {place}: unknown arm {arm!r}{nearest(str(arm), study.arms)}")
    if ("module" in " ".join(study.columns)) != bool(study.module) or set(study.module) - {"layer", "shape"}:
        raise YoloDynError(f"{file}, module: must have the keys layer and shape if a column asks for it")
    if study.split not in SPLITS:
        raise YoloDynError(f"{file}: split must be one of {', '.join(SPLITS)}, got {study.split!r}")
    if study.task == "classify" and study.sigmas:
        raise YoloDynError(f"{file}: sigmas are for detectors, and task is classify")
    all_seeds = {"seeds": study.seeds, **{f"arms, {name}, seeds": arm.seeds for name, arm in study.arms.items()}}
    for place, seeds in all_seeds.items():
        if not all(type(seed) is int and seed >= 0 for seed in seeds) or len(set(seeds)) < len(seeds):
            raise YoloDynError(f"{file}, {place}: must be different integers of at least 0, got {seeds}")
