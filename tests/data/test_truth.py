"""Ground truth: which source is read, and that the sources agree where they should."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolo_dyn import YoloDynError
from yolo_dyn.data.truth import ground_truth
from yolo_dyn.integration.api import dataset

NAMES = {0: "cat", 1: "dog"}
XML = """<annotation><size><width>100</width><height>50</height></size>
<object><name>dog</name><difficult>{difficult}</difficult>
<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object></annotation>"""
BOX = [10, 5, 20, 15]


@pytest.fixture
def root(tmp_path) -> Path:
    """Two images of 100 x 50 pixels, the first with a dog, as YOLO txt."""
    for folder in ("images/val", "labels/val"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"images/val/{name}.png"), np.zeros((50, 100, 3), np.uint8))
    (tmp_path / "labels/val/a.txt").write_text("1 0.2 0.25 0.2 0.3\n")
    return tmp_path


def images(root: Path) -> list[Path]:
    return sorted((root / "images/val").iterdir())


def write_json(path: Path, **changes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    annotation = {"image_id": 7, "category_id": 3, "bbox": BOX, "area": 200, "iscrowd": 1, **changes}
    content = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "annotations": [annotation],
        "categories": [{"id": 3, "name": "dog"}, {"id": 4, "name": "cow"}],
    }
    path.write_text(json.dumps(content))


def write_xml(folder: Path, difficult: int = 0) -> None:
    folder.mkdir(parents=True)
    (folder / "a.xml").write_text(XML.format(difficult=difficult))
    (folder / "b.xml").write_text("<annotation></annotation>")


def broken_xml(root: Path, text: str) -> None:
    write_xml(root / "Annotations")
    (root / "Annotations/a.xml").write_text(text)


def test_yolo_txt(root):
    truth = ground_truth(images(root), NAMES, root, "val")
    assert "YOLO txt" in truth.source
    (box,) = truth.coco["annotations"]
    assert box["bbox"] == pytest.approx(BOX)
    assert (box["image_id"], box["category_id"], box["iscrowd"], box["area"]) == (0, 1, 0, pytest.approx(300))
    first = {"id": 0, "file_name": "a.png", "width": 100, "height": 50}
    assert truth.coco["images"] == [first, {**first, "id": 1, "file_name": "b.png"}]


@pytest.mark.parametrize("folder", ["Annotations", "images/VOCdevkit/VOC2007/Annotations"])
@pytest.mark.parametrize("difficult", [0, 1])
def test_voc_xml_comes_before_yolo_txt(root, folder, difficult):
    write_xml(root / folder, difficult)
    truth = ground_truth(images(root), NAMES, root, "val")
    assert "VOC XML" in truth.source
    (box,) = truth.coco["annotations"]
    assert (box["bbox"], box["iscrowd"]) == (BOX, difficult)


def test_json_comes_before_xml_and_the_yaml_s_key_before_all(root):
    write_xml(root / "Annotations")
    write_json(root / "annotations/instances_val.json")
    truth = ground_truth(images(root), NAMES, root, "val")
    assert "COCO json" in truth.source
    (box,) = truth.coco["annotations"]
    assert (box["bbox"], box["area"], box["iscrowd"], box["image_id"], box["category_id"]) == (BOX, 200, 1, 0, 1)
    write_json(root / "own/mine.json", iscrowd=0)
    assert ground_truth(images(root), NAMES, root, "val", "own/mine.json").coco["annotations"][0]["iscrowd"] == 0
    assert "VOC XML" in ground_truth(images(root), NAMES, root, "val", "Annotations").source


def test_json_of_coco_s_own_layout(root):
    shutil.move(root / "images/val", root / "images/val2017")
    write_json(root / "annotations/instances_val2017.json")
    truth = ground_truth(sorted((root / "images/val2017").iterdir()), NAMES, root, "val")
    assert "instances_val2017.json" in truth.source


@pytest.mark.parametrize(
    ("prepare", "given", "message"),
    [
        (
            lambda root: (root / "labels/val/a.txt").write_text("2 0.2 0.25 0.2 0.3"),
            "",
            "a.txt, line 1: the class 2 is",
        ),
        (lambda root: (root / "labels/val/a.txt").write_text("1 0.2"), "", "line 1: expected class, x, y, width and"),
        (lambda root: (root / "labels/val/a.txt").write_text("1 20 25 20 30"), "", "height must be fractions of the"),
        (lambda root: write_json(root / "x.json", category_id=4), "x.json", "x.json: the class 'cow' is none of"),
        (lambda root: (root / "x.json").write_text("{"), "x.json", "x.json is no COCO annotation file"),
        (lambda root: None, "x.json", "annotations: x.json does not exist in"),
        (lambda root: broken_xml(root, "<annotation>"), "", "a.xml is no VOC annotation file"),
        (lambda root: broken_xml(root, XML.format(difficult=0).replace("11", "left")), "", "a.xml: a box must be four"),
        (lambda root: broken_xml(root, XML.format(difficult=0).replace("dog", "cow")), "", "a.xml: the class 'cow' is"),
    ],
)
def test_what_is_broken_is_named(root, prepare, given, message):
    prepare(root)
    with pytest.raises(YoloDynError, match=message):
        ground_truth(images(root), NAMES, root, "val", given)


@pytest.mark.parametrize("route", ["json", "xml"])
def test_an_image_that_is_not_annotated_is_left_out(root, route):
    write_json(root / "annotations/instances_val.json") if route == "json" else write_xml(root / "Annotations")
    shutil.copy(root / "images/val/a.png", root / "images/val/aa.png")
    truth = ground_truth(images(root), NAMES, root, "val")
    assert [file.name for file in truth.files] == ["a.png", "b.png"]
    assert [file.name for file in truth.unknown] == ["aa.png"]
    assert [image["id"] for image in truth.coco["images"]] == [0, 1]


def test_labels_and_images_that_do_not_pair_are_named(root):
    (root / "labels/val/z.txt").write_text("1 0.2 0.25 0.2 0.3\n")
    truth = ground_truth(images(root), NAMES, root, "val")
    assert truth.notes == [
        "1 images have no label file and count as without objects: b.png",
        "1 label files have no image: z.txt",
    ]
    write_json(root / "annotations/instances_val.json")
    (note,) = ground_truth(images(root)[1:], NAMES, root, "val").notes
    assert note == "1 images are listed in instances_val.json and not in the split: a"


def test_sources_of_real_photos_agree(photos):
    """The same objects from json, XML and txt; txt has no crowds."""
    data = dataset(str(photos / "voc20" / "data.yaml"))
    root, files = Path(data["path"]), sorted((photos / "voc20/images/val").iterdir())[:150]
    found = {}
    for given in ("annotations_coco/instances_val.json", "Annotations"):
        annotations = ground_truth(files, data["names"], root, "val", given).coco["annotations"]
        assert any(a["iscrowd"] for a in annotations)
        found[given] = sorted((a["image_id"], a["category_id"], a["iscrowd"]) for a in annotations)
    assert found["Annotations"] == found["annotations_coco/instances_val.json"]
    txt = ground_truth(files, data["names"], photos / "voc20/labels", "val")  # where nothing better is beside it
    assert "YOLO txt" in txt.source
    plain = sorted((a["image_id"], a["category_id"], 0) for a in txt.coco["annotations"])
    assert plain == [box for box in found["Annotations"] if not box[2]]
