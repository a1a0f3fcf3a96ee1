"""Where the supported versions of Ultralytics differ: one function for each difference, which names the versions.

A function goes when the oldest supported version has what it makes up for. All import Ultralytics when they are called:
before 8.3.199 it imports the whole of itself at once, us in the middle of it.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn


def _is_since(version: str) -> bool:
    """Whether Ultralytics is of that version or newer: for differences that nothing else shows."""
    from ultralytics import __version__
    from ultralytics.utils.checks import parse_version

    return parse_version(__version__) >= parse_version(version)


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model inside what trains on several GPUs; `de_parallel` before 8.3.196."""
    from ultralytics.utils import torch_utils

    unwrap = getattr(torch_utils, "unwrap_model", None) or torch_utils.de_parallel
    return unwrap(model)


def host_of_channels(c2: int) -> list[Any]:
    """A stock row whose output has exactly `c2` channels, at any width; `Index` came in 8.3.59."""
    from ultralytics.nn import tasks

    return [-1, 1, "Index", [c2, 0]] if hasattr(tasks, "Index") else [-1, 1, "HGStem", [2, c2]]


def non_max_suppression(*args: Any, end2end: bool = False, **kwargs: Any) -> list[torch.Tensor]:
    """Ultralytics' own, which moved from `utils.ops` to `utils.nms` in 8.3.190.

    Before 8.3.67 the shape of the prediction alone told whether the head has suppressed by itself.
    """
    try:
        from ultralytics.utils.nms import non_max_suppression
    except ImportError:
        from ultralytics.utils.ops import non_max_suppression
    if "end2end" in inspect.signature(non_max_suppression).parameters:
        kwargs["end2end"] = end2end
    return non_max_suppression(*args, **kwargs)


def no_reading() -> AbstractContextManager[Any]:
    """Hold a data set from reading some of its files when it is made, as it does since 8.3.110 to time it."""
    from ultralytics.data import base

    stock = hasattr(base, "check_file_speeds")
    return patch.object(base, "check_file_speeds", lambda *_, **__: None) if stock else contextlib.nullcontext()


def build_dataloader(dataset: Any, batch: int, workers: int, device: torch.device) -> Any:
    """The stock loader, which asks for the device since 8.4.111."""
    from ultralytics.data import build_dataloader

    options = {"device": device} if "device" in inspect.signature(build_dataloader).parameters else {}
    return build_dataloader(dataset, batch, workers, shuffle=False, **options)


def can_quantize() -> bool:
    """Whether an exporter takes `quantize`, for ONNX and on the CPU; since 8.4.80."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    return "quantize" in DEFAULT_CFG_DICT


def half_precision() -> dict[str, Any]:
    """The argument of validators for 16 bits: `quantize` since 8.4.80, `half` before."""
    return {"quantize": 16} if can_quantize() else {"half": True}


def keeps_seconds() -> bool:
    """Whether results.csv has the seconds since the training began, as since 8.3.9."""
    return _is_since("8.3.9")


def classifier_gives_logits() -> bool:
    """Whether validators and predictors take probabilities and logits, as since 8.3.47; probabilities alone before."""
    from ultralytics.nn import modules

    classify = getattr(modules, "Classify", None)
    return classify is None or hasattr(classify, "export")


def fit_layers() -> None:
    """Let our classifier give what this Ultralytics takes."""
    from yolo_dyn.layers import Classifier

    Classifier.gives_logits = classifier_gives_logits()


def detections(rows: list[torch.Tensor]) -> Any:
    """What non-maximum suppression yields, ``[n, 6]``, as the stock metrics take it: as it is before 8.3.154."""
    from ultralytics.models.yolo.detect import DetectionValidator

    if "gt_cls" in inspect.signature(DetectionValidator._process_batch).parameters:
        return rows
    return [{"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5], "extra": x[:, 6:]} for x in rows]


def is_checkpoint(backend: Any) -> bool:
    """Whether an AutoBackend has opened a checkpoint, no exported file; `pt` told it before 8.4.23."""
    return backend.format == "pt" if hasattr(backend, "format") else bool(backend.pt)


def before_writing(exporter: Any, prepare: Callable[[Any], None]) -> None:
    """Call `prepare` when the exporter has fused its model: now, but later if there is none yet.

    Before 8.3.138 the callback `on_export_start` comes before all else, so the first of its functions that write waits.
    """
    if hasattr(exporter, "model"):
        prepare(exporter)
        return
    writers = [name for name in dir(exporter) if name.startswith("export_")]

    def after_prepare(name: str, *args: Any, **kwargs: Any) -> Any:
        for waiting in writers:
            delattr(exporter, waiting)
        prepare(exporter)
        return getattr(exporter, name)(*args, **kwargs)

    for name in writers:
        setattr(exporter, name, functools.partial(after_prepare, name))


def written(result: Any) -> Path:
    """The file that an exporter's function has written; before 8.3.198 it came with the converted model."""
    return Path(result[0] if isinstance(result, tuple) else result)


def accept_augmentations(arguments: dict[str, Any] | None = None) -> None:
    """Let the stock augmentations take `augmentations`, a list of albumentations transforms, as 8.4.127 and later do.

    From 8.3.226 they take objects alone, which a resumed run does not have any more; before that there are none.

    Args:
        arguments: of the trainer; objects among them become texts, which checkpoints and other processes can hold.
    """
    if _is_since("8.4.127"):
        return
    from ultralytics.data import augment, dataset

    if arguments and arguments.get("augmentations"):
        import albumentations as A

        listed = arguments["augmentations"]
        arguments["augmentations"] = [each if isinstance(each, dict) else A.to_dict(each) for each in listed]
    if not hasattr(augment.v8_transforms, "_yolo_dyn"):
        wrapped: Any = functools.partial(_with_augmentations, augment.v8_transforms)
        wrapped._yolo_dyn = True
        augment.v8_transforms = dataset.v8_transforms = wrapped


class _Seeded:
    """A transform that draws by torch's seed of the process it runs in, as Ultralytics' own since 8.4.127."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, **labels: Any) -> Any:
        if self.transform.seed != torch.initial_seed():
            self.transform.set_random_seed(torch.initial_seed())
        return self.transform(**labels)


def _with_augmentations(stock: Callable, dataset: Any, imgsz: int, hyp: Any, *args: Any, **kwargs: Any) -> Any:
    """The stock training transforms, with the augmentations of `hyp` in place of the stock ones."""
    given = getattr(hyp, "augmentations", None)
    if given is None:
        return stock(dataset, imgsz, hyp, *args, **kwargs)
    import albumentations as A
    from ultralytics.data import augment
    from ultralytics.utils import LOGGER

    transforms = [A.from_dict(each) for each in given]
    ours = augment.Albumentations.__new__(augment.Albumentations)
    ours.p, ours.contains_spatial = 1.0, any(isinstance(each, A.DualTransform) for each in transforms)
    boxes = A.BboxParams(format="yolo", label_fields=["class_labels"]) if ours.contains_spatial else None
    ours.transform = _Seeded(A.Compose(transforms, bbox_params=boxes))
    LOGGER.info("albumentations: " + ", ".join(str(each) for each in transforms if each.p))
    with patch.object(augment, "Albumentations", lambda *_, **__: ours):
        return stock(dataset, imgsz, hyp, *args, **kwargs)
