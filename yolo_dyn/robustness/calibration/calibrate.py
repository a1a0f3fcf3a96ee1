"""`yolo-dyn noise-calibrate`: the noise of a camera from a burst of its own frames."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from yolo_dyn.errors import YoloDynError
from yolo_dyn.output.arguments import FileName, checked
from yolo_dyn.output.files import check_new, write_text
from yolo_dyn.output.outcome import Outcome
from yolo_dyn.output.style import BLUE, COLOURS, VERMILLION, save
from yolo_dyn.robustness.calibration.burst import read_burst
from yolo_dyn.robustness.calibration.measurement import Measurement
from yolo_dyn.robustness.corruptions.cameras import GAINS, MEASURED
from yolo_dyn.robustness.corruptions.light import TRANSFERS

NAMES = {1: ("grey",), 3: ("red", "green", "blue")}
SHOWN = {"grey": COLOURS[6], "red": VERMILLION, "green": COLOURS[2], "blue": BLUE}
PIXELS = 5000  # of all channels, of which a fit is made at least
RANGE = 3  # times the darkest bin, which the brightest must be at least
UNSURE = 0.25  # standard error of b, as a share of it, above which darker frames are asked for


@dataclass(frozen=True)
class Calibration(Outcome):
    """The noise of a camera, for linear light from 0 to 1."""

    a: float  # variance for each unit of light
    b: float  # variance in the dark, without that of the rows
    b_error: float  # standard error
    row: float  # deviation of a row's offset, as a share of that of the read-out
    r2: float  # of the line through variances and means
    correlation: float  # with the next pixel, the larger of right and below
    lower_bound: bool  # whether the noise was filtered, so that a and b are less than the camera's own
    frames: int
    height: int
    width: int
    pixels: int  # values of the mean frame in the fit, of all channels
    files: tuple[str, ...]

    def __str__(self) -> str:
        bound = "at least " if self.lower_bound else ""
        lines = [
            f"{self.frames} frames of {self.width}x{self.height}, {self.pixels} flat and well exposed pixels",
            f"a    {bound}{self.a:.4g}   variance for each unit of linear light",
            f"b    {bound}{self.b:.4g} (standard error {self.b_error:.1g})   variance in the dark",
            f"row  {self.row:.3f}   deviation of the rows' offsets, as a share of sqrt(b)",
            f"R^2 {self.r2:.4f}, correlation with the next pixel {self.correlation:.3f}",
        ]
        if self.b_error > UNSURE * self.b:
            lines.append("b and row are uncertain: a burst with more dark areas tells them better")
        return "\n".join([*lines, f"written to {', '.join(self.files)}"])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def as_yaml(self) -> str:
        """The file that `sensor_noise` reads."""
        sensor = {"a": self.a, "b": self.b, "row": self.row, "bits": 16, "pipeline": "simple", "transfer": "srgb"}
        exposure = {"exposure": [1 / gain for gain in GAINS]}
        found = {key: value for key, value in asdict(self).items() if key not in ("a", "b", "row", "files")}
        return (
            "# Noise of a camera, variance = a light + b, measured by yolo-dyn noise-calibrate.\n"
            f"#   yolo-dyn robustness ... corruption=sensor_noise:{Path(self.files[0]).name} severity=1,2,3,4,5\n"
            f"{yaml.safe_dump(sensor, sort_keys=False)}"
            "# shares of the light at severities 1 to 5; 1 is that of the pictures themselves\n"
            f"{yaml.safe_dump(exposure, default_flow_style=None)}"
            "# not read\n"
            f"{yaml.safe_dump({MEASURED: found}, sort_keys=False)}"
        )


@checked
def noise_calibrate(
    frames: str, transfer: str = "srgb", filtered: bool = False, out: FileName = "camera.yaml", exist_ok: bool = False
) -> Calibration:
    """Measure a camera's noise from a burst of frames, for corruption=sensor_noise:camera.yaml.

    At least 16 frames of one scene at rest, out of focus or rich in flat areas, from dark to bright, with the camera on
    a tripod, its exposure fixed and its denoising off.

    Args:
        frames: folder with the frames, PNG or TIFF of 8 or 16 bits.
        transfer: "srgb", or "linear" for frames whose values are in proportion to light.
        filtered: also take frames whose noise is not the sensor's own any more, since they were denoised or demosaiced:
            a and b are then lower bounds, which the file says.
        out: file to write; a picture of the fit is written beside it.
        exist_ok: replace both if they exist.

    Returns:
        What was found.

    Raises:
        YoloDynError: if the frames cannot be used, which it says why, or a file exists or cannot be written.
    """
    if transfer not in TRANSFERS:
        raise YoloDynError(f"transfer must be one of {', '.join(TRANSFERS)}, got {transfer!r}")
    files = (Path(out), Path(out).with_suffix(".png"))
    for file in files:
        check_new(file, exist_ok)
    burst = read_burst(Path(frames))
    measurement = Measurement.of(burst, transfer)
    _check(measurement, frames, burst.dtype, filtered)
    found = _calibration(measurement, tuple(map(str, files)))
    write_text(files[0], found.as_yaml(), "out")
    draw(measurement, found, files[1])
    return found


def _calibration(measurement: Measurement, files: tuple[str, ...]) -> Calibration:
    fit = measurement.fit()
    offsets = min(max(measurement.offsets, 0.0), fit.b / 2)  # part of the variance in the dark
    b = fit.b - offsets
    return Calibration(
        a=fit.a,
        b=b,
        b_error=fit.b_error,
        row=(offsets / b) ** 0.5 if b else 0.0,
        r2=fit.r2,
        correlation=max(measurement.right, measurement.below),
        lower_bound=any(measurement.filtering()),
        frames=measurement.size[0],
        height=measurement.size[1],
        width=measurement.size[2],
        pixels=int(measurement.bins.count[measurement.bins.used].sum()),
        files=files,
    )


def _check(measurement: Measurement, frames: str, depth: np.dtype[Any], filtered: bool) -> None:
    """Refuse what would give a wrong file.

    Raises:
        YoloDynError: saying all that was found.
    """
    bins = measurement.bins
    pixels = bins.count[bins.used].sum()
    if pixels < PIXELS:
        clipped, still = (bins.count[bad].sum() for bad in (bins.clipped, ~bins.visible))
        raise YoloDynError(
            f"{frames}: {pixels} values of the mean frame can be measured, at least {PIXELS} are needed: of"
            f" {bins.count.sum()} in flat areas {clipped} are at an end of the range, and {still} have less noise than"
            f" {depth} shows; take a scene out of focus, a higher ISO or files of 16 bits, without denoising"
        )
    low, high = bins.mean[bins.used].min(), bins.mean[bins.used].max()
    if high < RANGE * low:
        raise YoloDynError(
            f"{frames}: the light goes from {low:.3g} to {high:.3g}, and must go over a factor of {RANGE} at least:"
            " take a scene with dark and bright areas"
        )
    found = [*measurement.movement(), *([] if filtered else measurement.filtering())]
    if found:
        raise YoloDynError(
            f"{frames} is no burst of one scene at rest with the sensor's own noise: {'; '.join(found)}"
            + ("" if filtered else "; filtered=True takes frames that were denoised, for lower bounds")
        )


def draw(measurement: Measurement, found: Calibration, file: Path) -> None:
    """Variance against mean, of each bin, with the line that was fitted: as it is, and with logarithms for the dark."""
    import matplotlib.pyplot as plt

    bins = measurement.bins
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    light = np.geomspace(max(bins.mean.min(), 1e-5), bins.mean.max(), 200)
    dark = found.b * (1 + found.row**2)
    for axis, scale in zip(axes, ("linear", "log"), strict=True):
        for number, name in enumerate(NAMES[int(bins.channel.max()) + 1]):
            for used, style in ((True, {}), (False, {"alpha": 0.25})):
                chosen = (bins.channel == number) & (bins.used == used) & (bins.variance > 0)
                label = name if used else None
                axis.scatter(bins.mean[chosen], bins.variance[chosen], 9, SHOWN[name], label=label, **style)
        axis.plot(light, found.a * light + dark, "k-", linewidth=1, label=f"{found.a:.3g} light + {dark:.2g}")
        axis.set(xlabel="linear light", ylabel="variance", xscale=scale, yscale=scale)
        axis.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)
    axes[0].legend(fontsize=9)
    axes[1].set_title("pale: not in the fit", fontsize=9)
    bound = ", a and b are lower bounds" if found.lower_bound else ""
    figure.suptitle(f"row {found.row:.3f}, R² {found.r2:.4f}, correlation {found.correlation:.3f}{bound}", fontsize=11)
    save(figure, file, "out")
