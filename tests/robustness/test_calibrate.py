"""Noise calibration: the noise of simulated bursts comes out, and what is no burst of a camera's noise is refused."""

import cv2
import numpy as np
import pytest
import yaml

from yolo_dyn import YoloDynError, cli
from yolo_dyn.robustness import corrupt
from yolo_dyn.robustness.calibration.calibrate import Calibration, noise_calibrate
from yolo_dyn.robustness.calibration.photon_transfer import fitted

A, ROW = 5e-3, 0.15
SIZE = (240, 320)


def dark_variance(a: float) -> float:
    return float(np.exp(2.18 * np.log(a) + 1.2))


def chart(seed: int = 0, height: int = 480, width: int = 640, darkest: float = 5e-4) -> np.ndarray:
    """Linear light of flat patches, from dark to bright."""
    rng = np.random.default_rng(seed)
    patches = np.exp(rng.uniform(np.log(darkest), np.log(0.8), (height // 40, width // 40, 3)))
    return np.repeat(np.repeat(patches, 40, 0), 40, 1)


def encoded(light: np.ndarray, most: int = 255) -> np.ndarray:
    light = light.clip(0, 1)
    share = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(most * share).astype(np.uint8 if most == 255 else np.uint16)


def exposed(light: np.ndarray, rng: np.random.Generator, a: float = A, row: float = ROW) -> np.ndarray:
    """One noisy frame, still in linear light."""
    b = dark_variance(a)
    offsets = row * b**0.5 * rng.standard_normal((light.shape[0], 1, 1))
    return light + np.sqrt(a * light + b) * rng.standard_normal(light.shape) + offsets


def burst(light: np.ndarray, count: int = 16, seed: int = 0, **noise) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [encoded(exposed(light, rng, **noise)) for _ in range(count)]


def written(folder, frames, ending=".png"):
    folder.mkdir()
    for number, frame in enumerate(frames):
        assert cv2.imwrite(str(folder / f"{number:02}{ending}"), frame[..., ::-1])
    return str(folder)


def calibrated(tmp_path, frames, **arguments) -> Calibration:
    return noise_calibrate(written(tmp_path / "frames", frames), out=str(tmp_path / "camera.yaml"), **arguments)


# what is recovered


@pytest.mark.accept
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("a", [6e-4, 1.8e-3, 5e-3, 1.2e-2])
def test_the_noise_of_a_simulated_burst_is_recovered(tmp_path, a, seed):
    found = calibrated(tmp_path, burst(chart(seed), seed=seed, a=a))
    assert found.a == pytest.approx(a, rel=0.02)
    assert found.b == pytest.approx(dark_variance(a), rel=0.25)
    assert found.row == pytest.approx(ROW, rel=0.2)


def test_the_noise_of_a_small_burst_and_what_goes_with_it(tmp_path):
    a = 1.8e-3
    found = calibrated(tmp_path, burst(chart(0, *SIZE), a=a))
    assert found.a == pytest.approx(a, rel=0.02)
    assert found.b == pytest.approx(dark_variance(a), rel=0.25)
    assert found.row == pytest.approx(ROW, rel=0.2)
    assert found.r2 > 0.99
    assert abs(found.correlation) < 0.02
    assert not found.lower_bound
    assert (found.frames, found.height, found.width) == (16, *SIZE)


def test_a_bright_scene_whose_pixels_differ_little_more_than_their_noise(tmp_path):
    """Its brightest pixels are those with the highest noise, too: sorted by all frames they would flatten the line."""
    fine = cv2.GaussianBlur(np.random.default_rng(0).standard_normal((480, 640, 3)), (0, 0), 3)
    light = (0.35 + 0.03 * fine / fine.std()).clip(0.2, 0.5)
    light[:24] *= 0.25
    found = calibrated(tmp_path, burst(light))
    assert found.a == pytest.approx(A, rel=0.005)
    assert found.b == pytest.approx(dark_variance(A), rel=0.25)


def test_linear_frames_of_16_bits_grey_ones_too(tmp_path):
    rng, light = np.random.default_rng(0), chart(0, *SIZE)[..., :1]
    frames = [np.rint(65535 * exposed(light, rng).clip(0, 1)).astype(np.uint16) for _ in range(20)]
    found = noise_calibrate(
        written(tmp_path / "frames", frames, ".tiff"), transfer="linear", out=str(tmp_path / "x.yaml")
    )
    assert found.a == pytest.approx(A, rel=0.02)
    assert found.b == pytest.approx(dark_variance(A), rel=0.25)


def test_the_file_makes_the_same_noise_again(tmp_path):
    """A clean picture, corrupted under as many names, is a burst with the noise that was measured."""
    first = calibrated(tmp_path, burst(chart(0, *SIZE)))
    content = yaml.safe_load((tmp_path / "camera.yaml").read_text())
    assert (content["a"], content["b"], content["row"]) == (first.a, first.b, first.row)
    name = f"sensor_noise:{tmp_path / 'camera.yaml'}"
    clean = encoded(chart(1, *SIZE))
    frames = [corrupt(clean, name, severity=1, name=str(number)) for number in range(16)]
    again = noise_calibrate(written(tmp_path / "again", frames), out=str(tmp_path / "again.yaml"))
    assert again.a == pytest.approx(first.a, rel=0.02)
    assert again.b == pytest.approx(first.b, rel=0.25)
    assert again.row == pytest.approx(first.row, rel=0.2)
    assert cv2.imread(str(tmp_path / "camera.png")).std() > 10


def test_the_fit_is_that_of_least_squares():
    mean = np.linspace(0.01, 1, 50)
    fit = fitted(mean, 3e-3 * mean + 2e-5)
    assert (fit.a, fit.b, fit.r2) == pytest.approx((3e-3, 2e-5, 1), rel=1e-6)
    assert fit.b_error < 1e-9
    below = fitted(mean, 3e-3 * mean - 1e-5)
    assert below.b == 0
    assert below.a == pytest.approx((mean * (3e-3 * mean - 1e-5) / mean**2).mean(), rel=0.01)  # weights 1 / mean^2


# what is refused


def blurred(frame: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(frame, (0, 0), 0.5)


def through_jpeg(frame: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    ("denoise", "message"),
    [
        (blurred, r"neighbouring pixels have a correlation of 0\.\d+ \(at most 0.1\): denoised or demosaiced"),
        (lambda frame: cv2.medianBlur(frame, 3), "neighbouring pixels have a correlation"),
        (lambda frame: cv2.bilateralFilter(frame, 5, 10, 1.5), "an excess kurtosis of .*: denoised at edges"),
        (through_jpeg, r"the variance is no line of the mean, R\^2 0\.\d+ .*: denoised or compressed"),
    ],
)
def test_denoised_frames_are_refused(tmp_path, denoise, message):
    frames = [denoise(frame) for frame in burst(chart(0, *SIZE))]
    with pytest.raises(YoloDynError, match=f"is no burst of one scene at rest.*{message}.*filtered=True takes"):
        calibrated(tmp_path, frames)
    assert not (tmp_path / "camera.yaml").exists()


def test_frames_denoised_over_time_are_refused(tmp_path):
    rng, light = np.random.default_rng(0), chart(0, *SIZE)
    kept, frames = exposed(light, rng), []
    for _ in range(16):
        kept = 0.6 * exposed(light, rng) + 0.4 * kept
        frames.append(encoded(kept))
    with pytest.raises(YoloDynError, match=r"successive frames have a correlation of 0\.\d+ .*: denoised over time"):
        calibrated(tmp_path, frames)


def test_denoised_frames_give_lower_bounds_if_asked_for(tmp_path):
    found = calibrated(tmp_path, [blurred(frame) for frame in burst(chart(0, *SIZE))], filtered=True)
    assert found.lower_bound
    assert found.a < 0.8 * A
    assert "a    at least 0.00" in str(found)
    assert yaml.safe_load((tmp_path / "camera.yaml").read_text())["measured"]["lower_bound"] is True


@pytest.mark.parametrize("filtered", [False, True])
def test_a_trembling_camera_is_refused(tmp_path, filtered):
    """A quarter of a pixel, up and down and to the sides."""
    rng, light = np.random.default_rng(0), chart(0, *SIZE)

    def moved() -> np.ndarray:
        shift = np.float32([[1, 0, 0.25 * rng.standard_normal()], [0, 1, 0.25 * rng.standard_normal()]])
        return cv2.warpAffine(light, shift, SIZE[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    frames = [encoded(exposed(moved(), rng, a=6e-4)) for _ in range(16)]
    with pytest.raises(YoloDynError, match=r"\d% of the pixels change by more than noise \(at most 0.5%\): something"):
        calibrated(tmp_path, frames, filtered=filtered)


def test_a_camera_that_moves_over_a_smooth_scene_is_refused(tmp_path):
    rng, light = np.random.default_rng(0), cv2.GaussianBlur(chart(), (0, 0), 12)
    shifts = (1.5 * rng.standard_normal(16)).round().astype(int)
    frames = [encoded(exposed(np.roll(light, shift, 1), rng, a=6e-4)) for shift in shifts]
    with pytest.raises(YoloDynError, match=r"times as large where the picture is steeper .*: the camera moves"):
        calibrated(tmp_path, frames)


def test_a_passing_object_is_refused(tmp_path):
    light = chart(0, *SIZE)
    frames = burst(light)
    passing = light.copy()
    passing[100:130, 100:140] = 0.4
    frames[5:7] = [encoded(exposed(passing, np.random.default_rng(n))) for n in (5, 6)]
    with pytest.raises(YoloDynError, match="of the pixels change by more than noise"):
        calibrated(tmp_path, frames)


def test_scenes_that_tell_nothing_are_refused(tmp_path):
    quiet = [encoded(chart(0, *SIZE)) for _ in range(16)]
    for number, frame in enumerate(quiet):
        frame[0, 0] = number
    with pytest.raises(YoloDynError, match=r": \d+ values of the mean frame can be measured, at least 5000 are needed"):
        calibrated(tmp_path, quiet)
    even = np.full((*SIZE, 3), 0.3) * np.linspace(0.9, 1.1, SIZE[1])[:, None]
    with pytest.raises(YoloDynError, match=r"the light goes from 0.2\d+ to 0.3\d+, and must go over a factor of 3"):
        noise_calibrate(written(tmp_path / "even", burst(even)), out=str(tmp_path / "camera.yaml"))


SMALL = np.random.default_rng(0).integers(90, 110, (17, 8, 10, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: (f / "16.png").rename(f / "16.txt") and (f / "15.png").unlink(),
            "holds 15 frames .*at least 16 are",
        ),
        (
            lambda f: cv2.imwrite(str(f / "16.png"), SMALL[0][:6]),
            r"16.png is 10x6 of 3 channels, uint8, and .*00.png is",
        ),
        (lambda f: cv2.imwrite(str(f / "16.png"), SMALL[0].astype(np.uint16)), "16.png is 10x8 of 3 channels, uint16"),
        (lambda f: cv2.imwrite(str(f / "16.png"), SMALL[0][..., 0]), "16.png is 10x8 of 1 channel, uint8, and"),
        (lambda f: cv2.imwrite(str(f / "16.jpg"), SMALL[0]), "16.jpg is compressed, which takes noise away; accepted"),
        (lambda f: (f / "16.DNG").write_bytes(b"x"), "16.DNG is a camera's raw file; accepted are .png, .tif, .tiff"),
        (lambda f: (f / "16.png").write_bytes(b"x"), "16.png is no picture that OpenCV reads; accepted are .png"),
        (
            lambda f: cv2.imwrite(str(f / "00.png"), np.zeros((8, 10, 4), np.uint8)),
            "00.png is 10x8 of 4 channels, uint8;",
        ),
        (
            lambda f: cv2.imwrite(str(f / "16.png"), SMALL[16] + 20),
            r"16.png is \d+% brighter than the other frames; exp",
        ),
        (lambda f: cv2.imwrite(str(f / "16.png"), SMALL[0]), "16.png has the pixels of .*00.png: frames must be taken"),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, message):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(SMALL):
        cv2.imwrite(str(folder / f"{number:02}.png"), frame)
    change(folder)
    with pytest.raises(YoloDynError, match=message):
        noise_calibrate(str(folder), out=str(tmp_path / "camera.yaml"))


def test_a_tiff_with_jpeg_inside_is_refused(tmp_path):
    from PIL import Image

    for number, frame in enumerate(SMALL):
        Image.fromarray(frame).save(tmp_path / f"{number}.tif", compression="jpeg")
    with pytest.raises(YoloDynError, match=r"0\.tif is a TIFF compressed as jpeg, which takes noise away"):
        noise_calibrate(str(tmp_path), out=str(tmp_path / "camera.yaml"))


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "frames", burst(chart(0, *SIZE)))
    assert cli.main(["noise-calibrate", "frames"]) == 0
    said = capsys.readouterr().out
    for word in (
        "16 frames of 320x240",
        "a    0.00",
        "b    ",
        "row  0.1",
        "R^2 0.99",
        "correlation with the next pixel",
    ):
        assert word in said
    assert said.endswith("written to camera.yaml, camera.png\n")
    for words, message in (
        (["frames"], "camera.yaml exists; exist_ok=True replaces it, out=... writes another"),
        (["frames", "transfer=gamma", "out=x.yaml"], "transfer must be one of srgb, linear, got 'gamma'"),
        (["nowhere", "out=x.yaml"], "frames must be a folder of frames, got 'nowhere', which is none"),
        (["out=x.yaml"], "missing key 'frames'; for example: yolo-dyn noise-calibrate frames/ out=camera.yaml"),
    ):
        assert cli.main(["noise-calibrate", *words]) == 2
        assert capsys.readouterr().err == f"yolo-dyn: error: {message}\n"
