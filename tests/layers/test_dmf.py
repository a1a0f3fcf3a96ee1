"""Dynamic Mobile-Former: each part against its oracle, the counts of the paper's Table 1, and its YAMLs in use."""

import onnxruntime
import pytest
import reference_dmf as oracle
import torch
from helpers import ROOT, randomise
from torch import nn
from torch.nn import functional as F
from ultralytics.nn.tasks import ClassificationModel, DetectionModel

from yolo_dyn import YoloDynError, layers, registry
from yolo_dyn.bench.contract import traced_onnx
from yolo_dyn.bench.fingerprints import FINGERPRINTS, multiply_adds
from yolo_dyn.layers.blocks import AsLinear
from yolo_dyn.layers.dmf import GRN, MapNorm
from yolo_dyn.layers.drop_path import drop_path, spread_drop_path
from yolo_dyn.study.definition import read_study


def prepared(layer: nn.Module) -> nn.Module:
    """In float64, at evaluation, with nothing left at zero or one."""
    torch.manual_seed(0)
    layer = randomise(layer)
    for m in layer.modules():
        if isinstance(m, nn.LayerNorm | nn.GroupNorm | GRN):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.5, 0.5)
        if isinstance(m, layers.DynamicResidualConv):
            nn.init.normal_(m.experts.weight, std=0.2)
    return layer.double().eval()


def inputs(channels: int, width: int, size: tuple[int, int] = (5, 7)) -> list[torch.Tensor]:
    return [torch.randn(3, channels, *size).double(), torch.randn(3, 4, width).double()]


TABLE_3 = read_study("dmf-table3").arms["neither"].options["DMFBlock"]
PARTS = {
    "Former": (lambda: layers.Former([6, 8], 3, token_heads=2), oracle.former),
    "DMFBlock": (lambda: layers.DMFBlock([6, 8], 4, 12, 2, 2.7), oracle.block),
    "DMFBlock, stride 2": (lambda: layers.DMFBlock([6, 8], 9, 12, 3, 2, 2, num_experts=2), oracle.block),
    "DMFBlock, Table 3 without both": (lambda: layers.DMFBlock([6, 8], 4, 12, 2, **TABLE_3), oracle.block),
    "DMFBlock, Tables 6 and 7": (
        lambda: layers.DMFBlock([6, 8], 4, 12, 2, activation="softmax", init="random"),
        oracle.block,
    ),
    "DMFHead without the token": (lambda: layers.DMFHead([6, 8], 10, token=False), oracle.head),
    "DMFHead": (lambda: layers.DMFHead([6, 8], 10), oracle.head),
    "Classifier": (lambda: layers.Classifier([6, 8], 5, 12), oracle.classifier),
}


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_part_equals_its_oracle(part):
    build, expected = PARTS[part]
    layer, x = prepared(build()), inputs(6, 8)
    found = layer(x)
    found = found[1] if isinstance(found, tuple) else found  # a classifier's logits
    for one, sample, tokens in zip(found, *x, strict=True):
        assert torch.allclose(one, expected(sample, tokens, layer), rtol=0, atol=1e-12)


def test_an_exported_norm_of_a_large_map_is_as_exact_as_torchs():
    x = torch.rand(1, 64, 160, 160) + 2
    expected = F.group_norm(x.double(), 1)
    errors = {"torch": (F.group_norm(x, 1) - expected).abs().max()}
    for norm in (MapNorm(64), nn.GroupNorm(1, 64)):
        session = onnxruntime.InferenceSession(traced_onnx(norm.eval(), x))
        found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
        errors[type(norm).__name__] = (found - expected).abs().max()
    print(errors)  # that of the GroupNorm is for the reader: a later ONNX Runtime may do better
    assert errors["MapNorm"] <= 1e-5


@pytest.mark.parametrize("part", ["DMFBlock", "DMFBlock, stride 2", "DMFHead"])
def test_a_fused_part_computes_the_same(part):
    layer, x = prepared(PARTS[part][0]()), inputs(6, 8)
    expected = layer(x)
    layer.fuse()
    layer.fuse()  # a second time changes nothing
    assert not [m for m in layer.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("part", ["Former", "DMFBlock", "Classifier"])
def test_gradients(part):
    layer = prepared(PARTS[part][0]())
    x = [t[:1].requires_grad_() for t in inputs(6, 8, (3, 2))]
    assert torch.autograd.gradcheck(lambda *given: layer.train(False)(list(given)), x)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_in_any_batch_and_precision(batch, dtype):
    """Every parameter that can have a gradient from the start has one, also from a map of zeros."""
    block = layers.DMFBlock([6, 8], 4, 12, 2)
    for x in (torch.randn(batch, 6, 4, 6), torch.zeros(batch, 6, 4, 6)):
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            y = block([x, torch.randn(batch, 4, 8)])
        (y.float() ** 2).sum().backward()
        assert y.shape == (batch, 4, 4, 6)
        assert all(p.grad is None or p.grad.isfinite().all() for p in block.parameters())
    moved = {name for name, p in block.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    still = {name for name, _ in block.named_parameters()} - moved
    assert all("trunk" in name or "kernel" in name for name in still)  # the mixture starts at zero, by design


def test_the_token_steers_the_map():
    block, (x, tokens) = prepared(layers.DMFBlock([6, 8], 4, 12, 2)), inputs(6, 8)
    other = tokens.clone()
    other[:, 1:] = 0  # only the first token is looked at
    assert torch.equal(block([x, other]), block([x, tokens]))
    other[:, 0] += 1
    assert not torch.allclose(block([x, other]), block([x, tokens]))


@pytest.mark.parametrize("mark", [mark for mark in FINGERPRINTS if mark.multiply_adds], ids=lambda mark: mark.name)
def test_multiply_adds_are_those_of_table_1(mark):
    assert multiply_adds(mark.build(), 224) / 1e6 == pytest.approx(mark.multiply_adds, rel=0.01)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_without_the_residual_it_starts_from_a_static_convolution(activation):
    static = nn.Conv2d(6, 9, 3)
    layer = layers.DynamicResidualConv(6, 9, 3, init="random", residual=False, activation=activation)
    layer.start_from(static.weight, static.bias)
    x = torch.randn(2, 6, 8, 8)
    assert torch.allclose(layer(x), static(x), atol=1e-5)


def test_defaults_reach_every_row_and_stay_in_the_model():
    given = {"num_experts": 3, "activation": "softmax"}
    d = {"nc": 3, "yaml_file": "rows.yaml", "defaults": dict.fromkeys(("DMFBlock", "DMFHead"), given)}
    former = [[0, 1], 1, "Former", [2]]
    block = [[-2, -1], 1, "DMFBlock", [8, 12, 2]]
    own = [[3, 2], 1, "DMFBlock", [8, 12, 2, {"num_experts": 2}]]
    head = [[[4, 2], 1, "DMFHead", [8]], [-1, 1, "Classifier", ["nc"]]]
    model = ClassificationModel({**d, "backbone": [*STEM, former, block, own], "head": head}, ch=3, verbose=False)
    rebuilt = type(model)(model.yaml, verbose=False)
    for net in (model, rebuilt):
        convs = [m for m in net.modules() if isinstance(m, layers.DynamicResidualConv)]
        assert [conv.kernel.out_features for conv in convs] == [3, 3, 3, 2, 2, 2, 3]
        assert {conv.activation for conv in convs} == {"softmax"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"DMFBlok": {}}, r"rows.yaml: defaults names 'DMFBlok'; registered layers in its rows: DMFStem, GlobalTokens"),
        ({"DMFStm": {}}, r"defaults names 'DMFStm'; did you mean 'DMFStem'"),
        ({"Classify": {}}, r"defaults names 'Classify'; registered layers"),
        ({"DMFStem": 3}, r"defaults must map layers to keyword arguments, {Name: {...}}, got"),
        ([3], r"rows.yaml: defaults must map layers to keyword arguments"),
        ({"DMFStem": {"width": 3}}, r"row 0 \(DMFStem\): got an unexpected keyword argument 'width'; accepted: "),
        ({"DMFStem": {"channels": 3}}, r"row 0 \(DMFStem\): multiple values for argument 'channels'"),
    ],
    ids=str,
)
def test_wrong_defaults_are_named(given, message):
    d = {"nc": 3, "yaml_file": "rows.yaml", "backbone": STEM, "head": [[0, 1, "Classify", ["nc"]]], "defaults": given}
    with pytest.raises(YoloDynError, match=message):
        ClassificationModel(d, ch=3, verbose=False)


def test_a_branch_is_left_out_as_often_as_asked_and_keeps_its_mean():
    torch.manual_seed(0)
    branch = torch.ones(4000, 2, 3)
    found = drop_path(branch, 0.25, True)
    left_out = (found == 0).all((1, 2))
    assert left_out.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.allclose(found[~left_out], branch[~left_out] / 0.75)
    assert drop_path(branch, 0.25, False) is branch


@pytest.mark.parametrize("part", ["Former", "DMFBlock"])
def test_stochastic_depth_is_gone_at_evaluation(part):
    layer, x = prepared(PARTS[part][0]()), inputs(6, 8)
    expected = layer(x)
    layer.drop_path = 0.999999
    assert torch.equal(layer(x), expected)
    for m in layer.modules():
        m.training = not isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)
    dropped = layer(x)
    if part == "Former":
        assert torch.equal(dropped, layer.cross.norm(x[1]))
    else:
        layer.drop_path = 0.0
        assert not torch.allclose(layer(x), dropped)


def test_stochastic_depth_grows_with_depth():
    model = nn.Sequential(*(layers.Former([6, 8], 2, 2) for _ in range(5)), nn.Identity())
    assert spread_drop_path(model, 0.1) == 5
    assert [layer.drop_path for layer in model[:5]] == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])


@pytest.mark.parametrize("rate", [1, -0.1, "0.1", True])
def test_a_rate_that_is_no_probability(rate):
    with pytest.raises(ValueError, match=r"drop_path must lie in \[0, 1\), got"):
        layers.DMFBlock([6, 8], 4, 12, drop_path=rate)


def maps(model: DetectionModel, images: torch.Tensor) -> list[torch.Tensor]:
    """What the head gets; its boxes would hide or blow up a difference."""
    seen: list[torch.Tensor] = []
    handle = model.model[-1].register_forward_pre_hook(lambda _, given: seen.extend(x.clone() for x in given[0]))
    model(images)
    handle.remove()
    return seen


@pytest.mark.parametrize("size", ["s", "xs", "xxs"])
def test_the_backbone_gives_the_detector_strides_8_16_32(size):
    torch.manual_seed(0)
    model = DetectionModel(str(ROOT / "models_yaml" / f"yolov8-dmf-{size}.yaml"), verbose=False).eval()
    assert model.stride.tolist() == [8, 16, 32]
    images = torch.rand(2, 3, 64, 96)
    expected = maps(randomise(model), images)
    fused = model.fuse(verbose=False)
    assert not [m for m in fused.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for found, before in zip(maps(fused, images), expected, strict=True):
        assert (found - before).abs().max() < 1e-3 * before.std()  # a hundred convolutions turn 1e-7 into 1e-4


def test_a_dynamic_classifier():
    layer = layers.Classifier(8, 5, dynamic=registry.all_layers()["CondConv"], num_experts=3)
    assert isinstance(layer.linear, AsLinear)
    x = torch.randn(2, 8, 4, 4)
    assert layer(x).shape == (2, 5)
    probabilities, logits = layer.eval()(x)
    assert torch.equal(probabilities, logits.softmax(1))
    layer.export = True
    assert torch.equal(layer(x), probabilities)


def classifier(*rows: list) -> ClassificationModel:
    d = {"nc": 3, "yaml_file": "rows.yaml", "backbone": list(rows), "head": [[-1, 1, "Classify", ["nc"]]]}
    return ClassificationModel(d, ch=3, verbose=False)


STEM = [[-1, 1, "DMFStem", [6]], [0, 1, "GlobalTokens", [2, 16]]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*STEM, [[0, 1], 1, "Former", [4]]], r"row 2 \(Former\): heads must divide the 6 channels of the map, got 4"),
        ([*STEM, [0, 1, "Former", [2]]], r"row 2 \(Former\): takes a map and tokens, \[map, tokens\], got inputs of 6"),
        ([*STEM, [[0, 1], 1, "Former", [2, 5]]], r"row 2 \(Former\): token_heads must divide the width 16 .*got 5"),
        ([*STEM, [[0, 1], 1, "DMFBlock", [8, 9, 4]]], r"row 2 \(DMFBlock\): groups must divide the 6 input .*got 4"),
        ([*STEM, [[0, 1], 1, "DMFBlock", [8]]], r"row 2 \(DMFBlock\): .*'hidden'; accepted: channels, hidden, groups"),
        (
            [*STEM, [[0, 1], 1, "DMFBlock", [8, 12, {"residual": False}]]],
            r"row 2 \(DMFBlock\): init must be 'random' without the residual kernel",
        ),
        (
            [*STEM, [[0, 1], 1, "DMFBlock", [8, 12, {"experts": 4}]]],
            r"'experts'; accepted: .*; did you mean 'num_exper",
        ),
        ([[-1, 1, "DMFStem", []]], r"row 0 \(DMFStem\): arguments are missing in \[\]; accepted: channels"),
    ],
    ids=str,
)
def test_a_wrong_row_is_named(rows, message):
    with pytest.raises(YoloDynError, match=message):
        classifier(*rows)
