"""Global tokens of "Dynamic Mobile-Former", Sec. 3.4: cross attention from the map to the tokens, and the Former.

https://arxiv.org/abs/2304.07254

Where the paper is silent, as the authors' implementation has it (its counts are Table 1's): LayerNorm before each
attention and before the FFN; the cross attention is added to the normed tokens; no biases but that of the projection
after self attention. Eq. 4 has heads of d / N channels, which do not fit the map's C channels once W^K and W^V are
gone: they are of C / N.

Deviation: `token_heads` is 8 (Table 1) whatever the width; in the published code it is d // 32, 6 of DMF's 192.
"""

import torch
from torch import Tensor, nn

from yolo_dyn.layers.drop_path import check_drop_path, drop_path


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention (DMF Eq. 5).

    Args:
        query: ``[B, heads, M, d_head]``.
        key, value: ``[B, heads, N, d_head]``.

    Returns:
        ``[B, M, heads*d_head]``.
    """
    weights = torch.softmax(query @ key.transpose(2, 3) * query.shape[3] ** -0.5, 3)  # [B, heads, M, N]
    return (weights @ value).transpose(1, 2).flatten(2)


class GlobalTokens(nn.Module):
    """The learnt tokens that every image starts with.

    Args:
        in_channels: of any map, which only tells the batch size.
        tokens: their number, M.
        channels: their width, d.

    Shape:
        ``[B, C, H, W]`` -> ``[B, M, d]``.
    """

    def __init__(self, in_channels: int, tokens: int = 6, channels: int = 192) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(tokens, channels))

    @staticmethod
    def out_channels(in_channels: int, args: list[int]) -> int:
        return args[1] if len(args) > 1 else 192

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens.repeat(x.shape[0], 1, 1)


class CrossAttention(nn.Module):
    """Let the tokens look at the map, whose keys and values are not projected (DMF Eq. 3 to 5).

    Args:
        in_channels: of the map, C.
        token_channels: width of the tokens, d.
        heads: attention heads; they divide C.

    Shape:
        map ``[B, C, H, W]``, tokens ``[B, M, d]`` -> ``[B, M, d]``.
    """

    def __init__(self, in_channels: int, token_channels: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or in_channels % heads:
            raise ValueError(f"heads must divide the {in_channels} channels of the map, got {heads}")
        self.heads = heads
        self.norm = nn.LayerNorm(token_channels)
        self.query = nn.Linear(token_channels, in_channels, bias=False)
        self.project = nn.Linear(in_channels, token_channels, bias=False)

    def forward(self, x: Tensor, tokens: Tensor, drop: float = 0.0) -> Tensor:
        """`drop` is the probability to leave out what a sample's tokens find, in training."""
        tokens = self.norm(tokens)
        query = self.query(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, M, d_head]
        pixels = x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)  # [B, heads, N, d_head]
        return tokens + drop_path(self.project(attend(query, pixels, pixels)), drop, self.training)


class Former(nn.Module):
    """Update the tokens by what they find in the map: cross attention, self attention, FFN.

    Args:
        in_channels: of the map and of the tokens, ``[C, d]``.
        heads: of the cross attention, H in the paper's Table 1.
        token_heads: of the self attention (Table 1).
        ratio: expansion of the FFN.
        drop_path: probability to leave out each of the three for a sample in training; the training argument
            `drop_path` sets it.

    Shape:
        map ``[B, C, H, W]``, tokens ``[B, M, d]`` -> ``[B, M, d]``.

    Raises:
        ValueError: if the heads do not divide the channels, or `drop_path` is no probability below 1.

    Examples:
        >>> former = Former([16, 192])
        >>> former([torch.rand(2, 16, 20, 20), torch.rand(2, 6, 192)]).shape
        torch.Size([2, 6, 192])
    """

    drop_path = 0.0  # of checkpoints from before it was an argument

    def __init__(
        self, in_channels: list[int], heads: int = 2, token_heads: int = 8, ratio: int = 2, *, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.drop_path = check_drop_path(drop_path)
        channels, width = in_channels
        if token_heads < 1 or width % token_heads:
            raise ValueError(f"token_heads must divide the width {width} of the tokens, got {token_heads}")
        self.token_heads = token_heads
        self.cross = CrossAttention(channels, width, heads)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.ffn = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, ratio * width, bias=False),
            nn.GELU(),
            nn.Linear(ratio * width, width, bias=False),
        )

    @staticmethod
    def out_channels(in_channels: list[int], args: list[int]) -> int:
        return token_width(in_channels)

    def forward(self, x: list[Tensor]) -> Tensor:
        tokens = self.cross(*x, self.drop_path)
        found = self.project(self.attend_to_tokens(self.norm(tokens)))
        tokens = tokens + drop_path(found, self.drop_path, self.training)
        return tokens + drop_path(self.ffn(tokens), self.drop_path, self.training)

    def attend_to_tokens(self, tokens: Tensor) -> Tensor:
        """Self attention before its projection: ``[B, M, d]`` -> ``[B, M, d]``."""
        split = self.qkv(tokens).unflatten(2, (3, self.token_heads, -1)).permute(2, 0, 3, 1, 4)
        return attend(*split.unbind())


def token_width(in_channels: list[int]) -> int:
    """The width of the tokens among the inputs of a row, ``[C, d]``."""
    if not isinstance(in_channels, list) or len(in_channels) != 2:
        raise ValueError(f"takes a map and tokens, [map, tokens], got inputs of {in_channels} channels")
    return in_channels[1]
