"""Bursts: frames of one scene that does not move, as files of what the camera measured."""

from pathlib import Path

import cv2
import numpy as np

from yolo_dyn.errors import MissingFileError, YoloDynError

LOSSLESS = (".png", ".tif", ".tiff")
COMPRESSED = (".jpg", ".jpeg", ".webp", ".avif", ".heic", ".jp2", ".mp4", ".mov", ".avi", ".mkv")
LOSSY = ("jpeg", "tiff_jpeg", "webp")  # as Pillow calls them inside of TIFF
RAW = (".dng", ".arw", ".cr2", ".cr3", ".nef", ".raf", ".rw2", ".orf")
LEAST = 16  # frames
MOST = 2**27  # values of a burst in memory
STEADY = 0.05  # of the brightness, by which a frame may differ


def read_burst(folder: Path) -> np.ndarray:
    """Frames of a folder, uint8 or uint16 ``[N, H, W, C]`` in RGB or grey; of large ones the rows in the middle.

    Raises:
        YoloDynError: if there are too few, or one cannot be used: it is named, and what is accepted.
    """
    files = _files(folder)
    first = _read(files[0])
    height, width, channels = first.shape
    rows = min(height, max(1, MOST // (len(files) * width * channels)))
    top = (height - rows) // 2
    frames = np.empty((len(files), rows, width, channels), first.dtype)
    for frame, file in zip(frames, files, strict=True):
        image = _read(file)
        if image.shape != first.shape or image.dtype != first.dtype:
            raise YoloDynError(
                f"{file} is {_described(image)}, and {files[0]} is {_described(first)}; frames must be of one size,"
                " depth and number of channels"
            )
        frame[:] = image[top : top + rows]
    _check_brightness(frames, files)
    return frames


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise MissingFileError(f"frames must be a folder of frames, got {str(folder)!r}, which is none")
    entries = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    for file in entries:
        if file.suffix.lower() in COMPRESSED:
            raise YoloDynError(
                f"{file} is compressed, which takes noise away; accepted are frames that are not, as {_accepted()}"
            )
        if file.suffix.lower() in RAW:
            raise YoloDynError(
                f"{file} is a camera's raw file; accepted are {_accepted()}: develop it without denoising, linear and"
                " with 16 bits, and give transfer=linear"
            )
    files = [file for file in entries if file.suffix.lower() in LOSSLESS]
    if len(files) < LEAST:
        raise YoloDynError(f"{folder} holds {len(files)} frames ({_accepted()}); at least {LEAST} are needed")
    return files


def _accepted() -> str:
    return ", ".join(LOSSLESS)


def _read(file: Path) -> np.ndarray:
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise YoloDynError(f"{file} is no picture that OpenCV reads; accepted are {_accepted()}")
    compression = _compression(file)
    if compression in LOSSY:
        raise YoloDynError(f"{file} is a TIFF compressed as {compression}, which takes noise away")
    image = image[..., None] if image.ndim == 2 else image
    if image.dtype not in (np.uint8, np.uint16) or image.shape[2] not in (1, 3):
        raise YoloDynError(f"{file} is {_described(image)}; accepted are 8 or 16 bits, 1 or 3 channels")
    return image[..., ::-1]


def _compression(file: Path) -> str:
    """What a TIFF says of its compression, if Pillow reads it."""
    from PIL import Image

    try:
        with Image.open(file) as header:
            return str(header.info.get("compression", ""))
    except Exception:  # Ultralytics has it try other libraries, which may be missing
        return ""


def _described(image: np.ndarray) -> str:
    height, width, channels = image.shape
    return f"{width}x{height} of {channels} channel{'s'[: channels > 1]}, {image.dtype}"


def _check_brightness(frames: np.ndarray, files: list[Path]) -> None:
    """Refuse frames of which one is brighter than the others, or all are the same file."""
    brightness = np.array([frame.mean(dtype=np.float64) for frame in frames])
    off = brightness / max(np.median(brightness), 1e-9) - 1
    worst = int(np.abs(off).argmax())
    if abs(off[worst]) > STEADY:
        raise YoloDynError(
            f"{files[worst]} is {abs(off[worst]):.0%} {'brighter' if off[worst] > 0 else 'darker'} than the other"
            f" frames; exposure must be fixed, within {STEADY:.0%}"
        )
    for file, frame in zip(files[1:], frames[1:], strict=True):
        if np.array_equal(frame, frames[0]):
            raise YoloDynError(f"{file} has the pixels of {files[0]}: frames must be taken one by one, not copied")
