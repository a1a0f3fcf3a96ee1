"""Corruptions: the same pixels everywhere, with the statistics that they promise."""

import hashlib
import pickle
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from scipy import stats

from yolo_dyn import YoloDynError
from yolo_dyn.robustness import corrupt, known_corruptions, register_corruption
from yolo_dyn.robustness.corruptions import (
    CORRUPTIONS,
    GROUPS,
    SIGMA,
    bit_generator,
    expanded,
    find,
    gaussian_noise_values,
    normal_quantiles,
    uniform16,
)
from yolo_dyn.robustness.corruptions.frost import FREQUENCIES, LEVELS, TEXTURES, VARIABLE, drawn
from yolo_dyn.robustness.corruptions.noises import poisson_levels

OURS = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "contrast")  # of any number of channels
GREY = np.full((480, 640, 3), 128, np.uint8)


def picture(height: int = 64, width: int = 48) -> np.ndarray:
    """Smooth colours, every level of grey somewhere."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], 2).astype(np.uint8)


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def test_the_noise_is_the_same_on_every_machine():
    """These figures were printed once; a library that changes them changes every published score."""
    assert digest(corrupt(picture(), sigma=45.9, name="000001.jpg")) == "774862399b79cefd"
    assert bit_generator(0, "000001.jpg", "gaussian_noise", 25).random_raw(2).tolist() == [
        16074782378128424119,
        11301518476570136584,
    ]
    assert digest(normal_quantiles()) == "1cfbba1e07e34386"
    noisy = {name: digest(corrupt(picture(), name, severity=3, name="000001.jpg")) for name in OURS}
    assert noisy == {
        "gaussian_noise": "92e3bdd962cc2161",
        "shot_noise": "9970467ea70a6e35",
        "impulse_noise": "ea59d90033833043",
        "speckle_noise": "a19baf1d192fb170",
        "contrast": "f6fd08eba0d40400",
    }


def test_a_fresh_process_sees_the_same_pixels():
    code = """
import hashlib, numpy as np
from yolo_dyn.robustness import corrupt
image = np.full((40, 30, 3), 128, np.uint8)
print(hashlib.sha256(corrupt(image, sigma=25, name="a.jpg").tobytes()).hexdigest()[:16])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == digest(corrupt(np.full((40, 30, 3), 128, np.uint8), sigma=25, name="a.jpg"))


@pytest.mark.parametrize("name", known_corruptions())
@pytest.mark.parametrize("severity", [1, 5])
def test_a_pure_function_that_keeps_shape_and_input(name, severity):
    image = picture()
    before = image.copy()
    first = corrupt(image, name, severity=severity, name="a.jpg")
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert not np.array_equal(first, image)
    assert np.array_equal(image, before)
    corrupt(image, name, severity=severity, name="b.jpg")
    assert np.array_equal(corrupt(image, name, severity=severity, name="a.jpg"), first)


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"])
def test_seed_name_strength_and_corruption_each_change_the_noise(name):
    image, arguments = picture(), {"severity": 3, "name": "a"}
    first = corrupt(image, name, **arguments)
    assert not np.array_equal(corrupt(image, name, **{**arguments, "name": "b"}), first)
    assert not np.array_equal(corrupt(image, name, **arguments, seed=1), first)
    assert not np.array_equal(corrupt(image, name, strength=3.001, name="a"), first)


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "speckle_noise", "brightness", "contrast"])
def test_each_severity_is_worse_than_the_one_before(name):
    image = picture(120, 160)
    distance = [np.abs(corrupt(image, name, severity=s, name="a").astype(int) - image).mean() for s in range(1, 6)]
    assert distance == sorted(distance)
    assert distance[0] > 0


@pytest.mark.parametrize("sigma", [5, 10, 20, 25])
def test_gaussian_noise_has_the_statistics_of_gaussian_noise(sigma):
    """Over unclipped pixels, on average over ten images."""
    images = [corrupt(GREY, sigma=sigma, name=f"{i}.jpg").astype(float) - 128 for i in range(10)]
    values = np.stack(images)
    assert abs(values.std() / sigma - 1) < 0.01
    assert abs(values.mean()) < 0.1
    assert abs(stats.kurtosis(values, axis=None)) < 0.1
    pairs = {
        "right": (values[:, :, 1:], values[:, :, :-1]),
        "below": (values[:, 1:], values[:, :-1]),
        "channels": (values[..., :1], values[..., 1:2]),
        "images": (values[:5], values[5:]),
    }
    for name, (a, b) in pairs.items():
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.01, name


def test_gaussian_noise_is_added_rounded_and_clipped():
    noise = gaussian_noise_values(picture().shape, 40, bit_generator(0, "a", "gaussian_noise", 40))
    expected = np.clip(picture().astype(int) + noise, 0, 255)
    assert np.array_equal(corrupt(picture(), sigma=40, name="a"), expected)


def test_severities_of_gaussian_noise_are_cut_off_as_the_field_has_it_and_sigma_is_rounded():
    for severity, share in enumerate((0.08, 0.12, 0.18, 0.26, 0.38), 1):
        by_severity = corrupt(GREY, severity=severity, name="a").astype(float)
        bits = bit_generator(0, "a", "gaussian_noise", severity)
        exact = 128 + 255 * share * normal_quantiles()[uniform16(bits, GREY.shape)].astype(float)
        assert np.array_equal(by_severity[..., ::-1], np.floor(exact).clip(0, 255))  # drawn for RGB
        rounded = corrupt(GREY, sigma=255 * share, name="a").astype(float)
        assert by_severity.mean() - rounded.mean() == pytest.approx(-0.5, abs=0.2)
        assert SIGMA.at(severity) == 255 * share


def test_sigma_0_is_the_image_itself():
    assert corrupt(GREY, sigma=0) is GREY


def test_shot_noise_is_poisson():
    image = np.full((400, 400, 3), 128, np.uint8)
    counts = np.rint(corrupt(image, "shot_noise", severity=1, name="a") / 255 * 60)
    assert counts.mean() == pytest.approx(128 / 255 * 60, rel=0.01)
    assert counts.var() == pytest.approx(128 / 255 * 60, rel=0.02)


def test_impulse_noise_sets_the_share_it_says():
    noisy = corrupt(np.full((400, 400, 3), 128, np.uint8), "impulse_noise", severity=3, name="a")
    assert (noisy == 0).mean() == pytest.approx(0.045, rel=0.03)
    assert (noisy == 255).mean() == pytest.approx(0.045, rel=0.03)


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 1), (8, 8, 4)])
def test_any_size_and_number_of_channels(shape):
    image = np.full(shape, 100, np.uint8)
    for name in OURS:
        assert corrupt(image, name, severity=3, name="a").shape == shape


def test_uniform_numbers_are_uniform():
    counts = np.bincount(uniform16(bit_generator(0, "a", "b", 1), (2**20,)) >> 8, minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.fixture
def registered():
    with mock.patch.dict(CORRUPTIONS):
        yield


def test_a_corruption_of_ones_own(registered):
    @register_corruption("darkness", (0.8, 0.6, 0.4, 0.2, 0.1))
    def darkness(image, strength, bits):
        return (image * strength).astype(np.uint8)

    assert corrupt(GREY, "darkness", severity=5).max() == 12
    with pytest.raises(YoloDynError, match="'darkness' is registered already"):
        register_corruption("darkness", (1, 2, 3, 4, 5))
    with pytest.raises(YoloDynError, match="strengths must be five, one a severity"):
        register_corruption("light", (1, 2))

    @register_corruption("halving", (1, 1, 1, 1, 1))
    def halving(image, strength, bits):
        return image[::2]

    with pytest.raises(YoloDynError, match="'halving' must keep shape and type"):
        corrupt(GREY, "halving", severity=1)


@pytest.mark.parametrize(
    ("image", "arguments", "message"),
    [
        (GREY, {}, "give one of sigma, severity and strength, got 0"),
        (GREY, {"sigma": 1, "severity": 1}, "give one of sigma, severity and strength, got 2"),
        (GREY, {"severity": 6}, "severity must be one of 1, 2, 3, 4, 5, got 6"),
        (GREY, {"severity": 0}, "severity must be one of 1, 2, 3, 4, 5, got 0"),
        (GREY, {"severity": "a"}, "severity must be one of 1, 2, 3, 4, 5, got 'a'"),
        (GREY, {"severity": True}, "severity must be one of 1, 2, 3, 4, 5, got True"),
        (GREY, {"strength": 25}, "the severity of gaussian_noise must be from 1 to 5, got 25"),
        (GREY, {"corruption": "cococ", "severity": 1}, "'cococ' stands for several corruptions: gaussian_noise, shot"),
        (
            np.zeros((8, 8, 4), np.uint8),
            {"corruption": "fog", "severity": 1},
            "fog takes images of 1 or 3 channels, got 4",
        ),
        (np.zeros((0, 8, 3), np.uint8), {"severity": 1}, r"must be uint8 \[H, W, C\], got uint8 \[0, 8, 3\]"),
        (GREY, {"sigma": -1}, "the strength of gaussian_noise must be at least 0, got -1"),
        (GREY, {"corruption": "fog", "sigma": 1}, "sigma is the strength of gaussian_noise; fog takes severity"),
        (
            GREY,
            {"corruption": "gausian_noise", "sigma": 1},
            "unknown corruption 'gausian_noise'; did you mean 'gaussian",
        ),
        (GREY.astype(float), {"sigma": 1, "name": "a.jpg"}, r"image 'a.jpg' must be uint8 \[H, W, C\], got float64"),
        (GREY[..., 0], {"sigma": 1}, r"must be uint8 \[H, W, C\], got uint8 \[480, 640\]"),
    ],
)
def test_bad_input(image, arguments, message):
    with pytest.raises(YoloDynError, match=message):
        corrupt(image, **arguments)


def test_a_declared_corruption_is_imported_at_first_use(monkeypatch, tmp_path):
    from importlib.metadata import EntryPoint

    from yolo_dyn.robustness.corruptions import ENTRY_POINT_GROUP, registry

    module = tmp_path / "declared_corruption.py"
    module.write_text(
        "from yolo_dyn.robustness import register_corruption\n"
        "@register_corruption('inverted', (1, 1, 1, 1, 1))\n"
        "def inverted(image, strength, bits):\n    return 255 - image\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("inverted", "declared_corruption:inverted", ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group, name=None: [point] if group == ENTRY_POINT_GROUP and name in (None, "inverted") else [],
    )
    assert "inverted" in known_corruptions()
    image = np.full((4, 5, 3), 5, np.uint8)
    assert (corrupt(image, "inverted", severity=1) == 250).all()


def test_corruptions_travel_to_other_processes():
    for name in known_corruptions():
        found = pickle.loads(pickle.dumps(find(name)))
        assert found == find(name)
    assert pickle.loads(pickle.dumps(find("fog"))) is find("fog")
    assert pickle.loads(pickle.dumps(SIGMA)) == SIGMA


def test_groups_are_those_of_the_benchmark_and_two_of_our_own():
    assert {group: len(names) for group, names in GROUPS.items()} == {
        "cococ": 15,
        "cococ-extra": 19,
        "noise": 3,
        "blur": 4,
        "weather": 4,
        "digital": 4,
        "sensor": 4,
        "codec": 2,
    }
    four = {"speckle_noise", "gaussian_blur", "spatter", "saturate"}
    assert set(GROUPS["cococ-extra"]) - set(GROUPS["cococ"]) == four
    assert [c.name for c in expanded(["noise", "shot_noise", "fog"])] == [*GROUPS["noise"], "fog"]
    with pytest.raises(YoloDynError, match="'blur' stands for several corruptions: defocus_blur"):
        register_corruption("blur", (1, 2, 3, 4, 5))
    with pytest.raises(YoloDynError, match=r"unknown corruption 'coco-c'.*did you mean 'cococ'"):
        expanded(["coco-c"])


def test_strengths_between_severities_lie_between_their_parameters():
    assert find("snow").function.at(2.5) == pytest.approx((0.375, 0.3, 3, 0.7, 12, 6, 0.7))
    assert find("fog").function.at(5) == (3, 1.4)
    image = picture(64, 64)
    distance = [np.abs(corrupt(image, "contrast", strength=s).astype(int) - image).mean() for s in (2, 2.5, 3)]
    assert distance == sorted(distance)
    for name in GROUPS["cococ-extra"]:
        assert corrupt(image, name, strength=3.5, name="a").shape == image.shape


@pytest.mark.parametrize("name", [*GROUPS["cococ-extra"], "frost_procedural"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 1), (5, 1, 3), (1, 40, 3), (33, 47, 3), (31, 64, 1)])
def test_images_of_any_size_grey_ones_too(name, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape, np.uint8)
    for severity in (1, 3, 5):
        assert corrupt(image, name, severity=severity, name="a").shape == shape


@pytest.mark.parametrize("name", [n for n in GROUPS["cococ-extra"] if n not in ("frost", "spatter")])
def test_a_grey_image_is_corrupted_as_three_equal_channels(name):
    image = picture()[..., :1]
    as_grey = corrupt(image, name, severity=5, name="a")
    in_colour = corrupt(np.repeat(image, 3, 2), name, severity=5, name="a")
    assert np.array_equal(as_grey, in_colour[..., 2:])  # the first of RGB


@pytest.mark.parametrize("name", ["frost", "spatter"])
def test_a_grey_image_takes_the_luminance_of_what_has_a_colour(name):
    image = picture()[..., :1]
    as_grey = corrupt(image, name, severity=5, name="a").astype(float)
    in_colour = corrupt(np.repeat(image, 3, 2), name, severity=5, name="a")
    assert np.array_equal(as_grey[..., 0], np.floor(in_colour @ [0.114, 0.587, 0.2989]))


def test_black_images():
    """Fog is scaled by the brightest value, so the benchmark leaves them black; greys keep their kind."""
    black = np.zeros((48, 64, 3), np.uint8)
    assert not corrupt(black, "fog", severity=5).any()
    assert (corrupt(black, "brightness", severity=3) == int(0.3 * 255)).all()
    assert not corrupt(black, "contrast", severity=3).any()
    assert not corrupt(black, "saturate", severity=5).any()
    grey = np.full((4, 4, 3), 200, np.uint8)
    assert np.array_equal(corrupt(grey, "saturate", severity=5)[0, 0], [160, 160, 200])  # greys turn red, in BGR


def test_frost_says_which_textures_it_has(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert find("frost").name == "frost_procedural"
    assert "frost_procedural" in [c.name for c in expanded(["cococ"])]

    import cv2

    rng = np.random.default_rng(0)
    for number in range(1, 6):
        ending = "png" if number < 4 else "jpg"
        cv2.imwrite(str(tmp_path / f"frost{number}.{ending}"), rng.integers(0, 256, (40, 50 + number, 3), np.uint8))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(YoloDynError, match=r"YOLO_DYN_FROST=.* must hold six pictures, .*; frost6 not found among 5"):
        find("frost")
    with pytest.raises(YoloDynError, match="must hold six pictures"):
        corrupt(GREY, "frost", severity=1)
    (tmp_path / "frost6.jpg").write_text("no picture")
    with pytest.raises(YoloDynError, match=r"frost6\.jpg is no picture"):
        find("frost")
    cv2.imwrite(str(tmp_path / "frost6.jpg"), rng.integers(0, 256, (40, 50, 3), np.uint8))
    found = find("frost")
    assert found.name == "frost"
    assert found.material.startswith("textures ")
    assert [c.name for c in expanded(["weather"])] == ["snow", "frost", "fog", "brightness"]
    image = picture()
    frosted = corrupt(image, "frost", severity=3, name="a")
    monkeypatch.delenv(VARIABLE)
    travelled = pickle.loads(pickle.dumps(found))  # to a process whose environment has no such variable
    assert np.array_equal(travelled.apply(image, 3, 0, "a"), frosted)
    assert not np.array_equal(corrupt(image, "frost", severity=3, name="a"), frosted)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(YoloDynError, match=r"YOLO_DYN_FROST must be a folder of textures, and .*none' is none"):
        find("frost")


def test_frost_weighs_the_image_and_one_of_five_textures(tmp_path, monkeypatch):
    """As the benchmark has it: the sixth is never drawn. Textures of one level each tell which it was, and how much."""
    import cv2

    levels = [40, 80, 120, 160, 200, 240]
    for number, level in enumerate(levels, 1):
        cv2.imwrite(str(tmp_path / f"frost{number}.png"), np.full((20, 30, 3), level, np.uint8))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    image = np.full((50, 40, 3), 60, np.uint8)
    for severity, (kept, added) in enumerate(((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)), 1):
        found = [corrupt(image, "frost", severity=severity, name=str(i)) for i in range(100)]
        assert all(np.ptp(frosted) == 0 for frosted in found)
        levels_found = {int(frosted[0, 0, 0]) for frosted in found}
        assert sorted(levels_found) == [min(255, int(kept * 60 + added * level + 1e-4)) for level in levels[:5]]


def test_a_part_of_the_texture_is_drawn_from_all_of_it(tmp_path, monkeypatch):
    import cv2

    ramp = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 90, 0).repeat(3, 2)
    for number in range(1, 7):
        cv2.imwrite(str(tmp_path / f"frost{number}.png"), ramp)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    black = np.zeros((64, 64, 3), np.uint8)
    starts = [int(corrupt(black, "frost", severity=5, name=str(i))[0, 0, 0]) for i in range(200)]
    assert min(starts) < 8
    assert 0.75 * 238 * (132 - 64) / 132 - 8 < max(starts) <= 0.75 * 238 * (132 - 64) / 132 + 2  # 1.1 times as large


def test_drawn_frost_has_the_values_and_the_spectrum_of_the_pictures():
    for number, texture in enumerate(TEXTURES):
        found = drawn(texture, np.random.Philox(key=number)).astype(float)
        assert found.shape == (texture.height, texture.width, 3)
        for channel, quantiles in enumerate(texture.quantiles):
            assert np.percentile(found[..., channel], LEVELS)[2:-2] == pytest.approx(quantiles[2:-2], abs=12)
        luma = found.mean(2) - found.mean()
        power = np.abs(np.fft.fft2(luma)) ** 2
        radius = np.hypot(np.fft.fftfreq(len(luma))[:, None], np.fft.fftfreq(luma.shape[1]))
        low, high = (power[(radius > f / 1.2) & (radius < f * 1.2)].mean() for f in FREQUENCIES[[3, 10]])
        assert np.log(low / high) == pytest.approx(texture.power[3] - texture.power[10], abs=1)
        rows = power[0, 1:].sum() + power[1:, 0].sum()
        assert rows < 0.2 * power.sum()  # no bands


def test_tables_of_shot_noise_are_cut_off():
    table = poisson_levels(5)
    assert set(np.unique(table)) <= {min(255, int(255 * k / 5)) for k in range(99)}
    assert (np.diff(table.astype(int), axis=0) >= 0).all()
