"""A2D2C and A2D2C+: every option against the loop oracle, and what the options are there for."""

import copy
import itertools
import pickle

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from helpers import randomise
from reference_layers import a2d2c as one_sample
from reference_layers import oracle
from torch import Tensor, nn

from yolo_dyn import layers
from yolo_dyn.bench.contract import traced_onnx
from yolo_dyn.layers.blocks import ConvNormAct
from yolo_dyn.layers.functional import FORMS
from yolo_dyn.layers.sampling import mean_patches, mean_responses

GEOMETRIES = [
    {},
    {"stride": 2, "bias": False},
    {"padding": 2, "dilation": 2},
    {"kernel_size": 1, "padding": 0},
    {"groups": 2, "stride": 2},
    {"groups": 6, "in_channels": 6, "out_channels": 6},
]
EVIDENCES = [
    {},
    {"router": "shared"},
    {"router": "separate"},
    {"sampling": "uniform"},
    {"sampling": "none"},
    {"weighting": "response"},
    {"weighting": "response", "sampling": "none"},
    {"evidence": "input"},
    {"evidence": "input", "router": "separate", "sampling": "uniform"},
    {"evidence": "input", "router": "separate", "sampling": "none"},
]


def make(kind=layers.A2D2C, in_channels=4, out_channels=6, kernel_size=3, padding=1, seed=0, **options) -> layers.A2D2C:
    torch.manual_seed(seed)
    options = {"num_experts": 3, "num_points": 9, **options}
    layer = randomise(kind(in_channels, out_channels, kernel_size, padding=padding, **options))
    nn.init.normal_(layer.router.weight)  # so that the attention is far from uniform
    return layer.double().eval()


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("options", EVIDENCES, ids=str)
def test_every_form_equals_the_oracle(options, geometry):
    layer = make(**options, **geometry)
    x = torch.randn(2, layer.experts.weight.shape[1] * layer.experts.groups, 7, 6, dtype=torch.float64)
    expected = oracle("A2D2C", x, layer)
    for form in FORMS:
        other = make(form=form, **options, **geometry)
        assert torch.allclose(other(x), expected, rtol=0, atol=1e-12), form
        assert torch.allclose(other(x[:1]), expected[:1], rtol=0, atol=1e-12), form
    attention = torch.softmax(layer.logits(x), 1)
    assert attention.std(1).max() > 0.02  # else the agreement would say little of the evidence


@pytest.mark.parametrize("options", [o for o in EVIDENCES if "separate" not in o.values()], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_plus_computes_the_same_from_the_responses_that_it_has(options, groups, monkeypatch):
    layer, plus = (make(kind, groups=groups, **options) for kind in (layers.A2D2C, layers.A2D2CPlus))
    plus.load_state_dict(layer.state_dict())
    x = torch.randn(3, 4, 9, 8, dtype=torch.float64)
    expected, calls, conv2d = layer(x), [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *args: calls.append(args) or conv2d(*args))
    assert torch.allclose(plus(x), expected, rtol=0, atol=1e-12)
    assert len(calls) == 1


@pytest.mark.parametrize("options", EVIDENCES, ids=str)
@pytest.mark.parametrize("form", ["kernel", "response"])
def test_gradients(options, form):
    layer = make(form=form, groups=2, num_points=4, **{"sampling": "fixed", **options}).train()
    x = torch.randn(2, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters.values()), fast_mode=True)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 0, 1), ((2, 1), (0, 3), (1, 2))])
def test_a_mean_patch_is_the_mean_of_the_patches(stride, padding, dilation):
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    plain = nn.Conv2d(3, 5, 3, stride, padding, dilation, bias=False).double()
    y = plain(x)
    rows, columns = torch.randint(y.shape[2], (4, 50)), torch.randint(y.shape[3], (4, 50))  # some of them twice
    patches = mean_patches(x, (rows, columns), 3, stride, padding, dilation)
    expected = y[:, :, rows, columns].mean(3).transpose(1, 2)  # [B, K, C_out]
    assert torch.allclose(patches.flatten(2) @ plain.weight.flatten(1).T, expected, rtol=0, atol=1e-12)


def test_sums_over_a_large_map_fit_half_precision():
    """A share of 1/90000 has eight bits there."""
    maps = 100 + torch.randn(1, 4, 300, 300)
    for weighted, positions in itertools.product((False, True), (None, torch.randint(300, (2, 2, 300)).unbind())):
        found = mean_responses(maps.half(), positions, 2, weighted=weighted)
        assert torch.allclose(found.float(), mean_responses(maps, positions, 2, weighted=weighted), rtol=1 / 256)


@pytest.mark.parametrize("options", EVIDENCES, ids=str)
@pytest.mark.parametrize("form", ["kernel", "response"])
@pytest.mark.parametrize("experts", [1, 3])
def test_fusing_leaves_the_attention_even_where_batchnorm_is_zero(options, form, experts):
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    layer, bn = make(form=form, **options), randomise(nn.BatchNorm2d(6)).double().eval()
    bn.weight.data[::2] = 0
    guide = torch.randn(6 * experts, 4, 3, 3, dtype=torch.float64)
    logits, expected = layer.logits(x, guide), bn(layer(x, guide))
    layer.fuse(guide, bn)
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)
    if layer.evidence == "response":
        assert torch.allclose(layer.logits(x), logits, rtol=0, atol=1e-12)
    assert torch.allclose(oracle("A2D2C", x, layer), expected, rtol=0, atol=1e-12)


def test_evidence_is_that_of_the_guided_kernel():
    layer, x = make(out_channels=4), torch.randn(1, 4, 7, 6, dtype=torch.float64)
    guide = torch.randn(4, 4, 3, 3, dtype=torch.float64)
    assert torch.allclose(layer(x, guide)[0], one_sample(x[0], layer, guide), rtol=0, atol=1e-12)


def smooth_images(number: int, channels: int, size: int) -> Tensor:
    """Random images of large and small structures, as different from each other as from place to place."""
    parts = [F.interpolate(torch.randn(number, channels, s, s), (size, size), mode="bilinear") for s in (1, 3, 7)]
    return sum(parts) / 2


def spread(**options) -> tuple[float, float]:
    """Standard deviation of the attention between images, and of one image's between draws; over four fresh layers."""
    between, drawn = [], []
    for seed in range(4):
        torch.manual_seed(seed)
        layer, images = layers.A2D2C(64, 64, 3, padding=1, bias=False, **options).train(), smooth_images(16, 64, 20)
        with torch.no_grad():
            attention = torch.stack([torch.softmax(layer.logits(images), 1) for _ in range(32)])  # [draws, images, K]
        between.append(attention.mean(0).std(0).mean())
        drawn.append(attention.std(0).mean())
    return torch.stack(between).mean().item(), torch.stack(drawn).mean().item()


def test_the_attention_tells_images_apart():
    """With the input as evidence, what differs between images is what 32 draws leave of the draw, 1/sqrt(32)."""
    results = {
        name: spread(**options)
        for name, options in {
            "response": {},
            "response, shared": {"router": "shared"},
            "input": {"evidence": "input"},
            "input, shared": {"evidence": "input", "router": "shared"},
        }.items()
    }
    for name, (between, drawn) in results.items():
        print(f"{name}: between images {between:.4f}, between draws {drawn:.4f}")
    for name, (between, drawn) in results.items():
        assert between > 3 * drawn if name.startswith("response") else between < 1.5 * drawn / 32**0.5


def old(layer: layers.A2D2C) -> layers.A2D2C:
    """As a checkpoint has it from before `evidence` was an option."""
    for name in ("evidence", "weighting", "routing", "scale"):
        del layer.__dict__[name]
    return pickle.loads(pickle.dumps(layer))


@pytest.mark.parametrize("router", ["shared", "separate"])
def test_a_checkpoint_from_before_the_options_keeps_its_reading(router):
    layer, x = make(evidence="input", router=router), torch.randn(2, 4, 7, 6, dtype=torch.float64)
    expected = layer(x)
    found = old(copy.deepcopy(layer))
    assert torch.equal(found(x), expected)
    assert found.unnamed_options() == layer.unnamed_options() == {"evidence": "input", "router": router}
    again = make(seed=1, **found.unnamed_options())
    again.load_state_dict(found.state_dict())
    assert torch.equal(again(x), expected)
    found.fuse(None, randomise(nn.BatchNorm2d(6)).double().eval())
    assert torch.equal(pickle.loads(pickle.dumps(found))(x), found(x))


def test_the_defaults_need_no_names():
    assert make().unnamed_options() == {}
    assert make(router="shared").unnamed_options() == {"router": "shared"}


@pytest.mark.parametrize(
    "options", [o for o in EVIDENCES if o.get("sampling") and "separate" not in o.values()], ids=str
)
def test_alike_kernels_with_alike_evidence_are_refused(options):
    with pytest.raises(ValueError, match="router must be separate to start from static weights with sampling"):
        make(**options).start_from(torch.zeros(6, 4, 3, 3), None)


class Net(nn.Module):
    """A network with one such layer, away from its initial state, and fused."""

    def __init__(self, kind: type[layers.A2D2C], **options):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.block = randomise(ConvNormAct(kind, 8, 8, 3, **options))
        nn.init.normal_(self.block.conv.router.weight)
        self.eval().block.fuse()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.first(x))


KINDS = [layers.A2D2C, layers.A2D2CPlus]
EXPORTED = [{}, {"groups": 4}, {"sampling": "none"}, {"weighting": "response"}, {"evidence": "input"}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", EXPORTED, ids=str)
def test_onnx_at_any_batch_and_size(kind, options):
    net = Net(kind, form="response" if kind is layers.A2D2CPlus else "unfold", **options)
    axes = {"x": {0: "b", 2: "h", 3: "w"}}
    session = onnxruntime.InferenceSession(
        traced_onnx(net, torch.randn(2, 3, 32, 24), input_names=["x"], dynamic_axes=axes)
    )
    for shape in ((1, 3, 32, 24), (3, 3, 41, 50)):
        x = torch.randn(shape)
        assert torch.allclose(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), net(x), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_ncnn_has_the_positions_as_a_constant(kind, tmp_path, monkeypatch):
    import ncnn
    import pnnx

    monkeypatch.chdir(tmp_path)
    net, x = Net(kind), torch.randn(1, 3, 32, 24)
    pnnx.export(net, "a.pt", (x,), fp16=False)
    runtime = ncnn.Net()
    runtime.opt.use_fp16_storage = runtime.opt.use_fp16_arithmetic = runtime.opt.use_fp16_packed = False
    assert runtime.load_param("a.ncnn.param") == runtime.load_model("a.ncnn.bin") == 0
    extractor = runtime.create_extractor()
    extractor.input("in0", ncnn.Mat(x[0].numpy()).clone())
    found = torch.tensor(extractor.extract("out0")[1].numpy())
    assert torch.allclose(found, net(x)[0], atol=1e-4)
    net.block.conv.temperature = 1e9
    assert not torch.allclose(found, net(x)[0], atol=1e-2)  # the attention matters
