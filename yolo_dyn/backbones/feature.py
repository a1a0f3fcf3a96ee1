"""One map out of those that a backbone yields."""

from torch import Tensor, nn


class Feature(nn.Module):
    """Take one map of a row that yields several: ``[5, 1, Feature, [0]]`` is the first map of row 5.

    Args:
        in_channels: of all maps, ``[C_0, C_1, ...]``.
        index: counted from 0.

    Shape:
        list of ``[B, C_i, H_i, W_i]`` -> ``[B, C_index, H_index, W_index]``.
    """

    def __init__(self, in_channels: list[int], index: int):
        super().__init__()
        self.index = index

    @staticmethod
    def out_channels(in_channels: int | list[int], args: list[int]) -> int:
        if not isinstance(in_channels, list):
            raise ValueError(f"takes the maps of a row that yields several, got one of {in_channels} channels")
        if not 0 <= args[0] < len(in_channels):
            raise ValueError(f"index must be 0 to {len(in_channels) - 1}, got {args[0]}")
        return in_channels[args[0]]

    def forward(self, x: list[Tensor]) -> Tensor:
        return x[self.index]
