"""Every registered layer: against its oracle, and in every situation that training and inference bring."""

import copy
import functools
import inspect
import pickle

import pytest
import torch
from helpers import CONVOLUTIONS, build, randomise, unless_torch_has_no_half
from reference import guide, rdconv, sgdm
from reference_layers import ORACLES as ONE_SAMPLE
from reference_layers import oracle
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from yolo_dyn import layers, registry
from yolo_dyn.layers.functional import conv_per_sample, mix_kernels

NAMES = sorted([*CONVOLUTIONS, *registry.names("module")])
ORACLES = {"RDConv": rdconv, "SGDM": sgdm, **{name: functools.partial(oracle, name) for name in ONE_SAMPLE}}


@pytest.mark.parametrize("name", sorted(ORACLES))
@pytest.mark.parametrize(
    ("channels", "dtype"), [*((channels, torch.float64) for channels in (8, 13, 20)), (8, torch.float32)]
)
def test_output_equals_the_loop_oracle(name, channels, dtype):
    layer = randomise(build(name, channels)).eval()
    x = torch.randn(2, channels, 7, 10)
    expected = ORACLES[name](x.double(), copy.deepcopy(layer).double())
    found = layer.to(dtype)(x.to(dtype))
    assert found.shape == expected.shape
    assert torch.allclose(found.double(), expected, rtol=0, atol=1e-5 if dtype is torch.float32 else 1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"kernel_size": 5, "stride": 2},
        {"kernel_size": 1},
        {"padding": 0},
        {"groups": 2},
        {"ratio": 0.25},
        {"ratio": 0.75},
        {"num_experts": 1, "strip_size": 3},
        {"bypass": True},
        {"bypass": True, "stride": 2},
    ],
    ids=str,
)
def test_rdconv_options_equal_the_oracle(options):
    torch.manual_seed(0)
    layer = randomise(layers.RDConv(6, 16, **options)).double().eval()
    x = torch.randn(2, 6, 9, 12, dtype=torch.float64)
    assert torch.allclose(layer(x), rdconv(x, layer), atol=1e-12)
    plain = nn.Conv2d(6, 16, layer.kernel_size, layer.stride, layer.padding)
    assert layer(x).shape == plain(x.float()).shape


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, "reshape"),
        ({"kernel_size": 1}, "reshape"),
        ({"kernel_size": 5}, "reshape"),
        ({"razor_ratio": 0.25, "num_experts": 16, "ratio": 1 / 3}, "reshape"),
        ({"ratio": 0.2}, "conv"),
        ({"razor_ratio": 0.25}, "conv"),
        ({"num_experts": 3}, "conv"),
        ({"groups": 2, "ratio": 1 / 3}, "conv"),
        ({"guide": "conv"}, "conv"),
        ({"guide": "average"}, "average"),
        ({"guide": "average", "ratio": 0.2}, "average"),
        ({"guide": "none"}, "none"),
        ({"residual": True}, "reshape"),
        ({"bypass": True}, "reshape"),
    ],
    ids=str,
)
def test_sgdm_options_equal_the_oracle_and_fold(options, found):
    layer = randomise(build("SGDM", 24, **options)).double().eval()
    x = torch.randn(2, 24, 6, 9, dtype=torch.float64)
    expected = sgdm(x, layer)
    assert layer.guide == found
    assert torch.allclose(layer(x), expected, atol=1e-12)
    if found != "none":
        assert torch.allclose(layer.guide_kernel(), guide(layer), atol=1e-12)
    single = copy.deepcopy(layer).float()
    single.fuse()
    assert torch.allclose(single(x.float()).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("guide", ["reshape", "conv", "average"])
def test_the_guide_passes_a_gradient_on(guide):
    """Per weight of the strips, and beside what reaches them through their own branch."""
    layer = build("SGDM", 64, guide=guide)
    y = layer(torch.randn(4, 64, 12, 12, generator=torch.Generator().manual_seed(0)))
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    strips = (layer.static_h.weight, layer.static_w.weight)
    through_guide = torch.autograd.grad((y * probe)[:, :16].sum(), strips, retain_graph=True)
    through_branch = torch.autograd.grad((y * probe)[:, 16:48].sum(), strips)
    for guided, own in zip(through_guide, through_branch, strict=True):
        share = (guided.std() / own.std()).item()
        print(f"{guide}: the gradient through the guide is {share:.2f} of that through the strips' own branch")
        assert share > 0.05
        assert (guided != 0).all()


@pytest.mark.parametrize(
    "options", [{"guide": "conv"}, {"guide": "average"}, {"residual": True}, {"bypass": True}], ids=str
)
def test_gradcheck_of_sgdm(options):
    layer, x = build("SGDM", 8, **options).double(), torch.randn(2, 8, 5, 4, dtype=torch.float64, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters.values()), fast_mode=True)


def test_sgdm_leaves_the_identity_part_untouched_and_the_guide_matters():
    layer, x = build("SGDM", 32).eval(), torch.randn(2, 32, 8, 8)
    assert torch.equal(layer(x)[:, 24:], x[:, 24:])
    off = copy.deepcopy(layer)
    off.guide = "none"
    assert not torch.allclose(layer(x)[:, :8], off(x)[:, :8], atol=1e-3)
    assert torch.equal(layer(x)[:, 8:], off(x)[:, 8:])


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (1, 1, 1, 2), (2, 1, 1, 4)]
)
@pytest.mark.parametrize("batch", [1, 3])
def test_conv_per_sample_equals_one_convolution_a_sample(batch, stride, padding, dilation, groups):
    torch.manual_seed(0)
    x = torch.randn(batch, 4, 9, 11, dtype=torch.float64, requires_grad=True)
    bank = torch.randn(3 * 8, 4 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    attention = torch.rand(batch, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(8, dtype=torch.float64, requires_grad=True)

    def mixture(x, bank, attention, bias):
        return conv_per_sample(x, mix_kernels(bank, attention), bias, stride, padding, dilation, groups)

    expected = [
        nn.functional.conv2d(
            x[b : b + 1],
            sum(attention[b, k] * bank.view(3, 8, 4 // groups, 3, 3)[k] for k in range(3)),
            bias,
            stride,
            padding,
            dilation,
            groups,
        )
        for b in range(batch)
    ]
    assert torch.allclose(mixture(x, bank, attention, bias), torch.cat(expected), atol=1e-12)
    assert torch.autograd.gradcheck(mixture, (x, bank, attention, bias), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    layer = build(name, 8).double()
    if name == "LDConv":  # positions start at pixels, where interpolation has a kink
        nn.init.normal_(layer.offset.weight, std=0.1)
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))

    for mode in (layer.train(), layer.eval()):
        assert torch.autograd.gradcheck(run, (x, *parameters.values()), fast_mode=True), mode.training


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient_at_initialisation(name):
    layer = build(name, 32)
    layer(torch.randn(4, 32, 12, 12)).square().sum().backward()
    dead = [key for key, p in layer.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-6]
    if name == "DynamicResidualConv":  # its mixture starts at zero, by design
        assert all(key.startswith(("trunk.", "kernel.")) for key in dead)
        dead = []
    assert not dead


@pytest.mark.parametrize("channels", [64, 128, 256])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("guide", ["reshape", "conv", "average"])
def test_sgdm_starts_with_a_branch_of_unit_scale(channels, training, guide):
    layer = build("SGDM", channels, guide=guide).train(training)
    branch = layer(torch.randn(4, channels, 20, 20))[:, : channels // 4]
    assert 0.3 <= branch.std() <= 3
    assert 0.85 <= layer.guide_kernel().std() <= 1.15


@pytest.mark.parametrize("name", NAMES)
def test_train_and_eval_mix_the_same_kernels(name):
    """With BatchNorm's statistics those of the batch itself, training and evaluation compute the same."""
    layer, x = build(name), torch.randn(4, 16, 12, 12)
    norms = [m for m in layer.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    counts = {}
    for m in norms:
        m.momentum = 1.0  # the running statistics become the batch's
        m.register_forward_hook(lambda m, args, y: counts.update({m: y.numel() // y.shape[1]}))
    trained = layer.train()(x)
    for m in norms:  # training divides by the biased variance
        m.running_var *= (counts[m] - 1) / counts[m]
    assert torch.allclose(layer.eval()(x), trained, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_fused_equals_unfused_and_fusing_twice_changes_nothing(name):
    layer, x = randomise(build(name)).eval(), torch.randn(2, 16, 9, 7)
    expected = layer(x)
    before = copy.deepcopy(layer)
    layer.fuse()
    fused = layer(x)
    assert torch.allclose(fused, expected, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in layer.modules())
    layer.fuse()
    assert torch.equal(layer(x), fused)
    assert torch.equal(before(x), expected)
    assert torch.equal(copy.deepcopy(layer)(x), fused)


@pytest.mark.parametrize("name", NAMES)
def test_constructor_follows_conv2d(name):
    order = list(inspect.signature(nn.Conv2d).parameters)
    parameters = list(inspect.signature(registry.all_layers()[name]).parameters.values())
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == order[: len(positional)]
    assert len(positional) >= 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 16, 1, 2), (1, 16, 5, 5), (3, 16, 11, 20), (2, 16, 4, 1)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_any_batch_and_size(name, shape, training):
    layer = build(name).train(training)
    assert layer(torch.randn(shape)).shape == shape


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_depend_on_its_batch(name):
    layer, x = build(name).eval(), torch.randn(4, 16, 8, 8)
    assert torch.allclose(torch.cat([layer(sample[None]) for sample in x]), layer(x), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_channels_last(name):
    layer, x = build(name).eval(), torch.randn(3, 16, 9, 7)
    expected = layer(x)
    layer = layer.to(memory_format=torch.channels_last)
    assert torch.allclose(layer(x.to(memory_format=torch.channels_last)), expected, atol=1e-5)
    layer.train()(x.to(memory_format=torch.channels_last)).sum().backward()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fused", [False, True])
def test_reduced_precision(name, dtype, fused):
    layer, x = build(name).eval(), torch.randn(2, 16, 9, 7)
    expected = layer(x)
    tolerance = (2e-2 if dtype is torch.float16 else 1e-1) * max(1.0, expected.std().item())
    if fused:
        layer.fuse()
    with torch.autocast("cpu", dtype):
        assert torch.allclose(layer(x).float(), expected, atol=tolerance)
    with unless_torch_has_no_half():
        assert torch.allclose(layer.to(dtype)(x.to(dtype)).float(), expected, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_training_step_in_autocast(name, dtype):
    layer = build(name)
    with torch.autocast("cpu", dtype):
        loss = layer(torch.randn(2, 16, 8, 8)).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fused", [False, True])
def test_pickle_and_state_dict(name, fused):
    layer, x = randomise(build(name)).eval(), torch.randn(2, 16, 8, 8)
    if fused:
        layer.fuse()
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))
    if not fused:
        other = build(name).eval()
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fused", [False, True])
def test_trace_and_export_at_batch_1(name, fused):
    layer, x = randomise(build(name)).eval(), torch.randn(1, 16, 8, 8)
    if fused:
        layer.fuse()
    tolerance = 1e-5 if name == "FDConv" else 1e-6  # whose graph has matrices in place of a Fourier transform
    assert torch.allclose(torch.jit.trace(layer, x)(x), layer(x), atol=tolerance)
    assert torch.allclose(torch.export.export(layer, (x,)).module()(x), layer(x), atol=tolerance)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("SGDM", (16, 32), "keeps the channels: got 16 in and 32 out"),
        ("SGDM", (16, 16, {"ratio": 0.0}), r"ratio must lie in \(0, 1/3\], got 0.0"),
        ("SGDM", (16, 16, {"ratio": 0.34}), r"ratio must lie in \(0, 1/3\], got 0.34"),
        ("SGDM", (4, 4), "leaves 1 for a branch"),
        ("SGDM", (16, 16, {"static_size": 7}), "static_size 7 cannot be reshaped"),
        ("SGDM", (16, 16, {"static_size": 8, "guide": "none"}), "static_size must be odd, got 8"),
        ("SGDM", (16, 16, {"kernel_size": 4}), "kernel_size must be odd, got 4"),
        ("SGDM", (16, 16, {"guide": "max"}), "guide must be one of reshape, conv, average, none, got 'max'"),
        (
            "SGDM",
            (16, 16, {"guide": "reshape", "razor_ratio": 0.25}),
            r"4 \* 4 \* 9 and 4 \* 9 were found; accepted here: conv",
        ),
        ("RDConv", (16, 16, {"bypass": True, "padding": 0}), "bypass needs padding 1, which keeps the size; got 0"),
        ("SGDM", (16, 16, {"razor_ratio": 1.0}), r"razor_ratio must lie in \(0, 1\), got 1.0"),
        ("RDConv", (16, 16, {"ratio": 1.0}), r"ratio must lie in \(0, 1\), got 1.0"),
        ("RDConv", (16, 1), "out_channels must be at least 2, got 1"),
        ("RDConv", (16, 16, {"kernel_size": 2}), "kernel_size must be odd, got 2"),
        ("RDConv", (16, 16, {"num_experts": 0}), "num_experts must be at least 1 and at most 1024, got 0"),
        ("RDConv", (16, 16, {"strip_size": 4}), "strip_size must be odd, got 4"),
        ("RDConv", (16, 16, {"groups": 3}), "groups must divide the 8 intrinsic channels, got 3"),
        ("RDConv", (16, 16, {"bias": True}), "bias must be False"),
        ("RDConv", (16, 16, {"strip_size": 1, "padding": 0}), "strip_size 1 is too short for padding 0"),
    ],
)
def test_bad_arguments_are_named(name, arguments, message):
    *positional, options = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises(ValueError, match=message):
        registry.all_layers()[name](*positional, **options)


def test_any_odd_strip_without_the_guide():
    layer = build("SGDM", 16, static_size=11, guide="none")
    assert layer(torch.randn(2, 16, 8, 8)).shape == (2, 16, 8, 8)
    assert layer.guide_kernel() is None


class Copies(TorchDispatchMode):
    """Sizes of the tensors that are copied."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("clone", "copy_", "_to_copy"):
            self.sizes.append(made.numel())
        return made


@pytest.mark.parametrize("name", ["CondConv", "RDConv", "SGDM"])
def test_an_image_costs_no_copy_of_the_bank_in_channels_last(name):
    """The stock predictor runs models so, one image at a time."""
    layer = build(name, 32, **({"num_experts": 8} if name != "SGDM" else {})).eval()
    x = torch.rand(1, 32, 12, 10)
    with torch.no_grad():
        layer.fuse()
        expected = layer(x)
        layer = layer.to(memory_format=torch.channels_last)
        bank = max(p.numel() for p in layer.parameters())
        with Copies() as copies:
            found = layer(x.to(memory_format=torch.channels_last))
    assert torch.allclose(found, expected, atol=1e-5)
    assert bank not in copies.sizes
