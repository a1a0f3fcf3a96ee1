"""Random numbers that are the same on every machine, in any order, process and batch.

The draws of an image depend on (seed, image file name, corruption, strength) and on nothing else. Their SHA-256 is the
key of a Philox counter-based generator, whose raw bits numpy promises (it does not promise the stream of `normal`).
Every 16 of them are one integer in [0, 65536), from which every other distribution follows: one call for each array,
scalars as arrays of one.
"""

import functools
import hashlib

import numpy as np


def bit_generator(seed: int, name: str, corruption: str, strength: float) -> np.random.Philox:
    """The generator of one image's draws, keyed by the first 128 bits of a SHA-256.

    The hashed text is ``seed/name/corruption/strength`` in UTF-8, the strength with six significant digits.
    """
    digest = hashlib.sha256(f"{seed}/{name}/{corruption}/{strength:.6g}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))


def uniform16(bits: np.random.Philox, shape: tuple[int, ...]) -> np.ndarray:
    """Independent integers in [0, 65536), four from each raw word, low bits first, on any machine."""
    count = int(np.prod(shape))
    words = bits.random_raw(-(-count // 4)).astype("<u8", copy=False)
    return words.view("<u2")[:count].reshape(shape)


def uniform(bits: np.random.Philox, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Numbers spread evenly from `low` to `high`, float32, at the middles of 65,536 steps."""
    step = (high - low) / 65536
    return uniform16(bits, shape).astype(np.float32) * np.float32(step) + np.float32(low + step / 2)


def normal(bits: np.random.Philox, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, float32."""
    return normal_quantiles()[uniform16(bits, shape)]


def integers(bits: np.random.Philox, shape: tuple[int, ...], count: int) -> np.ndarray:
    """Integers in [0, count), int64."""
    return (uniform16(bits, shape).astype(np.int64) * count) >> 16


def number(bits: np.random.Philox, low: float, high: float) -> float:
    """One number from `low` to `high`, in float64."""
    return low + (high - low) * (int(uniform16(bits, (1,))[0]) + 0.5) / 65536


def integer(bits: np.random.Philox, count: int) -> int:
    """One integer in [0, count)."""
    return int(integers(bits, (1,), count)[0])


@functools.cache
def normal_quantiles() -> np.ndarray:
    """Standard normal quantiles at (i + 0.5) / 65536, float32 ``[65536]``."""
    from scipy.special import ndtri

    return ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)
