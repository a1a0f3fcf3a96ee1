"""LDConv against figures of the published implementation, its border mended, and against its oracle with offsets."""

import pytest
import torch
from helpers import agrees, fill, fill_norm, randomise, wave
from reference_layers import ldconv
from torch import nn

from yolo_dyn.bench.contract import traced_onnx
from yolo_dyn.layers import SGDM, LDConv
from yolo_dyn.layers.blocks import ConvNormAct
from yolo_dyn.layers.ldconv import sampled

# channels, taps, stride, shape of the input, parameters; of the offsets and of the output: two values, the sum, the
# sum of absolute values
PUBLISHED = [
    (
        (3, 4),
        5,
        1,
        (2, 3, 6, 7),
        348,
        ((-0.653428436, -1.0568953), 50.30704, 781.2026),
        ((-0.113157364, -0.225932165), 37.6044054, 79.6593055),
    ),
    (
        (3, 4),
        6,
        2,
        (2, 3, 8, 9),
        416,
        ((0.0971085139, -0.0964558629), -16.2205056, 166.158518),
        ((0.0259951691, 0.0210561025), 7.41842596, 7.54735778),
    ),
    (
        (2, 3),
        9,
        1,
        (1, 2, 7, 7),
        402,
        ((0.267858921, 0.376292529), 75.6519493, 314.839058),
        ((0.264486594, 0.400449995), 15.720721, 34.7381536),
    ),
]


@pytest.mark.parametrize(("channels", "count", "stride", "shape", "parameters", "offset", "output"), PUBLISHED)
def test_figures_of_the_published_implementation(channels, count, stride, shape, parameters, offset, output):
    block = ConvNormAct(LDConv, *channels, 3, stride, num_points=count).double().eval()
    fill_norm(block.bn)
    fill(block.conv.weight, 0.3, 0.7, 0.3)
    fill(block.conv.offset.weight, 0.15, 0.9, 0.1)
    fill(block.conv.offset.bias, 0.4, 0.5, 0.2)
    x = wave(shape, 1, 0.35, 0.15)
    assert sum(p.numel() for p in block.parameters()) == parameters
    assert agrees(block.conv.offset(x), *offset)
    assert agrees(block(x), *output)
    block.fuse()
    assert agrees(block(x), *output)


@pytest.mark.parametrize(
    "options", [{}, {"num_points": 7}, {"num_points": 1}, {"stride": 2, "kernel_size": 5}], ids=str
)
def test_taps_read_at_their_offsets(options):
    torch.manual_seed(0)
    size = options.get("kernel_size", 3)
    layer = LDConv(3, 4, **{"kernel_size": size, "padding": size // 2, **options}).double()
    nn.init.normal_(layer.offset.weight, std=0.3)
    nn.init.normal_(layer.offset.bias)
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    expected = torch.stack([ldconv(sample, layer) for sample in x])
    assert torch.allclose(layer(x), expected, atol=1e-12)


def test_a_tap_beyond_the_border_counts_once():
    ones, places = torch.ones(1, 1, 4, 4), torch.tensor([[-3.0, 0.5], [3.0, 9.0]]).view(1, 1, 2, 2)
    assert torch.allclose(sampled(ones, places, places), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("free", [False, True])
def test_onnx_runtime_reads_at_the_offsets_too(free):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    layer = LDConv(3, 4, 3, 2, 1, num_points=5)
    nn.init.normal_(layer.offset.weight, std=0.3)
    axes = {"x": {0: "batch", 2: "height", 3: "width"}} if free else None
    graph = traced_onnx(layer, torch.randn(1, 3, 9, 8), input_names=["x"], dynamic_axes=axes)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for shape in [(1, 3, 9, 8), *([(3, 3, 14, 5)] if free else [])]:
        x = torch.randn(shape)
        assert torch.allclose(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), layer(x), atol=1e-5)


def test_positions_of_half_precision_are_exact():
    layer = LDConv(2, 2, 1, num_points=2).to(torch.bfloat16)
    rows, columns = layer.positions(torch.zeros(1, 4, 600, 3, dtype=torch.bfloat16))
    assert rows[0, 0, :, 0].tolist() == list(range(600))
    assert columns[0, 1, 0].tolist() == [0, 1, 2]


def test_a_guide_needs_the_taps_of_a_kernel():
    with pytest.raises(ValueError, match=r"num_points must be those of the kernel \(3, 3\) for a guide, got 5; or set"):
        SGDM(32, 32, dynamic=LDConv, num_points=5)
    layer = randomise(SGDM(32, 32, dynamic=LDConv, num_points=5, guide="none"))
    assert layer(torch.rand(1, 32, 9, 9)).shape == (1, 32, 9, 9)
