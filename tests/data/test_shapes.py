"""The embedded data set: the same bytes everywhere, and a set worth learning."""

import hashlib
import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml
from helpers import ROOT
from pycocotools import mask
from ultralytics.data import YOLODataset

from yolo_dyn import YoloDynError
from yolo_dyn.data import outlines, shapes

SHA256 = "ef20642bcc8bf2808d58fe0c32d655d4da1aa90d46e30b8ce2bd6183bd2be7ae"
SHA256_OF_THE_FIRST = "96640e66ae8a9bc0668f0f47c704613a6060ccb131281e029d3827798afe1aa2"
OF_LABELS = {  # of the first fifty images to validate on
    "segment": "98f20308ed887ecdcdd85023ae6b8a2c6680f2a0c7dab79a1c62ec276f68c633",
    "pose": "74a5981b8c7d5acf9028b0a12156554fa9926fa6f03b3260264b87781aad09e7",
    "obb": "b89a58dd31956e4b0c02be7b17f6c0e14f2d4fd5ca74b2b63e3af6dc6666b369",
}
NAMED = {"segment": "shapes-seg.yaml", "pose": "shapes-pose.yaml", "obb": "shapes-obb.yaml"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "shapes"
    shapes.draw(folder)
    return folder


@pytest.mark.accept
def test_every_byte_is_the_same_everywhere(folder):
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.*"), key=lambda file: file.relative_to(folder).as_posix()):
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    assert digest.hexdigest() == SHA256


def test_the_first_images_are_the_same_everywhere():
    digest = hashlib.sha256()
    for split, index in itertools.product(shapes.SPLITS, range(20)):
        image, rows = shapes.draw_image(split, index)
        digest.update(image.tobytes() + "".join(rows).encode())
    assert digest.hexdigest() == SHA256_OF_THE_FIRST


def test_an_image_depends_on_its_split_and_number_alone():
    script = (
        "import sys; from yolo_dyn.data.shapes import draw_image; "
        "sys.stdout.buffer.write(draw_image('val', 7)[0].tobytes())"
    )
    elsewhere = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert shapes.draw_image("val", 7)[0].tobytes() == elsewhere
    assert shapes.draw_image("val", 7)[0].tobytes() != shapes.draw_image("train", 7)[0].tobytes()


@pytest.mark.accept
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


@pytest.mark.parametrize("name", ["shapes.yaml", *NAMED.values()])
def test_the_data_yaml_names_the_classes(name):
    content = yaml.safe_load((ROOT / "datasets" / name).read_text())
    assert tuple(content["names"].values()) == shapes.NAMES
    assert content["path"] == name.removesuffix(".yaml")
    if "pose" in name:
        assert content["kpt_shape"] == [len(outlines.KEYPOINTS), 3]
        turned = {"left": "right", "right": "left"}
        assert [outlines.KEYPOINTS[i] for i in content["flip_idx"]] == [turned.get(k, k) for k in outlines.KEYPOINTS]


@pytest.mark.parametrize("task", NAMED)
def test_labels_of_other_tasks_are_the_same_everywhere(task):
    digest = hashlib.sha256()
    for index in range(50):
        digest.update("\n".join(shapes.draw_image("val", index, task)[1]).encode())
    assert digest.hexdigest() == OF_LABELS[task]


@pytest.mark.parametrize("task", NAMED)
def test_ultralytics_takes_the_sets_of_other_tasks(task, tmp_path, monkeypatch):
    """Every object of every image, none mended or dropped."""
    monkeypatch.setattr(shapes, "SPLITS", {"train": 1, "val": 12})
    content = yaml.safe_load((ROOT / "datasets" / NAMED[task]).read_text())
    assert f'draw(yaml["path"], "{task}")' in content["download"]
    shapes.draw(tmp_path / "set", task)
    stock = YOLODataset(img_path=str(tmp_path / "set/images/val"), data=content, task=task, augment=False, imgsz=192)
    for index, entry in enumerate(stock.labels):
        image, found = shapes.draw_shapes("val", index)
        assert (cv2.imread(entry["im_file"]) == image).all()
        assert len(entry["cls"]) == len(found)
    item = stock[0]
    assert {"segment": "masks", "pose": "keypoints", "obb": "bboxes"}[task] in item
    assert task != "obb" or item["bboxes"].shape[1] == 5


def filled(points: list[tuple[float, float]]) -> np.ndarray:
    flat = [value for point in points for value in point]
    return mask.decode(mask.frPyObjects([flat], shapes.SIZE, shapes.SIZE))[..., 0]


def test_outlines_are_those_of_what_is_drawn():
    """Colours change at the polygon of the last shape, which nothing hides; boxes and keypoints lie where it does."""
    changes = []
    for index in range(20):
        image, found = shapes.draw_shapes("val", index)
        area = filled(outlines.polygon(found[-1], shapes.SIZE))
        near = np.ones((3, 3), np.uint8)
        inner, outer = area - cv2.erode(area, near), cv2.dilate(area, near, iterations=3) - cv2.dilate(area, near)
        changes.append(np.abs(np.median(image[inner > 0], 0) - np.median(image[outer > 0], 0)).max())
        for shape in found:
            points = np.array(outlines.polygon(shape, shapes.SIZE)) / shapes.SIZE
            x, y, width, height = map(float, shape.box.split())
            assert np.abs(points.min(0) - [x - width / 2, y - height / 2]).max() < 4 / shapes.SIZE  # of a thin tip
            assert np.abs(points.max(0) - [x + width / 2, y + height / 2]).max() < 4 / shapes.SIZE
            area, box = (filled(of(shape, shapes.SIZE)) for of in (outlines.polygon, outlines.rotated_box))
            whole = all(shape.radius < at < shapes.SIZE - shape.radius for at in shape.centre)
            assert (area & box).sum() > (0.9 if whole else 0.7) * area.sum()  # small ones have many pixels at the edge
            centre, top, right, bottom, left = outlines.keypoints(shape)
            assert top[1] < bottom[1]
            assert left[0] < right[0]
            assert np.abs(np.array(centre) - shape.centre).max() < 1
    assert np.mean(np.array(changes) > 20) > 0.9


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
