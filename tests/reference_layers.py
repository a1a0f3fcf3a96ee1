"""Float64 oracles of the papers' other layers: one sample at a time, the experts summed one by one."""

import copy

import torch
from reference import conv2d, norm, sigmoid, silu
from torch import Tensor, nn

from yolo_dyn import layers
from yolo_dyn.layers.blocks import ConvNormAct
from yolo_dyn.layers.experts import Experts


def conv(x: Tensor, kernel: Tensor, experts: Experts, bias: Tensor | None) -> Tensor:
    """One sample with its own kernel; dilation is a kernel with zeros between its taps."""
    d = experts.dilation[0]
    spread = torch.zeros(*kernel.shape[:2], *(d * (k - 1) + 1 for k in kernel.shape[2:]), dtype=kernel.dtype)
    spread[:, :, ::d, ::d] = kernel
    y = conv2d(x, spread, experts.stride[0], experts.padding, experts.groups)
    for extra in (bias, experts.shift):
        y = y if extra is None else y + extra[:, None, None]
    return y


def mixture(experts: Experts, attention: Tensor) -> tuple[Tensor, Tensor | None]:
    """Sum the experts' kernels and biases one by one."""
    k = len(attention)
    kernels = experts.weight.view(k, -1, *experts.weight.shape[1:])
    kernel = sum((attention[i] * kernels[i] for i in range(k)), torch.zeros_like(kernels[0]))
    if experts.bias is None:
        return kernel, None
    biases = experts.bias.view(k, -1)
    return kernel, sum((attention[i] * biases[i] for i in range(k)), torch.zeros_like(biases[0]))


def pool(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1) / x[0].numel()


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return layer.weight @ x + (0 if layer.bias is None else layer.bias)


def softmax(z: Tensor, temperature: float = 1.0) -> Tensor:
    e = torch.exp(z / temperature)
    return e / e.sum()


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.zeros_like(x))


def kernel_attention(x: Tensor, attention: nn.Module) -> Tensor:
    return linear(relu(linear(x, attention.squeeze)), attention.expand)


def trunk(x: Tensor, layer: nn.Module) -> Tensor:
    return relu(norm(linear(x, layer.squeeze), layer.norm))


def condconv(x: Tensor, layer: layers.CondConv) -> Tensor:
    attention = sigmoid(linear(pool(x), layer.routing))
    return conv(x, *_with(layer.experts, attention))


def _with(experts: Experts, attention: Tensor) -> tuple[Tensor, Experts, Tensor | None]:
    kernel, bias = mixture(experts, attention)
    return kernel, experts, bias


def dynamicconv(x: Tensor, layer: layers.DynamicConv) -> Tensor:
    attention = softmax(kernel_attention(pool(x), layer.attention), layer.temperature)
    return conv(x, *_with(layer.experts, attention))


def residual(x: Tensor, layer: layers.DynamicResidualConv, token: Tensor | None = None) -> Tensor:
    pooled = pool(x) if token is None else torch.cat([pool(x), token])
    logits = linear(trunk(pooled, layer.trunk), layer.kernel) / layer.temperature
    attention = sigmoid(logits) if layer.activation == "sigmoid" else softmax(logits)
    agnostic = torch.ones(int(layer.residual), dtype=x.dtype)
    return conv(x, *_with(layer.experts, torch.cat([agnostic, attention])))


def odconv(x: Tensor, layer: layers.ODConv) -> Tensor:
    t, k = trunk(pool(x), layer.trunk), layer.experts.num_experts
    uniform = torch.full((k,), 1 / k, dtype=x.dtype)
    kernel, bias = mixture(
        layer.experts, uniform if layer.kernel is None else softmax(linear(t, layer.kernel), layer.temperature)
    )
    if layer.channel is not None:  # Eq. 2 has it on the kernel's input channels; with groups it is easier on the input
        x = x * sigmoid(linear(t, layer.channel))[:, None, None]
    if layer.spatial is not None:
        kernel = kernel * sigmoid(linear(t, layer.spatial)).view(kernel.shape[2:])
    y = conv(x, kernel, layer.experts, bias)
    return y if layer.filter is None else y * sigmoid(linear(t, layer.filter))[:, None, None]


def fmdconv(x: Tensor, layer: layers.FMDConv) -> Tensor:
    k = layer.experts.num_experts
    attention = torch.full((k,), 1 / k, dtype=x.dtype)
    if layer.kernel is not None:
        attention = softmax(kernel_attention(pool(x), layer.kernel), layer.temperature)
    t = None if layer.trunk is None else trunk(pool(x), layer.trunk)
    if layer.input is not None:
        x = x * sigmoid(linear(t, layer.input))[:, None, None]
    y = conv(x, *_with(layer.experts, attention))
    return y if layer.output is None else y * sigmoid(linear(t, layer.output))[:, None, None]


def a2d2c(x: Tensor, layer: layers.A2D2C, guide: Tensor | None = None) -> Tensor:
    """Convolve the whole map with each kernel, then read its response at each of its positions."""
    experts, k = layer.experts, layer.experts.num_experts
    guided = copy.deepcopy(experts)
    guided.weight.data = experts.weight if guide is None else torch.cat([w * guide for w in experts.weight.chunk(k)])
    logits = []
    for i, kernel in enumerate(guided.weight.chunk(k)):
        bare = Experts(1, 1, 1, experts.stride, experts.padding, experts.dilation).double()
        bare.groups = experts.groups
        bias = None if experts.bias is None else experts.bias.chunk(k)[i]
        response = conv(x, kernel, bare, bias)
        seen = response if layer.evidence == "response" else x
        places = [(r * seen.shape[1] // 65536, c * seen.shape[2] // 65536) for r, c in layer.points[:, i].T.tolist()]
        if layer.sampling == "none":
            places = [(r, c) for r in range(seen.shape[1]) for c in range(seen.shape[2])]
        weights = [response[:, r, c].abs().mean() if layer.weighting == "response" else 1 for r, c in places]
        mean = sum(w * seen[:, r, c] for w, (r, c) in zip(weights, places, strict=True)) / sum(weights)
        logits.append(_routed(mean, layer, i))
    y = conv(x, *_with(guided, softmax(torch.stack(logits), layer.temperature)))
    if layer.scale is None:
        return y
    shift = experts.shift[:, None, None]
    return (y - shift) * layer.scale[0][:, None, None] + shift


def _routed(mean: Tensor, layer: layers.A2D2C, expert: int) -> Tensor:
    if layer.routing == "squeeze":
        hidden = relu(layer.router.weight @ mean)
        return hidden.sum() / len(hidden)
    return layer.router.weight[expert if layer.routing == "separate" else 0] @ mean


def dcd(x: Tensor, layer: layers.DCD) -> Tensor:
    def gate(z: Tensor) -> Tensor:
        return torch.clamp(z + 3, 0, 6) / 3

    pooled = nn.functional.adaptive_avg_pool2d(x, layer.pool).flatten()
    s = layer.squeeze.weight @ pooled
    s = s * gate(layer.gate.weight @ s)
    phi = (layer.phi.weight @ s).view(layer.inner, layer.inner)
    scale = gate(layer.scale.weight @ s)
    plain = Experts(1, 1, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False).double()
    y = conv(x, layer.weight, plain, None) * scale[:, None, None]
    offset = [p - d * (k // 2) for p, d, k in zip(layer.padding, layer.dilation, layer.kernel_size, strict=True)]
    centre = nn.functional.pad(x, (offset[1], offset[1], offset[0], offset[0]))
    z = norm(conv2d(centre, layer.q, layer.stride[0]), layer.norm_q)
    z = norm(torch.einsum("ij,jhw->ihw", phi, z), layer.norm_phi) + z
    y = y + conv2d(z, layer.p)
    return y if layer.bias is None else y + layer.bias[:, None, None]


def fourier(length: int) -> Tensor:
    """The matrix of the discrete Fourier transform."""
    i = torch.arange(length, dtype=torch.float64)
    return torch.exp(-2j * torch.pi * i[:, None] * i / length)


def frequency_group(rows: int, columns: int, count: int) -> Tensor:
    """The group of each coefficient of the whole spectrum; of those that mirror each other, one is sorted."""
    half = [(u, v) for u in range(rows) for v in range(columns // 2 + 1)]
    ranked = sorted(half, key=lambda at: (min(at[0], rows - at[0]) * columns) ** 2 + (at[1] * rows) ** 2)
    groups = torch.zeros(rows, columns, dtype=torch.int64)
    for rank, (u, v) in enumerate(ranked):
        groups[u, v] = rank * count // len(ranked)
    for u, v in half:
        if 0 < v < columns - v:
            groups[-u % rows, columns - v] = groups[u, v]
    return groups


def frequency_kernel(weight: Tensor, factors: Tensor) -> Tensor:
    """Scale the spectrum of the kernels, laid out as one matrix, in the groups of frequencies."""
    (c_out, c_in, k_h, k_w), count = weight.shape, len(factors)
    plane = torch.zeros(c_out * k_h, c_in * k_w, dtype=torch.complex128)
    for o in range(c_out):
        for i in range(c_in):
            plane[o * k_h : (o + 1) * k_h, i * k_w : (i + 1) * k_w] = weight[o, i]
    rows, columns = (fourier(length) for length in plane.shape)
    spectrum = rows @ plane @ columns * factors[frequency_group(*plane.shape, count)]
    # a group may hold a coefficient of column 0 or N / 2 and not its mirror image: what is left imaginary is dropped
    plane = (rows.conj() @ spectrum @ columns.conj() / plane.numel()).real
    kernel = torch.zeros_like(weight)
    for o in range(c_out):
        for i in range(c_in):
            kernel[o, i] = plane[o * k_h : (o + 1) * k_h, i * k_w : (i + 1) * k_w]
    return kernel


def lower_band(x: Tensor, edge: float) -> Tensor:
    """The frequencies below an edge, in cycles a pixel, in both directions."""
    rows, columns = (fourier(length) for length in x.shape[1:])
    low = [torch.tensor([min(q, n - q) / n < edge for q in range(n)]) for n in x.shape[1:]]
    spectrum = (rows @ x.to(rows) @ columns) * low[0][:, None] * low[1]
    return (rows.conj() @ spectrum @ columns.conj() / x[0].numel()).real


def fdconv(x: Tensor, layer: layers.FDConv) -> Tensor:
    def factor(z: Tensor) -> Tensor:
        return 2 * sigmoid(z)

    t = layer.star[0] * trunk(pool(x), layer.trunk) ** 2 + layer.star[1]
    kernel = frequency_kernel(layer.weight, factor(linear(t, layer.frequency)))
    kernel = kernel * factor(linear(t, layer.filter))[:, None, None, None]
    if layer.spatial is not None:
        kernel = kernel * factor(linear(t, layer.spatial)).view(kernel.shape[2:])
    if layer.local is not None:
        v = pool(x)
        v = (v - v.mean()) / torch.sqrt(((v - v.mean()) ** 2).mean() + 1e-5)
        v = v * layer.local_norm.weight + layer.local_norm.bias
        size = layer.local.weight.shape[2]
        v = torch.cat([v.new_zeros(size // 2), v, v.new_zeros(size // 2)])
        for o in range(kernel.shape[0]):
            for tap in range(kernel[0, 0].numel()):
                row, column = divmod(tap, kernel.shape[3])
                w = layer.local.weight[o * kernel[0, 0].numel() + tap, 0]
                for i in range(kernel.shape[1]):
                    kernel[o, i, row, column] *= factor(w @ v[i : i + size])
    if layer.bands is not None:
        scales = factor(conv2d(x, layer.bands.weight, padding=(1, 1)) + layer.bands.bias[:, None, None])
        low = [lower_band(x, 1 / part) for part in (4, 8, 16)]
        bands = [x - low[0], low[0] - low[1], low[1] - low[2]]
        x = sum((scales[b] * bands[b] for b in range(3)), low[2])
    x = x * factor(linear(t, layer.channel))[:, None, None]
    plain = Experts(1, 1, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False).double()
    y = conv(x, kernel, plain, None)
    return y if layer.bias is None else y + layer.bias[:, None, None]


def cell_logits(t: Tensor, layer: layers.KWConv) -> Tensor:
    """Of all cells and the null slot, ``[m, n + 1]``; foreign cells are sums over the basis."""
    m, n = layer.mixtures, layer.warehouse.count
    z = linear(t, layer.head).view(m, -1)
    if layer.foreign is None:
        return z
    basis, local = layer.foreign.in_features, n - layer.foreign.out_features
    out = torch.zeros(m, n + 1, dtype=t.dtype)
    for i in range(m):
        for j in range(n):
            own = layer.start <= j < layer.start + local
            k = j if j < layer.start else j - local  # which of the foreign cells
            out[i, j] = z[i, j - layer.start] if own else z[i, local : local + basis] @ layer.foreign.weight[k]
        out[i, n] = z[i, -1]
    return out + layer.offset


def kwconv(x: Tensor, layer: layers.KWConv) -> Tensor:
    (c_out, c_in), (rows, columns), n = layer.channels, layer.warehouse.cell, layer.warehouse.count
    z = cell_logits(trunk(pool(x), layer.trunk), layer)
    cells = layer.warehouse.weight.view(n, rows, columns)
    kernel = torch.zeros(c_out, c_in, *layer.kernel_size, dtype=x.dtype)
    i = 0
    for row in range(layer.kernel_size[0]):
        for column in range(layer.kernel_size[1]):
            for out in range(0, c_out, rows):
                for within in range(0, c_in, columns):
                    alpha = z[i] / (z[i].abs().sum() + 1e-3)
                    own = torch.tensor([float(j == layer.beta[i]) for j in range(n + 1)], dtype=x.dtype)
                    alpha = (1 - layer.temperature) * alpha + layer.temperature * own
                    mixture = sum((alpha[j] * cells[j] for j in range(n)), torch.zeros_like(cells[0]))
                    kernel[out : out + rows, within : within + columns, row, column] = mixture
                    i += 1
    geometry = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    plain = Experts(layer.groups, layer.groups, *geometry, layer.groups, bias=False).double()
    y = conv(x, kernel, plain, None)
    return y if layer.bias is None else y + layer.bias[:, None, None]


def between(x: Tensor, row: float, column: float) -> Tensor:
    """The values of all channels at a place, which is moved onto the map if it lies beside it."""
    height, width = x.shape[1:]
    row, column = min(max(row, 0.0), height - 1.0), min(max(column, 0.0), width - 1.0)
    value = torch.zeros_like(x[:, 0, 0])
    for i in range(height):
        for j in range(width):
            near = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
            value = value + near * x[:, i, j]
    return value


def ldconv(x: Tensor, layer: layers.LDConv) -> Tensor:
    n, side = layer.num_points, round(layer.num_points**0.5)
    offset = conv2d(x, layer.offset.weight, layer.stride[0], (1, 1)) + layer.offset.bias[:, None, None]
    y = torch.zeros(len(layer.weight), *offset.shape[1:], dtype=x.dtype)
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            for tap in range(n):
                row = layer.stride[0] * i + tap // side + offset[tap, i, j].item()
                column = layer.stride[0] * j + tap % side + offset[n + tap, i, j].item()
                y[:, i, j] += layer.weight[:, :, tap, 0] @ between(x, row, column)
    return y if layer.bias is None else y + layer.bias[:, None, None]


def rfaconv(x: Tensor, layer: layers.RFAConv) -> Tensor:
    """As published: the weighted features laid out k times as large, then convolved with stride k."""
    c, k, s, p = len(x), layer.kernel_size[0], layer.stride[0], layer.padding[0]
    ones = torch.full((c, 1, k, k), 1 / k**2, dtype=x.dtype)
    pooled = conv2d(x, ones, s, (p, p), groups=c)
    logits = conv2d(pooled, layer.attention, groups=c)
    features = relu(norm(conv2d(x, layer.features, s, (p, p), groups=c), layer.norm))
    height, width = pooled.shape[1:]
    large = torch.zeros(c, height * k, width * k, dtype=x.dtype)
    for channel in range(c):
        block = slice(channel * k * k, (channel + 1) * k * k)
        for i in range(height):
            for j in range(width):
                field = features[block, i, j] * softmax(logits[block, i, j])
                large[channel, i * k : (i + 1) * k, j * k : (j + 1) * k] = field.view(k, k)
    y = conv2d(large, layer.weight, k)
    return y if layer.bias is None else y + layer.bias[:, None, None]


def cbam(x: Tensor, layer: layers.CBAM) -> Tensor:
    def perceptron(v: Tensor) -> Tensor:
        return linear(relu(linear(v, layer.squeeze)), layer.expand)

    x = x * sigmoid(perceptron(pool(x)) + perceptron(x.flatten(1).max(1).values))[:, None, None]
    maps = torch.stack([x.sum(0) / len(x), x.max(0).values])
    padding = (layer.spatial.padding[0], layer.spatial.padding[1])
    return x * sigmoid(norm(conv2d(maps, layer.spatial.weight, padding=padding), layer.spatial.norm))


def coordatt(x: Tensor, layer: layers.CoordAtt) -> Tensor:
    def squeeze(v: Tensor) -> Tensor:  # one position's means of all channels
        z = layer.squeeze.weight[:, :, 0, 0] @ v
        z = norm(z, layer.squeeze.norm)
        return z * torch.clamp(z + 3, 0, 6) / 6

    y = torch.zeros_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            row = layer.expand_h.weight[:, :, 0, 0] @ squeeze(x[:, i].sum(1) / x.shape[2]) + layer.expand_h.bias
            column = layer.expand_w.weight[:, :, 0, 0] @ squeeze(x[:, :, j].sum(1) / x.shape[1]) + layer.expand_w.bias
            y[:, i, j] = x[:, i, j] * sigmoid(row) * sigmoid(column)
    return y


def block(x: Tensor, layer: ConvNormAct, oracle) -> Tensor:
    """A convolution with its BatchNorm and SiLU."""
    return silu(norm(oracle(x, layer.conv), layer.bn))


ORACLES = {
    "A2D2C": a2d2c,
    "A2D2CPlus": a2d2c,
    "CBAM": cbam,
    "CondConv": condconv,
    "CoordAtt": coordatt,
    "DCD": dcd,
    "DynamicConv": dynamicconv,
    "DynamicResidualConv": residual,
    "FDConv": fdconv,
    "FMDConv": fmdconv,
    "KWConv": kwconv,
    "LDConv": ldconv,
    "ODConv": odconv,
    "RFAConv": rfaconv,
}


def oracle(name: str, x: Tensor, layer: nn.Module) -> Tensor:
    """A batch, sample by sample, in float64. `layer` must be in float64."""
    return torch.stack([ORACLES[name](sample, layer) for sample in x])
