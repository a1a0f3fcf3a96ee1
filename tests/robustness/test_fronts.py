"""Denoisers in front of a model: what they do to photos, a user's own, and the arms of a sweep."""

import csv
import dataclasses
import json
import pickle
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest

from yolo_dyn import YoloDynError, cli
from yolo_dyn.robustness import corrupt, denoise, known_fronts, noise_level, register_front
from yolo_dyn.robustness.arms import arms
from yolo_dyn.robustness.cells import Cell, of_other_models
from yolo_dyn.robustness.compare import compare
from yolo_dyn.robustness.evaluate import Settings
from yolo_dyn.robustness.fronts import ENTRY_POINT_GROUP, FRONTS, Front, chosen_fronts, find_front, registry
from yolo_dyn.robustness.pictures import grid, spread_conditions
from yolo_dyn.robustness.plan import Plan, chosen_conditions
from yolo_dyn.robustness.records import CellRecord, Condition
from yolo_dyn.robustness.scores import paired_interval
from yolo_dyn.robustness.sweep import robustness

OWN = ("bilateral", "median", "median5", "nlm")
FAST = {"imgsz": 192, "batch": 5, "max_det": 15, "device": "cpu", "threads": 1, "resamples": 50}
NUMBERS = ("AP", "AP50", "AP75", "AR100", "per_class", "intervals", "detections")


@pytest.fixture
def own_fronts():
    """Fronts that a test registers are forgotten after it."""
    with mock.patch.dict(FRONTS):
        yield


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Discs on a slope, with noise."""
    image = np.add.outer(np.arange(height), np.arange(width))[..., None] % 120 + 20 * np.arange(channels)
    image = np.ascontiguousarray(image.astype(np.uint8))
    for c in range(channels):
        image[..., c] = cv2.circle(image[..., c].copy(), (width // 3, height // 2), min(height, width) // 4, 200, -1)
    return corrupt(image, sigma=15, name="x")


# photos -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(photos) -> list[np.ndarray]:
    """Ten photos of several scenes."""
    files = sorted((photos / "voc20").rglob("*.jpg"))
    return [cv2.imread(str(file)) for file in files[:: len(files) // 10][:10]]


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((image.astype(float) - clean) ** 2))


def gain(scenes: list[np.ndarray], front: str, sigma: float) -> float:
    """What a front adds to the PSNR of noisy photos."""
    noisy = [corrupt(scene, sigma=sigma, name=str(i)) for i, scene in enumerate(scenes)]
    cleaned = [denoise(image, front, sigma if front.endswith(":oracle") else None) for image in noisy]
    pairs = zip(noisy, cleaned, scenes, strict=True)
    return float(np.mean([psnr(after, scene) - psnr(before, scene) for before, after, scene in pairs]))


# of the bilateral filter on other five photos, with sigma known: PSNR before and after
KNOWN = {10: (28.6, 34.0), 20: (22.8, 30.0), 30: (19.5, 27.5), 46: (16.1, 25.5), 66: (13.3, 23.7), 97: (10.7, 21.4)}


@pytest.mark.parametrize("sigma", KNOWN)
def test_photos_gain_what_they_are_known_to(sigma, scenes):
    before, after = KNOWN[sigma]
    known = gain(scenes, "bilateral:oracle", sigma)
    assert known == pytest.approx(after - before, abs=1)
    assert gain(scenes, "bilateral", sigma) == pytest.approx(known, abs=0.5)  # it does hardly worse by its own estimate


def test_non_local_means_do_as_well_as_a_bilateral_filter(scenes):
    assert gain(scenes[:2], "nlm:oracle", 30) == pytest.approx(gain(scenes[:2], "bilateral:oracle", 30), abs=1)


def test_a_median_is_for_single_wrong_pixels(scenes):
    spoilt = [corrupt(scene, "impulse_noise", severity=2, name="x") for scene in scenes[:2]]
    found = {
        front: np.mean([psnr(denoise(s, front), c) for s, c in zip(spoilt, scenes, strict=False)])
        for front in ("bilateral", "median")
    }
    assert found["median"] > found["bilateral"] + 3
    assert gain(scenes[:2], "median", 5) < 0  # it costs detail


def test_the_level_of_noise_on_photos(scenes):
    """That of the noise as it is, cut off at black and white, and on top of what a camera has left."""
    for sigma in (10, 20, 46, 97):
        noisy = [corrupt(scene, sigma=sigma, name=str(i)) for i, scene in enumerate(scenes)]
        there = np.mean([np.std(after.astype(float) - before) for after, before in zip(noisy, scenes, strict=True)])
        assert np.mean(list(map(noise_level, noisy))) == pytest.approx(there, rel=0.12)
    assert all(noise_level(scene) < 8 for scene in scenes)


def test_noise_of_a_camera_on_photos_is_underestimated(scenes):
    """Demosaicing has spread it over neighbours; a sigma of the camera's helps."""
    noisy = [corrupt(scene, "sensor_noise", severity=3, name=str(i)) for i, scene in enumerate(scenes)]
    there = np.mean([np.std(after.astype(float) - before) for after, before in zip(noisy, scenes, strict=True)])
    assert 0.2 * there < np.mean(list(map(noise_level, noisy))) < 0.35 * there
    blind, given = (
        np.mean([psnr(denoise(image, front), scene) for image, scene in zip(noisy, scenes, strict=True)])
        for front in ("bilateral", f"bilateral:{there:g}")
    )
    assert given > blind + 2


# each image ---------------------------------------------------------------------------------------------------------


def test_the_level_of_noise_beside_its_formula():
    image = picture(11, 9)
    found = []
    for y in range(1, 10):
        for x in range(1, 8):
            for c in range(3):
                mask = ((1, -2, 1), (-2, 4, -2), (1, -2, 1))
                around = [[float(image[y + i - 1, x + j - 1, c]) for j in range(3)] for i in range(3)]
                found.append(abs(sum(mask[i][j] * around[i][j] for i in range(3) for j in range(3))))
    assert noise_level(image) == pytest.approx(sorted(found)[(len(found) - 1) // 2] / 6 / 0.67449, rel=1e-4)


def test_the_level_of_noise_of_known_noise():
    for sigma in (1, 5, 25, 40):
        flat = np.full((200, 301, 3), 128, np.uint8)
        assert noise_level(corrupt(flat, sigma=sigma, name="x")) == pytest.approx(sigma, rel=0.02, abs=0.3)
    slope = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 60, 1))
    slope[:, 30:] += 50  # an edge along an axis
    assert noise_level(slope) == 0
    assert [noise_level(np.full((*size, 3), 9, np.uint8)) for size in ((1, 1), (2, 9), (9, 2))] == [0, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2), (61, 33)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4, 8])
def test_size_and_channels_are_kept_and_the_image_is_not_changed(size, channels):
    image = picture(*size, channels) if min(size) > 4 else np.full((*size, channels), 77, np.uint8)
    before = image.copy()
    for name in OWN:
        for front in (name, f"{name}:50")[: 1 + FRONTS[name].by_sigma]:
            found = denoise(image, front)
            assert (found.shape, found.dtype) == (image.shape, np.uint8)
            assert found.flags.c_contiguous
            assert np.array_equal(found, denoise(image, front))
            assert np.array_equal(image, before)
            if min(size) > 4:
                assert not np.array_equal(found, image)


@pytest.mark.parametrize("front", ["bilateral:60", "bilateral:20", "median", "median5", "nlm:20"])
def test_channels_that_are_no_colours_are_cleaned_each_for_itself(front):
    image = picture(40, 31, 8)
    alone = [denoise(image[..., c : c + 1], front) for c in range(8)]
    assert np.array_equal(denoise(image, front), np.concatenate(alone, 2))


def test_heavy_noise_goes_through_a_median_first():
    image = picture(40, 31)
    behind = cv2.bilateralFilter(cv2.medianBlur(image, 3), 7, 2 * 40, 3)
    assert np.array_equal(denoise(image, "bilateral:40"), behind)
    assert np.array_equal(denoise(image, "bilateral:39"), cv2.bilateralFilter(image, 7, 4 * 39, 3))


def test_how_a_front_learns_sigma():
    image = corrupt(picture(64, 64), sigma=30, name="x")
    level = noise_level(image)
    blind, known = find_front("bilateral"), find_front("bilateral:oracle")
    assert np.array_equal(blind.apply(image), denoise(image, f"bilateral:{level!r}"))
    assert np.array_equal(known.told(30).apply(image), denoise(image, "bilateral:30.0"))
    assert blind.told(30) == blind.told(None) == blind
    assert find_front("bilateral:30.0") == find_front("bilateral:3e1")
    assert [front.name for front in chosen_fronts(["nlm:5.0", "median", "nlm:5"])] == ["nlm:5", "median"]
    conditions = chosen_conditions(None, [1, 5], ["gaussian_noise", "fog"])
    assert [condition.noise for condition in conditions] == pytest.approx([0, 20.4, 96.9, None, None])


def test_fronts_travel_to_other_processes():
    for name in ("bilateral", "bilateral:20", "nlm:oracle", "median"):
        assert pickle.loads(pickle.dumps(find_front(name))) == find_front(name)


@pytest.mark.parametrize(
    ("front", "message"),
    [
        ("bilatral", r"unknown front 'bilatral'; did you mean 'bilateral'\? \(known: bilateral, median, median5, nlm"),
        ("bilateral:", "front=bilateral:: sigma must be grey levels from 0 to 255 or oracle, got ''"),
        ("bilateral:x", "sigma must be grey levels from 0 to 255 or oracle, got 'x'"),
        ("nlm:-1", "sigma must be grey levels from 0 to 255 or oracle, got '-1'"),
        ("nlm:nan", "sigma must be grey levels from 0 to 255 or oracle, got 'nan'"),
        ("median:5", "front=median:5: median takes no sigma"),
        ("no_module:f", r"front=no_module:f cannot be imported: No module named 'no_module' \(known: bilateral"),
        ("math:pi", "front=math:pi is no function, got float"),
        ("", "unknown front ''"),
        (":", "unknown front ':'"),
    ],
)
def test_unknown_fronts(front, message):
    with pytest.raises(YoloDynError, match=message):
        find_front(front)


def test_an_oracle_needs_something_to_know():
    plan = Plan(
        {"a": __file__}, chosen_conditions(None, [3], ["fog"]), Settings(), fronts=chosen_fronts(["nlm:oracle"])
    )
    with pytest.raises(YoloDynError, match="front=nlm:oracle is told the sigma of gaussian_noise; other corruptions"):
        plan.check()


# a user's own -------------------------------------------------------------------------------------------------------


def test_a_front_of_ones_own(own_fronts):
    @register_front("posterised")
    def posterised(image):
        return image // 64 * 64

    @register_front("darker", by_sigma=True)
    def darker(image, sigma):
        return cv2.subtract(image, round(sigma))

    image = np.full((5, 6, 3), 200, np.uint8)
    assert known_fronts() == [*OWN, "posterised", "darker"]
    assert (denoise(image, "posterised") == 192).all()
    assert (denoise(image, "darker:30") == 170).all()
    assert (denoise(image, "darker:oracle", 8.2) == 192).all()
    assert (denoise(image, "darker") == 200).all()  # as it estimates no noise
    for name, message in (
        ("posterised", "is registered already"),
        ("a:b", "hold a comma or ':'"),
        ("", "not be empty"),
    ):
        with pytest.raises(YoloDynError, match=message):
            register_front(name)


MODULE = """
import numpy as np
from yolo_dyn.robustness import register_front

def flattened(image):
    return np.full_like(image, image.mean())

@register_front("inverted")
def inverted(image):
    return 255 - image
"""


def test_a_front_by_entry_point_or_module(own_fronts, monkeypatch, tmp_path):
    (tmp_path / "declared_front.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("inverted", "declared_front:inverted", ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group, name="inverted": [point] * (name == "inverted"))
    assert known_fronts() == [*OWN, "inverted"]
    image = np.full((4, 5, 3), 5, np.uint8)
    assert (denoise(image, "inverted") == 250).all()
    assert (denoise(picture(9, 9), "declared_front:flattened").std((0, 1)) == 0).all()


WRONG = {
    "smaller": (lambda image: image[1:], r"must keep shape and type, uint8 \[6, 7, 3\], got uint8 \[5, 7, 3\]"),
    "floats": (lambda image: image / 255, r"got float64 \[6, 7, 3\] on image 'a.png'"),
    "grey": (lambda image: image[..., 0], r"got uint8 \[6, 7\]"),
    "nothing": (lambda image: None, "got NoneType"),
    "raises": (lambda image: image.missing, "failed on image 'a.png': AttributeError: .*'missing'"),
    "two": (lambda image, sigma: image, "failed on image 'a.png': TypeError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_front_that_does_not_fit_is_named(name):
    function, message = WRONG[name]
    with pytest.raises(YoloDynError, match=f"front '{name}' {message}" if "got" not in message else message) as told:
        Front(name, function).apply(np.zeros((6, 7, 3), np.uint8), "a.png")
    assert f"front {name!r}" in str(told.value)


def test_a_single_channel_may_come_without_its_axis():
    assert Front("x", lambda image: image[..., 0]).apply(np.zeros((6, 7, 1), np.uint8)).shape == (6, 7, 1)


def test_a_front_that_is_never_the_same_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(YoloDynError, match="front 'x' must make the same of the same image"):
        Front("x", lambda image: rng.integers(0, 255, image.shape, np.uint8)).definition(3)


# cells --------------------------------------------------------------------------------------------------------------


def plan_of(images, fronts: list[str], **changes) -> list[Cell]:
    plan = Plan({"a": __file__}, [Condition("clean"), Condition("gaussian_noise", 25.0)], Settings(), **changes)
    return dataclasses.replace(plan, fronts=chosen_fronts(fronts)).cells(images, "")


@pytest.fixture(scope="module")
def images(detectors):
    from yolo_dyn.data.images import evaluation_set

    return evaluation_set(str(detectors / "data.yaml"))


def test_keys(images, own_fronts, monkeypatch):
    alone = plan_of(images, [])
    found = plan_of(images, ["bilateral", "bilateral:20", "bilateral:oracle", "median"])
    assert found[::5] == alone  # and with them what was measured before
    assert all("front" not in cell.identity for cell in alone)
    assert [cell.label for cell in found[:5]] == [
        "a",
        "a+bilateral",
        "a+bilateral:20",
        "a+bilateral:oracle",
        "a+median",
    ]
    assert {cell.alone for cell in found} == {"a"}
    assert len({cell.name for cell in found}) == 10
    assert found[2].name.startswith("a+bilateral-20_clean_")
    for cell, without in zip(found[5:], [alone[1]] * 5, strict=True):
        assert {k: v for k, v in cell.identity.items() if k != "front"} == without.identity
    grey = plan_of(dataclasses.replace(images, channels=1), ["bilateral"])
    assert grey[1].identity["front"] != found[1].identity["front"]


def test_another_code_is_another_key(images, own_fronts, monkeypatch):
    before = plan_of(images, ["bilateral", "median"])
    monkeypatch.setattr("yolo_dyn.robustness.fronts.denoisers.DIAMETER", 5)
    after = plan_of(images, ["bilateral", "median"])
    assert [a.name == b.name for a, b in zip(before, after, strict=True)] == [True, False, True] * 2


def test_a_model_that_is_called_as_another_behind_its_front(images):
    plan = Plan({"a": "a.pt", "a+median": "a+median.pt"}, [], Settings(), fronts=chosen_fronts(["median"]))
    with pytest.raises(YoloDynError, match=r"model 'a\+median.pt' is called as another behind its front: a\+median"):
        plan.check()


# sweeps -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(detectors, tmp_path_factory):
    """A sweep of two models and a front, with all its files but for pictures."""
    models, data = [str(detectors / name) for name in ("a.pt", "b.pt")], str(detectors / "data.yaml")
    project = str(tmp_path_factory.mktemp("runs"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("curves", "grid"):
            patch.setattr(f"yolo_dyn.robustness.report.{name}", lambda _, path, *__: path.touch() or [])
        drawn = dict.fromkeys(("errors", "precision", "reliability"), lambda _, path, *__: path.touch())
        patch.setattr("yolo_dyn.robustness.diagnosis_pictures.PICTURES", drawn)
        return robustness(models, data, sigma=[40], front=["bilateral"], hashes=True, project=project, **FAST)


@pytest.fixture
def without_pictures(monkeypatch) -> None:
    monkeypatch.setattr("yolo_dyn.robustness.sweep.write", lambda *_: None)


@pytest.fixture
def folder(detectors, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.pt", "b.pt"):
        shutil.copy(detectors / name, tmp_path)
    return tmp_path


def numbers(record: CellRecord) -> dict:
    return {key: record.as_dict().get(key) for key in NUMBERS}


def found_in(sweep, model: str) -> list[CellRecord]:
    return [record for record in sweep.records if record.model == model]


def test_behind_a_front_a_model_sees_what_the_front_makes_of_the_same_pixels(done, detectors, folder, without_pictures):
    """The same numbers come from files that hold the cleaned pixels."""
    written = folder / "images/val"
    written.mkdir(parents=True)
    shutil.copytree(detectors / "labels", folder / "labels")
    for file in (detectors / "images/val").iterdir():
        noisy = corrupt(cv2.imread(str(file)), sigma=40, name=file.name)
        cv2.imwrite(str(written / file.name), denoise(noisy, "bilateral"))
    text = (detectors / "data.yaml").read_text().replace(str(detectors), str(folder))
    (folder / "data.yaml").write_text(text)
    clean = robustness(["a.pt"], "data.yaml", sigma=[0], **FAST).records[0]
    _, behind = found_in(done, "a+bilateral")
    assert numbers(behind) == numbers(clean)
    _, alone = found_in(done, "a")
    assert numbers(behind) != numbers(alone)
    assert len({json.dumps(record.pixels) for record in done.records}) == 2  # one a condition, whatever the front


def test_the_table(done):
    assert [(arm.model, arm.front) for arm in done.arms] == [
        (model, front) for model in "ab" for front in ("", "bilateral")
    ]
    resampled = {
        (cell.label, cell.condition): np.load(done.folder / "cells" / f"{cell.name}.npz")["resampled"]
        for cell in done.cells
    }
    scores = {(record.model, record.condition): record.scores for record in done.records}
    for arm in done.arms:
        assert arm.performance.p == scores[arm.label, Condition("clean")]["AP"]
        own = found_in(done, arm.label)
        if not arm.front:
            assert (arm.differences, arm.milliseconds) == ({}, 0)
            continue
        assert arm.milliseconds == np.mean([record.front.milliseconds for record in own]) > 0
        for condition in done.conditions:
            alone, behind = (resampled[label, condition] for label in (arm.model, arm.label))
            pair = [scores[label, condition] for label in (arm.model, arm.label)]
            less = {name: pair[1][name] - pair[0][name] for name in ("AP", "AP50")}
            low, high = paired_interval(alone, behind, less, 10)["AP"]
            assert dataclasses.astuple(arm.differences[condition]) == (less["AP"], low, high)
        assert arm.differences[Condition("mPC")].value == arm.differences[done.conditions[1]].value


def test_the_table_in_every_result(done):
    text, page = str(done), (done.folder / "report.html").read_text()
    rows = json.loads((done.folder / "results.json").read_text())["fronts"]
    with (done.folder / "results.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert page.count('<section id="fronts">') == 1
    for arm, row in zip(done.arms, rows, strict=True):
        assert (row["model"], row["front"], row["P"]) == (arm.model, arm.front or None, arm.performance.p)
        assert [cell["corruption"] for cell in row["conditions"]] == ["clean", "gaussian_noise", "mPC"]
        lines = [line for line in text.splitlines() if line.split()[:2] == [arm.model, arm.front or "-"]]
        for condition, cell in zip([*done.conditions, Condition("mPC")], row["conditions"], strict=True):
            assert f"{cell['AP']:.3f}" in page
            assert any(f"{cell['AP']:.3f}" in line for line in lines)
            if arm.front:
                less = arm.differences[condition]
                assert cell["less_alone"] == dataclasses.asdict(less)
                assert any(f"{less.value:+.3f} [{less.low:+.3f}, {less.high:+.3f}]" in line for line in lines)
                value = f"<b>{less.value:+.3f}</b>" if less.sure else f"{less.value:+.3f}"
                assert f"{value}<br>{less.low:+.3f} to {less.high:+.3f}" in page
        if arm.front:
            assert arm.processor in text
            assert arm.processor in page
            own = [line for line in listed if line["model"] == arm.label]
            assert [line["front"] for line in own] == [arm.front] * 2
            assert [float(line["AP_less_alone"]) for line in own] == [
                arm.differences[condition].value for condition in done.conditions
            ]
            assert [float(line["front_ms"]) for line in own] == [
                record.front.milliseconds for record in found_in(done, arm.label)
            ]


def test_a_model_has_one_colour_and_a_front_one_style(done):
    assert done.looks == {"a": (0, 0), "a+bilateral": (0, 1), "b": (1, 0), "b+bilateral": (1, 1)}
    page = (done.folder / "report.html").read_text()
    assert "<title>Robustness of a, b, alone and behind bilateral</title>" in page
    assert "<th>ms an image</th><th>mPC</th><th>clean</th>" in page


def test_a_grid_of_many_models_has_fewer_images(done, tmp_path, monkeypatch):
    monkeypatch.setattr("yolo_dyn.robustness.pictures.ROWS", 8)
    assert len(grid(done, tmp_path / "grid.png", spread_conditions(done, 0.25))) == 2  # of four arms


def test_without_a_front_nothing_of_it_is_written(done):
    alone = dataclasses.replace(done, records=found_in(done, "a"), arms=[])
    assert "fronts" not in alone.as_dict()
    assert all("front" not in cell for cell in alone.as_dict()["cells"])
    assert "denoise" not in str(alone)


def test_a_record_is_read_as_it_was_written(done):
    for record in done.records:
        assert CellRecord.from_dict(json.loads(json.dumps(record.as_dict()))) == record
    spoilt = {**done.records[1].as_dict(), "front": {"name": "x"}}
    with pytest.raises(TypeError):
        CellRecord.from_dict(spoilt)


def test_the_same_again_runs_nothing_and_another_front_its_own_cells(done, detectors, without_pictures, log):
    data, project = str(detectors / "data.yaml"), str(done.folder.parent)
    shared = {"data": data, "sigma": [40], "project": project, **FAST}
    again = robustness([str(detectors / "a.pt")], front=["bilateral"], **shared)
    assert any("4 of 4 cells are finished already" in line for line in log)
    assert again.others == ["b", "b+bilateral"]
    assert again.models == ["a", "a+bilateral", *again.others]
    assert again.arms == done.arms
    other = robustness([str(detectors / "a.pt")], front=["median"], **shared)
    assert any("2 of 4 cells are finished already" in line for line in log)
    assert [arm.front for arm in other.arms if arm.model == "a"] == ["", "median", "bilateral"]
    assert [arm.front for arm in other.arms if arm.model == "b"] == ["", "bilateral"]


def test_what_a_model_was_before_does_not_stand_behind_its_fronts(done):
    """Trained anew it has other weights, and what was measured with the earlier ones is of another model."""
    anew = [dataclasses.replace(c, identity={**c.identity, "weights": "0"}) for c in done.cells if c.label == "a"]
    assert [c.label for c in of_other_models(done.folder / "cells", anew)] == ["b"] * 2 + ["b+bilateral"] * 2
    resampled = {(record.model, record.condition): np.ones((50, 2)) for record in done.records}
    records = [dataclasses.replace(r, weights="0") if r.model == "a" else r for r in done.records]
    assert [bool(arm.differences) for arm in arms(records, resampled)] == [False, False, False, True]


@pytest.mark.parametrize("how", [{}, {"workers": 1}, pytest.param({"jobs": 2}, marks=pytest.mark.accept)], ids=str)
def test_a_front_that_fails_is_one_line_and_costs_nothing_that_is_finished(how, folder, detectors, monkeypatch, capsys):
    (folder / "spotty.py").write_text(
        "def spotty(image):\n    if image.shape[0] == 231:\n        raise RuntimeError('cannot take 231 rows')\n"
        "    return image\n"
    )
    monkeypatch.syspath_prepend(folder)
    words = [f"{key}={value}" for key, value in {**FAST, **how}.items()]
    words += ["model=a.pt", f"data={detectors / 'data.yaml'}", "sigma=0", "front=spotty:spotty"]
    assert cli.main(["robustness", *words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("yolo-dyn: error: front 'spotty:spotty' failed on image '")
    assert line.endswith("RuntimeError: cannot take 231 rows")
    if "jobs" not in how:
        assert [json.loads(file.read_text())["model"] for file in folder.rglob("cells/*.json")] == ["a"]


@pytest.mark.accept
def test_processes_and_their_workers_make_the_same(done, detectors, tmp_path, without_pictures):
    models, data = [str(detectors / name) for name in ("a.pt", "b.pt")], str(detectors / "data.yaml")
    arguments = {"sigma": [40], "front": ["bilateral"], "project": str(tmp_path), **FAST}
    apart = robustness(models, data, jobs=2, workers=1, **arguments)
    assert list(map(numbers, apart.records)) == list(map(numbers, done.records))


@pytest.mark.accept
def test_a_ray_cluster_makes_the_same(done, detectors, tmp_path, without_pictures):
    ray = pytest.importorskip("ray")
    models, data = [str(detectors / name) for name in ("a.pt", "b.pt")], str(detectors / "data.yaml")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        arguments = {"sigma": [40], "front": ["bilateral"], "project": str(tmp_path), **FAST}
        found = robustness(models, data, executor="ray", **arguments)
    finally:
        ray.shutdown()
    assert list(map(numbers, found.records)) == list(map(numbers, done.records))


def test_compare_draws_what_a_model_sees(folder, detectors, monkeypatch):
    import matplotlib.pyplot as plt

    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    file = detectors / "images/val/2.png"
    compare(["a.pt"], source=str(file), sigma=[40], front=["bilateral:oracle"], imgsz=192, device="cpu")
    rows = [axis.get_ylabel() for axis in figures[0].axes[::2]]
    assert rows == ["a\n2.png", "a+bilateral:oracle\n2.png"]
    noisy = corrupt(cv2.imread(str(file)), sigma=40, name="2.png")
    drawn = [axis.images[0].get_array()[..., ::-1] for axis in figures[0].axes[1::2]]
    assert np.array_equal(drawn[0], noisy)
    assert np.array_equal(drawn[1], denoise(noisy, "bilateral:40"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"front": ["wiener"]},
            r"unknown front 'wiener' \(known: bilateral, median, median5, nlm; and module:function",
        ),
        ({"front": ["bilateral:oracle"], "sigma": None, "corruption": ["fog"]}, "front=bilateral:oracle is told"),
        ({"front": []}, r"front must be a list of at least one, got \[\]"),
    ],
    ids=str,
)
@pytest.mark.parametrize("command", [robustness, compare])
def test_bad_input_is_named_before_anything_runs(changes, message, command, folder, detectors):
    with pytest.raises(YoloDynError, match=message):
        command(**{"model": ["a.pt"], "data": str(detectors / "data.yaml"), "sigma": [20], **changes})
    assert not (folder / "runs").exists()
