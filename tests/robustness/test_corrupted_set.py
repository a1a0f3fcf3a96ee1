"""`yolo-dyn corrupt`: the files are the pixels that a sweep measures on, and nothing is lost on the way."""

import csv
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from helpers import heeding_ctrl_c

from yolo_dyn import YoloDynError, cli
from yolo_dyn.robustness import corrupted_set
from yolo_dyn.robustness.corrupted_set import corrupt_set
from yolo_dyn.robustness.corruptions import corrupt
from yolo_dyn.robustness.sweep import robustness

FAST = {"imgsz": 192, "batch": 5, "max_det": 15, "device": "cpu", "threads": 1, "resamples": 50}


def rows(folder: Path) -> list[list[str]]:
    with (folder / "pixels.csv").open(newline="") as file:
        return list(csv.reader(file))


def files(folder: Path) -> dict[str, bytes]:
    """All but what a process that was killed was writing, which is hidden."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def data(detectors, tmp_path) -> Path:
    """A copy of the data set that a test may spoil."""
    shutil.copytree(detectors, tmp_path / "work")
    text = (detectors / "data.yaml").read_text().replace(str(detectors), str(tmp_path / "work"))
    (tmp_path / "work/data.yaml").write_text(text)
    return tmp_path / "work/data.yaml"


def test_pixels_on_disk_are_those_of_a_sweep(detectors, tmp_path, monkeypatch):
    monkeypatch.setattr("yolo_dyn.robustness.sweep.write", lambda *_: None)
    data, out = str(detectors / "data.yaml"), tmp_path / "noisy"
    written = corrupt_set(data, str(out), sigma=[25])
    assert str(written) == f"2 conditions of 10 images, listed in {out / 'manifest.json'}"
    (clean, noisy) = robustness(
        [str(detectors / "a.pt")], data, sigma=[25], hashes=True, project=str(tmp_path), name="sweep", **FAST
    ).records
    conditions = json.loads((out / "manifest.json").read_text())["conditions"]
    assert conditions["clean"]["pixels"] == clean.pixels["used"] == clean.pixels["decoded"]
    assert conditions["gaussian_noise_sigma25"]["pixels"] == noisy.pixels["used"]
    for image, name, pixels, digest in rows(out / "gaussian_noise_sigma25"):
        file = out / "gaussian_noise_sigma25/images" / name
        expected = corrupt(cv2.imread(str(detectors / "images/val" / image)), sigma=25, name=image)
        np.testing.assert_array_equal(cv2.imread(str(file)), expected)
        assert hashlib.sha256(expected.tobytes()).hexdigest() == pixels
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
    # and read back as a data set of its own, the corrupted images score as the sweep's
    (again,) = robustness(
        [str(detectors / "a.pt")],
        str(out / "gaussian_noise_sigma25/data.yaml"),
        sigma=[0],
        project=str(tmp_path),
        name="again",
        **FAST,
    ).records
    assert again.scores == noisy.scores
    assert again.ultralytics == noisy.ultralytics
    assert noisy.scores["AP"] < clean.scores["AP"]


def test_labels_for_stock_ultralytics(detectors, tmp_path, command):
    out = tmp_path / "noisy"
    corrupt_set(str(detectors / "data.yaml"), str(out), corruption=["fog"], severity=[3])
    for file in (detectors / "labels/val").glob("*.txt"):
        expected = np.array([line.split() for line in file.read_text().splitlines()], float)
        found = np.array([line.split() for line in (out / "fog_severity3/labels" / file.name).read_text().splitlines()])
        np.testing.assert_allclose(np.sort(found.astype(float), 0), np.sort(expected, 0), atol=0.01)
    done = command(
        "yolo",
        "val",
        f"model={detectors / 'a.pt'}",
        f"data={out / 'fog_severity3/data.yaml'}",
        "imgsz=192",
        "device=cpu",
        "workers=0",
        "plots=False",
        cwd=tmp_path,
    )
    empty = sum(not file.read_text() for file in (detectors / "labels/val").glob("*.txt"))
    assert f"10 images, {empty} backgrounds, 0 corrupt" in done.stdout + done.stderr


def test_the_same_command_again_writes_what_is_missing_alone(data, monkeypatch, tmp_path):
    out = tmp_path / "out"
    corrupt_set(str(data), str(out), sigma=[0, 10])
    before, read = files(out), []
    (out / "gaussian_noise_sigma10/images/3.png").unlink()
    (out / "gaussian_noise_sigma10/images/4.png").write_bytes(b"damaged")
    original = corrupted_set.read_image
    monkeypatch.setattr(corrupted_set, "read_image", lambda file, channels: read.append(file.name) or original(file))
    corrupt_set(str(data), str(out), sigma=[0, 10])
    assert sorted(read) == ["3.png", "4.png"]
    assert files(out) == before
    corrupt_set(str(data), str(out), sigma=[20])  # adds its own
    conditions = json.loads((out / "manifest.json").read_text())["conditions"]
    assert list(conditions) == ["clean", "gaussian_noise_sigma10", "gaussian_noise_sigma20"]
    assert sorted(read) == sorted(["3.png", "4.png", *(f"{i}.png" for i in range(10))])


def test_another_version_of_a_corruption_is_written_anew(data, monkeypatch, tmp_path):
    out = tmp_path / "out"
    corrupt_set(str(data), str(out), sigma=[10])
    made_by = corrupted_set.made_by
    monkeypatch.setattr(corrupted_set, "made_by", lambda condition, seed: made_by(condition, seed) + " changed")
    read, original = [], corrupted_set.read_image
    monkeypatch.setattr(corrupted_set, "read_image", lambda file, channels: read.append(file.name) or original(file))
    corrupt_set(str(data), str(out), sigma=[10])
    assert len(read) == 20


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"format": "jpg"}, "format png, not jpg"),
        ({"format": "gif"}, "format must be one of png, jpg, got 'gif'"),
        ({"quality": 0}, "quality must be from 1 to 100, got 0"),
        ({"severity": [6]}, "severity must be"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"split": "nights"}, "no split 'nights'"),
        ({"data": "missing.yaml"}, "missing.yaml"),
    ],
)
def test_what_does_not_fit_is_told_and_changes_nothing(data, tmp_path, changes, told):
    out = tmp_path / "out"
    corrupt_set(str(data), str(out), sigma=[0])
    before = files(out)
    with pytest.raises(Exception, match=told):
        corrupt_set(**{"data": str(data), "out": str(out), "sigma": None if "severity" in changes else [0], **changes})
    assert files(out) == before


def test_other_images_and_foreign_files_are_refused(data, tmp_path):
    out = tmp_path / "out"
    corrupt_set(str(data), str(out), sigma=[0])
    (data.parent / "images/val/9.png").unlink()
    with pytest.raises(YoloDynError, match=r"of another set \(images"):
        corrupt_set(str(data), str(out), sigma=[0])
    for content in ("{", "[]"):
        (out / "manifest.json").write_text(content)
        with pytest.raises(YoloDynError, match=r"manifest.json .*out=\.\.\. names another folder"):
            corrupt_set(str(data), str(out), sigma=[0])
    (tmp_path / "file").touch()
    with pytest.raises(YoloDynError, match="cannot be written to"):
        corrupt_set(str(data), str(tmp_path / "file"), sigma=[0])


def test_jpeg_is_of_the_quality_asked_for(data, tmp_path):
    for quality in (30, 95):
        corrupt_set(str(data), str(tmp_path / f"{quality}"), sigma=[0], format="jpg", quality=quality)
    coarse, fine = (tmp_path / f"{quality}/clean/images/0.jpg" for quality in (30, 95))
    assert coarse.stat().st_size < fine.stat().st_size
    decoded = cv2.imencode(".jpg", cv2.imread(str(data.parent / "images/val/0.png")), [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    assert coarse.read_bytes() == decoded.tobytes()


def test_names_that_differ_by_folder_or_suffix_alone(tmp_path):
    for folder, name in (("cam1", "frame.png"), ("cam2", "frame.png"), ("cam2", "frame.bmp"), ("cam2", "000001_x.png")):
        (tmp_path / "images" / folder).mkdir(parents=True, exist_ok=True)
        image = np.full((40, 40, 3), len(list((tmp_path / "images").rglob("*.*"))) * 20, np.uint8)
        cv2.imwrite(str(tmp_path / "images" / folder / name), image)
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [thing]\n")
    corrupt_set(str(tmp_path / "data.yaml"), str(tmp_path / "out"), sigma=[0])
    written = sorted((tmp_path / "out/clean/images").iterdir())
    assert len(written) == 4
    assert len({cv2.imread(str(file))[0, 0, 0] for file in written}) == 4
    assert not (tmp_path / "out/annotations.json").exists()  # nothing is known of them


def test_grey_images_stay_grey_and_many_channels_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8))
    for channels in (1, 8):
        description = {"path": str(tmp_path), "train": "images", "val": "images", "names": ["a"], "channels": channels}
        (tmp_path / f"{channels}.yaml").write_text(yaml.safe_dump(description))
    corrupt_set(str(tmp_path / "1.yaml"), str(tmp_path / "out"), sigma=[25])
    noisy = cv2.imread(str(tmp_path / "out/gaussian_noise_sigma25/images/a.png"), cv2.IMREAD_UNCHANGED)
    assert noisy.shape == (64, 64)
    assert yaml.safe_load((tmp_path / "out/clean/data.yaml").read_text())["channels"] == 1
    with pytest.raises(YoloDynError, match="holds 1 or 3 channels, got channels: 8"):
        corrupt_set(str(tmp_path / "8.yaml"), str(tmp_path / "other"), sigma=[25])


def test_crowds_are_in_the_json_alone(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.zeros((100, 200, 3), np.uint8))
    boxes = [{"bbox": [20, 10, 40, 20], "iscrowd": 0}, {"bbox": [0, 0, 200, 100], "iscrowd": 1}]
    annotations = [{**box, "id": i, "image_id": 7, "category_id": 3, "area": 800} for i, box in enumerate(boxes, 1)]
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 200, "height": 100}],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "thing"}],
    }
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(content))
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [thing]\n")
    corrupt_set(str(tmp_path / "data.yaml"), str(tmp_path / "out"), sigma=[0])
    assert (tmp_path / "out/clean/labels/a.txt").read_text() == "0 0.2 0.2 0.2 0.2\n"
    truth = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [box["iscrowd"] for box in truth["annotations"]] == [0, 1]
    assert truth["images"] == [{"id": 0, "file_name": "a.png", "width": 200, "height": 100, "original": "a.png"}]


def test_from_the_command_line(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["corrupt", f"data={data}", "out=noisy", "corruption=noise", "severity=1"]) == 0
    assert "listed in noisy/manifest.json" in capsys.readouterr().out
    assert len(list(Path("noisy").glob("*/condition.json"))) == 4


@pytest.mark.accept
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_who_ends_it_loses_the_images_in_work_at_most(data, tmp_path, number):
    words = [sys.executable, "-m", "yolo_dyn", "corrupt", f"data={data}", "corruption=noise,digital", "seed=3"]
    subprocess.run([*words, f"out={tmp_path / 'whole'}"], check=True, capture_output=True)
    for _ in range(3):
        ended = [*words, f"out={tmp_path / 'ended'}"]
        with subprocess.Popen(ended, stderr=subprocess.PIPE, text=True, preexec_fn=heeding_ctrl_c) as running:
            begun = len(list((tmp_path / "ended").glob("*/images/*.png")))
            while running.poll() is None and len(list((tmp_path / "ended").glob("*/images/*.png"))) < begun + 40:
                time.sleep(0.02)
            running.send_signal(number)
            told = running.communicate(timeout=60)[1]
        assert "Traceback" not in told
        kept = len(list((tmp_path / "ended").glob("*/images/*.png")))
        assert begun + 40 <= kept < 410
    subprocess.run([*words, f"out={tmp_path / 'ended'}"], check=True, capture_output=True)
    assert files(tmp_path / "ended") == files(tmp_path / "whole")
