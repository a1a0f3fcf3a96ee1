"""What a sweep is asked for, checked before anything long begins, and the cells that it takes."""

import hashlib
import itertools
from dataclasses import asdict, dataclass

import numpy as np

from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.errors import YoloDynError
from yolo_dyn.output.environment import versions
from yolo_dyn.output.files import OPENCV, hash_file
from yolo_dyn.robustness.cells import BEHIND, Cell
from yolo_dyn.robustness.corruptions import GAUSSIAN, SEVERITIES, expanded, find_for
from yolo_dyn.robustness.evaluate import Settings
from yolo_dyn.robustness.fronts import Front
from yolo_dyn.robustness.records import CLEAN, Condition

SIGMAS = [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
VERSIONS = ("yolo-dyn", "ultralytics", "torch", "opencv-python")  # that numbers depend on


@dataclass(frozen=True)
class Plan:
    """Models, conditions and settings; what decides the numbers of each cell."""

    models: dict[str, str]  # label -> file
    conditions: list[Condition]  # the clean one first
    settings: Settings
    seed: int = 0
    resamples: int = 1000
    fronts: tuple[Front, ...] = ()  # each model also runs behind each of these

    def cells(self, images: EvaluationSet, machine: str) -> list[Cell]:
        """All cells, condition by condition, on a machine of that name."""
        common = {
            **asdict(self.settings),
            "seed": self.seed,
            "resamples": self.resamples,
            "images": images.fingerprint,
            **({} if images.channels == 3 else {"channels": images.channels}),  # cells from before it was kept have 3
            **images.kind.as_dict(),
            "machine": machine,
            "versions": versions(VERSIONS),
        }
        weights = {label: hash_file(file) for label, file in self.models.items()}
        definitions = {front.name: front.definition(images.channels) for front in self.fronts}
        cells = []
        for condition in self.conditions:
            pixels = {"corruption": made_by(condition, self.seed)}
            for label, file in self.models.items():
                runtime = {"runtime": "opencv"} if file.endswith(OPENCV) else {}
                identity = {**common, "weights": weights[label], **runtime, **pixels}
                cells.append(Cell(file, label, condition, identity))
                for front, made in definitions.items():
                    behind = f"{label}{BEHIND}{front}"
                    cells.append(Cell(file, behind, condition, {**identity, "front": made}, front))
        return cells

    def front(self, cell: Cell) -> Front | None:
        """The front of a cell, told what it may know of its noise."""
        return next((f.told(cell.condition.noise) for f in self.fronts if f.name == cell.front), None)

    def check(self) -> None:
        """Find out before a long run that fronts do not fit.

        Raises:
            YoloDynError: if one must know the noise of a corruption that has none, or two labels are one.
        """
        for front, condition in itertools.product(self.fronts, self.conditions):
            front.told(condition.noise)
        behind = {f"{label}{BEHIND}{front.name}" for label in self.models for front in self.fronts}
        if taken := behind & self.models.keys():
            raise YoloDynError(f"model {self.models[min(taken)]!r} is called as another behind its front: {min(taken)}")

    def as_dict(self) -> dict[str, object]:
        """Settings for the report."""
        fronts = {"front": [front.name for front in self.fronts]} if self.fronts else {}
        return {**asdict(self.settings), "seed": self.seed, "resamples": self.resamples, **fronts}


def made_by(condition: Condition, seed: int) -> str:
    """Hash of a small corrupted image, and what else decides: another one if the code of a corruption has changed."""
    if condition.strength is None:
        return CLEAN
    image = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)
    corruption = find_for(condition.corruption, condition.severity)
    corrupted = corruption.apply(image, condition.strength, seed, "probe")
    digest = hashlib.sha256(corrupted.tobytes()).hexdigest()[:16]
    kind = corruption.kind  # without the path of a file, whose content counts
    return f"{kind} {condition.strength:.6g} {digest} {corruption.material}".rstrip()


def chosen_conditions(
    sigma: list[float] | None, severity: list[int] | None, corruption: list[str] | None
) -> list[Condition]:
    """Conditions asked for: sigma of Gaussian noise, or severities of any corruption; always a clean one, for P.

    The name of a group of corruptions, such as cococ, stands for all of them; frost is called frost_procedural unless
    the user's textures make it.

    Raises:
        YoloDynError: for both at once, or what no corruption takes.
    """
    by_sigma = corruption in (None, [GAUSSIAN])
    if sigma is not None and (severity is not None or not by_sigma):
        raise YoloDynError(f"sigma is the strength of {GAUSSIAN}; other corruptions take severity")
    if severity is None and by_sigma:
        values = sorted(set(SIGMAS if sigma is None else sigma))
        if not values or not 0 <= values[0] <= values[-1] < float("inf"):
            raise YoloDynError(f"sigma must be grey levels of at least 0, got {sigma}")
        return [Condition(CLEAN), *(Condition(GAUSSIAN, value) for value in values if value)]
    severities = sorted(set(severity or SEVERITIES))
    chosen = expanded(corruption or [GAUSSIAN])
    return [Condition(CLEAN), *(Condition(c.name, c.at(s), s) for c in chosen for s in severities)]
