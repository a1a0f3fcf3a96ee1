"""Networks of timm and torchvision as rows: their maps, their counts, and what is said about wrong rows."""

import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from helpers import ROOT
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn.tasks import ClassificationModel, DetectionModel

from yolo_dyn import YoloDynError, layers
from yolo_dyn.backbones.timm_backbone import TimmBackbone
from yolo_dyn.backbones.torchvision_backbone import TorchvisionBackbone
from yolo_dyn.bench.fingerprints import FINGERPRINTS
from yolo_dyn.study.definition import read_study
from yolo_dyn.study.info import row_costs


def detector(*rows: list, channels: int = 3) -> DetectionModel:
    d = {"nc": 3, "yaml_file": "rows.yaml", "backbone": list(rows), "head": [[[len(rows) - 1], 1, "Detect", ["nc"]]]}
    return DetectionModel(d, ch=channels, verbose=False)


@pytest.mark.parametrize("name", ["fasternet_t0", "efficientvit_m0", "resnet10t"])
def test_the_maps_are_those_of_timm_at_the_chosen_strides(name):
    strides = [16, 32]
    row = TimmBackbone(3, name, strides).eval()
    whole = timm.create_model(name, features_only=True).eval()
    whole.load_state_dict(row.network.state_dict(), strict=False)
    x = torch.rand(2, 3, 128, 96)
    expected = dict(zip(whole.feature_info.reduction(), whole(x), strict=True))
    found = row(x)
    assert TimmBackbone.out_channels(3, [name, strides]) == [y.shape[1] for y in found]
    assert all(torch.equal(y, expected[stride]) for y, stride in zip(found, strides, strict=True))


def test_efficientvit_at_stride_8_has_the_papers_flops():
    """SGDM paper, Table 4: 4.0 M and 9.5 G at 640 px with 20 classes, where timm's own strides give 2.5 G."""
    model = DetectionModel("yolov8n-efficientvit-m0-stride8.yaml", nc=20, verbose=False).eval()
    assert model.stride.tolist() == [8, 16, 32]
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 4.0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 640, 640))
    assert counter.get_total_flops() / 1e9 == pytest.approx(9.5, rel=0.02)


def test_a_neck_knows_the_channels_of_each_map_also_of_other_images():
    rows = [[-1, 1, "TimmBackbone", ["fasternet_t0", [8, 32]]], [0, 1, "Feature", [0]], [0, 1, "Feature", [1]]]
    model = detector(*rows, [-1, 1, "nn.Upsample", [None, 4, "nearest"]], [[1, 3], 1, "Concat", [1]], channels=4)
    assert model.model[-1].cv2[0][0].conv.in_channels == 80 + 320
    assert model.stride.tolist() == [8]


TABLE_4 = {Path(arm.model).stem: arm.paper for arm in read_study("sgdm-table4").arms.values()}


@pytest.mark.parametrize("name", ["yolov8n-efficientvit-m0", *(name for name in TABLE_4 if "-sgdm" not in name)])
def test_counts_are_near_those_of_table_4(name):
    """With VOC's 20 classes. ConvNeXtV2-Atto's published count is 0.32 M, its ImageNet classifier, above its maps'."""
    printed = TABLE_4.get(name, TABLE_4["yolov8n-efficientvit-m0-stride8"])
    model = DetectionModel(f"{name}.yaml", nc=20, verbose=False)
    whole = sum(p.numel() for p in model.parameters()) / 1e6 + (0.321 if "convnext" in name else 0)
    assert round(whole, 1) == float(printed["params"])
    with_sgdm = DetectionModel(f"{name}-sgdm.yaml", nc=20, verbose=False)
    assert (
        sum(row.params for row in row_costs(with_sgdm, 64)) - sum(row.params for row in row_costs(model, 64)) == 151_364
    )


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "mobilenet_v2", "efficientnet_b0"])
def test_body_and_classifier_are_torchvisions_network(name):
    body = TorchvisionBackbone(3, name).eval()
    whole = torchvision.models.get_model(name).eval()
    own = body.layers.state_dict()
    whole.load_state_dict({f"features.{k}" if hasattr(whole, "features") else k: v for k, v in own.items()}, False)
    last = [m for m in whole.modules() if isinstance(m, nn.Linear)][-1]
    classifier = layers.Classifier(TorchvisionBackbone.out_channels(3, [name]), 1000).eval()
    classifier.linear.load_state_dict(last.state_dict())
    x = torch.rand(2, 3, 64, 96)
    assert torch.allclose(classifier(body(x))[1], whole(x), atol=1e-5)


def test_a_narrow_mobilenet():
    narrow = TorchvisionBackbone(3, "mobilenet_v2", 0.5)
    assert narrow(torch.rand(1, 3, 64, 64)).shape == (1, 1280, 2, 2)
    params = sum(p.numel() for p in narrow.parameters()) + 1281 * 1000
    assert params == sum(p.numel() for p in torchvision.models.mobilenet_v2(width_mult=0.5).parameters())


@pytest.mark.parametrize(
    "options", [{}, {"dynamic": layers.ODConv, "where": "block_convolutions"}], ids=["static", "dynamic"]
)
def test_the_stem_for_cifar_leaves_the_last_stage_more_than_a_pixel(options):
    plain, small = (TorchvisionBackbone(3, "resnet18", stem=stem, **options) for stem in ("", "cifar"))
    x = torch.rand(2, 3, 32, 32)
    assert plain(x).shape == (2, 512, 1, 1)
    assert small(x).shape == (2, 512, 4, 4)
    stems = (64 * 3 * 7 * 7, 64 * 3 * 3 * 3)
    counts = [sum(p.numel() for p in net.parameters()) for net in (plain, small)]
    assert counts[0] - counts[1] == stems[0] - stems[1]
    assert small.layers.conv1.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)


def test_an_option_that_changes_the_channels_may_be_given_by_name():
    row = [-1, 1, "TorchvisionBackbone", ["mobilenet_v2", {"width": 1.4}]]
    model = detector(row, [-1, 1, "Conv", [8]])
    assert model.model[1].conv.in_channels == 1792


PUBLISHED = {
    "resnet18-condconv": "ResNet-18, CondConv K=8",
    "resnet18-dcd": "ResNet-18, DCD",
    "resnet18-dynamicconv": "ResNet-18, DynamicConv",
    "resnet18-fmdconv": "ResNet-18, FMDConv K=4",
    "resnet18-kwconv": "ResNet-18, KernelWarehouse 1x",
    "resnet50-kwconv": "ResNet-50, KernelWarehouse 1x",
    "mobilenetv2-kwconv": "MobileNetV2 x1.0, KernelWarehouse 1x",
    "mobilenetv2-x0.5-kwconv": "MobileNetV2 x0.5, KernelWarehouse 1x",
    "resnet18-fdconv": "ResNet-18, FDConv K=4, as spectra",
    "resnet50-fdconv": "ResNet-50, FDConv K=4, as spectra",
    "resnet18-odconv": "ResNet-18, ODConv K=4",
    "resnet50-dcd": "ResNet-50, DCD",
    "resnet50-dynamicconv": "ResNet-50, DynamicConv",
    "resnet50-odconv": "ResNet-50, ODConv K=4",
    "mobilenetv2-odconv": "MobileNetV2 x1.0, ODConv K=4",
    "mobilenetv2-x0.5-odconv": "MobileNetV2 x0.5, ODConv K=4",
    "mobilenetv2-x0.75-odconv": "MobileNetV2 x0.75, ODConv K=4",
}


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=pytest.mark.accept if "resnet50" in file else []) for file in sorted(PUBLISHED)],
)
def test_the_yamls_have_the_published_counts(file):
    (mark,) = [mark for mark in FINGERPRINTS if mark.name == PUBLISHED[file]]
    with torch.device("meta"):
        model = ClassificationModel(str(ROOT / "models_yaml" / f"{file}-cls.yaml"), verbose=False)
    assert round(mark.count(model), mark.decimals) == mark.params


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [[-1, 1, "TimmBackbone", ["fasternet_t00"]]],
            r"timm has no model 'fasternet_t00'; did you mean 'fasternet_t0'",
        ),
        (
            [[-1, 1, "TimmBackbone", ["efficientvit_m0"]]],
            r"row 0 \(TimmBackbone\): strides of efficientvit_m0 must be some of 16, 32, 64, .*, got \(8, 16, 32\)",
        ),
        (
            [[-1, 1, "TimmBackbone", ["efficientvit_m0", [8, 16], "patch_embed"]]],
            r"row 0 \(TimmBackbone\): unstrided must be one of patch_embed_conv1, .*conv4, got 'patch_embed'",
        ),
        ([[-1, 1, "TimmBackbone", ["fasternet_t0", [32, 8]]]], r"ascending, got \(32, 8\)"),
        (
            [[-1, 1, "TimmBackbone", []]],
            r"row 0 \(TimmBackbone\): arguments are missing in \[\]; accepted: name, strides",
        ),
        (
            [[-1, 1, "TimmBackbone", ["fasternet_t0", [8]]], [0, 1, "Feature", [1]]],
            r"row 1 \(Feature\): index must be 0 to 0, got 1",
        ),
        (
            [[-1, 1, "Conv", [8]], [0, 1, "Feature", [0]]],
            r"row 1 \(Feature\): takes the maps of a row that yields several",
        ),
        (
            [[-1, 1, "TimmBackbone", ["fasternet_t0", [8, 16]]], [-1, 1, "Conv", [8]]],
            r"row 1 \(Conv\): reads row 0, which yields several maps; take one by a row \[0, 1, Feature, \[0\]\]",
        ),
        (
            [[-1, 1, "TimmBackbone", ["fasternet_t0", [8]]], [0, 1, "Feature", [0]], [[-1, 0], 1, "Concat", [1]]],
            r"row 2 \(Concat\): reads row 0, which yields several maps",
        ),
        (
            [[-1, 1, "TimmBackbone", ["fasternet_t0", [8]]], [-1, 1, "SGDM", [8]]],
            r"row 1 \(SGDM\): reads row 0, which yields several maps",
        ),
        ([[-1, 1, "TorchvisionBackbone", ["resnet81"]]], r"row 0 \(TorchvisionBackbone\): .*did you mean 'resnet18'"),
        (
            [[-1, 1, "TorchvisionBackbone", ["mobilenet_v2", {"stem": "cifar"}]]],
            r"row 0 \(TorchvisionBackbone\): stem 'cifar' is for ResNets, got mobilenet_v2",
        ),
        ([[-1, 1, "TorchvisionBackbone", ["resnet18", {"stem": "cifra"}]]], r"stem must be 'cifar' or empty, got 'cif"),
        ([[-1, 1, "TorchvisionBackbone", ["densenet121"]]], r"name must be a network of torchvision \(resnet, "),
        ([[-1, 1, "TorchvisionBackbone", ["resnet18", 0.5]]], r"resnet18 of width 0.5 with weights '' cannot be had"),
        (
            [[-1, 1, "TorchvisionBackbone", ["resnet18", {"dynamic": "ODConv", "where": "blocks"}]]],
            r"where must be one of last_blocks, all_but_stem, .*, got 'blocks'",
        ),
        (
            [[-1, 1, "TorchvisionBackbone", ["resnet18", {"dynamic": "ODConv", "where": "depthwise_3x3"}]]],
            r"where matches none of the",
        ),
        (
            [[-1, 1, "TorchvisionBackbone", ["resnet18", {"dynamic": "ODConv", "experts": 4}]]],
            r"row 0 \(TorchvisionBackbone\): .*'experts'",
        ),
    ],
    ids=str,
)
def test_a_wrong_row_is_named(rows, message):
    with pytest.raises(YoloDynError, match=message):
        detector(*rows)


def test_weights_that_cannot_be_had(monkeypatch):
    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host")
        return create(name, **options)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        YoloDynError, match=r"the weights of fasternet_t0 cannot be had: no route to host; set pretrained"
    ):
        TimmBackbone(3, "fasternet_t0", pretrained=True)


def test_timm_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(YoloDynError, match=r"TimmBackbone needs timm: pip install 'yolo-dyn\[timm\]'"):
        TimmBackbone(3, "resnet10t")
