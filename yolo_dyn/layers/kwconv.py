"""KernelWarehouse of "KernelWarehouse: Rethinking the Design of Dynamic Convolution" (Li and Yao, ICML 2024).

https://arxiv.org/abs/2406.07879

A kernel is cut into m cells, and each is a mixture of the n cells of a warehouse, which several layers share. The
attentions are signed: ``alpha = z / (sum |z| + 1e-3)`` over the cells and one null slot, which counts in the sum and is
dropped, then ``(1 - tau) alpha + tau beta``, where beta gives each mixture one cell of its own (or none). Null slot,
1e-3, hidden width and the basis are the published code's.

The warehouse is one 3-D parameter, which channels_last and matrix optimisers leave as it is. The first layer of a
warehouse registers it; the others hold it unregistered, so that a state dict has it once, and a moving average moves it
once a step.

Deviations:
- tau falls a training epoch, not an iteration, and by default is 0 throughout, as in the published fine-tuning;
- own cells start like the kernels of every other layer here; the published variance, 2 / (own cells * rows of a cell),
  ignores how many cells make up a kernel's input channels;
- a layer without a named warehouse has one of its own;
- the norm falls back to its running statistics at batch 1, where BatchNorm cannot train.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from yolo_dyn.layers.attention import Trunk, check_decay, trunk_width
from yolo_dyn.layers.functional import (
    PER_SAMPLE_FORMS,
    SILU_GAIN,
    Size,
    check_geometry,
    conv_per_sample,
    fold_scale,
)
from yolo_dyn.layers.graph import scaled
from yolo_dyn.layers.protocol import check_static

EPS = 1e-3
LEAST_BASIS = 16


class Warehouse(nn.Module):
    """The cells that the kernels of several layers are made of, ``[1, n, c_o * c_i]``.

    Args:
        count: number of cells, n.
        cell: output and input channels of a cell, ``(c_o, c_i)``.
    """

    def __init__(self, count: int, cell: tuple[int, int]) -> None:
        super().__init__()
        self.count, self.cell = count, cell
        self.weight = nn.Parameter(torch.zeros(1, count, cell[0] * cell[1]))

    def forward(self, attention: Tensor) -> Tensor:
        """Mix the cells: ``[B, m, n]`` -> ``[B, m, c_o * c_i]``."""
        return attention @ self.weight.squeeze(0)

    def extra_repr(self) -> str:
        return f"{self.count} cells, {self.cell[0]} x {self.cell[1]}"


class KWConv(nn.Module):
    """Assemble the kernel of cells, each a signed mixture of the cells of a warehouse.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``nn.Conv2d``.
        warehouse: name of the warehouse, which all layers of the model with this name share once `seal` has been
            called; None for one of its own.
        budget: the paper's b, cells of the warehouse for each mixture: a whole number, or one over one.
        cell_ratio: size of a cell, as parts of the greatest common divisors of the layers' input and output channels;
            one number, or one of each.
        basis_ratio: width of the basis that foreign cells are attended to through, as a part of their number; 1 for
            none.
        reduction: the hidden width of the attention is ``max(in_channels // reduction, 16)``.
        anneal: ``{epochs}`` over which tau falls from 1 to 0 linearly; None for 0 throughout.
        form: "kernel" or "unfold", see `functional.conv_per_sample`.

    Shape:
        ``[B, C_in, H, W]`` -> ``[B, C_out, H', W']``.

    Raises:
        ValueError: for an argument outside its range; the message names it.
        RuntimeError: if it is run before its named warehouse is sealed.

    Examples:
        >>> network = nn.Sequential(KWConv(16, 32, 3, warehouse="stage"), KWConv(32, 32, 3, warehouse="stage"))
        >>> KWConv.seal(network)
        >>> network(torch.rand(2, 16, 20, 20)).shape
        torch.Size([2, 32, 16, 16])
    """

    sums_to_one = False
    warehouse: Warehouse
    start: int  # the first of its own cells
    beta: Tensor  # the own cell of each mixture, [m]; n for none

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        warehouse: str | None = None,
        budget: float = 1.0,
        cell_ratio: float | tuple[float, float] = 1.0,
        basis_ratio: float = 1.0,
        reduction: int = 16,
        anneal: dict[str, float] | None = None,
        form: str = "kernel",
    ) -> None:
        super().__init__()
        check_geometry(kernel_size, stride, padding, dilation)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide the {in_channels} input and {out_channels} output channels, got {groups}"
            )
        if form not in PER_SAMPLE_FORMS:  # mixtures are of cells: there are no whole kernels to respond
            raise ValueError(f"form must be one of {', '.join(PER_SAMPLE_FORMS)}, got {form!r}")
        if not 0 < budget < math.inf or not math.isclose(times := max(budget, 1 / budget), round(times)):
            raise ValueError(f"budget must be a whole number, or one over one, got {budget}")
        cell_ratios = (cell_ratio, cell_ratio) if isinstance(cell_ratio, int | float) else tuple(cell_ratio)
        if len(cell_ratios) != 2 or not all(0 < part <= 1 for part in cell_ratios):
            raise ValueError(f"cell_ratio must be one or two numbers in (0, 1], got {cell_ratio}")
        if not 0 < basis_ratio <= 1:
            raise ValueError(f"basis_ratio must lie in (0, 1], got {basis_ratio}")
        self.kernel_size, self.groups, self.form = _pair(kernel_size), groups, form
        self.stride, self.padding, self.dilation = _pair(stride), _pair(padding), _pair(dilation)
        self.channels = (out_channels, in_channels // groups)  # of the kernel
        self.budget, self.cell_ratios, self.basis_ratio = budget, cell_ratios, basis_ratio
        self.shared = warehouse
        self.mixtures = 0  # m
        self.trunk = Trunk(in_channels, trunk_width(in_channels, reduction))
        nn.init.kaiming_normal_(self.trunk.squeeze.weight, mode="fan_out", nonlinearity="relu")
        # hidden -> [m, n + 1], or with a basis [m, local + basis + 1]; None until there is a warehouse
        self.head: nn.Linear | None = None
        self.foreign: nn.Linear | None = None  # basis -> foreign cells
        self.offset: nn.Parameter | None = None  # [m, n + 1], the head's bias if there is a basis
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.gain: nn.Parameter | None = None  # [C_out, C_in/groups or 1, kH or 1, kW or 1], of what is folded
        self.anneal, self.temperature = check_decay(anneal), 0.0  # tau
        if warehouse is None:
            _build_warehouse([self])

    @classmethod
    def seal(cls, model: nn.Module) -> None:
        """Build the named warehouses of a model, in the order of ``model.modules()``; sealed ones stay as they are.

        Raises:
            ValueError: if the layers of one do not fit together; the message names it.
        """
        waiting: dict[str, list[KWConv]] = {}
        for layer in model.modules():
            if isinstance(layer, cls) and layer.shared is not None and layer.head is None:
                waiting.setdefault(layer.shared, []).append(layer)
        for name, members in waiting.items():
            try:
                _build_warehouse(members)
            except ValueError as error:
                raise ValueError(f"warehouse {name!r}: {error}") from error

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`guide`, ``[C_out, C_in/groups, k, k]``, multiplies the assembled kernel (SGDM Eq. 10)."""
        kernel, bias = self.mixed(x, guide)
        return conv_per_sample(x, kernel, bias, *self.geometry, self.form)

    @property
    def geometry(self) -> tuple[Size, Size, Size, int]:
        """Stride, padding, dilation and groups."""
        return self.stride, self.padding, self.dilation, self.groups

    def mixed(self, x: Tensor, guide: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The kernel of each sample, ``[B, C_out, C_in/groups, kH, kW]``, and the bias of all, ``[C_out]``."""
        kernel = self.assembled(self.attention(x.mean((2, 3))))
        for constant in (self.gain, guide):
            kernel = kernel if constant is None else scaled(kernel, constant)
        return kernel, self.bias

    def weigh(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """The attention of each mixture to the cells, its experts."""
        return self.attention(x.mean((2, 3)))

    def expert_kernels(self) -> Tensor:
        """The cells of the warehouse, ``[n, c_o * c_i]``."""
        return self.warehouse.weight[0]

    def attention(self, pooled: Tensor) -> Tensor:
        """Signed weights of all cells for each mixture, ``[B, m, n]``; their absolute values sum to less than one."""
        z = self.logits(self.trunk(pooled))  # [B, m, n + 1]
        alpha = (z / (z.abs().sum(2, keepdim=True) + EPS))[:, :, :-1]  # without the null slot
        tau = self.temperature
        if not tau:
            return alpha
        beta = F.one_hot(self.beta, alpha.shape[2] + 1)[:, :-1]
        return (1 - tau) * alpha + tau * beta.to(alpha)

    def logits(self, trunk: Tensor) -> Tensor:
        """Of all cells and the null slot, ``[B, h]`` -> ``[B, m, n + 1]``; of foreign cells by way of the basis."""
        if self.head is None:
            raise RuntimeError(
                f"the warehouse {self.shared!r} is not sealed: call KWConv.seal(model) on the whole model"
            )
        z = self.head(trunk).reshape(-1, self.mixtures, self.head.out_features // self.mixtures)
        if self.foreign is None or self.offset is None:
            return z
        width = self.foreign.in_features
        local, basis, null = z.split([z.shape[2] - width - 1, width, 1], 2)
        before, after = self.foreign(basis).split([self.start, self.foreign.out_features - self.start], 2)
        return torch.cat([before, local, after, null], 2) + self.offset

    def assembled(self, attention: Tensor) -> Tensor:
        """The kernel of each sample, ``[B, C_out, C_in/groups, kH, kW]``: mixture (tap, row, column) is its cell there.

        Reshaped step by step, since some runtimes permute at most four dimensions.
        """
        (c_out, c_in), (rows, columns) = self.channels, self.warehouse.cell
        cells = self.warehouse(attention).reshape(-1, c_in // columns, rows, columns)
        by_tap = cells.transpose(1, 2).reshape(-1, self.kernel_size[0] * self.kernel_size[1], c_out * c_in)
        return by_tap.transpose(1, 2).reshape(-1, c_out, c_in, *self.kernel_size)

    def guide_shape(self) -> tuple[int, int, int]:
        return 1, *self.channels

    @torch.no_grad()
    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Start as this static convolution: each mixture is its own cell, and that the kernel's part there."""
        if self.budget < 1:
            raise ValueError(f"budget must be at least 1 to start from static weights, got {self.budget}")
        if self.head is None:
            raise ValueError(f"warehouse {self.shared!r} must be sealed before a layer starts from static weights")
        check_static(weight, (*self.channels, *self.kernel_size))
        (c_out, c_in), (rows, columns) = self.channels, self.warehouse.cell
        parts = weight.reshape(c_out // rows, rows, c_in // columns, columns, -1).permute(4, 0, 2, 1, 3)
        weight_of_own = (1 - self.temperature) / (1 + EPS) + self.temperature
        self.warehouse.weight[0, self.beta] = parts.reshape(self.mixtures, -1).to(self.warehouse.weight) / weight_of_own
        nn.init.zeros_(self.head.weight)
        offset = self.head.bias if self.offset is None else self.offset
        offset.copy_(F.one_hot(self.beta, self.warehouse.count + 1).reshape(offset.shape))
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    @torch.no_grad()
    def fuse(self, guide: Tensor | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        """Fold the trunk's norm; a guide and a following BatchNorm scale the kernel, since cells are shared."""
        self.trunk.fuse()
        gain = self.gain if guide is None else guide if self.gain is None else self.gain * guide
        if bn is not None:
            scale, shift = fold_scale(bn)
            gain = scale.view(-1, 1, 1, 1) * (1 if gain is None else gain)
            shift = shift if self.bias is None else shift + scale * self.bias
            self.bias = nn.Parameter(shift, requires_grad=False)
        self.gain = None if gain is None else nn.Parameter(gain.clone(), requires_grad=False)

    def extra_repr(self) -> str:
        out, within = self.channels
        return f"{within * self.groups}, {out}, {self.kernel_size}, stride={self.stride}, {self.mixtures} mixtures"


def _build_warehouse(layers: Sequence[KWConv]) -> None:
    """Size the cells that these layers share, build them, and each layer's attention to them."""
    first = layers[0]
    for name in ("budget", "cell_ratios", "basis_ratio"):
        if len({getattr(layer, name) for layer in layers}) > 1:
            raise ValueError(f"{name.removesuffix('s')} must be the same in all layers that share it")
    within, out = first.cell_ratios
    rows = max(int(math.gcd(*(layer.channels[0] for layer in layers)) * out), 1)
    columns = max(int(math.gcd(*(layer.channels[1] for layer in layers)) * within), 1)
    for layer in layers:
        if layer.channels[0] % rows or layer.channels[1] % columns:
            raise ValueError(f"cell_ratio gives cells of {rows} x {columns}, which do not tile {layer.channels}")
        taps = layer.kernel_size[0] * layer.kernel_size[1]
        layer.mixtures = taps * (layer.channels[0] // rows) * (layer.channels[1] // columns)
    count = max(int(first.budget * sum(layer.mixtures for layer in layers) + EPS), 1)
    warehouse = Warehouse(count, (rows, columns)).to(first.trunk.squeeze.weight).train(first.training)
    start = 0
    for layer in layers:
        beta = _own_cells(layer.mixtures, layer.budget, start, count)
        if layer is first:
            layer.warehouse = warehouse
        else:
            layer.__dict__["warehouse"] = warehouse
        _attend(layer, beta, start)
        start += int(layer.budget * layer.mixtures + EPS)


def _own_cells(mixtures: int, budget: float, start: int, null: int) -> list[int]:
    """Which cell each mixture has of its own, beta; `null` for none."""
    if budget >= 1:
        return [start + i * round(budget) for i in range(mixtures)]
    every = round(1 / budget)
    if mixtures % every:
        raise ValueError(f"budget 1/{every} must divide the mixtures of each layer, got {mixtures}")
    own = [i for i in range(mixtures) if i % every == i // every % every]
    cells = {i: start + place for place, i in enumerate(own)}
    return [cells.get(i, null) for i in range(mixtures)]


@torch.no_grad()
def _attend(layer: KWConv, beta: list[int], start: int) -> None:
    """Build a layer's attention to its warehouse, and draw its own cells."""
    like = layer.trunk.squeeze.weight
    count, hidden, local = layer.warehouse.count, layer.trunk.hidden, int(layer.budget * layer.mixtures + EPS)
    layer.register_buffer("beta", torch.tensor(beta, device=like.device), persistent=False)
    layer.start = start
    if layer.basis_ratio == 1:
        layer.head = nn.Linear(hidden, layer.mixtures * (count + 1))
    else:
        basis = max(int((count - local) * layer.basis_ratio), LEAST_BASIS)
        layer.head = nn.Linear(hidden, layer.mixtures * (local + basis + 1), bias=False)
        layer.foreign = nn.Linear(basis, count - local, bias=False)
        layer.offset = nn.Parameter(torch.zeros(layer.mixtures, count + 1))
    for linear in (layer.head, layer.foreign):
        if linear is not None:
            nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="relu")
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
    inputs = layer.channels[1] * layer.kernel_size[0] * layer.kernel_size[1] * min(layer.budget, 1)
    nn.init.normal_(layer.warehouse.weight[:, start : start + local], std=SILU_GAIN / math.sqrt(inputs))
    layer.to(like).train(layer.training)
