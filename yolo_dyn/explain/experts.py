"""`yolo-dyn experts`: whether the dynamic layers of a trained detector are dynamic at all, and what that is worth."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.utils import LOGGER, TQDM

from yolo_dyn import registry
from yolo_dyn.data.images import EvaluationSet, data_name, drawn, evaluation_set
from yolo_dyn.errors import YoloDynError
from yolo_dyn.explain.dynamics import Dynamics, Worth, measurable, measure
from yolo_dyn.explain.dynamics_shown import draw, tables
from yolo_dyn.explain.views import NoisyImages
from yolo_dyn.integration import image_channels
from yolo_dyn.integration.api import chosen_device, chosen_threads, machine_name, torch_device
from yolo_dyn.integration.trained import opened, write_checkpoint
from yolo_dyn.layers import SGDM
from yolo_dyn.layers.baking import MeanKernel, freeze, mixing_layers
from yolo_dyn.output.arguments import FileName, ImageSize, OrDefault, Positive, SigmasWithClean, checked
from yolo_dyn.output.environment import environment
from yolo_dyn.output.files import results_folder, writable, write_json
from yolo_dyn.output.labels import model_labels
from yolo_dyn.output.outcome import Outcome
from yolo_dyn.robustness import cells as store
from yolo_dyn.robustness.cells import Cell, FinishedCell, Task
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.evaluate import Settings
from yolo_dyn.robustness.models import check_model
from yolo_dyn.robustness.plan import Plan, chosen_conditions
from yolo_dyn.robustness.records import MEAN
from yolo_dyn.robustness.results import Sweep
from yolo_dyn.robustness.sweep import typed

SIGMAS = [0.0, 25.0, 50.0]
ALL = "all"


@dataclass(frozen=True, repr=False)
class Experts(Outcome):
    """What the experts of a detector do, layer by layer."""

    folder: Path
    model: str
    images: EvaluationSet
    settings: dict[str, Any]
    layers: list[Dynamics]
    others: dict[str, str]  # layers of ours without experts, and their kinds
    ap: dict[str, float]  # of the model, by condition; empty if it was not asked for, or nothing is labelled
    worth: list[Worth]  # of each layer, and of all

    def as_dict(self) -> dict[str, Any]:
        """What is written to experts.json."""
        return {
            "command": typed(),
            "model": self.model,
            "data": {
                "data": self.images.data,
                "split": self.images.split,
                "images": len(self.images.files),
                "fingerprint": self.images.fingerprint,
            },
            "settings": self.settings,
            "environment": environment(),
            "layers": [layer.as_dict() for layer in self.layers],
            "without_experts": self.others,
            "AP": self.ap,
            "frozen": [each.as_dict() for each in self.worth],
        }

    def means(self) -> dict[str, float]:
        """Means over the layers, and over the strengths of noise, of what they all have: columns of a study."""
        noise = [each for layer in self.layers for each in layer.noise]
        values = {
            "entropy": [layer.usage.entropy for layer in self.layers if layer.usage],
            "kernel_variation": [layer.variation for layer in self.layers],
            "noise_gain": [each.gain for each in noise],
            "gain_ratio": [each.ratio for each in noise],
        }
        there = {name: [v for v in each if v is not None] for name, each in values.items()}
        return {name: sum(each) / len(each) for name, each in there.items() if each}

    def write(self) -> None:
        write_json(self.folder / "experts.json", self.as_dict())
        draw(self.title, self.layers, self.worth, self.folder / "experts.png")

    @property
    def title(self) -> str:
        """Model and images."""
        return f"{self.model}, {data_name(self.images.data)}, {self.images.split}, {len(self.images.files)} images"

    def __str__(self) -> str:
        layers = f"{len(self.layers)} layer{'s' if len(self.layers) > 1 else ''} with kernels for each image"
        found = ["", f"{self.title}: {layers}", "", *tables(self.layers, self.worth, self.ap)]
        if self.others:
            named = ", ".join(f"{name} ({kind})" for name, kind in self.others.items())
            found += ["", f"without experts: {named}"]
        return "\n".join([*found, "", f"experts.json and experts.png in {self.folder}"])


@checked
def experts(
    model: FileName,
    data: str,
    sigma: SigmasWithClean | None = None,
    images: Positive = 200,
    split: str = "val",
    frozen: bool = True,
    seed: OrDefault = 0,
    imgsz: ImageSize = 640,
    batch: Positive = 16,
    workers: OrDefault = 0,
    resamples: Positive = 1000,
    device: str = "",
    name: str = "",
    project: str = "runs/experts",
) -> Experts:
    """See through the dynamic layers of a detector: how they use their experts, what noise moves, what AP they bring.

    Args:
        model: a trained ``.pt``.
        data: a data YAML.
        sigma: strengths of Gaussian noise in grey levels, with the 0 of the clean images among them; 0, 25, 50 by
            default. The pixels are those of `robustness`.
        images: how many, drawn from the split.
        split: "train", "val" or "test".
        frozen: also measure AP with the kernel of each layer, and of all, frozen at its mean over the clean images:
            what being dynamic is worth. Finished cells are kept, as `robustness` keeps them.
        seed: of the draw and of the noise.
        imgsz: images are letterboxed to a square of so many pixels.
        batch: images that go through the network together.
        workers: processes that read and corrupt images for the AP.
        resamples: of the images, for the intervals of the AP.
        device: torch device; the first GPU if there is one, else the CPU.
        name: of the folder for the results, inside `project`; those of model and data set if it is empty.
        project: folder of all such folders.

    Returns:
        All measures, as in experts.json; `explain.dynamics` has their formulas.

    Raises:
        YoloDynError: for a model without a layer that mixes kernels, or if something does not fit, before anything
            long begins.
    """
    conditions = chosen_conditions(SIGMAS if sigma is None else sigma, None, None)
    settings = Settings(imgsz, batch, device=chosen_device(device), threads=chosen_threads(0))
    (label,) = model_labels(model)
    if Path(model).suffix != ".pt":
        raise YoloDynError(f"model must be a trained checkpoint (.pt), got {model!r}")
    source = opened(model)
    net: Any = source.model.float().eval()
    check_layers(net, model)
    found = drawn(evaluation_set(data, split), images, seed)
    if frozen and not found.labelled:
        raise YoloDynError(f"{data}, split {split}, has no labels to score against: frozen=False measures no AP")
    check_model(model, found, imgsz)
    if (channels := image_channels(net)) != found.channels:
        raise YoloDynError(f"model {model!r} takes images of {channels} channels, {data} has {found.channels}")
    folder = writable(results_folder(project, name or f"{label}-{data_name(data)}"))
    for line in found.log():
        LOGGER.info(line)
    shown = NoisyImages(found, conditions, seed, imgsz, batch, torch_device(settings.device))
    unguided = without_guides(net.to(shown.device))
    net = net.fuse(verbose=False)
    layers = measurable(mixing_layers(net))
    dynamics, means = measure(net, layers, unguided, shown)
    plan = Plan({label: model}, conditions, settings, seed, resamples)
    done = Experts(folder, label, found, plan.as_dict(), dynamics, without_experts(net, layers), {}, [])
    done.write()
    if frozen:
        ap, worth = Frozen(source, net.cpu(), means, plan, found, folder, workers).worth()
        done = replace(done, ap=ap, worth=worth)
        done.write()
    return done


def has_experts(net: nn.Module) -> bool:
    """Whether a network has a layer that mixes kernels."""
    return bool(measurable(mixing_layers(net)))


def check_layers(net: nn.Module, model: str) -> None:
    """Raise a YoloDynError if a network has no layer that mixes kernels."""
    if not has_experts(net):
        kinds = sorted(set(without_experts(net, {}).values()))
        raise YoloDynError(
            f"model {model!r} has no layer that mixes kernels, whose experts could be seen; its layers of ours: "
            f"{', '.join(kinds) or 'none'}"
        )


def without_experts(net: nn.Module, layers: dict[str, Any]) -> dict[str, str]:
    """The registered layers of a network that are dynamic in another way, or not at all, with their kinds."""
    found = {name: module for name, module in net.named_modules() if registry.kind_of(type(module)) and name}
    hosts = {name for name in found if any(layer == name or layer.startswith(f"{name}.") for layer in layers)}
    return {name: type(module).__name__ for name, module in found.items() if name not in hosts}


def without_guides(net: nn.Module) -> dict[str, Any]:
    """The layers that an SGDM guides, by name, in a fused copy of a network whose guides are switched off."""
    guided = [name for name, module in net.named_modules() if isinstance(module, SGDM) and module.guide != "none"]
    if not guided:
        return {}
    free: Any = copy.deepcopy(net)
    for name in guided:
        free.get_submodule(name).guide = "none"
    free = free.fuse(verbose=False)
    layers = measurable(mixing_layers(free)).items()
    return {name: layer for name, layer in layers if any(name.startswith(f"{row}.") for row in guided)}


def frozen_copy(net: nn.Module, means: dict[str, MeanKernel]) -> nn.Module:
    """A copy of a fused network in which these layers keep their mean kernels."""
    net = copy.deepcopy(net)
    for name, mean in means.items():
        freeze(net, name, mean)
    return net


@dataclass(frozen=True)
class Frozen:
    """What being dynamic is worth: cells of a model, and of it with the kernels of one layer or of all frozen."""

    source: Any  # the opened checkpoint
    net: nn.Module  # fused
    means: dict[str, MeanKernel]
    plan: Plan  # of the model alone
    images: EvaluationSet
    folder: Path
    workers: int

    def worth(self) -> tuple[dict[str, float], list[Worth]]:
        """Evaluate what is missing: AP of the model by condition, and what each frozen model has less or more."""
        cells = self.cells()
        missing = {
            name: rest
            for name, own in cells.items()
            if (rest := [cell for cell in own if store.load(self.folder / "cells", cell) is None])
        }
        self.run(missing)
        everything = [cell for own in cells.values() for cell in own]
        sweep = Sweep.read(self.folder, everything, self.images, self.plan.as_dict(), typed())
        names = {each[0].label: name for name, each in cells.items()}
        alone = [record for record in sweep.records if not names[record.model]]
        ap = {str(record.condition): record.scores["AP"] for record in alone if "AP" in record.scores}
        mean = sweep.summary[0].ap.mpc
        ap |= {} if mean is None else {MEAN: mean}
        return ap, [Worth(names[row.model], row.condition, row.ap) for row in sweep.differences]

    def cells(self) -> dict[str, list[Cell]]:
        """Of the model, by an empty name, and of it frozen, by the layer's name."""
        base = self.plan.cells(self.images, machine_name(self.plan.settings.device))
        frozen = {
            name: [
                replace(cell, label=f"{cell.label}-frozen-{name}", identity={**cell.identity, "frozen": layers})
                for cell in base
            ]
            for name, layers in self.variants().items()
        }
        return {"": base, **frozen}

    def variants(self) -> dict[str, list[str]]:
        """Which layers are frozen: each alone, and all."""
        single = {name: [name] for name in self.means}
        return single | ({ALL: list(self.means)} if len(single) > 1 else {})

    def run(self, missing: dict[str, list[Cell]]) -> None:
        """Evaluate cells and keep them, model by model."""
        count = sum(map(len, missing.values()))
        if not count:
            return
        with (
            tempfile.TemporaryDirectory() as place,
            TQDM(total=count * len(self.images.files), desc=f"{count} cells", unit="images") as bar,
        ):
            for name, cells in missing.items():
                file = self.checkpoint(self.variants()[name], Path(place) / "frozen.pt") if name else cells[0].model
                for cell in cells:
                    store.save(self.folder / "cells", self.finished(cell, file, bar.update))

    def checkpoint(self, layers: list[str], file: Path) -> str:
        """Write the model with these layers frozen; in single precision, so that nothing else is rounded."""
        net = frozen_copy(self.net, {name: self.means[name] for name in layers})
        write_checkpoint(self.source, net, file, half=False)
        return str(file)

    def finished(self, cell: Cell, file: str, progress: Callable[[int], None]) -> FinishedCell:
        """Evaluate the checkpoint of a file for a cell."""
        common = (self.images, self.plan.settings, self.plan.resamples, self.workers, False, str(self.folder))
        task = Task(replace(cell, model=file), *common, Corrupter.of(cell.condition, self.plan.seed))
        done = task.run(progress)
        return replace(done, cell=cell, record=replace(done.record, path=cell.model))
