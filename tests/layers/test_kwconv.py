"""KWConv against figures of the published implementation, and what layers share: sealed, trained, saved, exported."""

import copy
import io
import pickle

import pytest
import torch
from helpers import agrees, fill, fill_norm, wave
from torch import nn

from yolo_dyn import YoloDynError, convert
from yolo_dyn.bench.contract import traced_onnx
from yolo_dyn.integration.annealing import annealed, set_temperatures, temperature_at
from yolo_dyn.layers import KWConv
from yolo_dyn.layers.protocol import seal

HALF = {"budget": 0.5, "cell_ratio": 0.5}
A, B = (4, 8, 3, 1, 1), (8, 8, 1)
# arguments of two layers that share a warehouse, their options; the number of cells, their size, all parameters
SHARED = {
    "1x": ((4, 8, 3, 2, 1), B, {}, (11, (8, 4), 2860)),
    "2x": (A, B, {"budget": 2}, (22, (8, 4), 5261)),
    "half": (A, B, HALF, (22, (4, 2), 17636)),
    "quarter": (A, B, {**HALF, "budget": 0.25}, (11, (4, 2), 9320)),
    "depthwise": ((6, 6, 3, 2, 1, 1, 6), (9, 9, 3, 1, 1, 1, 9), {}, (45, (3, 1), 35629)),
    "basis": (A, (8, 8, 3, 1, 1), {**HALF, "basis_ratio": 1 / 16}, (54, (4, 2), 88708)),
}
INPUTS = {"A": (2, 4, 5, 6), "B": (2, 8, 3, 4)}
SHAPES = {("depthwise", "A"): (2, 6, 5, 6), ("depthwise", "B"): (2, 9, 4, 4)}
# which two, which of them, tau; of the kernel and of the output: two values, the sum, the sum of absolute values
PUBLISHED = [
    (
        "1x",
        "A",
        0,
        (-0.0450721131, 0.0407571668, -0.266741025, 18.251883),
        (0.0973986621, 0.112461181, 14.6588288, 18.3664093),
    ),
    (
        "1x",
        "A",
        0.3,
        (0.0127775519, -0.0691143291, -0.136188728, 52.0559797),
        (0.0754548476, 0.19418867, 14.6389212, 18.63533),
    ),
    (
        "1x",
        "A",
        1,
        (0.147760103, -0.325481153, 0.168433299, 182.828579),
        (0.0242526137, 0.384886145, 14.59247, 24.2894176),
    ),
    (
        "1x",
        "B",
        0,
        (-0.0357531761, -0.0467991233, 0.1097431, 3.84212168),
        (0.00431282963, 0.00577264593, -0.0401754064, 3.73905079),
    ),
    (
        "1x",
        "B",
        0.3,
        (0.0864758234, 0.117160296, 0.348610045, 10.3852259),
        (-0.0385650972, -0.0103864245, 0.387078274, 10.9485193),
    ),
    (
        "1x",
        "B",
        1,
        (0.371676822, 0.499732274, 0.90596625, 41.103922),
        (-0.138613593, -0.0480909221, 1.38400353, 42.9490512),
    ),
    (
        "2x",
        "A",
        0,
        (-0.00215366945, -0.00400803337, 0.25819932, 7.97094458),
        (0.00318712777, 0.0022746589, 0.0563582943, 4.97678869),
    ),
    (
        "2x",
        "A",
        0.3,
        (0.0428204624, 0.132058963, 1.24093768, 55.0380128),
        (0.009070934, -0.168442298, -1.08333297, 102.463012),
    ),
    (
        "2x",
        "B",
        0,
        (-0.00920183222, -0.0052673209, -0.0702221143, 1.22281908),
        (0.00986470509, 0.0051852981, -0.066828668, 1.36965135),
    ),
    (
        "2x",
        "B",
        0.3,
        (0.140725858, 0.127564073, -0.156952857, 12.6045906),
        (-0.0325608083, -0.0580648963, 0.179093987, 8.93436392),
    ),
    (
        "half",
        "A",
        0,
        (-0.00338456311, -0.00998360928, 0.0529167769, 11.3289365),
        (0.0326563291, 0.00929457248, -0.0222066089, 20.3750635),
    ),
    (
        "half",
        "A",
        0.3,
        (0.0419588368, -0.138306353, 0.046946747, 30.9154703),
        (-0.107102101, -0.269249902, -0.321946145, 45.4377043),
    ),
    (
        "half",
        "B",
        0,
        (0.00776604304, 0.0212323999, -0.0144471793, 1.61364844),
        (-0.0490666419, -0.0468795442, -0.0951986724, 5.08820309),
    ),
    (
        "half",
        "B",
        0.3,
        (0.0862591454, 0.158084859, 0.770897402, 6.71723543),
        (-0.239222049, -0.22926998, 0.544496809, 28.4256073),
    ),
    (
        "quarter",
        "A",
        0,
        (0.0228047579, -0.0702963615, 0.122256666, 17.491994),
        (0.00831136591, 0.0277555551, -1.35317504, 76.8715054),
    ),
    (
        "quarter",
        "A",
        0.3,
        (0.0602913615, -0.0492074531, 0.086594433, 21.6739311),
        (0.217312488, 0.178192552, -1.36498577, 91.6080322),
    ),
    (
        "quarter",
        "B",
        0,
        (0.0371142187, 0.0377328162, -0.0107875755, 3.17670354),
        (-0.0878048838, -0.0611709873, 0.217166577, 13.1879423),
    ),
    (
        "quarter",
        "B",
        0.3,
        (0.089125877, 0.162362533, 0.303689126, 4.84718093),
        (-0.179146997, -0.148485051, -0.18205128, 17.6683647),
    ),
    (
        "depthwise",
        "A",
        0,
        (0.00257147851, -0.00156916754, -0.0894764081, 1.13644387),
        (0.0251863205, 0.0358515596, -0.068049623, 2.44140684),
    ),
    (
        "depthwise",
        "A",
        0.3,
        (0.046128066, -0.147727935, -0.0626138953, 10.2725499),
        (-0.0268149097, 0.0119052205, -0.415611712, 3.53301917),
    ),
    (
        "depthwise",
        "B",
        0,
        (0.00517662249, -0.0122073882, -0.00789795471, 1.51730179),
        (-0.00438388046, 0.000118284387, -0.315318956, 1.81089456),
    ),
    (
        "depthwise",
        "B",
        0.3,
        (0.062159071, 0.0523041097, 0.00281900858, 15.4813982),
        (0.187321776, 0.296876566, 30.4678098, 56.9103164),
    ),
    (
        "basis",
        "A",
        0,
        (-0.0318228209, 0.0745439706, 0.118449086, 25.323795),
        (0.122126793, 0.175998948, -0.54093374, 61.092572),
    ),
    (
        "basis",
        "A",
        0.3,
        (0.0220520564, -0.0791370468, 0.0928193631, 36.0036212),
        (-0.0444727766, -0.15255684, -0.685055137, 57.1105335),
    ),
    (
        "basis",
        "B",
        0,
        (-0.0516108358, -0.00826040809, -0.00827775142, 32.404448),
        (-0.114813304, -0.0619776184, 0.0554034309, 17.3385088),
    ),
    (
        "basis",
        "B",
        0.3,
        (0.0446953302, -0.130180024, 0.103252792, 67.0941445),
        (-0.394956095, -0.0155497784, 0.43035738, 36.9171548),
    ),
]


def published(name: str) -> nn.ModuleDict:
    first, second, options, _ = SHARED[name]
    bias = name == "1x"
    pair = nn.ModuleDict(
        {
            "A": KWConv(*first, **options, bias=bias, warehouse="both"),
            "B": KWConv(*second, **options, bias=False, warehouse="both"),
        }
    )
    KWConv.seal(pair)
    pair = pair.double().eval()
    for layer in pair.values():
        fill(layer.warehouse.weight, 0.5, 0.7, 0.3)
        fill(layer.trunk.squeeze.weight, 0.4, 0.9, 0.1)
        fill_norm(layer.trunk.norm)
        fill(layer.head.weight, 0.3, 1.1, 0.7)
        if layer.head.bias is not None:
            fill(layer.head.bias, 0.1, 1.3, 0.9)
        if layer.foreign is not None:
            fill(layer.foreign.weight, 0.3, 0.37, 0.2)
            fill(layer.offset, 0.1, 0.53, 0.6)
        if layer.bias is not None:
            fill(layer.bias, 0.2, 0.4, 0.8)
    return pair


@pytest.mark.parametrize(("name", "layer", "tau", "kernel", "output"), PUBLISHED)
def test_figures_of_the_published_implementation(name, layer, tau, kernel, output):
    pair = published(name)
    layer, x = pair[layer], wave(SHAPES.get((name, layer), INPUTS[layer]), 1, 0.35, 0.15)
    layer.temperature = tau
    assembled = layer.assembled(layer.attention(x.mean((2, 3))))
    assert agrees(assembled, kernel[:2], *kernel[2:])
    assert agrees(layer(x), output[:2], *output[2:])
    layer.fuse()
    assert agrees(layer(x), output[:2], *output[2:])


@pytest.mark.parametrize("name", SHARED)
def test_sizes_of_the_published_implementation(name):
    pair, (cells, size, parameters) = published(name), SHARED[name][3]
    assert (pair["A"].warehouse.count, pair["A"].warehouse.cell) == (cells, size)
    assert sum(p.numel() for p in pair.parameters()) == parameters
    assert pair["A"].warehouse is pair["B"].warehouse


def test_own_cells_of_mixtures():
    """At 2x every other cell; below 1x each mixture on a diagonal has one, the others have the null slot."""
    assert published("2x")["B"].beta.tolist() == [18, 20]
    assert published("quarter")["B"].beta.tolist() == [9, 11, 11, 11, 11, 10, 11, 11]
    assert published("half")["A"].beta.tolist()[:8] == [0, 22, 22, 1, 2, 22, 22, 3]


class Network(nn.Module):
    """Three layers that share a warehouse, two of one kind and one behind a nested module."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.first = KWConv(6, 8, 3, padding=1, warehouse="w", **options)
        self.body = nn.Sequential(nn.ReLU(), KWConv(8, 8, 3, padding=1, groups=2, warehouse="w", **options))
        self.last = KWConv(8, 4, 1, warehouse="w", **options)

    def forward(self, x):
        return self.last(self.body(self.first(x)))


def network(**options) -> Network:
    torch.manual_seed(0)
    model = Network(**options)
    seal(model)
    return model


def test_a_warehouse_is_one_parameter_of_the_first_layer():
    model = network()
    held = [key for key in model.state_dict() if "warehouse" in key]
    assert held == ["first.warehouse.weight"]
    assert model.first.warehouse is model.body[1].warehouse is model.last.warehouse
    seal(model)  # nothing is left to do
    assert list(model.state_dict()) == list(network().state_dict())


def test_copies_keep_sharing():
    model, x = network().eval(), torch.randn(2, 6, 7, 5)
    expected = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    other = network().eval()
    other.load_state_dict(model.state_dict())
    for again in (*copies, other):
        assert again.first.warehouse is again.last.warehouse is not model.first.warehouse
        assert torch.equal(again(x), expected)
    model.double()
    assert torch.allclose(model(x.double()).float(), expected, atol=1e-5)


def test_a_moving_average_moves_a_warehouse_once():
    from ultralytics.utils.torch_utils import ModelEMA

    model = network()
    average = ModelEMA(model)
    average.decay = lambda updates: 0.9
    before = average.ema.last.warehouse.weight.clone()
    with torch.no_grad():
        model.first.warehouse.weight += 1
    average.update(model)
    assert torch.allclose(average.ema.last.warehouse.weight - before, torch.full_like(before, 0.1), atol=1e-6)
    assert average.ema.first.warehouse is average.ema.last.warehouse


def test_every_layer_trains_what_is_shared():
    model = network()
    model(torch.randn(2, 6, 7, 5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    alone = copy.deepcopy(model.first.warehouse.weight.grad)
    model.zero_grad()
    model.last(torch.randn(2, 8, 7, 5)).sum().backward()
    assert model.first.warehouse.weight.grad.abs().max() > 0
    assert not torch.equal(model.first.warehouse.weight.grad, alone)


def test_graphs_of_layers_that_share():
    model, x = network().eval(), torch.randn(1, 6, 7, 5)
    for module in (model.first, model.body[1], model.last):
        module.fuse()
    expected = model(x)
    assert torch.allclose(torch.jit.trace(model, x)(x), expected, atol=1e-6)
    assert torch.allclose(torch.export.export(model, (x,)).module()(x), expected, atol=1e-6)


@pytest.mark.parametrize("form", ["kernel", "unfold"])
def test_onnx_runtime_takes_both_forms(form):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = network(form=form, budget=2, cell_ratio=0.5).eval()
    axes = {"x": {0: "batch", 2: "height", 3: "width"}} if form == "unfold" else None
    graph = traced_onnx(model, torch.randn(1, 6, 7, 5), input_names=["x"], dynamic_axes=axes)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for shape in [(1, 6, 7, 5), *([(3, 6, 9, 4)] if form == "unfold" else [])]:
        x = torch.randn(shape)
        assert torch.allclose(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), model(x), atol=1e-5)


def test_a_layer_says_that_it_is_not_sealed():
    layer = KWConv(4, 4, 3, warehouse="p4")
    with pytest.raises(RuntimeError, match=r"the warehouse 'p4' is not sealed: call KWConv.seal\(model\)"):
        layer(torch.rand(1, 4, 5, 5))
    with pytest.raises(ValueError, match="warehouse 'p4' must be sealed before"):
        layer.start_from(torch.rand(4, 4, 3, 3), None)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"budget": 2}, "warehouse 'p4': budget must be the same in all layers that share it"),
        ({"cell_ratio": 0.5}, "warehouse 'p4': cell_ratio must be the same in all layers that share it"),
        ({"budget": 0.5}, "warehouse 'p4': budget 1/2 must divide the mixtures of each layer, got 9"),
    ],
    ids=str,
)
def test_layers_that_cannot_share(second, message):
    first = second if second == {"budget": 0.5} else {}
    pair = nn.Sequential(KWConv(4, 4, 3, warehouse="p4", **first), KWConv(4, 4, 3, warehouse="p4", **second))
    with pytest.raises(ValueError, match=message):
        seal(pair)


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "options", [{}, {"budget": 2}, {"cell_ratio": 0.5}, {"basis_ratio": 0.5, "budget": 2}], ids=str
)
def test_layers_that_share_start_from_static_weights(tau, options):
    model, x = network(**options).double().eval(), torch.randn(2, 6, 7, 5, dtype=torch.float64)
    statics = [nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(8, 4, 1)]
    static = nn.Sequential(statics[0], nn.ReLU(), statics[1], statics[2]).double()
    for layer, conv in zip((model.first, model.body[1], model.last), statics, strict=True):
        layer.temperature = tau
        layer.start_from(conv.weight, conv.bias)
    assert torch.allclose(model(x), static(x), atol=1e-12)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 5))


def test_convolutions_of_equal_channels_share_when_a_network_is_converted():
    model = convert(small(), "KWConv", lambda name, module: True, from_static=True)
    assert model[1].warehouse is model[2].warehouse is not model[0].warehouse
    assert torch.allclose(model.eval()(torch.ones(1, 3, 7, 7)), small()(torch.ones(1, 3, 7, 7)), atol=1e-5)
    alone = convert(small(), "KWConv", lambda name, module: True, share=lambda name, module: None)
    assert alone[1].warehouse is not alone[2].warehouse
    with pytest.raises(YoloDynError, match="ODConv shares no parameters: share is for layers that do"):
        convert(small(), "ODConv", lambda name, module: True, share=lambda name, module: "all")
    with pytest.raises(YoloDynError, match=r"budget must be at least 1 to start from static weights, got 0\.5"):
        convert(small(), "KWConv", lambda name, module: name == "1", from_static=True, **HALF)
    with pytest.raises(
        YoloDynError, match="warehouse 'all': budget 1/5 must divide the mixtures of each layer, got 216"
    ):
        convert(small(), "KWConv", lambda name, module: True, share=lambda name, module: "all", budget=0.2)


def test_tau_falls_to_zero():
    layer = KWConv(4, 4, 3, anneal={"epochs": 4})
    assert layer.temperature == 0  # where nothing is trained
    assert [temperature_at(layer.anneal, epoch) for epoch in range(6)] == [0.75, 0.5, 0.25, 0, 0, 0]
    assert [found for _, found in annealed(layer)] == [layer]
    assert set_temperatures(layer, 1) == {"KWConv": 0.5}
    assert layer.temperature == 0.5


ROWS = """
nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 2, KWConv, [16, 3, {warehouse: p4, anneal: {epochs: 4}}]]
  - [-1, 1, C2f, [16, true, {dynamic: KWConv, warehouse: p4}]]
  - [-1, 1, C2f, [16, true, {dynamic: KWConv}]]
head:
  - [-1, 1, SGDM, [16, {dynamic: KWConv, warehouse: guided}]]
  - [-1, 1, SGDM, [16, {dynamic: KWConv, warehouse: guided}]]
  - [[-1], 1, Detect, [nc]]
"""


def test_rows_of_a_model_share_by_name(tmp_path):
    from ultralytics import YOLO

    (tmp_path / "shared.yaml").write_text(ROWS)
    model = YOLO(tmp_path / "shared.yaml").model
    dynamic = [m for m in model.modules() if isinstance(m, KWConv)]
    warehouses = {id(m.warehouse): m.shared for m in dynamic}
    assert sorted(map(str, warehouses.values())) == ["None", "None", "guided", "p4"]
    assert len(dynamic) == 8
    rows = list(model.model)
    assert sum(row.np for row in rows) == sum(p.numel() for p in model.parameters())
    (tmp_path / "wrong.yaml").write_text(
        ROWS.replace("dynamic: KWConv, warehouse: p4", "dynamic: KWConv, warehouse: p4, budget: 2")
    )
    with pytest.raises(YoloDynError, match=r"wrong.yaml: warehouse 'p4': budget must be the same in all layers"):
        YOLO(tmp_path / "wrong.yaml")


def test_a_shared_model_trains_resumes_fuses_and_exports(tiny, tmp_path, monkeypatch):
    from ultralytics import YOLO

    monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", "1")
    (tmp_path / "shared.yaml").write_text(ROWS)
    model = YOLO(tmp_path / "shared.yaml")
    words = {"data": str(tiny), "imgsz": 64, "epochs": 2, "batch": 8, "workers": 0, "plots": False}
    model.train(**words, project=str(tmp_path), name="run")
    best = YOLO(tmp_path / "run" / "weights" / "last.pt")
    dynamic = [m for m in best.model.modules() if isinstance(m, KWConv)]
    assert len({id(m.warehouse) for m in dynamic}) == 4
    assert {m.temperature for m in dynamic if m.anneal} == {0.5}
    assert sum("warehouse" in key for key in best.model.state_dict()) == 4
    network, x = best.model.double().eval(), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    expected = network(x)[0]
    assert torch.allclose(copy.deepcopy(network).fuse(verbose=False)(x)[0], expected, atol=1e-6)
    again = YOLO(tmp_path / "shared.yaml").load(tmp_path / "run" / "weights" / "last.pt").model
    assert again.model[1][0].conv.temperature == 0.5
    assert torch.equal(
        again.model[1][1].conv.warehouse.weight,
        YOLO(tmp_path / "run" / "weights" / "last.pt").model.float().model[1][0].conv.warehouse.weight,
    )
