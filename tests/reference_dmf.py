"""Float64 oracles of Dynamic Mobile-Former: one sample, one head, one token at a time."""

import torch
from reference import conv2d, norm
from reference_layers import linear, pool, residual, softmax
from torch import Tensor, nn

from yolo_dyn import layers
from yolo_dyn.layers.blocks import ConvNorm, ConvNormAct
from yolo_dyn.layers.former import CrossAttention


def gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + torch.erf(x / 2**0.5))


def layer_norm(token: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = token - token.sum() / len(token)
    return centred / torch.sqrt((centred**2).sum() / len(token) + layer.eps) * layer.weight + layer.bias


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One query of one head: ``[d]``, ``[N, d]``, ``[N, d]`` -> ``[d]``."""
    weights = softmax(torch.stack([(query * key).sum() for key in keys]) / len(query) ** 0.5)
    return sum((w * value for w, value in zip(weights, values, strict=True)), torch.zeros_like(query))


def in_heads(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """``[M, C]``, ``[N, C]``, ``[N, C]`` -> ``[M, C]``, each head with its own channels."""
    d = queries.shape[1] // heads
    parts = [slice(h * d, (h + 1) * d) for h in range(heads)]
    return torch.stack([torch.cat([attend(q[p], keys[:, p], values[:, p]) for p in parts]) for q in queries])


def cross(x: Tensor, tokens: Tensor, layer: CrossAttention) -> Tensor:
    pixels = x.flatten(1).T  # [N, C]
    normed = torch.stack([layer_norm(token, layer.norm) for token in tokens])
    queries = torch.stack([linear(token, layer.query) for token in normed])
    found = in_heads(queries, pixels, pixels, layer.heads)
    return torch.stack([token + linear(f, layer.project) for token, f in zip(normed, found, strict=True)])


def former(x: Tensor, tokens: Tensor, layer: layers.Former) -> Tensor:
    tokens = cross(x, tokens, layer.cross)
    q, k, v = torch.stack([linear(layer_norm(token, layer.norm), layer.qkv) for token in tokens]).chunk(3, 1)
    found = in_heads(q, k, v, layer.token_heads)
    tokens = torch.stack([token + linear(f, layer.project) for token, f in zip(tokens, found, strict=True)])
    normalise, up, _, down = layer.ffn
    return torch.stack([token + linear(gelu(linear(layer_norm(token, normalise), up)), down) for token in tokens])


def static(x: Tensor, layer: ConvNorm) -> Tensor:
    y = conv2d(x, layer.weight, layer.stride[0], layer.padding, layer.groups)
    y = y if layer.bias is None else y + layer.bias[:, None, None]
    return norm(y, layer.norm)


def dynamic(x: Tensor, token: Tensor | None, block: ConvNormAct) -> Tensor:
    return norm(residual(x, block.conv, token), block.bn)


def grn(x: Tensor, layer: nn.Module) -> Tensor:
    """ConvNeXt V2, Eq. 1 to 3, with its shortcut."""
    energy = [torch.sqrt((channel**2).sum()) for channel in x]
    mean = torch.stack(energy).sum() / len(energy)
    normed = torch.stack([channel * e / (mean + layer.eps) for channel, e in zip(x, energy, strict=True)])
    return layer.weight * normed + layer.bias + x


def irffn(x: Tensor, layer: nn.Module) -> Tensor:
    x = gelu(static(x, layer.expand))
    x = x + conv2d(x, layer.depthwise.weight, 1, (1, 1), len(x))
    return static(gelu(grn(x, layer.grn)), layer.reduce)


def block(x: Tensor, tokens: Tensor, layer: layers.DMFBlock) -> Tensor:
    if len(layer.downsample):
        x = gelu(static(x, layer.downsample[0]))
    token = tokens[0] if layer.token else None
    x = gelu(dynamic(x, token, layer.expand))
    x = gelu(dynamic(x, token, layer.depthwise))
    x = dynamic(x, token, layer.reduce)
    centred = x - x.sum() / x.numel()
    normed = centred / torch.sqrt((centred**2).sum() / x.numel() + layer.norm.eps)
    normed = normed * layer.norm.weight[:, None, None] + layer.norm.bias[:, None, None]
    return x + irffn(normed, layer.ffn)


def head(x: Tensor, tokens: Tensor, layer: layers.DMFHead) -> Tensor:
    return gelu(dynamic(x, tokens[0] if layer.token else None, layer.conv))


def classifier(x: Tensor, tokens: Tensor, layer: layers.Classifier) -> Tensor:
    joined = torch.cat([pool(x), tokens[0]])
    if isinstance(layer.hidden, nn.Sequential):
        z = linear(joined, layer.hidden[0])
        joined = z * (z + 3).clamp(0, 6) / 6  # hard-swish
    return linear(joined, layer.linear)
