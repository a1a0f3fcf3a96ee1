"""Fusing and counting models with registered layers."""

import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.utils import LOGGER

from yolo_dyn import registry
from yolo_dyn.integration import compat, probes
from yolo_dyn.layers.protocol import Fusible, folds_norm


def fuse(stock: Callable) -> Callable:
    """Wrap the stock fusing: our layers fold what is constant, before it."""
    from ultralytics.nn.modules import Conv

    def fuse(self: nn.Module, verbose: bool = True, *args: Any, **kwargs: Any) -> Any:
        if registry.in_model(self):
            probes.require()
        for block in [module for module in self.modules() if isinstance(module, Conv) and hasattr(module, "bn")]:
            if registry.kind_of(type(block.conv)) != "convolution":
                continue
            if folds_norm(block.conv):
                block.conv.fuse(bn=block.bn)
            else:  # the stock folding would take it for an nn.Conv2d
                block.conv = nn.Sequential(block.conv, block.bn)  # type: ignore[assignment]
            del block.bn
            block.forward = block.forward_fuse  # type: ignore[method-assign]
        for layer in registry.in_model(self):  # an outer layer comes before the layers inside it, and folds them
            if isinstance(layer, Fusible):
                layer.fuse()
        # Afterwards, since it logs the summary of the fused model, for which the model runs: not where nobody reads it.
        return stock(self, verbose and LOGGER.isEnabledFor(logging.INFO), *args, **kwargs)

    return fuse


def get_flops(stock: Callable) -> Callable:
    """Wrap the stock count of multiply-adds: functional convolutions are seen."""

    def get_flops(model: nn.Module, imgsz: int | list[int] = 640, *args: Any, **kwargs: Any) -> float:
        if not registry.in_model(model):
            return stock(model, imgsz, *args, **kwargs)
        model = compat.unwrap_model(model)
        size = imgsz if isinstance(imgsz, (list, tuple)) else (imgsz, imgsz)
        p = next(model.parameters())
        image = torch.empty((1, image_channels(model), *size), device=p.device, dtype=p.dtype)
        try:
            return _thop_gflops(model, image)
        except Exception:  # like the stock function: a summary without this number is better than none
            return 0.0

    return get_flops


def image_channels(model: nn.Module) -> int:
    """Channels of the images a model takes; its first parameter tells if it was not built from a YAML."""
    return getattr(model, "yaml", {}).get("channels", next(model.parameters()).shape[1])


def _thop_gflops(model: nn.Module, image: torch.Tensor) -> float:
    """Count with Ultralytics' own counter, and let it see functional convolutions.

    thop sees an ``nn.Conv2d``, but not the functional convolution of a dynamic layer. As the stock function calls it,
    it also extrapolates from a small image, which is wrong for a layer whose mixing costs the same at any size.
    """
    import thop
    from thop.profile import functional_hooks

    functional_hooks[F.conv2d] = lambda args, kwargs, y: y.numel() * args[1][0].numel()
    try:
        return thop.profile(model, inputs=[image], verbose=False)[0] * 2 / 1e9
    finally:
        del functional_hooks[F.conv2d]
