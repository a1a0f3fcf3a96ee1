"""FDConv against figures of the published implementation, its frequencies, and what it is exported as."""

import copy
import io
import itertools
import pickle

import pytest
import torch
from helpers import agrees, fill, fill_norm, wave
from reference_layers import frequency_group, lower_band
from torch import nn

from yolo_dyn import convert, layers
from yolo_dyn.bench.contract import traced_onnx
from yolo_dyn.conversion import block_convolutions
from yolo_dyn.layers import spectrum
from yolo_dyn.layers.spectrum import frequency_groups, low_pass, modulated

X = (1.0, 0.35, 0.15)  # wave of the inputs


def published(*arguments, **options) -> layers.FDConv:
    layer = layers.FDConv(*arguments, **options).double().eval()
    fill(layer.weight, 0.3, 0.7, 0.3)
    fill(layer.trunk.squeeze.weight, 0.4, 0.9, 0.1)
    fill_norm(layer.trunk.norm)
    layer.star.data = torch.tensor([0.8944, -0.4472], dtype=torch.float64)
    heads = (layer.channel, 1.1, 0.7), (layer.filter, 1.2, 0.6), (layer.spatial, 1.3, 0.5), (layer.frequency, 1.4, 0.4)
    for head, w, p in heads:
        if head is not None:
            fill(head.weight, 0.3, w, p)
            fill(head.bias, 0.1, w + 0.2, p + 0.2)
    if layer.local is not None:
        fill(layer.local.weight, 0.2, 0.55, 0.25)
        fill(layer.local_norm.weight, 0.3, 0.65, 0.35, 1.0)
        fill(layer.local_norm.bias, 0.1, 0.75, 0.45)
    for b in range(3 if layer.bands is not None else 0):
        layer.bands.weight.data[b] = wave(layer.bands.weight.shape[1:], 0.1, 0.85, 0.15 + b)
        layer.bands.bias.data[b] = wave((1,), 0.2, 0.95, 0.05 + b)
    if layer.bias is not None:
        fill(layer.bias, 0.2, 0.4, 0.8)
    return layer


# arguments, options, shape of the input, parameters with the spectrum; of the kernel W(b) and of the output: the first
# three values, the sum, the sum of absolute values
PUBLISHED = [
    (
        (8, 12, 1),
        {},
        (2, 8, 5, 6),
        754,
        ((0.105379804, 0.251174534, 0.280272016), 1.11834921, 34.1518453),
        ((0.242500758, 0.2232586, 0.194341857), 4.34187544, 127.127225),
    ),
    (
        (4, 6, 3, 2, 1),
        {"num_experts": 2, "bands": False},
        (2, 4, 7, 6),
        883,
        ((0.0558152358, 0.236644852, 0.283085533), 0.0487510487, 80.2854975),
        ((-0.280855177, -0.160599897, 0.403498487), 20.3014415, 87.2344255),
    ),
    (
        (4, 6, 3, 1, 1),
        {"num_experts": 3, "bands": False, "local": False, "bias": False},
        (2, 4, 7, 6),
        724,
        ((0.0717011719, 0.260560205, 0.308681786), 0.0487510487, 86.8808291),
        ((-0.370748416, -0.525947111, -0.28307279), -1.86356182, 356.861218),
    ),
    (
        (4, 6, 3, 1, 1),
        {"num_experts": 3, "bias": False},
        (2, 4, 10, 10),
        1005,
        ((0.0718672436, 0.26063955, 0.308744799), 0.0487823436, 86.8741073),
        ((0.0747573028, -0.0541578524, 0.0875533314), -2.07851652, 274.491202),
    ),
]


@pytest.mark.parametrize(("arguments", "options", "shape", "count", "kernel", "output"), PUBLISHED, ids=str)
def test_figures_of_the_published_implementation(arguments, options, shape, count, kernel, output):
    layer, x = published(*arguments, **options), wave(shape, *X)
    spectrum_more = 2 * layer.kernel_size[0] * layer.out_channels
    assert sum(p.numel() for p in layer.parameters()) + spectrum_more == count
    trunk = layer.star[0] * layer.trunk(x.mean((2, 3))).square() + layer.star[1]
    assert agrees(layer.of_groups(2 * torch.sigmoid(layer.frequency(trunk))), *kernel)
    assert agrees(layer(x), *output)
    layer.fuse()
    assert agrees(layer(x), *output)


BANDED = ((0.142629379, 0.470574183, 0.755282295), 16.0642361, 511.216727)


def test_figures_of_the_bands():
    """At 10x10, where the published masks are right; at 16x12 with the exact ones."""
    layer = published(4, 6, 3, padding=1, bias=False, num_experts=3)
    assert agrees(layer.banded(wave((2, 4, 10, 10), *X)), *BANDED)
    x = wave((1, 4, 16, 12), *X)
    assert agrees(layer.banded(x), (0.193836955, 0.57359432, 0.839405881), 19.2922366, 493.581159)
    assert agrees(low_pass(x, 4), (-0.0379484335, 0.188385029, 0.360319897), 2.38834406, 69.5171006)


@pytest.mark.parametrize(("rows", "columns", "count"), [(18, 12, 3), (12, 8, 4), (9, 15, 7), (1, 1, 1), (5, 4, 15)])
def test_groups_of_frequencies(rows, columns, count):
    groups = frequency_groups(rows, columns, count)
    assert torch.equal(groups.long(), frequency_group(rows, columns, count)[:, : columns // 2 + 1])
    sizes = groups.flatten().long().bincount()
    assert len(sizes) == count
    assert sizes.max() - sizes.min() <= 1


def test_groups_of_equal_frequencies_are_split_alike_at_any_size():
    """A sort of square roots would break ties by rounding."""
    groups = frequency_groups(64, 64, 64).long()
    u, v = torch.arange(64), torch.arange(33)
    squared = torch.minimum(u, 64 - u).square()[:, None] + v.square()
    by_group = [squared[groups == g] for g in range(64)]
    assert all(low.max() <= high.min() for low, high in itertools.pairwise(by_group))


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (5, 3, 1, 1), (4, 5, 3, 1)])
def test_matrices_do_what_the_fourier_transform_does(shape, monkeypatch):
    torch.manual_seed(0)
    weight, factors = torch.randn(shape, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64)
    groups = frequency_groups(shape[0] * shape[2], shape[1] * shape[3], 4)
    expected = modulated(weight, factors, groups)
    monkeypatch.setattr(spectrum, "becomes_a_graph", lambda: True)
    assert torch.allclose(modulated(weight, factors, groups), expected, atol=1e-13)
    ones = torch.ones(1, 4, dtype=torch.float64)
    assert torch.allclose(modulated(weight, ones, groups)[0], weight, atol=1e-13)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 9), (33, 40)])
@pytest.mark.parametrize("part", [4, 8, 16])
def test_a_low_pass_equals_the_fourier_transform(size, part):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = torch.stack([lower_band(sample, 1 / part) for sample in x])
    assert torch.allclose(low_pass(x, part), expected, atol=1e-12)


def test_a_map_seen_in_inference_first_can_be_trained_with():
    layer, x = layers.FDConv(4, 4, 3, padding=1), torch.randn(2, 4, 23, 29)
    with torch.inference_mode():
        layer.eval()(x)
    layer.train()(x).sum().backward()


@pytest.mark.parametrize("count", [4, 16])
def test_a_guide_multiplies_the_kernel_and_folds_with_a_norm(count):
    torch.manual_seed(0)
    layer = published(6, 5, 3, padding=1, num_experts=count)
    x, guide = torch.randn(2, 6, 7, 8, dtype=torch.float64), torch.randn(5, 6, 3, 3, dtype=torch.float64)
    norm = nn.BatchNorm2d(5).double().eval()
    fill_norm(norm)
    expected = norm(layer(x, guide))
    assert not torch.allclose(layer(x), layer(x, guide), atol=1e-3)
    layer.fuse(guide, norm)
    assert (layer.group_of is None) == (count == 4)  # few groups become a bank
    assert torch.allclose(layer(x), expected, atol=1e-12)
    assert torch.allclose(pickle.loads(pickle.dumps(layer))(x), expected, atol=1e-12)


def test_a_large_batch_goes_by_way_of_the_bank(monkeypatch):
    """As many transforms as groups, not as samples."""
    layer, x = published(6, 5, 3, padding=1, num_experts=3), torch.randn(4, 6, 7, 8, dtype=torch.float64)
    apart = torch.cat([layer(sample[None]) for sample in x])
    counts = []

    def counted(weight, factors, groups):
        counts.append(len(factors))
        return modulated(weight, factors, groups)

    monkeypatch.setattr("yolo_dyn.layers.fdconv.modulated", counted)
    assert torch.allclose(layer(x), apart, atol=1e-12)
    layer(x[:3])
    assert counts == [3, 3]
    bank = layer.bank(layer.group_of)
    assert torch.allclose(bank.unflatten(0, (3, -1)).sum(0), layer.weight, atol=1e-12)


def test_a_fresh_layer_is_its_static_convolution():
    layer, x = layers.FDConv(16, 8, 3), torch.randn(2, 16, 9, 9)
    assert torch.allclose(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias), atol=1e-4)


def test_forms_agree():
    layer, x = published(6, 5, 3, padding=1), torch.randn(2, 6, 7, 8, dtype=torch.float64)
    expected = layer(x)
    layer.form = "unfold"
    assert torch.allclose(layer(x), expected, atol=1e-12)


@pytest.mark.parametrize("count", [4, 16])
@pytest.mark.parametrize("form", ["kernel", "unfold"])
def test_onnx_runtime_takes_both_forms(count, form):
    """With the form that leaves the batch free, height and width are free too, and the bands follow them."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    layer = published(6, 5, 3, padding=1, num_experts=count, form=form)
    layer.fuse()
    layer = layer.float()
    axes = {"x": {0: "batch", 2: "height", 3: "width"}} if form == "unfold" else None
    file = io.BytesIO(traced_onnx(layer, torch.randn(1, 6, 20, 24), input_names=["x"], dynamic_axes=axes))
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for shape in [(1, 6, 20, 24), *([(3, 6, 33, 17)] if form == "unfold" else [])]:
        x = torch.randn(shape)
        found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
        assert torch.allclose(found, layer(x), atol=1e-4)


@pytest.mark.parametrize(
    ("network", "count", "parameters", "with_spectrum"),
    [
        ("resnet18", 64, 12_235_672, 12_258_712),
        ("resnet18", 4, 12_216_472, 12_239_512),
        ("resnet50", 64, 29_143_736, 29_204_152),
        ("resnet50", 4, 29_054_456, 29_114_872),
    ],
)
def test_counts_of_the_published_networks_to_the_unit(network, count, parameters, with_spectrum):
    import torchvision.models

    with torch.device("meta"):
        model = getattr(torchvision.models, network)()
        convert(model, "FDConv", block_convolutions, num_experts=count)
    assert sum(p.numel() for p in model.parameters()) == parameters
    dynamic = [m for m in model.modules() if isinstance(m, layers.FDConv)]
    assert parameters + sum(2 * m.kernel_size[0] * m.out_channels for m in dynamic) == with_spectrum


def test_a_state_dict_holds_a_kernel_where_a_static_convolution_has_it():
    layer = layers.FDConv(4, 6, 3)
    keys = set(layer.state_dict())
    assert {"weight", "bias"} <= keys
    assert "group_of" not in keys
    assert layer.weight.shape == nn.Conv2d(4, 6, 3).weight.shape
    assert torch.equal(copy.deepcopy(layer).group_of, layer.group_of)
