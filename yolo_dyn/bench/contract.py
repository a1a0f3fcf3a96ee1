"""The lines of the layer contract (`layers.protocol`), each as one function that raises if a layer does not keep it."""

import copy
import importlib.util
import inspect
import io
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolo_dyn import registry
from yolo_dyn.bench.subject import DoesNotApplyError, Subject, with_statistics
from yolo_dyn.integration.exporting import free_batch
from yolo_dyn.layers.baking import freeze, mean_kernels
from yolo_dyn.layers.blocks import ConvNormAct
from yolo_dyn.layers.protocol import (
    Bakes,
    Fusible,
    Guidable,
    MixesKernels,
    StartsFromStatic,
    WeighsExperts,
    folds_norm,
)

SIZES = ((1, 1, 2), (1, 5, 5), (3, 11, 20))  # batch, height, width
# arguments tried on convolutions, beside a 3x3 kernel with padding 1; the groups become as many as channels
GEOMETRIES: tuple[dict[str, Any], ...] = (
    {"kernel_size": 1, "padding": 0},
    {"stride": 2},
    {"dilation": 2, "padding": 2},
    {"groups": "all channels"},
    {"bias": False},
)
EXACT = 1e-9  # of float64, relative to the largest output


def _sizes(subject: Subject) -> None:
    for training in (False, True):
        layer = subject.build().train(training)
        for batch, *size in SIZES:
            size = [2 * side for side in size] if subject.kind == "network" else size  # it may halve its map
            y = layer(subject.inputs(batch, size, torch.float32))
            _same_batch(y, batch)


def _geometry(subject: Subject) -> None:
    if subject.kind != "convolution":
        raise DoesNotApplyError("no convolution")
    c, x = subject.in_channels, subject.inputs(dtype=torch.float32)
    for options in GEOMETRIES:
        arguments = {**options, "groups": c} if "groups" in options else options
        expected = nn.Conv2d(c, c, **{"kernel_size": 3, "padding": 1, **arguments})(x).shape
        try:
            layer = subject.build(**arguments)
        except ValueError:
            continue  # it refuses what it cannot do, by name
        shape = layer(x).shape
        assert shape == expected, f"{arguments}: {tuple(shape)}, nn.Conv2d gives {tuple(expected)}"


def _batches(subject: Subject) -> None:
    layer, x = subject.trained(), subject.inputs(4)
    apart = [layer([part[i : i + 1] for part in x] if isinstance(x, list) else x[i : i + 1]) for i in range(4)]
    _close(torch.cat([_first(y) for y in apart]), _first(layer(x)), EXACT)


def _repeats(subject: Subject) -> None:
    layer, x = subject.trained(), subject.inputs()
    _close(_first(layer(x)), _first(layer(x)), 0)


def _gradients(subject: Subject) -> None:
    layer = subject.build().double()
    if not list(layer.parameters()):
        raise DoesNotApplyError("no parameters")
    _first(layer(subject.inputs())).square().sum().backward()
    missing = [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing, f"no finite gradient reaches {', '.join(missing)}"


def _channels_last(subject: Subject) -> None:
    layer, x = subject.trained(), subject.inputs()
    expected = _first(layer(x))
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _close(_first(layer(_channels_last_of(x))), expected, EXACT)
    y = _first(layer.train()(_channels_last_of(x)))
    if y.requires_grad:
        y.sum().backward()


def _half(subject: Subject) -> None:
    layer, x = subject.trained().float(), subject.inputs(dtype=torch.float32)
    expected = _first(layer(x))
    for dtype, tolerance in ((torch.float16, 0.03), (torch.bfloat16, 0.15)):
        with torch.autocast("cpu", dtype):
            _close(_first(layer(x)).float(), expected, tolerance)
        low = [part.to(dtype) for part in x] if isinstance(x, list) else x.to(dtype)
        y = _first(copy.deepcopy(layer).to(dtype)(low))
        assert y.dtype is dtype, f"{y.dtype} comes out of {dtype}"
        _close(y.float(), expected, tolerance)


def _copies(subject: Subject) -> None:
    layer, x = subject.trained(), subject.inputs()
    expected = _first(layer(x))
    other = subject.build().double().eval()
    other.load_state_dict(layer.state_dict())
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        _close(_first(again(x)), expected, 0)


def _fuses(subject: Subject) -> None:
    layer, x = subject.trained(), subject.inputs()
    if not isinstance(layer, Fusible):
        raise DoesNotApplyError("no method fuse")
    expected = _first(layer(x))
    for _ in range(2):
        layer.fuse()
        _close(_first(layer(x)), expected, EXACT)  # type: ignore[operator]
    if folds_norm(layer):
        block = ConvNormAct(subject.layer, subject.in_channels, subject.in_channels, *subject.args, **subject.options)
        block = with_statistics(block.double()).eval()
        expected = block(x)
        block.fuse()
        _close(block(x), expected, EXACT)


def _guide(subject: Subject) -> None:
    layer, x = subject.trained(), subject.inputs()
    if not isinstance(layer, Guidable):
        raise DoesNotApplyError("no method guide_shape")
    guides, c_out, c_in = layer.guide_shape()
    size = subject.options.get("kernel_size", 3)
    guide = torch.rand(guides * c_out, c_in, size, size, dtype=torch.float64) + 0.5
    expected = layer(x, guide)  # type: ignore[operator]
    _close(layer(x, torch.ones_like(guide)), layer(x), EXACT)  # type: ignore[operator]
    layer.fuse(guide)  # type: ignore[operator]
    _close(layer(x), expected, EXACT)  # type: ignore[operator]


def _static(subject: Subject) -> None:
    layer, x = subject.trained(), subject.inputs()
    if not isinstance(layer, StartsFromStatic):
        raise DoesNotApplyError("no method start_from")
    conv = nn.Conv2d(subject.in_channels, subject.in_channels, 3, padding=1).double()
    layer.start_from(conv.weight.detach(), conv.bias)
    _close(layer(x), conv(x), EXACT)  # type: ignore[operator]


def _bakes(subject: Subject) -> None:
    layer, x = _fused(subject.trained()), subject.inputs(1)
    if not isinstance(layer, MixesKernels | Bakes):
        raise DoesNotApplyError("no method mixed, or no geometry and no bake")
    net = nn.Sequential(layer)
    expected = net(x)
    freeze(net, "0", mean_kernels(net, [x])["0"])
    _close(net(x), expected, EXACT)
    _fused(net[0])  # as when the checkpoint is opened
    _close(net(x), expected, EXACT)


def _weighs(subject: Subject) -> None:
    layer, x = _fused(subject.trained()), subject.inputs()
    if not isinstance(layer, WeighsExperts):
        raise DoesNotApplyError("no method weigh")
    weights, experts = layer.weigh(x), layer.expert_kernels()
    shape = tuple(weights.shape)
    assert len(shape) == 3, f"weigh gives {shape}, not [B, m, K]"
    assert len(weights) == len(x), f"weigh gives {shape} for a batch of {len(x)}"
    assert len(experts) == shape[2], f"{shape[2]} weights for {len(experts)} experts"
    for i in range(len(x)):
        _close(layer.weigh(x[i : i + 1])[0], weights[i], EXACT)
    if layer.sums_to_one:
        _close(weights.sum(2), torch.ones_like(weights[:, :, 0]), EXACT)


def _fused(layer: nn.Module) -> nn.Module:
    if isinstance(layer, Fusible):
        layer.fuse()
    return layer


def _exports(subject: Subject) -> None:
    layer, x = subject.trained().float(), subject.inputs(1, dtype=torch.float32)
    expected = _first(layer(x))
    _close(_first(torch.jit.trace(layer, (x,))(x)), expected, 1e-5)
    _close(_first(torch.export.export(layer, (x,)).module()(x)), expected, 1e-5)


def traced_onnx(layer: nn.Module, x: Any, **options: Any) -> bytes:
    """The ONNX graph that torch's exporter by tracing writes, of any torch: which exporter is asked for since 2.5."""
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    file: Any = io.BytesIO()
    torch.onnx.export(layer, (x,), file, **options)
    return file.getvalue()


def _onnx(subject: Subject) -> None:
    missing = [package for package in ("onnx", "onnxruntime") if not importlib.util.find_spec(package)]
    if missing:
        raise DoesNotApplyError(f"{', '.join(missing)} missing: pip install 'yolo-dyn[export]'")
    import onnxruntime

    layer, x = subject.trained().float(), subject.inputs(1, dtype=torch.float32)
    free_batch(layer)
    parts = x if isinstance(x, list) else [x]
    names = [f"x{i}" for i in range(len(parts))]
    graph = traced_onnx(layer, x, input_names=names, dynamic_axes={name: {0: "batch"} for name in names})
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = subject.inputs(batch, dtype=torch.float32)
        values = dict(zip(names, x if isinstance(x, list) else [x], strict=True))
        fed = {used.name: values[used.name].numpy() for used in session.get_inputs()}
        output = session.run(None, fed)[0]
        _close(torch.from_numpy(output), _first(layer(x)), 1e-4)


def _in_a_model(subject: Subject) -> None:
    """A row of a YAML, saved, and opened by a load that allows nothing but known classes."""
    from ultralytics.nn import tasks

    if len(subject.shapes) > 1 or len(subject.shapes[0]) != 3:
        raise DoesNotApplyError("more than one map, or tokens")
    y = subject.trained()(subject.inputs())
    if not isinstance(y, Tensor) or y.dim() != 4:
        raise DoesNotApplyError("its output is no map")
    if registry.get(subject.name) is not subject.layer or "<locals>" in subject.layer.__qualname__:
        raise DoesNotApplyError("a class inside of a function cannot be saved")
    c = subject.in_channels
    channels = [] if subject.kind == "network" else [c]
    options = {key: value.__name__ if isinstance(value, type) else value for key, value in subject.options.items()}
    row = [-1, 2 if channels else 1, subject.name, [*channels, *subject.args, *([options] if options else [])]]
    stem = [-1, 1, "Conv", [c, 3, 2]]
    model = tasks.DetectionModel(
        {"nc": 2, "backbone": [stem, row], "head": [[[1], 1, "Detect", ["nc"]]]}, verbose=False
    ).eval()
    x = torch.rand(1, 3, 64, 64)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.pt")
        torch.save({"model": model}, file)
        again = tasks.torch_safe_load(str(file), safe_only=True)[0]["model"]
    _close(_first(again(x)), _first(model(x)), 0)


CHECKS: dict[str, Callable[[Subject], None]] = {
    "takes any batch and size, in training too": _sizes,
    "has the output shapes of nn.Conv2d": _geometry,
    "treats a sample alike in every batch": _batches,
    "gives the same at evaluation again": _repeats,
    "passes a gradient to every parameter": _gradients,
    "takes channels_last": _channels_last,
    "takes half precision and autocast": _half,
    "is copied, pickled and loaded": _copies,
    "fuses to the same, once": _fuses,
    "is guided, and folds the guide": _guide,
    "starts as a static convolution": _static,
    "tells the kernel that it uses": _bakes,
    "tells the weights of its experts": _weighs,
    "can be traced and exported by torch": _exports,
    "runs in ONNX Runtime at any batch": _onnx,
    "builds from a row and loads safely": _in_a_model,
}


def _first(y: Any) -> Tensor:
    return y[0] if isinstance(y, (list, tuple)) else y


def _same_batch(y: Any, batch: int) -> None:
    for part in y if isinstance(y, (list, tuple)) else [y]:
        assert len(part) == batch, f"{len(part)} outputs for a batch of {batch}"
        assert part.isfinite().all(), f"a batch of {batch} gives values that are not finite"


def _close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} in place of {tuple(expected.shape)}"
    difference = (actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
    assert difference <= tolerance, f"differs by {difference:.1e} of the largest value, {tolerance:.0e} is accepted"


def _channels_last_of(x: Any) -> Any:
    parts = [
        p.to(memory_format=torch.channels_last) if p.dim() == 4 else p for p in (x if isinstance(x, list) else [x])
    ]
    return parts if isinstance(x, list) else parts[0]
