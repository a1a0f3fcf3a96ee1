"""A trained model with a layer put into it: all its weights, in a checkpoint from which training goes on."""

import copy
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from ultralytics.utils import ASSETS, LOGGER

from yolo_dyn.errors import MissingFileError, YoloDynError, first_line
from yolo_dyn.integration import image_channels, integrate
from yolo_dyn.integration.api import check_has_weights
from yolo_dyn.integration.checkpoints import aligned
from yolo_dyn.integration.model_yaml import smallest
from yolo_dyn.integration.warm_start import start_from_static
from yolo_dyn.output.files import written_whole

if TYPE_CHECKING:
    from ultralytics import YOLO

PHOTO = "bus.jpg"  # comes with Ultralytics
KEPT = ("train_args", "version", "license", "docs")  # of a checkpoint, which of it is true of the new one


def opened(model: str) -> "YOLO":
    """Open a trained checkpoint, which Ultralytics may download if it knows its name.

    Raises:
        YoloDynError: if it is missing or a YAML, or no checkpoint of an Ultralytics model that was built from a YAML.
    """
    from ultralytics import YOLO
    from ultralytics.utils.downloads import attempt_download_asset

    integrate()
    check_has_weights(model)
    try:
        file = Path(attempt_download_asset(model))
    except Exception:  # of the network, in as many kinds as there are versions
        file = Path(model)
    if not file.is_file():
        raise MissingFileError(f"model {model!r} does not exist")
    try:
        net = YOLO(model)
    except YoloDynError:
        raise
    except Exception as error:  # as many kinds as there are files
        raise YoloDynError(f"model {model!r} is no checkpoint of Ultralytics: {first_line(error)}") from error
    if not isinstance(getattr(net.model, "yaml", None), dict) or "backbone" not in net.model.yaml:
        raise YoloDynError(f"model {model!r} was not built from a model YAML")
    return net


def check_unfused(source: "YOLO", model: str) -> None:
    """Refuse a checkpoint without BatchNorms, such as a baked one, whose weights no model built from a YAML takes.

    Not by Ultralytics' `is_fused`, which in its older versions takes any model with few BatchNorms for fused.

    Raises:
        YoloDynError: for such a one.
    """
    from ultralytics.nn.modules import Conv

    if any(isinstance(module, Conv) and not hasattr(module, "bn") for module in source.model.modules()):
        raise YoloDynError(f"model {model!r} is fused, for inference: take the checkpoint that it was made of")


def content(source: "YOLO") -> dict[str, Any]:
    """The model YAML of an opened checkpoint, of its scale alone."""
    d = {key: value for key, value in copy.deepcopy(source.model.yaml).items() if key not in ("yaml_file", "scale")}
    scale = source.model.yaml.get("scale")
    if d.get("scales") and scale:
        d["scales"] = {scale: d["scales"][scale]}
    if d.get("ch") == 3:
        del d["ch"]
    return d


def transfer(source: "YOLO", content: dict[str, Any], file: Path, static: bool) -> None:
    """Build a model from a YAML, give it all weights of a trained one, and write its checkpoint.

    Args:
        source: the trained model.
        content: of the YAML.
        file: the YAML; the checkpoint goes beside it.
        static: whether dynamic convolutions take the place of static ones, and must start as they are.

    Raises:
        YoloDynError: if they cannot, or the file cannot be written.
    """
    old: Any = source.model
    new: Any = type(old)({**smallest(content), "yaml_file": str(file)}, verbose=False)
    new.load(old, verbose=False)
    if static:
        _, refused = start_from_static(old, new)
        for name, reason in refused.items():
            raise YoloDynError(f"{file.stem}, {name}: {reason}, so it would not go on from the checkpoint")
    new.names, new.args = old.names, old.args
    # experts whose random parts sum to zero no longer do once each is rounded to half
    new = write_checkpoint(source, new, file.with_suffix(".pt"), half=not static)
    apart, largest = difference(old, new)
    LOGGER.info(
        f"{file.with_suffix('.pt')} has {_shared(old, new)} of the {len(old.state_dict())} tensors of the checkpoint; "
        f"on {PHOTO} its outputs, of up to {largest:.4g}, differ by at most {apart:.2g}"
    )


def write_checkpoint(source: "YOLO", model: nn.Module, file: Path, half: bool = True) -> nn.Module:
    """Write a model that was made of an opened checkpoint as a new one, by default in half precision as Ultralytics.

    Returns:
        The model as it will be read.

    Raises:
        YoloDynError: if the file cannot be written.
    """
    checkpoint = {key: source.ckpt[key] for key in KEPT if key in source.ckpt}
    checkpoint |= dict.fromkeys(("best_fitness", "ema", "optimizer", "updates"))
    kept = copy.deepcopy(model)
    checkpoint |= {"epoch": -1, "model": kept.half() if half else kept.float(), "date": datetime.now().isoformat()}
    with written_whole(file, "out") as partial:
        torch.save(checkpoint, partial)
    return checkpoint["model"].float()


def difference(old: nn.Module, new: nn.Module) -> tuple[float, float]:
    """Largest difference of two models' outputs on a real image, and the largest output."""
    import cv2

    photo = cv2.cvtColor(cv2.resize(cv2.imread(str(ASSETS / PHOTO)), (640, 640)), cv2.COLOR_BGR2RGB)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    channels = image_channels(old)
    if channels != 3:
        image = image.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    with torch.inference_mode():
        before, after = (torch.cat([part.flatten() for part in tensors(net.eval()(image))]) for net in (old, new))
    return (before - after).abs().max().item(), before.abs().max().item()


def tensors(output: Any) -> Iterator[Tensor]:
    """All tensors of a model's output, however nested."""
    if isinstance(output, Tensor):
        yield output.float()
    elif isinstance(output, dict | list | tuple):
        for part in output.values() if isinstance(output, dict) else output:
            yield from tensors(part)


def _shared(old: nn.Module, new: nn.Module) -> int:
    """How many tensors of a model another has, wherever its rows have gone."""
    theirs = new.state_dict()
    return sum(
        name in theirs and theirs[name].shape == tensor.shape and torch.equal(theirs[name], tensor)
        for name, tensor in aligned(old, new).state_dict().items()
    )
