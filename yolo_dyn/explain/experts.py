"""`yolo-dyn experts`: whether the dynamic layers of a trained detector are dynamic at all, and what that is worth."""

import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.utils import LOGGER, TQDM

from yolo_dyn import registry
from yolo_dyn.data.images import EvaluationSet, data_name, drawn, evaluation_set
from yolo_dyn.errors import YoloDynError
from yolo_dyn.explain.dynamics import Dynamics, Pictures, measurable, measure
from yolo_dyn.explain.dynamics_text import lines
from yolo_dyn.integration.api import chosen_device, chosen_threads, machine_name, torch_device
from yolo_dyn.integration.trained import opened, write_checkpoint
from yolo_dyn.layers import SGDM
from yolo_dyn.layers.baking import MeanKernel, frozen_copy, mixing_layers
from yolo_dyn.output.arguments import FileName, ImageSize, OrDefault, Positive, SigmasWithClean, checked
from yolo_dyn.output.environment import environment
from yolo_dyn.output.files import results_folder, writable, write_json
from yolo_dyn.output.labels import model_labels
from yolo_dyn.output.outcome import Outcome
from yolo_dyn.robustness import cells as store
from yolo_dyn.robustness.cells import Cell, Task
from yolo_dyn.robustness.evaluate import Corrupter, Settings
from yolo_dyn.robustness.models import check_model
from yolo_dyn.robustness.plan import Plan, chosen_conditions
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
    sweep: Sweep | None  # the model, and with each layer's kernel frozen at its mean; None if it was not asked for

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
            "frozen": self.sweep
            and {
                "summary": [row.as_dict() for row in self.sweep.summary],
                "differences": [row.as_dict() for row in self.sweep.differences],
            },
        }

    def write(self) -> None:
        write_json(self.folder / "experts.json", self.as_dict())

    def __str__(self) -> str:
        title = f"{data_name(self.images.data)}, {self.images.split}, {len(self.images.files)} images"
        text = lines(self.model, title, self.layers, self.others, self.sweep)
        return "\n".join([*text, "", f"experts.json and experts.png in {self.folder}"])


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
    ((label, _),) = model_labels(model).items()
    source = opened(model)
    net: Any = source.model.float().eval()
    check_layers(net, model)
    found = drawn(evaluation_set(data, split), images, seed)
    if frozen and not found.labelled:
        raise YoloDynError(f"{data}, split {split}, has no labels to score against: frozen=False measures no AP")
    check_model(model, found, imgsz)
    folder = writable(results_folder(project, name or f"{label}-{data_name(data)}"))
    for line in found.log():
        LOGGER.info(line)
    unguided = without_guides(net)
    net = net.fuse(verbose=False)
    layers = measurable(mixing_layers(net))
    pictures = Pictures(found, conditions, seed, imgsz, batch, torch_device(settings.device))
    dynamics, means = measure(net.to(pictures.device), layers, unguided, pictures)
    plan = Plan({label: model}, conditions, settings, seed, resamples)
    done = Experts(folder, label, found, plan.as_dict(), dynamics, without_experts(net, layers), None)
    done.write()
    if frozen:
        done = replace(done, sweep=Frozen(source, net.cpu(), means, plan, found, folder, workers).sweep())
        done.write()
    return done


def check_layers(net: nn.Module, model: str) -> None:
    """Raise a YoloDynError if a network has no layer that mixes kernels."""
    if not measurable(mixing_layers(net)):
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

    def sweep(self) -> Sweep:
        """Evaluate what is missing, and put all cells together."""
        variants = {"": list[str](), **({name: [name] for name in self.means})}
        variants |= {ALL: list(self.means)} if len(self.means) > 1 else {}
        base = self.plan.cells(self.images, machine_name(self.plan.settings.device))
        cells = {name: [self.cell(cell, name, layers) for cell in base] for name, layers in variants.items()}
        missing = {
            name: rest
            for name, own in cells.items()
            if (rest := [cell for cell in own if store.load(self.folder / "cells", cell) is None])
        }
        count = sum(map(len, missing.values()))
        with (
            tempfile.TemporaryDirectory() as place,
            TQDM(total=count * len(self.images.files), desc=f"{count} cells", unit="images", disable=not count) as bar,
        ):
            for name, own in missing.items():
                file = self.checkpoint(variants[name], Path(place)) if name else next(iter(self.plan.models.values()))
                for cell in own:
                    self.run(cell, file, bar.update)
        everything = [cell for own in cells.values() for cell in own]
        return Sweep.read(self.folder, everything, self.images, self.plan.as_dict(), typed())

    def cell(self, cell: Cell, name: str, layers: list[str]) -> Cell:
        """The cell of the model with layers frozen, of that of the model itself."""
        if not layers:
            return cell
        return replace(cell, label=f"{cell.label}, {name} frozen", identity={**cell.identity, "frozen": layers})

    def checkpoint(self, layers: list[str], folder: Path) -> str:
        """The model with these layers frozen, in single precision, which folded weights need to be as they were."""
        file = folder / "frozen.pt"
        net = frozen_copy(self.net, {name: self.means[name] for name in layers})
        write_checkpoint(self.source, net, file, half=False)
        return str(file)

    def run(self, cell: Cell, file: str, progress: Any) -> None:
        """Evaluate a cell with the checkpoint of a file, and keep it."""
        settings, resamples = self.plan.settings, self.plan.resamples
        corrupter = Corrupter.of(cell.condition, self.plan.seed)
        task = Task(
            replace(cell, model=file),
            self.images,
            settings,
            resamples,
            self.workers,
            False,
            str(self.folder),
            corrupter,
        )
        done = task.run(progress)
        store.save(self.folder / "cells", replace(done, cell=cell, record=replace(done.record, path=cell.model)))
