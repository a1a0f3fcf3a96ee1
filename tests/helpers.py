"""What several test files use and is no fixture: paths, names, and layers whose statistics are as after a training."""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from torch import nn
from ultralytics import YOLO
from ultralytics.utils.checks import parse_version

from yolo_dyn import layers, registry
from yolo_dyn.layers.experts import Experts


def older(version: str) -> bool:
    """Whether Ultralytics is older than that."""
    return parse_version(ultralytics.__version__) < parse_version(version)


def since(version: str, what: str) -> pytest.MarkDecorator:
    """Skip a test of what Ultralytics itself has since a version."""
    return pytest.mark.skipif(older(version), reason=f"Ultralytics itself has no {what} before {version}")


def skip_before(version: str, what: str) -> None:
    """`since`, for some of a test's cases."""
    if older(version):
        pytest.skip(f"Ultralytics itself has no {what} before {version}")


def torch_older(version: str) -> bool:
    """Whether torch is older than that."""
    return parse_version(torch.__version__) < parse_version(version)


@contextlib.contextmanager
def unless_torch_has_no_half() -> Iterator[None]:
    """Skip a test where torch itself, before 2.4, has an operation in no half precision on a CPU."""
    try:
        yield
    except RuntimeError as error:
        if not (torch_older("2.4") and "not implemented for 'Half'" in str(error)):
            raise
        pytest.skip(f"torch itself: {error}")


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make tensors of another kind where nothing else is said."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def logits_of(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a classifier says at evaluation; its probabilities' logarithms where Ultralytics takes those alone."""
    y = network(x)
    return y.log() if isinstance(y, torch.Tensor) else y[1]


def unless_the_stock_fails(ours: Callable[[], Any], stock: Callable[[], Any]) -> Any:
    """What `ours` gives; the test is skipped if it fails, and the same fails for a stock model."""
    try:
        return ours()
    except Exception as error:
        with pytest.raises(type(error)):
            stock()
        pytest.skip(f"the stock model fails here too: {type(error).__name__}")


ROWS_SINCE = {"yolo12": "8.3.78", "yolo26": "8.4.0"}  # the first Ultralytics that brings a family


def skip_without_its_rows(name: str) -> None:
    """Skip a test of a bundled model whose stock counterpart this Ultralytics does not bring."""
    for stock, first in ROWS_SINCE.items():
        if name.startswith(stock):
            skip_before(first, stock)


def save(model: YOLO, file: Path | str) -> None:
    """Save a model that was built from a YAML; the first versions take its task from what it was loaded from."""
    model.ckpt = model.ckpt or {"train_args": {"task": model.task}}
    model.save(file)


def heeding_ctrl_c() -> None:
    """In a new process: what a shell starts in the background would ignore Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


ROOT = Path(__file__).resolve().parent.parent
DETECTORS = sorted(p.name for p in (ROOT / "models_yaml").glob("*.yaml") if not p.stem.endswith("-cls"))
CLASSIFIERS = sorted(p.name for p in (ROOT / "models_yaml").glob("*-cls.yaml"))
CONVOLUTIONS = registry.names("convolution")
PHOTOS = ("bccd", "voc20", "coco-tiny")


def nano(name: str) -> str:
    """The name that builds a bundled detector at nano scale."""
    return name.replace("-", "n-", 1)


BUNDLED = {*DETECTORS, *map(nano, DETECTORS), *CLASSIFIERS}


def photos_folder(given: str | None) -> Path:
    """The folder that YOLO_DYN_DATA names, absolute, since tests change the current one. Without a name, skip the test.

    Raises:
        FileNotFoundError: if one of its data sets is missing, lest a misspelt folder pass for no folder.
    """
    if not given:
        pytest.skip("needs real photos: YOLO_DYN_DATA names no folder of them (see CONTRIBUTING.md)")
    folder = Path(given).expanduser().resolve()
    missing = [name for name in PHOTOS if not (folder / name / "data.yaml").is_file()]
    if missing:
        raise FileNotFoundError(f"YOLO_DYN_DATA={given}: no data.yaml of {', '.join(missing)} in {folder}")
    return folder


def build(name: str, channels: int = 16, **options) -> nn.Module:
    """A layer that keeps the size; A2D2C with fixed positions, since it draws them at random in training."""
    torch.manual_seed(0)
    layer = registry.all_layers()[name]
    if issubclass(layer, layers.A2D2C):
        options = {"sampling": "fixed", **options}
    if name == "CBAM":
        options = {"reduction": 4, **options}
    if name in CONVOLUTIONS:
        return layer(
            channels, options.pop("out_channels", channels), options.pop("kernel_size", 3), padding=1, **options
        )
    return layer(channels, channels, **options)


def wave(shape: Sequence[int], a: float, w: float, p: float, c: float = 0.0) -> torch.Tensor:
    """The tensor that figures of a published implementation were made with: ``a sin(w i + p) + c``, i in C order."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (a * torch.sin(w * i + p) + c).view(*shape)


def fill(tensor: torch.Tensor, *wave_of: float) -> None:
    """Let a parameter or a buffer be a `wave`."""
    tensor.data = wave(tensor.shape, *wave_of)


def agrees(found: torch.Tensor, first: tuple[float, ...], total: float, absolute: float) -> bool:
    """Whether a tensor has these first values, this sum and this sum of absolute values."""
    expected = torch.tensor([*first, total, absolute], dtype=torch.float64)
    return torch.allclose(
        torch.stack([*found.flatten()[: len(first)], found.sum(), found.abs().sum()]), expected, rtol=0, atol=1e-6
    )


def fill_norm(norm: nn.Module) -> None:
    """The BatchNorm of those figures."""
    fill(norm.weight, 0.3, 0.5, 0.2, 1.0)
    fill(norm.bias, 0.2, 0.6, 0.4)
    fill(norm.running_mean, 0.1, 0.8, 0.5)
    fill(norm.running_var, 0.4, 0.7, 0.6, 1.0)


def randomise(model: nn.Module) -> nn.Module:
    """Statistics and biases as after a training, so that folding a BatchNorm is not folding an identity."""
    generator = torch.Generator().manual_seed(1)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                (m.running_mean, -0.3, 0.3),
                (m.running_var, 0.5, 2),
                (m.weight, 0.5, 2),
                (m.bias, -0.3, 0.3),
            ):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
        if isinstance(m, Experts):
            m.weight.data += 0.05 * torch.randn(m.weight.shape, generator=generator)
            for bias in (m.bias, m.shift):
                if bias is not None:
                    bias.data.copy_(torch.randn(bias.shape, generator=generator))
    return model


@torch.no_grad()
def randomise_around(model: nn.Module, images: torch.Tensor, least: float = 0.0) -> nn.Module:
    """Like `randomise` for a deep network: statistics lie around those of images, so that signals reach its end.

    Every variance is about doubled, since untrained attention is chaotic without: in a detector, float32 and float64
    then differ by a hundred pixels. `least` is the least variance, for features that are the same in all those images.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for m in norms:
        nn.init.uniform_(m.weight, 0.8, 1.2)
        nn.init.normal_(m.bias, std=0.1)
        m.momentum = 1.0
    model.train()(images)
    for m in norms:
        m.running_mean += 0.2 * m.running_var.sqrt() * torch.randn_like(m.running_mean)
        m.running_var *= torch.empty_like(m.running_var).uniform_(1, 3)
        m.running_var.clamp_(min=least)
    return model.eval()
