"""Codecs: what is left of a picture that was compressed, several times as JPEG, or as a key frame of a video."""

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass

import cv2
import numpy as np

from yolo_dyn.errors import YoloDynError
from yolo_dyn.robustness.corruptions.benchmark import UNIT, Benchmark
from yolo_dyn.robustness.corruptions.registry import CORRUPTIONS, GROUPS, SEVERITIES, Corruption, Image

CHAIN = ((95, 444), (75, 420), (50, 420), (30, 420), (30, 420))  # quality and sampling of each generation of a JPEG
SHIFT = 4  # pixels, half a block: a copy that was not moved against the blocks would lose almost nothing
SAMPLINGS = {444: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, 420: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420}
QP = (22.0, 28.0, 33.0, 38.0, 43.0)  # quantisation parameter of H.264 at severities 1 to 5
FFMPEG = "ffmpeg"


def jpeg_chain(image: Image, generations: float, *, bits: np.random.Philox) -> Image:
    """Compress as JPEG that many times, each but the first moved by half a block, as a crop moves it.

    Raises:
        YoloDynError: if the number of generations is not 1, 2, 3, 4 or 5.
    """
    if generations not in range(1, len(CHAIN) + 1):
        raise YoloDynError(f"the strength of jpeg_chain must be 1 to {len(CHAIN)} generations, got {generations:g}")
    for number, (quality, sampling) in enumerate(CHAIN[: int(generations)]):
        shift = SHIFT * (number % 2)
        moved = cv2.copyMakeBorder(image, shift, 0, shift, 0, cv2.BORDER_REPLICATE)
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]]
        _, file = cv2.imencode(".jpg", moved[..., ::-1], options)
        image = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR))[shift:, shift:, ::-1]
    return image


def h264_like(image: Image, qp: float, *, bits: np.random.Philox) -> Image:
    """Emulate a key frame of H.264: quantised 8x8 transforms of luma and halved chroma, and smoothed block edges.

    The quantisation step is that of H.264. Prediction, the 4x4 transform and entropy coding are left out.
    """
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, -height % 16, 0, -width % 16, cv2.BORDER_REPLICATE)
    luma, red, blue = cv2.split(cv2.cvtColor(padded, cv2.COLOR_RGB2YCrCb))
    half = (padded.shape[1] // 2, padded.shape[0] // 2)
    chroma = [_coded(cv2.resize(plane, half, interpolation=cv2.INTER_AREA), qp) for plane in (red, blue)]
    large = [cv2.resize(plane, padded.shape[1::-1], interpolation=cv2.INTER_LINEAR) for plane in chroma]
    decoded = cv2.cvtColor(cv2.merge([_coded(luma, qp), *large]), cv2.COLOR_YCrCb2RGB)
    return np.ascontiguousarray(decoded[:height, :width])


def _coded(plane: np.ndarray, qp: float) -> np.ndarray:
    """Levels, uint8 ``[H, W]`` in whole blocks, after transform, quantisation and deblocking."""
    levels = deblocked(quantised(plane.astype(np.float32) - 128, 2 ** ((qp - 4) / 6)), qp)
    return np.clip(np.rint(levels + 128), 0, 255).astype(np.uint8)


def quantised(plane: np.ndarray, step: float) -> np.ndarray:
    """A plane, float32 ``[H, W]``, of whose 8x8 blocks the orthonormal DCT is in whole steps; small ones become 0."""
    height, width = plane.shape
    down = (_dct() @ plane.reshape(-1, 8, width)).reshape(-1, 8)
    coefficients = (down @ _dct().T).reshape(height // 8, 8, width // 8, 8) / np.float32(step)
    mean = np.rint(coefficients[:, :1, :, :1])
    whole = np.copysign(np.floor(np.abs(coefficients) + np.float32(1 / 3)), coefficients)
    whole[:, :1, :, :1] = mean
    back = (whole.reshape(-1, 8) @ _dct()).reshape(-1, 8, width)
    return (_dct().T @ back).reshape(height, width) * np.float32(step)


@functools.cache
def _dct() -> np.ndarray:
    """The orthonormal DCT of 8 values, float32 ``[frequency, place]``."""
    frequency, place = np.mgrid[:8, :8]
    matrix = np.cos((2 * place + 1) * frequency * np.pi / 16) / 2
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def deblocked(plane: np.ndarray, qp: float) -> np.ndarray:
    """Smooth the edges of 8x8 blocks, float32 ``[H, W]``, where they are no more than quantisation makes them.

    The filter for the weaker kind of edge of List et al. 2003, "Adaptive deblocking filter", and its thresholds.
    """
    alpha, beta, most = 0.8 * (2 ** (qp / 6) - 1), 0.5 * qp - 7, 2 ** ((qp - 4) / 6) / 8
    plane = plane.copy()
    for levels in (plane, plane.T):  # views: of rows, then of columns
        before, last, first, after = levels[6:-8:8], levels[7:-8:8], levels[8::8], levels[9::8]
        even = (np.abs(last - before) < beta) & (np.abs(after - first) < beta) & (np.abs(last - first) < alpha)
        move = np.clip((4 * (first - last) + before - after) / 8, -most, most) * even
        last += move
        first -= move
    return plane


def h264(image: Image, qp: float, *, bits: np.random.Philox) -> Image:
    """Code the image as a key frame of H.264 with ffmpeg's libx264 at that quantisation parameter, and decode it.

    Raises:
        YoloDynError: if ffmpeg fails.
    """
    height, width = image.shape[:2]
    even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    planes = cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420)
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p"]
    size = ["-s", f"{even.shape[1]}x{even.shape[0]}"]
    key_frame = ["-c:v", "libx264", "-qp", f"{round(qp)}", "-x264-params", "ipratio=1", "-f", "h264"]
    stream = _ffmpeg([*raw, *size, "-i", "-", *key_frame, "-"], planes.tobytes())
    decoded = np.frombuffer(_ffmpeg(["-f", "h264", "-i", "-", *raw, "-"], stream), np.uint8)
    if decoded.size != planes.size:
        raise YoloDynError(f"h264: {FFMPEG} gave {decoded.size} bytes of an image of {planes.size}")
    return cv2.cvtColor(decoded.reshape(planes.shape), cv2.COLOR_YUV2RGB_I420)[:height, :width]


def _ffmpeg(words: list[str], content: bytes = b"") -> bytes:
    """What ffmpeg writes, on one thread.

    Raises:
        YoloDynError: if it is not there or fails.
    """
    command = [FFMPEG, "-hide_banner", "-loglevel", "error", "-threads", "1", *words[:-1], "-threads", "1", words[-1]]
    try:
        return subprocess.run(command, input=content, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        raise YoloDynError(f"h264: {FFMPEG} failed: {' '.join(said.decode(errors='replace').split())}") from error


@dataclass(frozen=True)
class WithFFmpeg(Corruption):
    """A corruption that needs ffmpeg with libx264, and is never replaced by its emulation."""

    @property
    def offered(self) -> bool:
        return shutil.which(FFMPEG) is not None

    def resolved(self) -> Corruption:
        version = _libx264(os.environ.get("PATH", ""))
        return Corruption(self.name, self.function, self.strengths, self.unit, version)


@functools.lru_cache(maxsize=2)
def _libx264(path: str) -> str:
    """The version of ffmpeg on that path.

    Raises:
        YoloDynError: if there is none, or none with libx264.
    """
    needs = f"h264 needs {FFMPEG} with libx264 on the PATH"
    if shutil.which(FFMPEG, path=path) is None:
        raise YoloDynError(f"{needs}, and there is no {FFMPEG}; h264_like emulates it")
    if b"libx264 " not in _ffmpeg(["-encoders"]):
        raise YoloDynError(f"{needs}, and the {FFMPEG} there has no libx264; h264_like emulates it")
    return " ".join(_ffmpeg(["-version"]).decode().split()[:3])


for _codec, _function, _parameters in (
    (Corruption, jpeg_chain, SEVERITIES),
    (Corruption, h264_like, QP),
    (WithFFmpeg, h264, QP),
):
    _name = _function.__name__
    _tuples = tuple((float(parameter),) for parameter in _parameters)
    CORRUPTIONS[_name] = _codec(_name, Benchmark(_name, _function, _tuples), SEVERITIES, UNIT)
GROUPS["codec"] = ["jpeg_chain", "h264_like"]  # not h264, which not every installation has
