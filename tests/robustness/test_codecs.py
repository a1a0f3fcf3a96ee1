"""Codecs: chains of JPEG by OpenCV's own codec, the emulated H.264 beside a slow one, and ffmpeg's if there is one."""

import shutil

import cv2
import numpy as np
import pytest
import reference_sensor as reference
from PIL import Image

from yolo_dyn import YoloDynError
from yolo_dyn.robustness import corrupt, known_corruptions
from yolo_dyn.robustness.corruptions import GROUPS, expanded, find
from yolo_dyn.robustness.corruptions.codecs import deblocked, quantised

QP = (22, 28, 33, 38, 43)


def drawing(height: int = 90, width: int = 122) -> np.ndarray:
    """Smooth colours with an edge and some noise: what a codec has to do with."""
    rows, columns = np.mgrid[:height, :width]
    smooth = np.stack([rows * 200 // height, columns * 200 // width, (rows + columns) // 2], 2)
    smooth[height // 3 :, width // 2 :] += 50
    noise = np.random.default_rng(0).normal(0, 4, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / ((one.astype(float) - other) ** 2).mean())


def jpeg(image: np.ndarray, quality: int, sampling: int) -> np.ndarray:
    factor = {444: 0x111111, 420: 0x221111}[sampling]  # as OpenCV documents them
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    return cv2.imdecode(cv2.imencode(".jpg", image, options)[1], cv2.IMREAD_COLOR)


def test_a_chain_of_jpeg_is_one_file_after_the_other():
    image = drawing()
    once = jpeg(image, 95, 444)
    assert np.array_equal(corrupt(image, "jpeg_chain", severity=1), once)
    moved = np.pad(once, ((4, 0), (4, 0), (0, 0)), "edge")
    twice = jpeg(moved, 75, 420)[4:, 4:]
    assert np.array_equal(corrupt(image, "jpeg_chain", severity=2), twice)
    assert np.array_equal(corrupt(image, "jpeg_chain", severity=3), jpeg(twice, 50, 420))


@pytest.mark.parametrize("strength", [0, 2.5, 6])
def test_a_chain_has_a_whole_number_of_generations(strength):
    with pytest.raises(YoloDynError, match=r"of jpeg_chain must be (1 to 5 generations|from 1 to 5), got"):
        corrupt(drawing(), "jpeg_chain", strength=strength)


@pytest.mark.parametrize("qp", QP)
def test_the_transform_is_the_slow_one(qp):
    plane = drawing(48, 64)[..., 1].astype(np.float32) - 128
    step = 2 ** ((qp - 4) / 6)
    fast, slow = quantised(plane, step), reference.quantised(plane, step)
    # a coefficient on the edge of two steps falls on either side, and takes its whole block with it
    assert (np.abs(fast - slow) > 1e-3).mean() <= 0.03
    assert deblocked(plane, qp) == pytest.approx(reference.deblocked(plane, qp), abs=1e-3)
    assert np.abs(deblocked(plane, qp) - plane).max() > 0.1


@pytest.mark.parametrize("name", GROUPS["codec"])
def test_each_severity_is_worse_than_the_one_before(name):
    decibels = [psnr(corrupt(drawing(), name, severity=s), drawing()) for s in range(1, 6)]
    assert decibels == sorted(decibels, reverse=True)
    assert decibels[0] > 30
    assert decibels[-1] < decibels[0] - 4


@pytest.mark.accept
def test_the_strengths_of_the_emulation_on_photos(photos):
    """As they were measured when its thresholds were chosen, within what the smoothing of edges was not laid down."""
    files = sorted((photos / "coco-tiny/images/val2017").iterdir())[:20]
    clean = [np.array(Image.open(file).convert("RGB"))[..., ::-1] for file in files]
    found = [np.mean([psnr(corrupt(image, "h264_like", severity=s), image) for image in clean]) for s in range(1, 6)]
    assert found == pytest.approx([36.6, 33.3, 30.8, 28.1, 25.6], abs=0.2)


@pytest.mark.parametrize("name", GROUPS["codec"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 1), (5, 1, 3), (33, 47, 3), (31, 64, 1)])
def test_images_of_any_size_grey_ones_too(name, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for severity in (1, 5):
        assert corrupt(image, name, severity=severity, name="a").shape == shape
    with pytest.raises(YoloDynError, match=f"{name} takes images of 1 or 3 channels, got 8"):
        corrupt(np.zeros((16, 16, 8), np.uint8), name, severity=1)


def test_a_grey_image_stays_grey():
    """All of its levels, of a codec that keeps them but for rounding."""
    image = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 32, 0)
    assert np.abs(corrupt(image, "h264_like", severity=1).astype(int) - image).max() <= 3


def test_without_ffmpeg_its_codec_is_not_offered_and_never_emulated(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "h264" not in known_corruptions()
    assert "h264_like" in known_corruptions()
    with pytest.raises(YoloDynError, match="h264 needs ffmpeg with libx264 on the PATH, and there is no ffmpeg; h264_"):
        corrupt(drawing(), "h264", severity=3)
    assert [c.name for c in expanded(["codec"])] == ["jpeg_chain", "h264_like"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo ' V..... libx265 H.265'", "and the ffmpeg there has no libx264; h264_like emulates it"),
        ("echo broken library >&2; exit 1", "h264: ffmpeg failed: broken library"),
        ("echo ' V..... libx264 H.264'", r"h264: ffmpeg gave \d+ bytes of an image of \d+"),
    ],
)
def test_an_ffmpeg_that_does_not_serve(monkeypatch, tmp_path, script, message):
    (tmp_path / "ffmpeg").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(YoloDynError, match=message):
        corrupt(drawing(), "h264", severity=3)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on the PATH")
def test_h264_of_ffmpeg():
    image = np.repeat(drawing(95, 121)[..., :1], 3, 2)  # odd sizes; of colours the halving alone costs 35 dB
    found = find("h264")
    assert found.material.startswith("ffmpeg version ")
    coded = [corrupt(image, "h264", severity=s, name="a") for s in range(1, 6)]
    assert np.array_equal(coded[2], corrupt(image, "h264", severity=3, name="b"))
    decibels = [psnr(each, image) for each in coded]
    assert decibels == sorted(decibels, reverse=True)
    for severity, its in enumerate(decibels, 1):
        assert its == pytest.approx(psnr(corrupt(image, "h264_like", severity=severity), image), abs=1.5)
    assert corrupt(image[..., :1], "h264", severity=3).shape == (95, 121, 1)
