"""The embedded data set: the same bytes everywhere, and a set worth learning."""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml
from helpers import ROOT

from yolo_dyn import YoloDynError
from yolo_dyn.data import shapes

SHA256 = "ef20642bcc8bf2808d58fe0c32d655d4da1aa90d46e30b8ce2bd6183bd2be7ae"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "shapes"
    shapes.draw(folder)
    return folder


def test_every_byte_is_the_same_everywhere(folder):
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.*"), key=lambda file: file.relative_to(folder).as_posix()):
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    assert digest.hexdigest() == SHA256


def test_an_image_depends_on_its_split_and_number_alone():
    script = (
        "import sys; from yolo_dyn.data.shapes import draw_image; "
        "sys.stdout.buffer.write(draw_image('val', 7)[0].tobytes())"
    )
    elsewhere = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert shapes.draw_image("val", 7)[0].tobytes() == elsewhere
    assert shapes.draw_image("val", 7)[0].tobytes() != shapes.draw_image("train", 7)[0].tobytes()


def test_splits_classes_and_sizes(folder):
    boxes = []
    for split, count in shapes.SPLITS.items():
        images = sorted((folder / "images" / split).iterdir())
        assert len(images) == count
        assert cv2.imread(str(images[0])).shape == (shapes.SIZE, shapes.SIZE, 3)
        for image in images:
            rows = np.loadtxt(folder / "labels" / split / f"{image.stem}.txt", ndmin=2)
            assert 1 <= len(rows) <= 8
            boxes.append(rows)
    boxes = np.concatenate(boxes)
    counts = np.bincount(boxes[:, 0].astype(int), minlength=len(shapes.NAMES))
    assert len(counts) == len(shapes.NAMES) >= 6
    assert counts.min() > 0.1 * len(boxes)
    corners = np.hstack([boxes[:, 1:3] - boxes[:, 3:] / 2, boxes[:, 1:3] + boxes[:, 3:] / 2])
    assert corners.min() >= -1e-6
    assert corners.max() <= 1 + 1e-6
    sides = np.sqrt(boxes[:, 3] * boxes[:, 4]) * shapes.SIZE
    assert np.percentile(sides, 10) < 20
    assert np.percentile(sides, 90) > 60


def test_the_data_yaml_names_the_classes():
    assert tuple(yaml.safe_load((ROOT / "datasets" / "shapes.yaml").read_text())["names"].values()) == shapes.NAMES


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(YoloDynError, match="exists but is not the complete shapes data set"):
        shapes.draw(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_is_left_of_an_interrupted_drawing(tmp_path, monkeypatch):
    def interrupted(*which):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "draw_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shapes.draw(tmp_path / "shapes")
    assert not list(tmp_path.iterdir())


def test_another_process_may_be_faster(tmp_path, monkeypatch):
    """What it has drawn is the same, and stays; nothing of the slower drawing does."""
    monkeypatch.setattr(shapes, "SPLITS", {"train": 2, "val": 1})
    shapes.draw(tmp_path / "shapes")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "shapes").rglob("*.*")}
    shapes.draw(tmp_path / "shapes")  # it was there before this one began
    (tmp_path / "shapes").rename(tmp_path / "faster")
    real = shapes.draw_image

    def draw_image(split, index, task):
        if split == "val":
            (tmp_path / "faster").rename(tmp_path / "shapes")  # it comes while this one draws
        return real(split, index, task)

    monkeypatch.setattr(shapes, "draw_image", draw_image)
    shapes.draw(tmp_path / "shapes")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "shapes").rglob("*.*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_the_bare_name_draws_it_where_ultralytics_keeps_data_sets(tmp_path, monkeypatch):
    from ultralytics.data import utils

    monkeypatch.setattr(utils, "DATASETS_DIR", tmp_path / "data sets")
    monkeypatch.setattr(shapes, "SPLITS", {"train": 2, "val": 1})
    monkeypatch.chdir(tmp_path)
    for name in ("shapes.yaml", "datasets/shapes.yaml"):
        data = utils.check_det_dataset(name)
        assert data["path"] == tmp_path / "data sets" / "shapes"
        assert data["nc"] == len(shapes.NAMES)
    assert len(list((tmp_path / "data sets" / "shapes" / "images" / "train").iterdir())) == 2
