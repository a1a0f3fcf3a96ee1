"""Dynamic layers in place of the convolutions of torchvision's networks, and the counts that prove them."""

import copy

import pytest
import torch
import torchvision.models as networks
from helpers import skip_before
from torch import nn

from yolo_dyn import YoloDynError, convert, layers, registry
from yolo_dyn.bench.fingerprints import FINGERPRINTS
from yolo_dyn.conversion import all_but_stem, block_convolutions, depthwise_3x3, first_3x3, initial, kernel_size
from yolo_dyn.layers.protocol import StartsFromStatic

EXACT = [name for name, kind in registry.all_layers("convolution").items() if issubclass(kind, StartsFromStatic)]


def is_conv(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


@pytest.mark.parametrize(
    "mark",
    [
        pytest.param(mark, id=mark.name, marks=pytest.mark.accept if mark.name.startswith("ResNet-50") else [])
        for mark in FINGERPRINTS
    ],
)
def test_counts_of_the_papers_networks(mark):
    if mark.name.startswith("YOLOv8n"):
        skip_before("8.3.17", "YOLOv8n of its own size")  # 2.72 M parameters, with the head of YOLO11
    model = mark.build()
    count = round(mark.count(model), mark.decimals)
    assert (count == mark.params) == (not mark.note)


def small() -> nn.Module:
    """A network with every geometry that a convolution may have."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, bias=False),
        nn.SiLU(),
        nn.Conv2d(8, 12, 3),
        nn.SiLU(),
        nn.Conv2d(12, 8, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


@pytest.mark.parametrize("layer", EXACT)
def test_a_network_that_starts_from_its_static_weights_computes_what_it_did(layer):
    static, x = small().eval(), torch.randn(2, 3, 24, 20)
    model = convert(copy.deepcopy(static), layer, where=lambda name, module: True, from_static=True)
    assert sum(type(m).__name__ == layer for m in model.modules()) == 5
    assert torch.allclose(model.eval()(x), static(x), atol=1e-5)


@pytest.mark.parametrize("layer", sorted(set(EXACT) - {"DCD", "FDConv"}))
def test_grouped_and_depthwise_convolutions_start_from_static_weights(layer):
    torch.manual_seed(0)
    static = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 16, 3, padding=1, groups=4)).eval()
    model = convert(copy.deepcopy(static), layer, where=is_conv, from_static=True).eval()
    x = torch.randn(2, 8, 9, 7)
    assert torch.allclose(model(x), static(x), atol=1e-5)


@pytest.mark.parametrize("layer", EXACT)
def test_a_converted_network_trains_from_its_static_weights(layer):
    model = convert(small(), layer, where=is_conv, from_static=True).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.randn(4, 3, 24, 20)).square().mean().backward()
        optimizer.step()
    moved = [key for key, value in model.state_dict().items() if value.dtype.is_floating_point]
    assert sum(not torch.equal(model.state_dict()[key], before[key]) for key in moved) > len(moved) / 2


PARTING = {
    "CondConv": "routing.weight",
    "DynamicConv": "attention.expand.weight",
    "FMDConv": "kernel.expand.weight",
    "ODConv": "kernel.weight",
    "DynamicResidualConv": "kernel.weight",
}


@pytest.mark.parametrize("layer", PARTING)
def test_experts_that_start_as_one_convolution_can_part(layer):
    """Were they copies of it and their attention even, it would have no gradient that tells them apart."""
    torch.manual_seed(0)
    options = {"residual": False, "init": "random"} if layer == "DynamicResidualConv" else {}
    static = nn.Sequential(nn.Conv2d(6, 8, 3))
    model = convert(copy.deepcopy(static), layer, where=is_conv, from_static=True, **options).train()
    x = torch.randn(16, 6, 12, 12)
    assert torch.allclose(model.eval()(x), static(x), atol=1e-5)
    model.train()(x).square().mean().backward()
    of_expert = model[0].get_parameter(PARTING[layer]).grad
    apart = (of_expert - of_expert.mean(0)).abs().max()
    assert apart > 1e-4 * model[0].experts.weight.grad.abs().max()


def test_where_of_a2d2c():
    basic, bottleneck = networks.resnet18(), networks.resnet50()
    chosen = [name for name, m in basic.named_modules() if first_3x3(basic)(name, m)]
    assert chosen == [f"layer{stage}.{block}.conv1" for stage in (2, 3, 4) for block in (0, 1)]
    chosen = [name for name, m in bottleneck.named_modules() if first_3x3(bottleneck)(name, m)]
    assert len(chosen) == 13
    assert all(name.endswith("conv2") for name in chosen)
    chosen = [name for name, m in bottleneck.named_modules() if initial(name, m)]
    assert len(chosen) == 16
    assert all(bottleneck.get_submodule(name).kernel_size == (1, 1) for name in chosen)
    mobile = [name for name, m in networks.mobilenet_v2().named_modules() if depthwise_3x3(name, m)]
    assert len(mobile) == 17


@pytest.mark.parametrize(
    ("network", "layer", "where", "options"),
    [
        ("resnet18", "A2D2C", block_convolutions, {}),
        ("resnet50", "ODConv", block_convolutions, {"num_experts": 1}),
        ("mobilenet_v2", "FMDConv", all_but_stem, {"num_experts": 2}),
        ("mobilenet_v2", "A2D2C", depthwise_3x3, {}),
    ],
)
def test_torchvision_networks_train_and_agree_with_a_batch_of_one(network, layer, where, options):
    torch.manual_seed(0)
    model = convert(getattr(networks, network)(num_classes=7), layer, where, **options)
    x = torch.randn(2, 3, 64, 64)
    model.train()(x).square().mean().backward()
    model.eval()
    assert torch.allclose(torch.cat([model(sample[None]) for sample in x]), model(x), atol=1e-4)


@pytest.mark.accept
def test_a_detector_of_torchvision():
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    convert(model.backbone.body, "A2D2C", first_3x3(model.backbone.body))
    assert sum(isinstance(m, layers.A2D2C) for m in model.modules()) == 13
    assert set(model.eval()([torch.rand(3, 64, 64)])[0]) == {"boxes", "labels", "scores", "masks"}


def test_dtype_mode_and_bias_carry_over():
    static = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 1, bias=False)).double().eval()
    model = convert(static, "DynamicConv", where=is_conv)
    assert not any(m.training for m in model[0].modules())
    assert model[0].experts.bias is not None
    assert model[1].experts.bias is None
    assert model(torch.randn(1, 4, 8, 8, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("layer", "where", "options", "message"),
    [
        ("ODConv", lambda name, m: False, {}, r"where matches none of the 5 convolutions and linear layers \(0, 2, 4"),
        ("OdConv", is_conv, {}, "unknown layer 'OdConv'; did you mean 'ODConv'"),
        ("RFAConv", is_conv, {"from_static": True}, "RFAConv cannot start from static weights"),
        (
            "A2D2C",
            is_conv,
            {"from_static": True, "sampling": "none"},
            "0: router must be separate to start from static",
        ),
        ("RFAConv", is_conv, {}, "2: RFAConv takes groups 1 and dilation 1 only, got 1 and "),
        ("ODConv", is_conv, {"num_experts": 0}, "0: num_experts must be at least 1 and at most 1024, got 0"),
        ("ODConv", is_conv, {"experts": 3}, "0: .*unexpected keyword argument 'experts'"),
    ],
)
def test_what_cannot_be_converted_is_named(layer, where, options, message):
    with pytest.raises(YoloDynError, match=message):
        convert(small(), layer, where, **options)


@pytest.mark.parametrize("options", [{"padding_mode": "reflect", "padding": 1}, {"padding": "same"}], ids=str)
def test_padding_that_a_layer_does_not_have(options):
    with pytest.raises(YoloDynError, match=r"0: only numeric zero padding can be replaced, found '(reflect|same)'"):
        convert(nn.Sequential(nn.Conv2d(4, 4, 3, **options)), "ODConv", where=is_conv)


def test_kernel_size_of_what_is_no_convolution():
    assert kernel_size(nn.Linear(2, 2)) == 0
