"""Sensor noise: the pipeline beside a slow one in float64, its statistics; cameras by severity, ISO, gain and file."""

import hashlib
import math
import pickle
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import reference_sensor as reference
import yaml
from PIL import Image

from yolo_dyn import YoloDynError
from yolo_dyn.robustness import corrupt
from yolo_dyn.robustness.corruptions import GROUPS, bit_generator, find
from yolo_dyn.robustness.corruptions.cameras import read_camera, read_noise
from yolo_dyn.robustness.corruptions.light import from_light, nearest_levels, to_light
from yolo_dyn.robustness.corruptions.sensor import Sensor

SHOT = (6e-4, 1.8e-3, 5e-3, 1.2e-2, 2.2e-2)
MILLISECONDS = 60  # of a corruption of a 640x480 image on one core


def key(number: int = 12345) -> np.random.Philox:
    return np.random.Philox(key=number)


def drawing(height: int = 24, width: int = 31, channels: int = 3) -> np.ndarray:
    """All levels, dark and bright, beside each other."""
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def camera_file(file: Path, **content) -> str:
    file.write_text(yaml.safe_dump({"a": 5e-3, "b": 3.2e-5, **content}))
    return str(file)


# the pipeline


@pytest.mark.parametrize("exposure", [1.0, 0.25])
@pytest.mark.parametrize("tone", [False, True])
@pytest.mark.parametrize("shape", [(24, 31), (7, 8), (1, 5), (6, 1), (2, 2)])
def test_the_mosaic_is_the_slow_one(shape, tone, exposure):
    image = drawing(*shape)
    fast = Sensor(5e-3, 3.2e-5, 0.3, 12, tone=tone).noisy(image, exposure, key()).astype(int)
    slow = reference.sensor_noise(image, 5e-3, 3.2e-5, 0.3, exposure, key(), 12, tone)
    assert np.abs(fast - slow).max() <= 1
    assert (fast != slow).mean() <= 0.01


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("exposure", [1.0, 0.125])
def test_the_simple_pipeline_is_the_slow_one(channels, exposure):
    image = drawing(channels=channels)
    fast = Sensor(5e-3, 3.2e-5, 0.3, 12, "simple").noisy(image, exposure, key()).astype(int)
    slow = reference.simple_noise(image, 5e-3, 3.2e-5, 0.3, exposure, key(), 12)
    assert np.abs(fast - slow).max() <= 1
    assert (fast != slow).mean() <= 0.01


def test_only_three_channels_have_colour_filters():
    for channels in (1, 8):
        image = drawing(channels=channels)
        assert np.array_equal(
            Sensor(5e-3, 3.2e-5).noisy(image, 1, key()), Sensor(5e-3, 3.2e-5, pipeline="simple").noisy(image, 1, key())
        )


def test_red_is_the_last_channel_of_an_image():
    image = drawing()
    bgr = corrupt(image, "sensor_noise", severity=3, name="a")
    function = find("sensor_noise").function
    sensor, exposure = function.at(3)
    rgb = sensor.noisy(np.ascontiguousarray(image[..., ::-1]), exposure, bit_generator(0, "a", "sensor_noise", 3))
    assert np.array_equal(bgr, rgb[..., ::-1])


def test_without_noise_an_image_is_itself():
    for pipeline in ("mosaic", "simple"):
        assert np.array_equal(Sensor(0, 0, pipeline=pipeline).noisy(drawing(), 0.5, key()), drawing())


@pytest.mark.parametrize("transfer", ["srgb", "linear"])
@pytest.mark.parametrize("tone", [False, True])
def test_light_and_back(transfer, tone):
    levels = np.arange(256)
    light = to_light(levels / 255, transfer, tone)
    assert light[[0, -1]] == pytest.approx([0, 1], abs=1e-12)
    assert (np.diff(light) > 0).all()
    assert from_light(light, transfer, tone) * 255 == pytest.approx(levels, abs=1e-3)
    assert np.array_equal(nearest_levels(light.astype(np.float32), transfer, tone), levels)


@pytest.mark.parametrize("pipeline", ["mosaic", "simple"])
@pytest.mark.parametrize("severity", [1, 3])
def test_the_noise_has_no_mean_in_linear_light(pipeline, severity):
    """In the middle of the range, where nothing is clipped."""
    sensor = Sensor(SHOT[severity - 1], read_noise(SHOT[severity - 1]), pipeline=pipeline)
    noisy = np.stack([sensor.noisy(np.full((480, 640, 3), 128, np.uint8), 1, key(n)) for n in range(4)])
    difference = to_light(noisy / 255) - reference.light(128)
    # twice the error of independent values: those of the mosaic are not
    assert np.abs(difference.mean((0, 1, 2))).max() < 8 * difference.std() / (4 * 480 * 640) ** 0.5


@pytest.mark.parametrize("level", [110, 128, 190])  # darker, some of it would be clipped
def test_the_variance_is_a_line_of_the_light(level):
    sensor = Sensor(5e-3, 3.2e-4, 0.5, 16, "simple")
    light = reference.light(level)
    noise = to_light(sensor.noisy(np.full((480, 640, 3), level, np.uint8), 1, key()) / 255) - light
    step = np.gradient(to_light(np.arange(256) / 255))[level]
    expected = 5e-3 * light + 3.2e-4
    inside = noise - noise.mean((1, 2), keepdims=True)
    assert inside.var() - step**2 / 12 == pytest.approx(expected, rel=0.02)
    assert noise.mean((1, 2)).var() == pytest.approx(0.25 * 3.2e-4 + expected / 1920, rel=0.2)  # 480 rows


def test_less_light_is_more_noise():
    """Made as bright again, ``a`` grows with the gain and ``b`` with its square."""
    image, sensor = np.full((300, 400, 3), 128, np.uint8), Sensor(1e-3, 1e-5, 0, 16, "simple")
    noise = to_light(sensor.noisy(image, 1 / 8, key()) / 255) - reference.light(128)
    assert noise.var() == pytest.approx(8e-3 * reference.light(128) + 64e-5, rel=0.02)


def test_the_strengths_of_the_severities_in_grey_levels():
    """Deviation of green on grey 64, as it was measured when the strengths were chosen."""
    grey = np.full((480, 640, 3), 64, np.uint8)
    found = [corrupt(grey, "sensor_noise", severity=s)[..., 1].std() for s in range(1, 6)]
    assert found == pytest.approx([4, 8, 15, 25, 34], abs=0.5)


@pytest.mark.accept
@pytest.mark.parametrize(
    ("pipeline", "decibels"),
    [("mosaic", (33.1, 28.2, 23.7, 19.7, 16.9)), ("simple", (37.6, 32.5, 27.5, 23.2, 20.3))],
)
def test_the_strengths_of_the_severities_on_photos(photos, pipeline, decibels):
    files = sorted((photos / "coco-tiny/images/val2017").iterdir())[:20]
    for a, expected in zip(SHOT, decibels, strict=True):
        sensor, found = Sensor(a, read_noise(a), pipeline=pipeline), []
        for number, file in enumerate(files):
            clean = np.array(Image.open(file).convert("RGB"))
            difference = sensor.noisy(clean, 1, key(number)).astype(float) - clean
            found.append(10 * math.log10(255**2 / (difference**2).mean()))
        assert np.mean(found) == pytest.approx(expected, abs=0.1)


# as corruptions


@pytest.mark.parametrize("name", GROUPS["sensor"])
def test_each_severity_is_worse_than_the_one_before(name):
    image = cv2.resize(drawing(12, 16), (320, 240), interpolation=cv2.INTER_CUBIC)
    distance = [np.abs(corrupt(image, name, severity=s, name="a").astype(int) - image).mean() for s in range(1, 6)]
    assert distance == sorted(distance)
    assert distance[0] > 0.5


@pytest.mark.parametrize("name", GROUPS["sensor"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 1), (5, 1, 3), (33, 47, 3), (31, 64, 1), (20, 30, 8)])
def test_images_of_any_size_and_number_of_channels(name, shape):
    image = drawing(*shape)
    before = image.copy()
    for severity in (1, 5):
        assert corrupt(image, name, severity=severity, name="a").shape == shape
    assert np.array_equal(image, before)


PIXELS = """
import hashlib, sys
import cv2, numpy as np
from yolo_dyn.robustness import corrupt
cv2.setNumThreads(3)
image = np.load(sys.argv[1])
for name in sys.argv[2:]:
    print(name, hashlib.sha256(corrupt(image, name, severity=4, seed=7, name="000001.jpg").tobytes()).hexdigest()[:16])
"""


def test_another_process_sees_the_same_pixels(tmp_path):
    image = drawing(61, 83)
    np.save(tmp_path / "image.npy", image)
    names = [*GROUPS["sensor"], *GROUPS["codec"], f"sensor_noise:{camera_file(tmp_path / 'camera.yaml')}"]
    command = [sys.executable, "-c", PIXELS, str(tmp_path / "image.npy"), *reversed(names)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    there = dict(line.split() for line in done.stdout.splitlines())
    assert there == {name: digest(corrupt(image, name, severity=4, seed=7, name="000001.jpg")) for name in names}


@pytest.mark.accept
@pytest.mark.parametrize("name", [*GROUPS["sensor"], *GROUPS["codec"]])
def test_no_corruption_takes_longer_than_the_reading_of_an_image_allows(name):
    """Time of the process itself, so that a busy machine counts less; the best of some, at each severity."""
    image = cv2.resize(drawing(), (640, 480), interpolation=cv2.INTER_CUBIC)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for severity in range(1, 6):
            corrupt(image, name, severity=severity)  # makes its tables
            times = []
            for number in range(5):
                start = time.process_time()
                corrupt(image, name, severity=severity, name=str(number))
                times.append(1e3 * (time.process_time() - start))
            assert min(times) < MILLISECONDS, severity
    finally:
        cv2.setNumThreads(threads)


def test_strengths_between_severities_and_of_cameras():
    at = find("sensor_noise").function.at
    assert at(2.5)[0].a == pytest.approx((1.8e-3 + 5e-3) / 2)
    assert at(5) == (Sensor(2.2e-2, math.exp(2.18 * math.log(2.2e-2) + 1.2)), 1)
    sensor, exposure = find("low_light").function.at(4)
    assert (sensor.a, exposure) == (6e-4, 0.25)
    phone = find("sensor_noise_phone").function.at(1000)[0]
    assert (phone.a, phone.b) == pytest.approx((1.6e-3, read_noise(1.6e-3)))
    full = find("sensor_noise_full_frame").function.at(6400)[0]
    gain = 15583 * 2.7e-7 * 6400
    assert (full.a, full.b) == pytest.approx((2.7e-7 * 6400, (math.exp(0.563 * math.log(gain) + 0.8) / 15583) ** 2))


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        ("sensor_noise", 5.5, "the severity of sensor_noise must be from 1 to 5, got 5.5"),
        ("low_light", 0, "the gain of a sensor must be above 0 and at most 1024, got 0"),
        ("sensor_noise_phone", 1e9, r"must be an ISO above 0 and at most 409600, got 1e\+09"),
        ("fog:camera.yaml", 3, "fog takes no file of parameters, got fog:camera.yaml"),
        ("sensor_nois:camera.yaml", 3, "unknown corruption 'sensor_nois'; did you mean 'sensor_noise'"),
        ("sensor_noise:nowhere.yaml", 3, "sensor_noise:nowhere.yaml: the file of a camera's parameters does not exist"),
    ],
)
def test_bad_strengths_and_names(name, strength, message):
    with pytest.raises(YoloDynError, match=message):
        corrupt(drawing(), name, strength=strength)


# files of cameras


def test_a_file_gives_its_own_noise(tmp_path):
    file = camera_file(tmp_path / "camera.yaml", row=0.2, pipeline="simple", bits=16, exposure=[1, 0.5, 0.2, 0.1, 0.05])
    sensor, gains = read_camera(Path(file))
    assert sensor == Sensor(5e-3, 3.2e-5, 0.2, 16, "simple")
    assert gains == pytest.approx((1, 2, 5, 10, 20))
    found = find(f"sensor_noise:{file}")
    assert found.at(3) == pytest.approx(5)
    travelled = pickle.loads(pickle.dumps(found))
    assert np.array_equal(travelled.apply(drawing(), 2, 0, "a"), found.apply(drawing(), 2, 0, "a"))
    assert travelled.material == found.material
    image = drawing()
    by_severity = corrupt(image, f"sensor_noise:{file}", severity=2, name="a")
    assert np.array_equal(by_severity, corrupt(image, f"sensor_noise:{file}", strength=2, name="a"))
    elsewhere = camera_file(tmp_path / "other.yaml", row=0.2, pipeline="simple", bits=16)
    assert np.array_equal(by_severity, corrupt(image, f"sensor_noise:{elsewhere}", severity=2, name="a"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 0.1", "the key 'b' is missing; noise-calibrate writes it"),
        ("a: 0.1\nb: much", "camera.yaml: b must be a number, got 'much'"),
        ("a: 2\nb: 0", "camera.yaml: a must be from 0 to 1, got 2"),
        ("a: .nan\nb: 0", "camera.yaml: a must be from 0 to 1, got nan"),
        ("a: 0.1\nb: 0\nbits: 4", "camera.yaml: bits must be from 8 to 16, got 4"),
        ("a: 0.1\nb: 0\npipelin: simple", r"unknown key 'pipelin'; did you mean 'pipeline'\? \(keys: a, b, row, bits"),
        ("a: 0.1\nb: 0\npipeline: mosiac", "pipeline must be one of mosaic, simple, got 'mosiac'"),
        ("a: 0.1\nb: 0\ntransfer: [srgb]", r"transfer must be one of srgb, linear, got \['srgb'\]"),
        ("a: 0.1\nb: 0\ntone: 1", "camera.yaml: tone must be True or False, got 1"),
        ("a: 0.1\nb: 0\nexposure: [1, 0.5]", r"exposure must be five shares of the light.*got \[1, 0.5\]"),
        ("a: 0.1\nb: 0\nexposure: [1, 0.5, 0.2, 0.1, 0]", "exposure must be five shares of the light"),
        ("- a", "camera.yaml is no YAML of a camera: it must map keys"),
        ("a: [", "camera.yaml is no YAML of a camera: while parsing"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "camera.yaml").write_text(text)
    with pytest.raises(YoloDynError, match=message):
        find(f"sensor_noise:{tmp_path / 'camera.yaml'}")
