"""Where the supported versions of Ultralytics differ: one function for each difference, which names the versions.

A function goes when the oldest supported version has what it makes up for. All import Ultralytics when they are called:
before 8.3.199 it imports the whole of itself at once, us in the middle of it.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
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


@contextlib.contextmanager
def whole_suppression() -> Iterator[list[list[torch.Tensor]]]:
    """Let validators' non-maximum suppression run to its end, and keep what it returns, one entry a call.

    The stock one has a time limit, after which images stay empty.
    """
    try:
        from ultralytics.utils import nms as module
    except ImportError:  # before 8.3.190
        from ultralytics.utils import ops as module
    stock, kept = module.non_max_suppression, []

    def suppress(*args: Any, **kwargs: Any) -> list[torch.Tensor]:
        kept.append(stock(*args, **{**kwargs, "max_time_img": math.inf}))
        return kept[-1]

    with patch.object(module, "non_max_suppression", suppress):
        yield kept


def precision_falls_in_a_line() -> bool:
    """Whether Ultralytics' precision falls to 0 at recall 1 in a straight line behind the last hit, as it did once."""
    from ultralytics.utils.metrics import compute_ap

    return bool(compute_ap(np.array([0.5]), np.array([1.0]))[0] > 0.6)


def masks_in_image(masks: torch.Tensor, batch: dict[str, Any], i: int) -> np.ndarray:
    """Masks ``[n, H, W]`` of the network's input in the original image, uint8 ``[h, w, n]``, as `save_json` does it.

    Since 8.4 torch scales them; before, OpenCV did, one by one here, since OpenCV 5 takes no hundred at once.
    """
    from ultralytics.utils import ops

    shape, ratio_pad = batch["ori_shape"][i], batch["ratio_pad"][i]
    if "ratio_pad" in inspect.signature(ops.scale_masks).parameters:
        scaled = ops.scale_masks(masks[None], shape, ratio_pad=ratio_pad)[0].byte()
        return scaled.permute(1, 2, 0).cpu().numpy()
    pixels = torch.as_tensor(masks, dtype=torch.uint8).cpu().numpy()
    return np.concatenate(
        [ops.scale_image(each[..., None], shape, ratio_pad=ratio_pad).reshape(*shape, 1) for each in pixels], 2
    )


def masks_of(validator: Any, preds: Any, rows: torch.Tensor, i: int, side: tuple[int, int]) -> torch.Tensor:
    """Masks that a validator has found in an image; before 8.3.154 it makes them of prototypes when it scores them."""
    if isinstance(preds, list):
        return preds[i]["masks"]
    return validator.process(preds[1][i], rows[:, 6:], rows[:, :4], shape=side)


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


def orthogonalise_matrices_alone(trainer: Any) -> None:
    """Let MuSGD orthogonalise the updates of matrices and convolutions alone, as since 8.4.108.

    From 8.4.0 to then parameters of three dimensions, as FDConv and KWConv have, were among them, and the first step
    failed.
    """
    if not _is_since("8.4.108"):
        trainer.build_optimizer = functools.partial(_optimizer, trainer.build_optimizer)


def _optimizer(stock: Callable[..., Any], model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The stock optimizer; what it would orthogonalise and cannot goes to the plain groups of the same rate."""
    optimizer = stock(model, *args, **kwargs)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in [group for group in optimizer.param_groups if group.get("use_muon")]:
        plain = [other for other in optimizer.param_groups if not other["use_muon"] and other["lr"] == group["lr"]]
        weights, biases = plain[0], plain[-1]  # between them those of norms
        for parameter in [each for each in group["params"] if each.ndim not in (2, 4)]:
            (biases if "bias" in names[id(parameter)] else weights)["params"].append(parameter)
        group["params"] = [each for each in group["params"] if each.ndim in (2, 4)]
    return optimizer


def give_candidates(model: Any) -> None:
    """Let a head that suppresses by itself give all its candidates, as its exports may; since 8.4.8."""
    stock = getattr(type(model), "end2end", None)
    if isinstance(stock, property) and stock.fset:
        model.end2end = False


@contextlib.contextmanager
def gradients_through(head: Any) -> Iterator[None]:
    """Let gradients through a head that suppresses by itself: before 8.4.113 it detaches the maps that it reads."""
    if not getattr(head, "end2end", False) or _is_since("8.4.113"):
        yield
        return
    forward = head.forward

    def undetached(*args: Any, **kwargs: Any) -> Any:
        with patch.object(torch.Tensor, "detach", lambda tensor: tensor):
            return forward(*args, **kwargs)

    with patch.object(head, "forward", undetached):
        yield


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
