"""Every bundled model YAML: it trains, is saved, reloads, fuses and validates; and rows that hold a dynamic layer."""

import copy

import pytest
import torch
import yaml
from helpers import DETECTORS, ROOT, default_dtype, nano, older, randomise_around, skip_without_its_rows
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.nn.tasks import DetectionModel

from yolo_dyn import YoloDynError, layers, registry
from yolo_dyn.layers.blocks import ConvNormAct

STATIC = "yolov8-wide.yaml"  # a control of the study, without any of our layers
TOUCHED = ("yolov8-sgdm.yaml", "yolo26-sgdm.yaml", "yolov8-dmf-xxs.yaml", "yolov8-fasternet-t0-sgdm.yaml")
BUNDLED = [  # `make test` trains these and a network of every layer, `make accept` all
    pytest.param(name, marks=[] if name in TOUCHED else pytest.mark.accept) for name in DETECTORS if name != STATIC
]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_model_trains_reloads_fuses_and_validates(name, tiny, tmp_path, monkeypatch):
    safe = "TimmBackbone" not in (ROOT / "models_yaml" / name).read_text()
    monkeypatch.setattr(tasks, "SAFE_LOAD", safe, raising=not older("8.4.67"))
    skip_without_its_rows(name)
    trains_reloads_fuses_and_validates(ROOT / "models_yaml" / nano(name), tiny, tmp_path)


def test_every_layer_trains_in_one_network(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "SAFE_LOAD", True, raising=not older("8.4.67"))
    singly = [[-1, 1, name, [16, 3]] for name in registry.names("convolution")]
    inside = [[-1, 1, "SGDM", [16, {"dynamic": name}]] for name in ("A2D2C", "CondConv", "DCD", "ODConv", "FMDConv")]
    modules = [[-1, 1, "CBAM", [16]], [-1, 1, "CoordAtt", [16]], [-1, 1, "RDConv", [16]], [-1, 1, "SGDM", [16]]]
    rows = [[-1, 1, "Conv", [16, 3, 2]], *singly, *inside, *modules]
    file = tmp_path / "every-layer.yaml"
    file.write_text(yaml.safe_dump({"nc": 7, "backbone": rows, "head": [[[1, len(rows) - 1], 1, "Detect", ["nc"]]]}))
    best = trains_reloads_fuses_and_validates(file, tiny, tmp_path)
    assert {row[2] for row in rows[1:]} <= {type(m).__name__ for m in best.model.modules()}


def trains_reloads_fuses_and_validates(file, data, folder):
    """One epoch with the stock trainer, which saves the model, reloads it, restricted too, fuses and validates it."""
    words = {"imgsz": 64, "epochs": 1, "batch": 8, "workers": 0, "plots": False, "project": str(folder), "name": "run"}
    YOLO(file).train(data=str(data), **words)
    best = YOLO(folder / "run" / "weights" / "best.pt")
    assert sum(isinstance(m, tuple(registry.all_layers().values())) for m in best.model.modules()) >= 3
    images = torch.rand(2, 3, 64, 64 + int(best.model.stride.max()))
    expected = best.model.float().eval()(images)[0]
    fused = best.model.fuse()(images)[0]
    if expected.shape[-1] == 6:  # an end-to-end head sorts by score, where rounding may swap equals: compare the scores
        expected, fused = expected[..., 4], fused[..., 4]
    assert torch.allclose(fused, expected, atol=1e-2, rtol=1e-4)
    return best


def build(backbone: list, width: float = 1.0) -> DetectionModel:
    head = [[[len(backbone) - 1], 1, "Detect", ["nc"]]]
    d = {"nc": 3, "scales": {"n": [1.0, width, 1024]}, "scale": "n", "yaml_file": "rows.yaml"}
    return DetectionModel({**d, "backbone": backbone, "head": head}, verbose=False)


@pytest.mark.parametrize("name", registry.names("convolution"))
def test_a_row_of_a_convolution_is_a_block_like_conv(name):
    rows = [[-1, 1, "Conv", [32, 3, 2]], [-1, 2, name, [64, 3, 2]], [-1, 1, name, [64, 1]]]
    model = build(rows, width=0.5)
    first, second = model.model[1]
    assert [type(m) for m in (first, second, model.model[2])] == [ConvNormAct] * 3
    assert model.model[1].type == f"{registry.all_layers()[name].__module__}.{name}"
    shapes = [m(torch.randn(2, c, 12, 10)).shape for m, c in ((first, 16), (second, 32), (model.model[2], 32))]
    assert shapes == [(2, 32, 6, 5), (2, 32, 12, 10), (2, 32, 12, 10)]


@pytest.mark.parametrize("name", registry.names("convolution"))
@pytest.mark.parametrize(
    ("block", "args", "count"),
    [("Conv", [32, 3, 2], 1), ("C2f", [32, True], 4), ("C3", [32], 2), ("C3k2", [32, True], 8)],
)
def test_a_stock_row_with_a_dynamic_layer(block, args, count, name, tiny):
    """The k x k convolutions of its bottlenecks are dynamic; fused, copied and loaded it computes the same."""
    dynamic = {"dynamic": name}
    rows = [[-1, 1, "Conv", [16, 3, 2]], [-1, 2 if block != "Conv" else 1, block, [*args, dynamic]]]
    given = copy.deepcopy(rows)
    model = build(given)
    assert given == rows
    kind = registry.all_layers()[name]
    assert sum(isinstance(m, kind) for m in model.modules()) == count
    assert {max(m.kernel_size) for m in model.model[1].modules() if type(m) is nn.Conv2d} <= {1, 3}
    model, x = model.double(), torch.rand(2, 3, 64, 32).double()  # in float32, eight layers of DCD make 1e-3 of 1e-7
    randomise_around(model, x)
    expected = model.model[:2](x)  # what the head gets; its boxes would hide or blow up a difference
    assert expected.isfinite().all()
    with default_dtype(torch.float64):  # in which Ultralytics makes the biases that fusing needs
        fused = copy.deepcopy(model).fuse(verbose=False)
    assert torch.allclose(fused.model[:2](x), expected, atol=1e-9 * max(1.0, expected.std().item()), rtol=1e-9)
    holders = [m for m in fused.modules() if isinstance(getattr(m, "conv", None), kind)]
    assert len(holders) == count
    assert not [m for holder in holders for m in holder.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    other = build(copy.deepcopy(rows)).double().eval()
    other.load_state_dict(model.state_dict())
    if not issubclass(kind, layers.A2D2C):
        assert torch.equal(other.model[:2](x), expected)


def test_weights_of_the_stock_block_transfer_but_for_its_convolutions():
    stock = build([[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C2f", [32, True]]])
    model = build([[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C2f", [32, True, {"dynamic": "ODConv"}]]])
    model.load(stock)
    assert torch.equal(model.model[1].cv1.conv.weight, stock.model[1].cv1.conv.weight)
    assert torch.equal(model.model[1].m[0].cv1.bn.weight, stock.model[1].m[0].cv1.bn.weight)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            [-1, 1, "C2f", [32, True, {"dynamic": "ODConf"}]],
            r"rows.yaml, row 1 \(C2f\): unknown layer 'ODConf'; did you mean 'ODConv'",
        ),
        (
            [-1, 1, "C2f", [32, True, {"dynamic": "CBAM"}]],
            r"row 1 \(C2f\): dynamic must name a convolution \(A2D2C, .*\), got CBAM",
        ),
        ([-1, 1, "Conv", [32, 1, 1, {"dynamic": "ODConv"}]], r"row 1 \(Conv\): where matches none"),
        ([-1, 1, "C2f", [32, True, {"dynamic": "ODConv", "experts": 2}]], r"row 1 \(C2f\): .*'experts'"),
        (
            [-1, 1, "ODConv", [32, 3, 1, {"num_expert": 2}]],
            r"row 1 \(ODConv\): .*'num_expert'.*did you mean 'num_experts'",
        ),
        ([-1, 1, "ODConv", [32, "3x"]], r"row 1 \(ODConv\): kernel_size must be"),
        ([-1, 1, "ODConv", [32, 3, 1, {"bias": True}]], r"row 1 \(ODConv\): .*'bias'.*accepted: kernel_size, stride"),
        ([-1, 1, "DynamicConv", [32, {"anneal": {"start": 5}}]], r"row 1 \(DynamicConv\): anneal must have the keys"),
        (
            [-1, 1, "SGDM", [32, {"dynamic": "ODConf"}]],
            r"row 1 \(SGDM\): unknown layer 'ODConf'; did you mean 'ODConv'",
        ),
        ([-1, 1, "SGDM", [16, {"dynamic": "ODConv", "atention": 1}]], "'atention'.*did you mean 'attentions'"),
        ([-1, 1, "SGDM", [16, {"dynamic": "CBAM"}]], r"row 1 \(SGDM\): CBAM takes no guide"),
    ],
)
def test_bad_rows_are_named(row, message):
    with pytest.raises(YoloDynError, match=message):
        build([[-1, 1, "Conv", [16, 3, 2]], row])


@pytest.mark.parametrize(
    "options", [{"ratio": 0.2}, {"static_size": 7, "guide": "none"}, {"strip_size": 7}, {"razor_ratio": 0.25}], ids=str
)
def test_the_ablations_of_sgdm_are_yaml_arguments(options):
    """Tables 6 to 8 of the paper."""
    model = build([[-1, 1, "Conv", [64, 3, 2]], [-1, 1, "SGDM", [64, options]]])
    plain = build([[-1, 1, "Conv", [64, 3, 2]], [-1, 1, "SGDM", [64]]])
    count = [sum(p.numel() for p in m.parameters()) for m in (model, plain)]
    assert count[0] < count[1]
