"""The layer contract: what it says of our layers, and that it finds what a layer does wrong."""

import pytest
import torch
from torch import Tensor, nn

from yolo_dyn import YoloDynError, cli, registry
from yolo_dyn.bench.check import check
from yolo_dyn.bench.contract import CHECKS

OPTIONS = {"CBAM": {"reduction": 4}}  # of 16 channels
PARTS = {  # of networks: their inputs, and their positional arguments
    "BneckLite": (["16x9x7"], ["16", "32"]),
    "Classifier": (["16x9x7"], ["10"]),
    "DMFBlock": (["16x9x7", "6x32"], ["24", "48"]),
    "DMFHead": (["16x9x7", "6x32"], ["24"]),
    "DMFStem": (["3x32x32"], ["8"]),
    "Feature": (["16x9x7", "8x9x7"], ["1"]),
    "Former": (["16x9x7", "6x32"], []),
    "GlobalTokens": (["16x9x7"], []),
}
QUICK = ("SGDM", "ODConv", "DMFBlock")


def _cases(names):
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.accept) for name in names]


@pytest.mark.parametrize("name", _cases([*registry.names("convolution"), *registry.names("module")]))
def test_the_contract_holds_for_our_layers(name):
    found = check(name, **OPTIONS.get(name, {}))
    assert found.ok, str(found)


@pytest.mark.parametrize("name", _cases(PARTS))
def test_the_contract_holds_for_our_parts_of_networks(name):
    inputs, args = PARTS[name]
    found = check(name, inputs=inputs, args=args)
    assert found.ok, str(found)


class Good(nn.Conv2d):
    """A plain convolution keeps the contract."""


class Mixes(nn.Conv2d):
    """Takes something of a sample from the others of its batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.mean((0, 2, 3), keepdim=True).sum()


class Draws(nn.Conv2d):
    """Draws at evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.rand(1).to(x)


class Idles(nn.Conv2d):
    """Has a parameter that nothing depends on."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.idle = nn.Parameter(torch.ones(1))


class Views(nn.Conv2d):
    """Takes memory for granted."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(len(x), -1).view(x.shape))


class Single(nn.Conv2d):
    """Knows one precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.ones(1, dtype=torch.float32).to(x.device) + x.new_zeros(
            1, dtype=torch.float64
        )


class Forgets(nn.Conv2d):
    """Computes with what no state dict holds."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.factor = torch.rand(
            1, generator=torch.Generator().manual_seed(torch.initial_seed() + id(self) % 1000)
        ).item()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.factor


class Strides(nn.Conv2d):
    """Forgets its stride."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, *args, **options):
        super().__init__(in_channels, out_channels, kernel_size, 1, *args, **options)


class Folds(nn.Conv2d):
    """Folds its norm wrongly."""

    def fuse(self, guide=None, bn=None) -> None:
        if bn is not None:
            self.weight.data *= bn.weight.data.view(-1, 1, 1, 1)


class Starts(nn.Conv2d):
    """Starts as another convolution."""

    def start_from(self, weight, bias) -> None:
        self.weight.data.copy_(2 * weight)


class Tells(nn.Conv2d):
    """Tells another kernel than it uses, and another number of experts than it has."""

    geometry, sums_to_one = (1, 1, 1, 1), True

    def mixed(self, x: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return 2 * self.weight.detach()[None].expand(len(x), -1, -1, -1, -1), self.bias

    def weigh(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        return x.new_ones(len(x), 1, 3)

    def expert_kernels(self) -> Tensor:
        return self.weight[None]


class Freezes(nn.Conv2d):
    """Writes the batch size into a graph."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(
            x.reshape(1, x.shape[0] * x.shape[1], *x.shape[2:]).reshape(int(x.shape[0]), *x.shape[1:])
        )


WRONG = {
    "Mixes": ["treats a sample alike in every batch"],
    "Draws": ["treats a sample alike in every batch", "gives the same at evaluation again"],
    "Idles": ["passes a gradient to every parameter"],
    "Views": ["takes channels_last"],
    "Strides": ["has the output shapes of nn.Conv2d"],
    "Folds": ["fuses to the same, once"],
    "Starts": ["starts as a static convolution"],
    "Tells": ["tells the kernel that it uses", "tells the weights of its experts"],
    "Single": ["takes half precision and autocast"],
    "Freezes": ["runs in ONNX Runtime at any batch"],
    "Forgets": ["is copied, pickled and loaded"],
}


@pytest.mark.usefixtures("same_layers")
@pytest.mark.parametrize("name", WRONG)
def test_what_a_layer_does_wrong_is_found(name):
    found = check(f"{__name__}:{name}", kind="convolution")
    failed = {finding.what for finding in found.findings if finding.holds is False}
    assert set(WRONG[name]) <= failed, str(found)
    assert "FAILS" in str(found)
    assert not found.ok


@pytest.mark.usefixtures("same_layers")
def test_a_plain_convolution_of_ones_own_keeps_it(capsys):
    assert cli.main(["check", f"layer={__name__}:Good", "kind=convolution"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Good, a convolution\n")
    assert out.endswith("the contract holds\n")
    assert out.count("\n") == len(CHECKS) + 2


@pytest.mark.usefixtures("same_layers")
def test_the_command_fails_where_the_layer_does():
    assert cli.main(["check", f"layer={__name__}:Idles", "kind=convolution"]) == 1


@pytest.mark.usefixtures("same_layers")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "SGMD"}, "unknown layer 'SGMD'; did you mean 'SGDM'"),
        ({"layer": "SGDM", "kind": "module"}, "kind is for a class that is named by its module"),
        ({"layer": "SGDM", "inputs": ["16x9"], "ratio": 7}, "SGDM cannot be built with .*ratio must lie in"),
        ({"layer": "SGDM", "inputs": ["16"]}, "inputs must be shapes like 16x9x7 or 6x32, got 16"),
        ({"layer": "SGDM", "inputs": ["16x0x7"]}, "inputs must be shapes like"),
        ({"layer": "SGDM", "inputs": ["axbxc"]}, "inputs must be shapes like"),
        ({"layer": "no_such_package:Layer"}, "layer=no_such_package:Layer cannot be imported: No module named"),
        ({"layer": "math:pi"}, r"register takes an nn.Module class, got 3\.14"),
        ({"layer": "SGDM", "dynamic": "OdConv"}, "unknown layer 'OdConv'; did you mean 'ODConv'"),
    ],
    ids=str,
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(YoloDynError, match=message):
        check(**arguments)
