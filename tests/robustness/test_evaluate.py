"""Evaluation through the stock pipeline: the pixels, what must not change them, and the models that do not fit."""

import copy
import gc
import itertools
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest
from helpers import save, since, skip_before
from PIL import Image
from ultralytics import YOLO
from ultralytics.data import YOLODataset

from yolo_dyn import YoloDynError
from yolo_dyn.data.images import evaluation_set, letterbox, read_image
from yolo_dyn.robustness import corrupt
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.corruptions import SIGMA
from yolo_dyn.robustness.evaluate import Settings, detect
from yolo_dyn.robustness.loading import CorruptedImages
from yolo_dyn.robustness.models import check_model
from yolo_dyn.robustness.plan import Plan
from yolo_dyn.robustness.records import Condition
from yolo_dyn.robustness.scores import evaluate

CLEAN, NOISY = Corrupter(None), Corrupter(SIGMA, 25.0)
SETTINGS = Settings(imgsz=192, batch=4, threads=1)


@pytest.fixture(scope="module")
def images(detectors):
    return evaluation_set(str(detectors / "data.yaml"))


@pytest.fixture(scope="module")
def noisy(detectors, images):
    return detect(str(detectors / "a.pt"), images, NOISY, SETTINGS, hashes=True)


def score(images, found) -> float:
    return evaluate(images.coco, found.found).scores["AP"]


def test_clean_images_and_labels_are_those_of_the_stock_loader(images, detectors):
    stock = YOLODataset(img_path=str(detectors / "images/val"), imgsz=192, augment=False, data={"names": images.names})
    ours = CorruptedImages(images, CLEAN, False, imgsz=192)
    assert ours.im_files == stock.im_files
    for a, b in zip(ours, stock, strict=True):
        assert (a["img"] == b["img"]).all()
        assert (a["cls"] == b["cls"]).all()
        assert a["bboxes"].numpy() == pytest.approx(b["bboxes"].numpy(), abs=1e-6)
        assert (a["ori_shape"], a["ratio_pad"]) == (b["ori_shape"], b["ratio_pad"])


@pytest.mark.parametrize("imgsz", [192, 160, 256])
@pytest.mark.parametrize("channels", [3, 1])
def test_the_letterbox_is_that_of_the_stock_loader(imgsz, channels, detectors):
    """Of images that are square, flat and tall, smaller and larger than the square, grey and in colour."""
    if channels == 1:
        skip_before("8.3.112", "images of other than three channels")
    data = {"names": {0: "thing"}, "channels": channels}
    stock = YOLODataset(img_path=str(detectors / "images/val"), imgsz=imgsz, augment=False, data=data)
    for file, item in zip(stock.im_files, stock, strict=True):
        ours = letterbox(read_image(file, channels), imgsz)
        ratios, (left, top) = item["ratio_pad"]
        assert (ours.pixels == item["img"].numpy()).all()
        assert ours.corner == (top, left)
        assert ours.resized == tuple(round(a * b) for a, b in zip(item["ori_shape"], ratios, strict=True))


def test_noise_goes_on_the_original_image_before_the_resize(images):
    file = images.files[4]
    assert cv2.imread(str(file)).shape == (256, 256, 3)
    expected = corrupt(cv2.imread(str(file)), sigma=25, name=file.name)
    expected = cv2.resize(expected, (192, 192), interpolation=cv2.INTER_LINEAR)
    assert (CorruptedImages(images, NOISY, False, imgsz=192).load_image(4)[0] == expected).all()


@since("8.3.112", "images of other than three channels")
@pytest.mark.parametrize("channels", [1, 8])
def test_images_of_other_channels(channels, tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part / "val").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 57, channels), np.uint8)
    cv2.imwritemulti(str(tmp_path / "images/val/a.tiff"), list(pixels.transpose(2, 0, 1)))
    (tmp_path / "data.yaml").write_text(
        f"path: {tmp_path}\ntrain: images/val\nval: images/val\nchannels: {channels}\nnames: [thing]\n"
    )
    images = evaluation_set(str(tmp_path / "data.yaml"))
    expected = corrupt(pixels, sigma=25, name="a.tiff")
    assert (CorruptedImages(images, NOISY, False, imgsz=57).load_image(0)[0] == expected).all()


def test_clean_scores_are_those_of_the_stock_validator(images, detectors, tmp_path):
    found = detect(str(detectors / "a.pt"), images, CLEAN, SETTINGS)
    stock = YOLO(detectors / "a.pt").val(
        data=str(detectors / "data.yaml"), imgsz=192, batch=4, rect=False, workers=0, plots=False, project=tmp_path
    )
    assert found.ultralytics == pytest.approx({"AP": stock.box.map, "AP50": stock.box.map50}, abs=1e-4)
    assert 0.3 < score(images, found) < 1


def rotated(image: Image.Image, file: Path) -> None:
    """Lying, with a note for the viewer to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(file.with_suffix(".jpg"), exif=exif, quality=95)


UNUSUAL = {
    "EXIF": rotated,
    "RGBA": lambda image, file: image.convert("RGBA").save(file),
    "16 bits": lambda image, file: cv2.imwrite(str(file), np.asarray(image)[..., ::-1].astype(np.uint16) * 257),
    "grey": lambda image, file: image.convert("L").save(file),
    "CMYK": lambda image, file: image.convert("CMYK").save(file.with_suffix(".jpg"), quality=95),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_images_score_as_in_the_stock_validator(kind, detectors, tmp_path):
    """To the last digit."""
    shutil.copytree(detectors, tmp_path / "work")
    data = tmp_path / "work" / "data.yaml"
    data.write_text(data.read_text().replace(str(detectors), str(tmp_path / "work")))
    for file in sorted((tmp_path / "work" / "images" / "val").iterdir()):
        image = Image.open(file).convert("RGB")
        file.unlink()
        UNUSUAL[kind](image, file)
    found = detect(str(detectors / "a.pt"), evaluation_set(str(data)), CLEAN, SETTINGS)
    stock = YOLO(detectors / "a.pt").val(
        data=str(data), imgsz=192, batch=4, rect=False, workers=0, plots=False, project=tmp_path
    )
    assert found.ultralytics == {"AP": stock.box.map, "AP50": stock.box.map50}
    assert stock.box.map > (0 if kind == "grey" else 0.1)  # a detector of colours


def test_a_slow_machine_loses_no_detections(images, detectors, noisy, monkeypatch):
    """The stock non-maximum suppression stops after two seconds and some, and leaves the other images empty."""
    passed = itertools.count(step=10)
    monkeypatch.setattr("time.time", lambda: next(passed))
    found = detect(str(detectors / "a.pt"), images, NOISY, SETTINGS)
    assert (found.found == noisy.found).all()
    assert next(passed) > 0


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [({"batch": 1}, 1e-4), ({"batch": 3}, 1e-4), ({"batch": 10}, 1e-4), ({"workers": 2}, 0), ({"seed": 1}, None)],
    ids=str,
)
def test_what_may_and_may_not_change_pixels_and_scores(change, tolerance, images, detectors, noisy):
    settings = Settings(imgsz=192, batch=change.get("batch", 4), threads=1)
    corrupter = Corrupter(SIGMA, 25.0, change.get("seed", 0))
    found = detect(str(detectors / "a.pt"), images, corrupter, settings, change.get("workers", 0), hashes=True)
    if tolerance is None:
        assert all(found.hashes[f]["decoded"] == h["decoded"] for f, h in noisy.hashes.items())
        assert all(found.hashes[f]["noise"] != h["noise"] for f, h in noisy.hashes.items())
        return
    assert found.hashes == noisy.hashes
    assert score(images, found) == pytest.approx(score(images, noisy), abs=tolerance)
    if tolerance == 0:
        assert (found.found == noisy.found).all()


def test_other_models_see_the_same_pixels(images, detectors, noisy):
    other = detect(str(detectors / "b.pt"), images, NOISY, SETTINGS, hashes=True)
    assert other.hashes == noisy.hashes
    assert 0 < score(images, other) < score(images, detect(str(detectors / "a.pt"), images, CLEAN, SETTINGS))


def test_the_order_of_the_images_changes_nothing(images, detectors, noisy):
    turned = copy.deepcopy(images)
    last = len(images.files) - 1
    turned.files.reverse()
    turned.coco["images"].reverse()
    for entry in (*turned.coco["images"], *turned.coco["annotations"]):
        key = "image_id" if "image_id" in entry else "id"
        entry[key] = last - entry[key]
    found = detect(str(detectors / "a.pt"), turned, NOISY, Settings(imgsz=192, batch=5, threads=1), hashes=True)
    assert found.hashes == noisy.hashes
    assert score(turned, found) == pytest.approx(score(images, noisy), abs=1e-4)


def test_caches_are_passed_by(images, detectors, noisy, tmp_path):
    shutil.copytree(detectors, tmp_path / "cached")
    text = (detectors / "data.yaml").read_text().replace(str(detectors), str(tmp_path / "cached"))
    (tmp_path / "cached/data.yaml").write_text(text)
    for file in (tmp_path / "cached/images/val").glob("*.png"):
        np.save(file.with_suffix(".npy"), np.zeros((192, 192, 3), np.uint8))  # newer than its image, and a lie
    cached = evaluation_set(str(tmp_path / "cached/data.yaml"))
    assert cached.fingerprint == images.fingerprint
    found = detect(str(detectors / "a.pt"), cached, NOISY, SETTINGS, hashes=True)
    assert {Path(f).name: h for f, h in found.hashes.items()} == {Path(f).name: h for f, h in noisy.hashes.items()}
    assert (found.found == noisy.found).all()


def test_sigma_0_is_the_clean_image(images, detectors):
    found = [detect(str(detectors / "a.pt"), images, c, SETTINGS) for c in (CLEAN, Corrupter(SIGMA, 0.0))]
    assert (found[0].found == found[1].found).all()


@since("8.3.80", "way to run with an OpenVINO of today")
@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.accept)])
def test_openvino_computes_in_float32(dynamic, images, detectors, tmp_path, monkeypatch):
    """A CPU without bfloat16 does so anyway: there, what OpenVINO is asked for shows whether others would."""
    asked, stock = [], openvino.Core.compile_model

    def compile_model(*arguments, **named):
        asked.append(named["config"] if "config" in named else arguments[3])
        return stock(*arguments, **named)

    shutil.copyfile(detectors / "a.pt", tmp_path / "a.pt")
    folder = YOLO(tmp_path / "a.pt").export(format="openvino", imgsz=192, device="cpu", dynamic=dynamic)
    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    expected, found = (detect(str(m), images, NOISY, SETTINGS) for m in (detectors / "a.pt", folder))
    assert asked[-1]["INFERENCE_PRECISION_HINT"] == "f32"
    assert len(found.found) == len(expected.found)
    assert score(images, found) == pytest.approx(score(images, expected), abs=1e-3)
    gc.collect()
    assert takes_signals()


def takes_signals() -> bool:
    """Whether the stack that is set for signals is there; a process that lacks it ends at the next signal."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
        signal.raise_signal(signal.SIGUSR1)
        os._exit(1)  # never back into the tests
    return os.waitpid(child, 0)[1] == 0


@since("8.4.127", "names of the classes in an OpenCV backend")
def test_opencv_runs_what_is_named_so(images, detectors, tmp_path):
    shutil.copyfile(detectors / "a.pt", tmp_path / "a.pt")
    file = Path(YOLO(tmp_path / "a.pt").export(format="onnx", imgsz=192, device="cpu", form="unfold"))
    named = str(file.rename(tmp_path / "a-opencv.onnx"))
    check_model(named, images, SETTINGS.imgsz)
    expected, found = (detect(m, images, NOISY, SETTINGS) for m in (str(detectors / "a.pt"), named))
    assert found.found.shape == expected.found.shape
    assert score(images, found) == pytest.approx(score(images, expected), abs=1e-3)
    plan = Plan(
        {"ort": str(shutil.copyfile(named, tmp_path / "a.onnx")), "opencv": named}, [Condition("clean")], SETTINGS
    )
    first, second = (cell.identity for cell in plan.cells(images, "machine"))
    assert second == {**first, "runtime": "opencv"}


def test_exported_onnx(images, detectors, tmp_path):
    shutil.copy(detectors / "a.pt", tmp_path / "a.pt")
    onnx = YOLO(tmp_path / "a.pt").export(format="onnx", imgsz=192, device="cpu")
    check_model(onnx, images, SETTINGS.imgsz)
    expected, found = (detect(str(m), images, NOISY, SETTINGS) for m in (detectors / "a.pt", onnx))
    assert score(images, found) == pytest.approx(score(images, expected), abs=5e-3)
    with pytest.raises(YoloDynError, match="was exported for images of 192x192, and imgsz is 320"):
        check_model(onnx, images, 320)


def test_models_that_do_not_fit(images, detectors, tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no checkpoint")
    save(YOLO("yolov8n-seg.yaml"), tmp_path / "seg.pt")
    save(YOLO("yolov8n.yaml"), tmp_path / "coco.pt")
    renamed = YOLO(detectors / "a.pt")
    renamed.model.names = {0: "zebra", **{i: n for i, n in images.names.items() if i}}
    save(renamed, tmp_path / "renamed.pt")
    for name, message in (
        ("nowhere.pt", "nowhere.pt' does not exist"),
        ("yolov8n-sgdm.yaml", "yolov8n-sgdm.yaml' is a YAML, without weights: train it"),
        ("broken.pt", "broken.pt' cannot be loaded"),
        ("seg.pt", "is a segment model; detection models can be evaluated"),
        ("coco.pt", f"have other classes: 80 in the model, {len(images.names)} in the data"),
        ("renamed.pt", f"class 0 is 'zebra' in the model and '{images.names[0]}' in the data"),
    ):
        with pytest.raises(YoloDynError, match=message):
            check_model(str(tmp_path / name), images, SETTINGS.imgsz)
