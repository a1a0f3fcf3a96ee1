"""What is left of frames without their mean: offsets of rows, and traces of what was done to the noise."""

from dataclasses import dataclass

import numpy as np

from yolo_dyn.robustness.calibration.photon_transfer import Bins, Channel


@dataclass(frozen=True)
class Rows:
    """Weighted sums over the pixels of each row, to be added over channels: a row's offset is the same in all."""

    residual: np.ndarray  # [N, H]
    weight: np.ndarray  # [H]
    square: np.ndarray  # [H], of the weights
    variance: np.ndarray  # [H], of the weighted values

    def __add__(self, other: "Rows") -> "Rows":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Rows(*(one + another for one, another in pairs))

    @property
    def offset_variance(self) -> float:
        """Variance of the rows' offsets: that of the rows' means, less what their pixels' own noise makes of it.

        A row counts as much as it is exact: its weight is one over the variance of its mean.
        """
        frames = len(self.residual)
        excess = (self.residual**2).sum(0) / (frames - 1) - self.variance  # times the weight squared, as all here
        shared = self.weight**2 - self.square  # the pixels' variance has that of the offset in it
        return float(excess.sum() / shared.sum()) if shared.sum() > 0 else 0.0


def precision(channel: Channel, own: Bins) -> np.ndarray:
    """One over the variance of each pixel of a channel, ``[H, W]``; 0 of those that no bin of the fit has."""
    low, high = own.mean[own.used].min(), own.mean[own.used].max()
    seen = channel.kept & (channel.mean >= low) & (channel.mean <= high)
    variance = np.interp(channel.mean, own.mean[own.used], own.variance[own.used]) + channel.step**2 / 12
    return np.where(seen, 1 / variance, 0).astype(np.float32)


def rows(channel: Channel, weight: np.ndarray) -> Rows:
    """What a channel says of the rows' offsets."""
    residual = np.einsum("nhw,hw->nh", channel.residual, weight)
    return Rows(residual, weight.sum(1), (weight**2).sum(1), (weight**2 * channel.variance).sum(1))


def traces(channel: Channel, weight: np.ndarray) -> np.ndarray:
    """What denoising leaves of noise, 0 of a camera's own, without the rows' offsets.

    Returns:
        Correlation with the pixel to the right, with the one below and with the next frame, and the excess of the
        fourth moment over that of normal numbers.
    """
    mean = np.einsum("nhw,hw->nh", channel.residual, weight) / np.maximum(weight.sum(1), 1e-30)
    noise = (channel.residual - mean[..., None]) * np.sqrt(weight)
    seen = np.broadcast_to(weight > 0, noise.shape)
    right, below, later = (_lagged(np.moveaxis(noise, axis, 0), np.moveaxis(seen, axis, 0)) for axis in (2, 1, 0))
    square = noise[:, weight * channel.step**2 < np.where(weight > 0, 1, 0)] ** 2  # else the steps have a shape too
    excess = (square**2).mean() / square.mean() ** 2 - 3 if square.size else 0.0
    return np.array([right, below, later + 1 / (len(noise) - 1), excess])  # frames are seen from their own mean


def _lagged(noise: np.ndarray, seen: np.ndarray) -> float:
    """Correlation along the first axis of noise that is 0 where it is not seen."""
    one, other = noise[:-1], noise[1:]
    power = (one**2 * seen[1:]).sum() * (other**2 * seen[:-1]).sum()
    return float((one * other).sum() / max(power**0.5, 1e-30))
