"""torchvision's detectors on our backbones: maps, counts, training, weights, freezing, bad input."""

import copy
import math
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers import ROOT, randomise, unless_torch_has_no_half
from torch import nn
from torchvision import models
from torchvision.models import detection
from torchvision.ops import FrozenBatchNorm2d
from ultralytics import YOLO
from ultralytics.nn.tasks import ClassificationModel

from yolo_dyn import YoloDynError, layers
from yolo_dyn.backbones import dmf_maps
from yolo_dyn.backbones.detectors import mask_rcnn, retinanet
from yolo_dyn.backbones.freezing import parts
from yolo_dyn.data import shapes
from yolo_dyn.integration.annealing import annealed, set_temperatures
from yolo_dyn.layers.attention import PooledNorm

A2D2C = {"dynamic": "A2D2C", "where": "first_3x3"}
SMALL = {"min_size": 64, "max_size": 128}
CHEAP = {**SMALL, "rpn_post_nms_top_n_train": 40, "box_batch_size_per_image": 16}


def millions(model: nn.Module, only_trained: bool = False) -> float:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not only_trained) / 1e6


def build_counted(build, backbone: str, **options) -> nn.Module:
    with torch.device("meta"):  # counting needs no storage
        return build(backbone, 81, **options)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of a classifier that is not at its initial state, as Ultralytics saves it; a file by model name."""
    folder = tmp_path_factory.mktemp("weights")

    def saved(name: str) -> str:
        file = folder / f"{name}.pt"
        if not file.exists():
            torch.manual_seed(1)
            wrapper = YOLO(f"{name}-cls.yaml")
            randomise(wrapper.model).requires_grad_(False)  # as the moving average that a trainer saves
            set_temperatures(wrapper.model, 3)
            for module in wrapper.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 1e-2  # not the default, to be taken over
            wrapper.save(file)
        return str(file)

    return saved


# the backbone --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", dmf_maps.names())
def test_the_maps_are_those_of_ultralytics_rows(name):
    """Strides 4, 8, 16 and 32, of images of any size; the numbers are those of the classifier before its head."""
    torch.manual_seed(0)
    model = randomise(ClassificationModel(str(ROOT / "models_yaml" / f"{name}-cls.yaml"), verbose=False)).eval()
    body = dmf_maps.build(name).eval()
    loaded = body.load_state_dict(
        {key.replace("model.", "rows.", 1): v for key, v in model.state_dict().items()}, False
    )
    assert not loaded.missing_keys
    images = torch.rand(2, 3, 70, 101)
    expected: dict[int, torch.Tensor] = {}
    for i in (6, 10, 18, 24):
        model.model[i].register_forward_hook(lambda row, _, y: expected.update({row.i: y}))
    model(images)
    maps = body(images)
    for stride, found, before in zip((4, 8, 16, 32), maps, expected.values(), strict=True):
        assert found.shape[2:] == (math.ceil(70 / stride), math.ceil(101 / stride))
        assert torch.equal(found, before)
    assert [y.shape[1] for y in maps] == body.channels
    assert sum(len(part) for part in body.stages) == len(body.rows) == 25


@pytest.mark.parametrize(("build", "strides"), [(mask_rcnn, (4, 8, 16, 32, 64)), (retinanet, (8, 16, 32, 64, 128))])
@pytest.mark.parametrize(("backbone", "options"), [("dmf-xxs", {}), ("resnet18", A2D2C)])
def test_the_pyramid_has_the_levels_of_the_detector(build, strides, backbone, options):
    model = build_counted(build, backbone, **options)
    maps = model.backbone(torch.zeros(1, 3, 256, 384, device="meta"))
    assert [(*y.shape[1:],) for y in maps.values()] == [(256, 256 // s, 384 // s) for s in strides]


def test_without_a_dynamic_layer_it_is_torchvisions_own():
    """Keys and shapes, so that its weights fit; RetinaNet but for P6, which comes from the backbone's last map."""

    def shapes_of(model: nn.Module) -> dict[str, torch.Size]:
        return {key: value.shape for key, value in model.state_dict().items()}

    with torch.device("meta"):
        none = {"weights": None, "weights_backbone": None, "num_classes": 81}
        stock = shapes_of(detection.maskrcnn_resnet50_fpn(**none)), shapes_of(detection.retinanet_resnet50_fpn(**none))
    ours = [shapes_of(build_counted(build, "resnet50")) for build in (mask_rcnn, retinanet)]
    assert ours[0] == stock[0]
    assert ours[1].keys() == stock[1].keys()
    differ = [key for key in ours[1] if ours[1][key] != stock[1][key]]
    assert differ == ["backbone.fpn.extra_blocks.p6.weight"]
    assert ours[1][differ[0]] == (256, 2048, 3, 3)


# counts: in millions, with 80 classes and the background -------------------------------------------------------------

PAPERS = [  # built, and of it after stride 8 (which trains with the first two stages frozen); beside it the paper's
    (retinanet, "dmf-s", 26.026, 23.675),  # 23.6, DMF Table 4
    (retinanet, "dmf-xs", 22.349, 20.200),  # 20.2
    (retinanet, "dmf-xxs", 19.371, 17.386),  # 17.4
    (mask_rcnn, "dmf-s", 36.547, 34.197),  # 34.2, Table 5
]


@pytest.mark.parametrize(("build", "backbone", "total", "late"), PAPERS)
def test_counts_of_dmf(build, backbone, total, late):
    """The paper's toolbox counts what trains, and its authors froze the stages of strides 4 and 8."""
    model = build_counted(build, backbone)
    assert round(millions(model), 3) == total
    for part in model.backbone.body.stages[:3]:
        for row in part:
            row.requires_grad_(False)
    assert round(millions(model, only_trained=True), 3) == late


@pytest.mark.parametrize(
    ("options", "body", "total"),
    [  # the paper's totals hold the classifier of ImageNet too, 2.049 M, which no detector has
        ({}, 23.508, 44.401),  # A2D2C Table 8: 23.51 and 46.45 - 2.05 = 44.40
        ({"dynamic": "ODConv", "where": "block_convolutions"}, 88.622, 109.515),  # 88.62 and 111.56 - 2.05 = 109.51
        (A2D2C, 57.443, 78.336),  # 87.95 and 110.24, which do not follow from the text
        ({**A2D2C, "dynamic": "A2D2CPlus"}, 57.443, 78.336),
    ],
    ids=str,
)
def test_counts_of_mask_rcnn_with_resnet50(options, body, total):
    model = build_counted(mask_rcnn, "resnet50", **options)
    assert round(millions(model.backbone.body), 3) == body
    assert round(millions(model), 3) == total


# training ------------------------------------------------------------------------------------------------------------


def batch(count: int) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Images of the embedded data set, of different sizes, with their boxes as masks."""
    images, targets = [], []
    for index in range(count):
        drawn, rows = shapes.draw_image("train", index)
        height = 192 - 32 * index
        image = torch.from_numpy(drawn[:height, :, ::-1].copy()).permute(2, 0, 1) / 255
        values = np.array([row.split() for row in rows], float)
        centre, size = values[:, 1:3] * 192, values[:, 3:] * 192
        boxes = torch.tensor(np.hstack([centre - size / 2, centre + size / 2]), dtype=torch.float32)
        boxes[:, 1::2] = boxes[:, 1::2].clamp(max=height)
        kept = boxes[:, 3] - boxes[:, 1] > 4
        boxes, labels = boxes[kept], torch.tensor(values[:, 0], dtype=torch.int64)[kept] + 1
        masks = torch.zeros(len(boxes), height, 192, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        images.append(image)
        targets.append({"boxes": boxes, "labels": labels, "masks": masks})
    return images, targets


DETECTORS = [
    pytest.param(mask_rcnn, "dmf-xxs", CHEAP, id="mask_rcnn dmf-xxs", marks=pytest.mark.accept),
    pytest.param(retinanet, "dmf-xxs", SMALL, id="retinanet dmf-xxs"),
    pytest.param(mask_rcnn, "resnet18", {**A2D2C, **CHEAP}, id="mask_rcnn A2D2C", marks=pytest.mark.accept),
    pytest.param(retinanet, "resnet18", {**A2D2C, **SMALL}, id="retinanet A2D2C", marks=pytest.mark.accept),
]


@pytest.mark.parametrize(("build", "backbone", "options"), DETECTORS)
def test_it_learns_two_images(build, backbone, options):
    """Also with the temperature of the first epoch, and from one image."""
    torch.manual_seed(0)
    model = build(backbone, len(shapes.NAMES) + 1, **options)
    assert model.training
    assert set(set_temperatures(model, 0).values()) == {30.0}
    images, targets = batch(2)
    adaptive = torch.optim.AdamW(model.parameters(), lr=3e-4)
    optimizer = adaptive if build is mask_rcnn else torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    totals = []
    for _ in range(8 if build is retinanet else 6):
        optimizer.zero_grad()
        losses = model(images, targets)
        sum(losses.values()).backward()
        optimizer.step()
        totals.append(sum(loss.item() for loss in losses.values()))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert np.isfinite(totals).all()
    assert totals[-1] < 0.9 * totals[0]
    single = model(images[1:], targets[1:])
    assert all(loss.isfinite() for loss in single.values())


@pytest.mark.parametrize(
    ("build", "backbone", "options", "dtype"),
    [
        pytest.param(retinanet, "dmf-xxs", {}, torch.bfloat16, marks=pytest.mark.accept),
        (retinanet, "dmf-xxs", {}, torch.float16),
        pytest.param(mask_rcnn, "resnet18", {**A2D2C, **CHEAP}, torch.bfloat16, marks=pytest.mark.accept),
    ],
)
def test_autocast_from_one_image(build, backbone, options, dtype):
    """Of a P6 of one pixel torch itself gives, in bfloat16 on a CPU, P7 a gradient that is not finite: so 96 pixels."""
    torch.manual_seed(0)
    model = build(backbone, 8, **{**options, "min_size": 96})
    with unless_torch_has_no_half(), torch.autocast("cpu", dtype):
        losses = model(*batch(1))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def calibrated(model: nn.Module) -> nn.Module:
    """At evaluation, with the statistics of some images: without, a random network's maps leave the range of a half."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()
        backbone = getattr(model, "backbone", model)
        backbone(
            torch.stack([torch.from_numpy(shapes.draw_image("val", i)[0]) for i in range(2)]).permute(0, 3, 1, 2) / 255
        )
    return model.eval()


@pytest.mark.parametrize(
    ("backbone", "options", "dtype", "error"),
    [  # relative; a random network of this depth makes a rounding error some hundred times larger, ResNet-50 too
        ("dmf-xxs", {}, torch.float16, 0.4),
        pytest.param("resnet18", A2D2C, torch.float16, 0.02, marks=pytest.mark.accept),
        pytest.param("resnet18", A2D2C, torch.bfloat16, 0.1, marks=pytest.mark.accept),
    ],
    ids=str,
)
@torch.no_grad()
def test_the_pyramid_in_half_precision(backbone, options, dtype, error):
    """The part that is ours: torchvision's NMS has no half precision on a CPU."""
    torch.manual_seed(0)
    full = calibrated(retinanet(backbone, 8, **options).backbone)
    half = copy.deepcopy(full).to(dtype)
    image = batch(1)[0][0][None]
    with unless_torch_has_no_half():
        maps = half(image.to(dtype))
    for found, expected in zip(maps.values(), full(image).values(), strict=True):
        assert found.dtype == dtype
        assert (found.float() - expected).norm() < error * expected.norm()


def test_what_it_finds_has_the_form_of_torchvision():
    torch.manual_seed(0)
    model = calibrated(mask_rcnn("dmf-xxs", 8, **SMALL, box_score_thresh=0.0, box_detections_per_img=5))
    images, _ = batch(2)
    for image, found in zip(images, model(images), strict=True):
        assert set(found) == {"boxes", "labels", "scores", "masks"}
        assert found["masks"].shape == (5, 1, *image.shape[1:])
        assert (found["boxes"] <= torch.tensor([192, image.shape[1]] * 2)).all()


def test_a_state_dict_takes_everything_over():
    options = {"dynamic": "ODConv", "where": "block_3x3", "num_experts": 2, **SMALL}
    first, second = (retinanet("resnet18", 8, **options) for _ in range(2))
    randomise(first)
    second.load_state_dict(first.state_dict())
    images, _ = batch(1)
    with torch.no_grad():
        expected, found = (model.eval().backbone(images[0][None, :, :128]) for model in (first, second))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


# weights and freezing ------------------------------------------------------------------------------------------------


def rows_maps(file: str, images: torch.Tensor) -> list[torch.Tensor]:
    """The maps of strides 4 to 32 of a checkpoint, by Ultralytics."""
    model = YOLO(file).model.eval()
    rows = [model.model[i] for i in (6, 10, 18, 24)] if len(model.model) > 2 else list(model.model[0].layers[4:8])
    seen: list[torch.Tensor] = []
    for row in rows:
        row.register_forward_hook(lambda _, __, y: seen.append(y))
    model(images)
    return seen


@pytest.mark.parametrize(
    "name", ["dmf-xxs", "resnet18-a2d2c", pytest.param("resnet18-odconv", marks=pytest.mark.accept)]
)
def test_a_checkpoint_of_a_classifier_becomes_the_backbone(name, checkpoint):
    """Its numbers, its image statistics; its norms stay as they are in training, what is before stride 8 too."""
    backbone = "dmf-xxs" if name == "dmf-xxs" else "resnet18"
    model = mask_rcnn(backbone, 8, weights_backbone=checkpoint(name), **CHEAP)
    assert (model.transform.image_mean, model.transform.image_std) == ([0.0] * 3, [1.0] * 3)
    assert {round(layer.temperature, 1) for _, layer in annealed(model)} <= {21.3}
    body, images = model.backbone.body, torch.rand(2, 3, 64, 96)
    found = body.eval()(images)
    found = found if isinstance(found, list) else list(found.values())
    for y, expected in zip(found, rows_maps(checkpoint(name), images), strict=True):
        assert (y - expected).abs().max() < 1e-3 * expected.std()

    assert not any(type(m) is nn.BatchNorm2d for m in body.modules())
    before = copy.deepcopy(body.state_dict())
    optimizer = torch.optim.SGD([p for p in body.parameters() if p.requires_grad], lr=1e-3)
    y = model.train().backbone(images)
    sum(map(torch.mean, y.values())).backward()
    optimizer.step()
    moved = {key for key, value in body.state_dict().items() if not torch.equal(value, before[key])}
    fixed = set(dict(body.named_buffers())) | {
        f"{name}.{key}" for name, m in body.named_modules() if isinstance(m, PooledNorm) for key in m.state_dict()
    }
    assert not moved & fixed
    late = ("rows.23", "rows.24") if backbone == "dmf-xxs" else ("layer4",)
    early = tuple(f"rows.{i}." for i in range(7)) if backbone == "dmf-xxs" else ("conv1", "bn1", "layer1")
    assert any(key.startswith(late) for key in moved)
    assert not any(key.startswith(early) for key in moved)


@pytest.mark.parametrize("layer", ["A2D2C", "ODConv", "DynamicResidualConv"])
def test_new_layers_start_from_the_static_weights(layer, checkpoint):
    """They compute at first what the network did; they train, with norms of their own."""
    file = checkpoint("resnet18")
    model = retinanet("resnet18", 8, dynamic=layer, where="first_3x3", weights_backbone=file, num_experts=2, **SMALL)
    kinds = [m for m in model.modules() if type(m).__name__ == layer]
    assert len(kinds) == 6
    assert all(p.requires_grad for m in kinds for p in m.parameters())
    assert not any(norm.frozen for m in kinds for norm in m.modules() if isinstance(norm, PooledNorm))
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in model.modules()) == 20
    images = torch.rand(2, 3, 64, 96)
    found = model.backbone.body.eval()(images).values()
    for y, expected in zip(found, rows_maps(file, images)[1:], strict=True):
        assert (y - expected).abs().max() < 1e-3 * expected.std()


def test_norms_can_stay_alive(checkpoint):
    model = retinanet("dmf-xxs", 8, weights_backbone=checkpoint("dmf-xxs"), frozen_norms=False)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) > 50
    assert not any(isinstance(m, FrozenBatchNorm2d) or getattr(m, "frozen", False) for m in model.modules())
    bare = retinanet("dmf-xxs", 8, frozen_norms=True)  # to load a detector that was trained so
    trained = retinanet("dmf-xxs", 8, weights_backbone=checkpoint("dmf-xxs"))
    bare.load_state_dict(trained.state_dict())


@pytest.mark.parametrize("trainable", range(6))
@pytest.mark.parametrize("backbone", ["dmf-xxs", "resnet18"])
def test_parts_train_from_the_last_on(backbone, trainable, checkpoint):
    file = checkpoint(backbone)
    model = retinanet(backbone, 8, weights_backbone=file, trainable_backbone_layers=trainable, frozen_norms=False)
    states = [{p.requires_grad for module in part for p in module.parameters()} for part in parts(model.backbone.body)]
    assert states == [{False}] * (5 - trainable) + [{True}] * trainable
    assert all(p.requires_grad for p in model.backbone.fpn.parameters())


def test_weights_of_torchvision(monkeypatch):
    """Its network, with the norms frozen, and images as it normalises them."""
    network = randomise(models.resnet18())
    monkeypatch.setattr(models, "get_model", lambda name, weights: {("resnet18", "DEFAULT"): network}[name, weights])
    model = mask_rcnn("resnet18", 8, weights_backbone="DEFAULT", **A2D2C)
    assert mask_rcnn("dmf-xxs", 8, weights_backbone=None, dynamic=None).training  # as torchvision's callers write it
    assert model.transform.image_mean == [0.485, 0.456, 0.406]
    start = model.backbone.body.layer2[0].conv1.experts.weight[:128]
    assert torch.equal(start, network.layer2[0].conv1.experts.weight[:128])
    assert isinstance(model.backbone.body.bn1, FrozenBatchNorm2d)
    assert not model.backbone.body.layer1[0].conv1.weight.requires_grad


# bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "classes", "options", "message"),
    [
        ("resnet5", 8, {}, "unknown backbone 'resnet5'; did you mean 'resnet50'"),
        ("dmf_s", 8, {}, "unknown backbone 'dmf_s'; did you mean 'dmf-s'"),
        ("mobilenet_v2", 8, {}, "unknown backbone 'mobilenet_v2' .*known: resnet101, .*dmf-s"),
        (None, 8, {}, "unknown backbone None"),
        ("resnet18", 1, {}, "num_classes must be at least 2, the background being one of them; got 1"),
        ("resnet18", "7", {}, "num_classes must be at least 2, .* got '7'"),
        ("resnet18", 8, {**A2D2C, "dynamic": "A2D2"}, "unknown layer 'A2D2'; did you mean 'A2D2C'"),
        ("resnet18", 8, {"dynamic": "A2D2C"}, "where must be one of last_blocks, .*, got None"),
        ("resnet18", 8, {**A2D2C, "where": "first3x3"}, "got 'first3x3'; did you mean 'first_3x3'"),
        ("resnet18", 8, {**A2D2C, "where": "depthwise_3x3"}, "where matches none of the 20 convolutions"),
        ("resnet18", 8, {**A2D2C, "num_expert": 3}, "layer2.0.conv1: .*unexpected keyword argument 'num_expert'"),
        ("resnet18", 8, {**A2D2C, "num_points": 0}, "layer2.0.conv1: num_points must be at least 1, got 0"),
        ("resnet18", 8, {"where": "first_3x3"}, "'where' is for a dynamic layer: name it by dynamic="),
        ("resnet18", 8, {"min_sise": 3}, "MaskRCNN has no option 'min_sise'; did you mean 'min_size'"),
        ("dmf-s", 8, A2D2C, "dynamic is for ResNets: the convolutions of dmf-s are dynamic already"),
        ("dmf-s", 8, {"weights_backbone": "DEFAULT"}, "there are no weights 'DEFAULT' for dmf-s: give the best.pt of"),
        ("dmf-s", 8, {"weights_backbone": "none.pt"}, "model 'none.pt' does not exist"),
        ("resnet18", 8, {"weights_backbone": "IMAGNET"}, "resnet18 .* with weights 'IMAGNET' cannot be had"),
        ("resnet18", 8, {"trainable_backbone_layers": 3}, "would freeze random weights: give weights_backbone"),
        ("resnet18", 8, {"trainable_backbone_layers": 6}, "trainable_backbone_layers must be 0 to 5, got 6"),
    ],
    ids=str,
)
def test_bad_input_is_named(backbone, classes, options, message):
    with pytest.raises(YoloDynError, match=message):
        mask_rcnn(backbone, classes, **options)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def unreachable(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nonexistent/hub")
    with pytest.raises(YoloDynError, match=r"resnet18 .* with weights 'IMAGENET1K_V1' cannot be had"):
        mask_rcnn("resnet18", 8, weights_backbone="IMAGENET1K_V1")


def test_a_checkpoint_of_another_backbone(checkpoint):
    with pytest.raises(
        YoloDynError, match=r"dmf-xxs.pt' holds no dmf-xs: give the best.pt of `yolo classify train mod"
    ):
        retinanet("dmf-xs", 8, weights_backbone=checkpoint("dmf-xxs"))
    with pytest.raises(YoloDynError, match=r"holds no resnet18"):
        retinanet("resnet18", 8, weights_backbone=checkpoint("dmf-xxs"))
    with pytest.raises(YoloDynError, match=r"holds no resnet34"):
        retinanet("resnet34", 8, weights_backbone=checkpoint("resnet18"))
    with pytest.raises(YoloDynError, match=r"brings A2D2C with it: leave dynamic out"):
        retinanet("resnet18", 8, weights_backbone=checkpoint("resnet18-a2d2c"), **A2D2C)


def test_new_layers_are_not_frozen(checkpoint):
    options = {"dynamic": "FMDConv", "where": "block_3x3", "weights_backbone": checkpoint("resnet18")}
    with pytest.raises(YoloDynError, match=r"=3 would freeze new layers of FMDConv: give at least 4, or another where"):
        retinanet("resnet18", 8, **options)
    model = retinanet("resnet18", 8, trainable_backbone_layers=4, **options)
    assert all(p.requires_grad for m in model.modules() if isinstance(m, layers.FMDConv) for p in m.parameters())
