"""What the papers ablate in their layers, each option against the loop oracle; and the forms of the mixture."""

import math

import pytest
import torch
from helpers import CONVOLUTIONS, build, randomise
from reference_layers import block, oracle, residual
from torch import nn

from yolo_dyn import layers, registry
from yolo_dyn.layers.attention import PooledNorm
from yolo_dyn.layers.blocks import ConvNormAct
from yolo_dyn.layers.functional import FORMS, mixture_conv

GEOMETRIES = [
    {"stride": 2},
    {"padding": 0},
    {"padding": 2, "dilation": 2},
    {"kernel_size": 1, "padding": 0},
    {"kernel_size": 5, "padding": 2},
    {"groups": 2},
    {"bias": False},
    {"in_channels": 5, "out_channels": 9},
]
OPTIONS = [
    ("A2D2C", {"sampling": "fixed", "num_experts": 2, "num_points": 50}),
    ("A2D2CPlus", {"num_experts": 3}),
    ("CondConv", {"num_experts": 1}),
    ("DCD", {"pool": 1}),
    ("DCD", {"inner": 3, "squeezed": 5}),
    ("DynamicConv", {"num_experts": 2, "reduction": 2}),
    ("DynamicResidualConv", {"activation": "softmax", "num_experts": 2}),
    ("DynamicResidualConv", {"init": "random"}),
    ("DynamicResidualConv", {"init": "random", "residual": False}),
    *(("FMDConv", {"attentions": [name], "num_experts": 2}) for name in ("input", "output", "kernel")),
    *(("ODConv", {"attentions": [name], "num_experts": 2}) for name in ("spatial", "channel", "filter", "kernel")),
    ("ODConv", {"num_experts": 1, "reduction": 1}),
]


def make(name: str, in_channels: int = 6, out_channels: int = 6, kernel_size: int = 3, padding: int = 1, **options):
    torch.manual_seed(0)
    layer = registry.all_layers()[name](in_channels, out_channels, kernel_size, padding=padding, **options)
    return randomise(layer).double().eval()


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_geometry_equals_the_oracle_and_the_static_convolution(name, geometry):
    x = torch.randn(2, geometry.get("in_channels", 6), 9, 8, dtype=torch.float64)
    both = {"groups", "dilation"}
    refused = {"DCD": {"groups"}, "FDConv": {"groups"}, "LDConv": both, "RFAConv": both}.get(name, set())
    if refused & set(geometry) or (name == "LDConv" and geometry == {"padding": 0}):
        with pytest.raises(ValueError, match=r"groups|padding"):
            make(name, **geometry)
        return
    layer = make(name, **geometry)
    plain = {"in_channels": 6, "out_channels": 6, "kernel_size": 3, "padding": 1} | geometry
    assert layer(x).shape == nn.Conv2d(**plain).double()(x).shape
    assert torch.allclose(layer(x), oracle(name, x, layer), atol=1e-10)


SMALL = [
    {},
    {"stride": 2, "bias": False},
    {"kernel_size": 1, "padding": 0},
    {"padding": 2, "dilation": 2, "out_channels": 9},
]


@pytest.mark.parametrize("name", ["CondConv", "DynamicConv", "DynamicResidualConv", "FMDConv", "ODConv"])
@pytest.mark.parametrize("options", SMALL, ids=str)
def test_maps_of_few_pixels_equal_the_oracle_without_a_kernel_for_each_sample(name, options, monkeypatch):
    layer, x = make(name, **options), torch.randn(3, 6, 2, 3, dtype=torch.float64)
    expected = layer.train(False)(x[:1]), oracle(name, x, layer)  # one sample takes the kernel form
    guide = torch.randn_like(layer.experts.weight[: layer.experts.out_channels])
    layer.experts.form = "unfold"
    guided = layer(x, guide)
    layer.experts.form = "kernel"
    monkeypatch.setattr("yolo_dyn.layers.experts.conv_per_sample", None)
    assert torch.allclose(layer(x), expected[1], atol=1e-12)
    assert torch.allclose(layer(x)[:1], expected[0], atol=1e-12)
    assert torch.allclose(layer(x, guide), guided, atol=1e-12)
    with pytest.raises(TypeError):  # more pixels: a kernel for each sample, which is gone here
        layer(torch.randn(3, 6, 9, 8, dtype=torch.float64))


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_what_the_papers_ablate_equals_the_oracle(name, options):
    layer, x = make(name, **options), torch.randn(2, 6, 7, 8, dtype=torch.float64)
    assert torch.allclose(layer(x), oracle(name, x, layer), atol=1e-10)
    if hasattr(layer, "temperature"):
        layer.temperature = 5.0
        assert torch.allclose(layer(x), oracle(name, x, layer), atol=1e-10)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_block_equals_its_oracle(name):
    from reference_layers import ORACLES

    torch.manual_seed(0)
    layer = randomise(ConvNormAct(registry.all_layers()[name], 6, 5, 3, 2)).double().eval()
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    expected = torch.stack([block(sample, layer, ORACLES[name]) for sample in x])
    assert torch.allclose(layer(x), expected, atol=1e-10)
    layer.fuse()
    assert layer.bn is None
    assert torch.allclose(layer(x), expected, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "geometry",
    [{}, {"stride": 2}, {"padding": (2, 1)}, {"dilation": 2}, {"groups": 2}, {"groups": 4, "stride": (1, 2)}],
    ids=str,
)
def test_forms_of_the_mixture_agree(form, batch, geometry):
    torch.manual_seed(0)
    groups = geometry.get("groups", 1)
    x = torch.randn(batch, 4, 9, 11, dtype=torch.float64, requires_grad=True)
    bank = torch.randn(3 * 8, 4 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    attention = torch.rand(batch, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3 * 8, dtype=torch.float64, requires_grad=True)

    def mixture(x, bank, attention, bias):
        return mixture_conv(x, bank, attention, bias, form=form, **geometry)

    experts = zip(bank.view(3, 8, 4 // groups, 3, 3), bias.view(3, 8), strict=True)
    responses = [nn.functional.conv2d(x, w, b, **geometry) for w, b in experts]
    expected = sum(attention[:, k, None, None, None] * response for k, response in enumerate(responses))
    assert torch.allclose(mixture(x, bank, attention, bias), expected, atol=1e-12)
    assert torch.autograd.gradcheck(mixture, (x, bank, attention, bias), fast_mode=True)


@pytest.mark.parametrize("name", sorted({"CondConv", "DynamicConv", "FMDConv", "A2D2C", "DynamicResidualConv"}))
@pytest.mark.parametrize("form", FORMS)
def test_layers_compute_the_same_in_every_form(name, form):
    x, guide = torch.randn(2, 6, 7, 8, dtype=torch.float64), torch.randn(6, 6, 3, 3, dtype=torch.float64)
    kernel, other = make(name), make(name, form=form)
    assert torch.allclose(other(x, guide), kernel(x, guide), atol=1e-12)
    for layer in (kernel, other):
        layer.fuse(guide, randomise(nn.BatchNorm2d(6)).double())
    assert torch.allclose(other(x), kernel(x), atol=1e-12)


def test_odconv_unfolds_too():
    x = torch.randn(2, 6, 7, 8, dtype=torch.float64)
    assert torch.allclose(make("ODConv", form="unfold")(x), make("ODConv")(x), atol=1e-12)


@pytest.mark.parametrize("name", sorted({*CONVOLUTIONS} - {"FDConv", "KWConv"}))  # whose parameters are mixed otherwise
def test_a_guide_multiplies_the_kernel(name):
    x, guide = torch.randn(2, 6, 7, 8, dtype=torch.float64), torch.randn(6, 6, 3, 3, dtype=torch.float64)
    layer, guided = make(name), make(name)
    weight = guided.experts.weight if hasattr(guided, "experts") else guided.weight
    weight.data *= guide.repeat(len(weight) // 6, 1, 1, 1).reshape(weight.shape)
    assert torch.allclose(layer(x, guide), guided(x), atol=1e-12)


def test_a2d2c_samples_anew_in_training_and_never_at_evaluation():
    layer, x = layers.A2D2C(8, 8, 3, padding=1, router="separate", num_points=3), torch.randn(2, 8, 16, 16)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))
    assert layer.half().points.dtype == torch.int64  # so that the positions are the same in reduced precision


def test_the_sample_mean_tends_to_the_mean_over_the_map():
    """The estimator of Sec. 3.3 is unbiased, its error falls with the root of the number of points."""
    torch.manual_seed(0)
    x, errors = torch.randn(1, 64, 32, 32), []
    for count in (16, 1600):
        layer = layers.A2D2C(64, 8, 1, num_experts=64, num_points=count, evidence="input", router="separate")
        nn.init.eye_(layer.router.weight)
        errors.append((layer.logits(x) - x.mean((2, 3))).square().mean().sqrt())
    assert 5 < errors[0] / errors[1] < 20


def test_the_residual_convolution_looks_at_its_token():
    layer = make("DynamicResidualConv", token_channels=3, init="random")
    x, token = torch.randn(2, 6, 7, 8, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    expected = torch.stack([residual(sample, layer, one) for sample, one in zip(x, token, strict=True)])
    assert torch.allclose(layer(x, token=token), expected, atol=1e-10)


def test_a_fresh_residual_convolution_is_its_input_agnostic_kernel():
    layer, x = layers.DynamicResidualConv(6, 4, 3, bias=False), torch.randn(2, 6, 7, 8)
    assert torch.allclose(layer(x), nn.functional.conv2d(x, layer.experts.weight[:4]), atol=1e-6)


def test_a_uniform_attention_of_alike_experts_is_a_static_convolution():
    layer, static = make("CondConv"), nn.Conv2d(6, 6, 3, padding=1).double()
    layer.start_from(static.weight, static.bias)
    x = torch.randn(2, 6, 7, 8, dtype=torch.float64)
    assert torch.allclose(layer(x), static(x), atol=1e-12)


def test_pooled_norm_is_batchnorm_but_trains_at_batch_1():
    norm, plain = PooledNorm(4), nn.BatchNorm1d(4)
    x = torch.randn(5, 4)
    assert torch.equal(norm(x), plain(x))
    assert torch.equal(norm(x[:1]), plain.eval()(x[:1]))
    assert torch.equal(norm.running_mean, plain.running_mean)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_sgdm_takes_any_mixing_layer(name):
    """The arms of SGDM Table 3; the guide is the strips' own, tap by tap, and folds away."""
    layer = randomise(build("SGDM", 32, dynamic=registry.all_layers()[name])).double().eval()
    x = torch.randn(2, 32, 8, 8, dtype=torch.float64)
    guide = layer.static_h.weight.view(8, 8, 3, 3) + layer.static_w.weight.view(8, 8, 3, 3)
    assert torch.allclose(layer.guide_kernel(), layer.guide_scale * guide)
    assert torch.allclose(layer(x)[:, :8], layer.dynamic(x[:, :8], layer.guide_scale * guide))
    expected = layer(x)
    layer.fuse()
    assert torch.allclose(layer(x), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        *((name, {"num_experts": 0}, "num_experts.* must be at least 1 .*, got 0") for name in ("CondConv", "ODConv")),
        ("CondConv", {"groups": 4}, "groups must divide the 6 input and 6 output channels, got 4"),
        ("CondConv", {"form": "fast"}, "form must be one of kernel, response, unfold, got 'fast'"),
        ("ODConv", {"form": "response"}, "form must be one of kernel, unfold, got 'response'"),
        ("ODConv", {"attentions": ["channels"]}, "attentions must be some of spatial, channel, filter, kernel, got "),
        ("ODConv", {"reduction": 0}, "reduction must be at least 1, got 0"),
        ("FMDConv", {"attentions": []}, "attentions must be some of input, output, kernel, got "),
        ("DynamicConv", {"reduction": 0}, "reduction must be at least 1, got 0"),
        ("A2D2C", {"num_points": 0}, "num_points must be at least 1, got 0"),
        ("A2D2C", {"sampling": "some"}, "sampling must be one of random, fixed, uniform, none, got 'some'"),
        ("A2D2C", {"router": "none"}, "router must be one of squeeze, shared, separate, got 'none'"),
        ("A2D2C", {"evidence": "output"}, "evidence must be one of response, input, got 'output'"),
        ("A2D2C", {"weighting": "input"}, "weighting must be one of none, response, got 'input'"),
        ("A2D2C", {"weighting": "response", "evidence": "input"}, "weighting must be none with evidence 'input'"),
        (
            "A2D2C",
            {"sampling": "none", "evidence": "input"},
            "router must be separate with evidence 'input' and sampling 'none': .* the router 'squeeze' would",
        ),
        ("DynamicResidualConv", {"activation": "relu"}, "activation must be one of sigmoid, softmax, got 'relu'"),
        ("DynamicResidualConv", {"init": "one"}, "init must be one of zero, random, got 'one'"),
        ("DynamicResidualConv", {"num_experts": 0}, "num_experts must be at least 1 and at most 1024, got"),
        ("DCD", {"groups": 2}, "groups must be 1: DCD fuses all channels, got 2"),
        ("DCD", {"kernel_size": 2}, "kernel_size must be odd, so that the kernel has a centre, got 2"),
        ("FDConv", {"groups": 2}, "groups must be 1: FDConv has one spectrum of all channels, got 2"),
        ("FDConv", {"num_experts": 0}, "num_experts must be at least 1 and here at most 180, got 0"),
        ("FDConv", {"num_experts": 257, "out_channels": 60}, "num_experts must be at least 1 and here at most 256"),
        ("FDConv", {"form": "response"}, "form must be one of kernel, unfold, got 'response'"),
        ("KWConv", {"groups": 4}, "groups must divide the 6 input and 6 output channels, got 4"),
        ("KWConv", {"form": "response"}, "form must be one of kernel, unfold, got 'response'"),
        ("KWConv", {"budget": 1.5}, "budget must be a whole number, or one over one, got 1.5"),
        ("KWConv", {"budget": math.nan}, "budget must be a whole number, or one over one, got nan"),
        ("KWConv", {"budget": math.inf}, "budget must be a whole number, or one over one, got inf"),
        ("KWConv", {"budget": 0.5}, "budget 1/2 must divide the mixtures of each layer, got 9"),
        ("KWConv", {"cell_ratio": 1.5}, r"cell_ratio must be one or two numbers in \(0, 1\], got 1.5"),
        ("KWConv", {"cell_ratio": 0.7}, r"cell_ratio gives cells of 4 x 4, which do not tile \(6, 6\)"),
        ("KWConv", {"basis_ratio": 0}, r"basis_ratio must lie in \(0, 1\], got 0"),
        (
            "KWConv",
            {"anneal": {"start": 30, "step": 1}},
            "anneal must have the key epochs, got {'start': 30, 'step': 1}",
        ),
        ("KWConv", {"anneal": {"epochs": 0}}, "anneal must have epochs above 0, got {'epochs': 0}"),
        ("LDConv", {"groups": 2}, "LDConv takes groups 1 and dilation 1 only, got 2 and 1"),
        ("LDConv", {"padding": 0}, "padding must be half of an odd kernel_size, got 0 and 3"),
        ("LDConv", {"num_points": 0}, "num_points must be at least 1, got 0"),
        ("RFAConv", {"dilation": 2}, "RFAConv takes groups 1 and dilation 1 only, got 1 and 2"),
        ("RFAConv", {"kernel_size": (3, 1)}, r"kernel_size must be square, got \(3, 1\)"),
    ],
)
def test_bad_arguments_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(name, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("CBAM", (8, 8), r"reduction must lie in \[1, 8\] for 8 channels, got 16"),
        ("CBAM", (32, 16), "CBAM keeps the channels: got 32 in and 16 out"),
        ("CBAM", (32, 32, {"kernel_size": 4}), "kernel_size must be odd, got 4"),
        ("CoordAtt", (32, 16), "CoordAtt keeps the channels: got 32 in and 16 out"),
        ("CoordAtt", (32, 32, {"reduction": 0}), "reduction must be at least 1, got 0"),
        ("SGDM", (32, 32, {"dynamic": nn.Conv2d}), "Conv2d takes no guide: set guide to 'none'"),
    ],
)
def test_bad_arguments_of_modules_are_named(name, arguments, message):
    *positional, options = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises(ValueError, match=message):
        registry.all_layers()[name](*positional, **options)


def test_sgdm_with_a_plain_convolution_and_no_guide():
    layer = layers.SGDM(32, 32, dynamic=nn.Conv2d, guide="none")
    assert layer(torch.randn(2, 32, 8, 8)).shape == (2, 32, 8, 8)
