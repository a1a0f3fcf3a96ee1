"""Building from YAML, checkpoints, weights, fusing and counting, inside an ordinary Ultralytics."""

import copy
import sys
import types

import pytest
import torch
import yaml
from helpers import save, skip_without_its_rows, unless_the_stock_fails, unless_torch_has_no_half
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils.torch_utils import get_flops

import yolo_dyn
from yolo_dyn import YoloDynError, integration, registry
from yolo_dyn.integration import api
from yolo_dyn.layers import SGDM, RDConv
from yolo_dyn.layers.blocks import ConvNormAct
from yolo_dyn.output import files

sys.modules["integration_layers"] = LAYERS = types.ModuleType("integration_layers")


def layer_class(function):
    """A layer of the user's own, importable by pickle."""
    kind = function()
    kind.__module__, kind.__qualname__ = LAYERS.__name__, kind.__name__
    setattr(LAYERS, kind.__name__, kind)
    return kind


@layer_class
def PlainConv():  # noqa: N802
    class PlainConv(nn.Conv2d):
        """A convolution with stock argument names, to see what arrives."""

        def __init__(
            self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, extra: float = 0.0
        ):
            super().__init__(in_channels, out_channels, kernel_size, stride, kernel_size // 2)
            self.extra = extra

    return PlainConv


@layer_class
def WeightedSum():  # noqa: N802
    class WeightedSum(nn.Module):
        """Several inputs of equal shape."""

        def __init__(self, in_channels: list[int]):
            super().__init__()
            self.weights = nn.Parameter(torch.ones(len(in_channels)))

        @staticmethod
        def out_channels(in_channels: list[int], args: list) -> int:
            if len(set(in_channels)) > 1:
                raise ValueError(f"inputs must have equal channels, got {in_channels}")
            return in_channels[0]

        def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
            return sum(w * part for w, part in zip(self.weights, x, strict=True))

    return WeightedSum


@layer_class
def OwnConv():  # noqa: N802
    class OwnConv(nn.Conv2d):
        """A convolution of one's own, with an option of its own."""

        def __init__(
            self,
            in_channels: int,
            out_channels: int,
            kernel_size: int,
            stride: int = 1,
            padding: int = 0,
            dilation: int = 1,
            groups: int = 1,
            bias: bool = True,
            factor: float = 1.0,
        ):
            super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
            self.factor = factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * super().forward(x)

    return OwnConv


@pytest.fixture(scope="module", autouse=True)
def _own_layers():
    for kind in (PlainConv, WeightedSum):
        yolo_dyn.register(kind)
    yolo_dyn.register(OwnConv, kind="convolution")
    yield
    for kind in (PlainConv, WeightedSum, OwnConv):
        registry.unregister(kind.__name__)


def model_of(rows: list, **keys) -> tasks.DetectionModel:
    """A small detection model: a stem, the rows under test, and a head on the last of them."""
    d = {
        "nc": 4,
        "scales": {"n": [0.5, 0.25, 64], "s": [1.0, 1.0, 1024]},
        "backbone": [[-1, 1, "Conv", [64, 3, 2]], [-1, 1, "Conv", [64, 3, 2]]],
        "head": [*rows, [[len(rows) + 1], 1, "Detect", ["nc"]]],
        "scale": "s",
        "yaml_file": "small.yaml",
        **keys,
    }
    return tasks.DetectionModel(d, verbose=False)


def randomise(model: nn.Module) -> nn.Module:
    """Spread scores over (0, 1), and statistics as after a training."""
    generator = torch.Generator().manual_seed(0)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.copy_(torch.randn(m.running_mean.shape, generator=generator) * 0.2)
            m.running_var.copy_(torch.rand(m.running_var.shape, generator=generator) + 0.5)
    for branch in model.model[-1].cv3:
        nn.init.zeros_(branch[-1].bias)
        branch[-1].weight.data *= 30
    return model.eval()


# rows ------------------------------------------------------------------------------------


def test_a_row_is_scaled_and_counted_as_the_stock_parser_does():
    row = [-1, 4, "PlainConv", [128, 3, 2, {"extra": 2.5}]]
    model = model_of([row], scale="n")
    layers = model.model[2]
    assert [type(m) for m in layers] == [PlainConv] * 2  # 4 repeats at depth 0.5
    assert [(m.in_channels, m.out_channels, m.stride[0]) for m in layers] == [
        (16, 16, 2),
        (16, 16, 1),
    ]  # max_channels 64
    assert all(m.kernel_size == (3, 3) and m.extra == 2.5 for m in layers)
    assert (layers.i, layers.f, layers.type) == (2, -1, "integration_layers.PlainConv")
    assert layers.np == sum(p.numel() for p in layers.parameters())
    assert model.yaml["head"][0] == row  # the dict in the checkpoint is the user's own


def test_strings_are_read_as_the_stock_parser_does():
    model = model_of([[-1, 1, "PlainConv", [64, "3", {"extra": "nc"}]]])
    assert model.model[2].kernel_size == (3, 3)
    assert model.model[2].extra == 4


def test_several_inputs_where_the_class_declares_its_channels():
    model = model_of([[-1, 1, "Conv", [64, 3, 1]], [[1, -1], 1, "WeightedSum", []]])
    assert model.model[3].f == [1, -1]
    assert {1, 3} <= set(model.save)
    assert model(torch.zeros(1, 3, 64, 64)) is not None


def test_several_inputs_with_unequal_channels_are_refused():
    with pytest.raises(
        YoloDynError, match=r"small.yaml, row 3 \(WeightedSum\): inputs must have equal channels, got \[64, 32\]"
    ):
        model_of([[-1, 1, "Conv", [32, 3, 1]], [[1, 2], 1, "WeightedSum", []]])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([-1, 1, "SGMD", [64]], "unknown layer 'SGMD'; did you mean 'SGDM'"),
        ([-1, 1, "Convv", [64]], "unknown layer 'Convv'; did you mean 'Conv'"),
        (
            [-1, 1, "SGDM", []],
            "the first argument must be c2, the output channels, a positive integer or 'same'; got nothing",
        ),
        ([-1, 1, "SGDM", ["a"]], "a positive integer or 'same'; got 'a'"),
        ([-1, 1, "SGDM", 64], r"arguments must be a list \[c2, ...\], got 64"),
        ([-1, 1, "SGDM", [128]], "keeps the channels: got 64 in and 128 out"),
        ([-1, 1, "SGDM", [64, {"ratio": 0.5}]], r"ratio must lie in \(0, 1/3\], got 0.5"),
        ([-1, 1, "SGDM", [64, {"ratio": "wide"}]], "ratio must be float, got 'wide'"),
        ([-1, 1, "SGDM", [64, {"num_experts": 4.5}]], "num_experts must be int, got 4.5"),
        ([-1, 1, "SGDM", [64, {"ratoi": 0.2}]], "'ratoi'; accepted: ratio, .*; did you mean 'ratio'"),
        ([-1, 1, "SGDM", [64, 0.2]], "too many positional arguments; accepted: ratio"),
        ([-1, 0, "SGDM", [64]], "repeats must be an integer from 1 to 1,000, got 0"),
        ([7, 1, "SGDM", [64]], "from 7 names no earlier row"),
        ([[0, 1], 1, "SGDM", [64]], r"takes one input, got from \[0, 1\]"),
        ([[0, 1], 2, "WeightedSum", []], "repeats must be 1 for a layer that declares out_channels, got 2"),
        ([-1, 1, "CondConv", [64, 3, 0]], "stride must be at least 1, got 0"),
        ([-1, 1, "CondConv", [64, 3, -1]], "stride must be at least 1, got -1"),
        ([-1, 1, "CondConv", [64, 0]], "kernel_size must be at least 1, got 0"),
        ([-1, 1, "CondConv", [64, -3]], "kernel_size must be at least 1, got -3"),
        ([-1, 1, "DCD", [64, 3, 1, {"dilation": 0}]], "dilation must be at least 1, got 0"),
        ([-1, 1, "ODConv", [64, 3, 1, -1]], "padding must be at least 0, got -1"),
        ([-1, 1, "SGDM", [64, {3: 4}]], "the names of keyword arguments must be text, got 3"),
        ([-1, 1, "SGDM", [64, {"ratio": float("inf")}]], r"ratio must lie in \(0, 1/3\], got inf"),
        ([-1, 1, "SGDM", [64, {"dynamic": 3}]], "unknown layer '3'"),
        ([-1, 1, "Conv", ["wide"]], r"\(Conv\) cannot be built: "),
        ([-1, 10**9, "Conv", [64]], "repeats must be an integer from 1 to 1,000, got 1000000000"),
        ([-1, 1.5, "Conv", [64]], "repeats must be an integer, got 1.5"),
        ([None, 1, "Conv", [64]], "from None names no earlier row"),
        ([[], 1, "Concat", [1]], r"from \[\] names no earlier row"),
        ([-1, 1, "Conv"], r"must be \[from, repeats, Name, \[...\]\], got \[-1, 1, 'Conv'\]"),
        (5, r"must be \[from, repeats, Name, \[...\]\], got 5"),
        ([], r"must be \[from, repeats, Name, \[...\]\], got \[\]"),
    ],
    ids=str,
)
def test_a_bad_row_is_named(row, message):
    with pytest.raises(YoloDynError, match=f"small.yaml, row 2.*{message}"):
        model_of([row])


def test_a_yaml_that_fails_leaves_the_activation_of_the_next_alone():
    from ultralytics.nn.modules.conv import Conv

    before = Conv.default_act
    with pytest.raises(YoloDynError, match=r"row 2 \(Conv\) cannot be built"):
        model_of([[-1, 1, "Conv", ["wide"]], [-1, 1, "SGDM", [64]]], activation="torch.nn.ReLU()")
    assert Conv.default_act is before


def test_a_convolution_of_ones_own_is_one_like_ours():
    rows = [
        [-1, 2, "OwnConv", [64, 3, 2, {"factor": 2.0}]],
        [-1, 2, "C2f", [64, True, {"dynamic": "OwnConv", "factor": 3.0}]],
        [-1, 1, "SGDM", [64, {"dynamic": "OwnConv", "guide": "none", "factor": 4.0}]],
    ]
    model = model_of(rows)
    first, second = model.model[2]
    assert [type(m) for m in (first, first.conv, first.bn, first.act)] == [
        ConvNormAct,
        OwnConv,
        nn.BatchNorm2d,
        nn.SiLU,
    ]
    assert (first.conv.stride, second.conv.stride, first.conv.padding) == ((2, 2), (1, 1), (1, 1))
    assert first.conv.bias is None
    factors = [m.factor for m in model.modules() if isinstance(m, OwnConv)]
    assert factors == [2.0] * 2 + [3.0] * 4 + [4.0]
    x = torch.rand(1, 3, 64, 64)
    expected = randomise(model)(x)[0]
    assert torch.allclose(model.fuse(verbose=False)(x)[0], expected, rtol=1e-4, atol=1e-3)
    network = yolo_dyn.convert(nn.Sequential(nn.Conv2d(4, 4, 3)), "OwnConv", lambda name, module: True, factor=5.0)
    assert network[0].factor == 5.0
    with pytest.raises(YoloDynError, match=r"row 2 \(OwnConv\): factor must be float, got 'big'"):
        model_of([[-1, 1, "OwnConv", [64, 3, {"factor": "big"}]]])


def test_a_registered_name_that_ultralytics_has_is_refused():
    kind = type("C2f", (nn.Identity,), {})
    yolo_dyn.register(kind)
    try:
        with pytest.raises(YoloDynError, match="'C2f' is taken by Ultralytics"):
            model_of([[-1, 1, "C2f", [64]]])
    finally:
        registry.unregister("C2f")


def test_the_table_shows_the_layer_and_not_its_host(log):
    YOLO("yolov8n-sgdm.yaml", verbose=True)
    lines = [line for line in log if "SGDM" in line]
    assert len(lines) == 3
    assert "7536" in lines[0]
    assert "yolo_dyn.layers.sgdm.SGDM" in lines[0]
    assert sum("ultralytics.nn.modules" in line for line in log) == 21  # all but ours and Upsample


# whole models ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sgdm_model() -> tasks.DetectionModel:
    torch.manual_seed(0)
    return randomise(YOLO("yolov8n-sgdm.yaml").model)


def test_every_layer_gets_a_gradient_through_the_whole_model():
    model = YOLO("yolov8n-sgdm.yaml").model.train()
    model.args = api.train_args()
    batch = {
        "img": torch.rand(2, 3, 128, 128),
        "batch_idx": torch.tensor([0, 1]),
        "cls": torch.zeros(2, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.4, 0.6, 0.3, 0.5]]),
    }
    loss, _ = model(batch)
    loss.sum().backward()
    rows = [m for m in model.model if isinstance(m, SGDM)]
    assert len(rows) == 3
    assert not [key for row in rows for key, p in row.named_parameters() if p.grad is None or p.grad.abs().max() == 0]


def test_fuse_folds_once_and_changes_nothing(sgdm_model):
    x = torch.rand(1, 3, 160, 160)
    expected = sgdm_model(x)[0]
    fused = copy.deepcopy(sgdm_model).fuse(verbose=False)
    assert fused.is_fused()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    found = fused(x)[0]
    assert found[:, 4:].std() > 0.1  # scores are spread, so the comparison means something
    assert torch.allclose(found[:, 4:], expected[:, 4:], atol=1e-4)
    assert torch.allclose(found[:, :4], expected[:, :4], atol=1e-2)
    assert torch.equal(fused.fuse(verbose=False)(x)[0], found)
    assert torch.equal(copy.deepcopy(fused)(x)[0], found)


def test_a_fused_stock_part_does_not_keep_our_layers_from_folding(sgdm_model):
    model = copy.deepcopy(sgdm_model)
    integrated, tasks.BaseModel.fuse = tasks.BaseModel.fuse, tasks.BaseModel.fuse.__wrapped__
    try:
        model.fuse(verbose=False)
    finally:
        tasks.BaseModel.fuse = integrated
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    model.fuse(verbose=False)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_a_checkpoint_rebuilds_and_reloads(sgdm_model, tmp_path):
    model = YOLO("yolov8n-sgdm.yaml")
    model.model = copy.deepcopy(sgdm_model)
    save(model, tmp_path / "model.pt")
    loaded = YOLO(tmp_path / "model.pt").model.eval()
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded.float()(x)[0], sgdm_model.half().float()(x)[0]) or torch.equal(
        loaded(x)[0], sgdm_model(x)[0]
    )
    rebuilt = tasks.DetectionModel(loaded.yaml, verbose=False)
    rebuilt.load_state_dict(loaded.state_dict())
    assert torch.equal(rebuilt.eval()(x)[0], loaded(x)[0])


def test_weights_of_a_stock_model_transfer_with_the_head(log):
    torch.manual_seed(0)
    plain, model = YOLO("yolov8n.yaml").model, YOLO("yolov8n-sgdm.yaml").model
    model.load(plain)
    ours = sum(len(m.state_dict()) for m in model.model if isinstance(m, SGDM))
    total = len(model.state_dict())
    assert f"Transferred {total - ours}/{total} items from pretrained weights" in log
    for i in range(22):
        assert all(
            torch.equal(a, b) for a, b in zip(plain.model[i].parameters(), model.model[i].parameters(), strict=True)
        )
    assert all(
        torch.equal(a, b) for a, b in zip(plain.model[22].parameters(), model.model[25].parameters(), strict=True)
    )
    back = YOLO("yolov8n.yaml").model
    back.load(model)  # and the way back
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), back.parameters(), strict=True))


def test_gflops_of_the_stock_summary_count_functional_convolutions():
    plain, model = YOLO("yolov8n.yaml").model, YOLO("yolov8n-sgdm.yaml").model
    from yolo_dyn.study.info import row_costs

    exact = [sum(row.flops for row in row_costs(m)) / 1e9 for m in (plain, model)]
    summary = [get_flops(m, 640) for m in (plain, model)]
    assert summary[1] - summary[0] == pytest.approx(exact[1] - exact[0], rel=0.05)  # thop counts normalisations too
    alone = nn.Sequential(nn.Conv2d(3, 3, 1), RDConv(3, 16))
    mixing, convolution = 2 * 4 * 8 * 8 * 9, 2 * 8 * 8 * 9 * 64 * 64  # 4 experts of [8, 8, 3, 3] on 64 x 64 px
    missed = get_flops.__wrapped__(alone, 64) * 1e9
    assert get_flops(alone, 64) * 1e9 - missed == pytest.approx(convolution, abs=mixing + 4 * missed * 0.05)


@pytest.mark.parametrize(
    ("name", "params", "gflops"),
    [
        ("yolov8n", (0.14e6, 0.20e6), 0.4),
        ("yolov8s", (0.55e6, 0.65e6), 1.0),
        ("yolov5s", (0.55e6, 0.65e6), 1.0),
        ("yolov6n", (0.03e6, 0.05e6), 0.2),
        ("yolov6s", (0.13e6, 0.20e6), 0.4),
    ],
)
def test_increments_over_the_stock_models_are_the_papers(name, params, gflops):
    from yolo_dyn.study.info import row_costs

    plain, model = (row_costs(api.load_model(f"{name}{suffix}.yaml")) for suffix in ("", "-sgdm"))
    extra = sum(row.params for row in model) - sum(row.params for row in plain)
    flops = sum(row.flops for row in model) - sum(row.flops for row in plain)
    assert params[0] <= extra <= params[1]
    assert 0 < flops / 1e9 <= gflops


def test_a_model_of_other_classes():
    assert api.load_model("yolov8n-sgdm.yaml", nc=20).model[-1].nc == 20


@pytest.mark.parametrize("name", ["yolov5n", "yolov6n", "yolov8n", "yolo11n", "yolo12n", "yolo26n"])
def test_bundled_models_build_and_run(name):
    skip_without_its_rows(name)
    model = api.load_model(f"{name}-sgdm.yaml").eval()
    assert sum(isinstance(m, SGDM) for m in model.model) == 3
    model.fuse(verbose=False)
    assert model(torch.rand(1, 3, 64, 96)) is not None


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(channels):
    d = yaml.safe_load(files.find_yaml("yolov8-sgdm.yaml").read_text())
    model = tasks.DetectionModel({**d, "scale": "n"}, ch=channels, verbose=False)
    assert model.train()(torch.rand(2, channels, 64, 64)) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "backbone must be a list of rows"),
        (
            "backbone: [[-1, 1, Conv, [8, 3, 2]]]",
            r"head must be a list of rows \[from, repeats, Name, \[...\]\], got None",
        ),
        ("backbone: 3\nhead: []", "backbone must be a list of rows .*, got 3"),
        (
            "nc: -1\nbackbone: [[-1, 1, Conv, [8, 3, 2]]]\nhead: [[[0], 1, Detect, [nc]]]",
            "nc must be a positive integer",
        ),
        ("- a", "is not a valid YAML mapping"),
        ("hello", "is not a valid YAML mapping"),
        ("\x01: [", "control characters are not allowed|is not a valid YAML mapping"),
    ],
)
def test_a_file_that_is_no_model_is_one_line(text, message, tmp_path):
    (tmp_path / "yolov8n-x.yaml").write_text(text)
    with pytest.raises(YoloDynError, match=f"yolov8n-x.yaml.*{message}") as refused:
        YOLO(tmp_path / "yolov8n-x.yaml")
    assert len(str(refused.value).splitlines()) == 1


def test_odd_sizes_half_and_channels_last(sgdm_model):
    model = copy.deepcopy(sgdm_model).fuse(verbose=False)
    x = torch.rand(1, 3, 640, 352)
    expected = model(x)[0]
    assert expected.shape[-1] == 640 * 352 * (1 / 64 + 1 / 256 + 1 / 1024)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert torch.allclose(last(x.to(memory_format=torch.channels_last))[0], expected, atol=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(x)[0][:, 4:].float() - expected[:, 4:]).abs().mean() < 0.02
    with unless_torch_has_no_half():
        half = copy.deepcopy(model).half()(x.half())[0].float()
    assert (half[:, 4:] - expected[:, 4:]).abs().mean() < 0.02


def test_whole_model_traces_and_exports(sgdm_model):
    def exporting(model):
        model = copy.deepcopy(model).fuse(verbose=False)
        model.model[-1].export, model.model[-1].format = True, "torchscript"
        return model

    model = exporting(sgdm_model)
    x = torch.rand(1, 3, 64, 64)
    expected = model(x)
    assert torch.allclose(torch.jit.trace(model, x)(x), expected, atol=1e-3)
    stock = exporting(YOLO("yolov8n.yaml").model.eval())
    exported = unless_the_stock_fails(
        lambda: torch.export.export(model, (x,)).module(), lambda: torch.export.export(stock, (x,)).module()
    )
    assert torch.allclose(exported(x), expected, atol=1e-3)


# versions ------------------------------------------------------------------------------------


def test_integrating_again_changes_nothing():
    before = tasks.parse_model, tasks.BaseModel.fuse, tasks.BaseModel.load
    integration.integrate()
    assert (tasks.parse_model, tasks.BaseModel.fuse, tasks.BaseModel.load) == before
