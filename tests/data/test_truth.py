"""Ground truth: which source is read, and that the sources agree where they should."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import since
from ultralytics.data.utils import verify_image_label

from yolo_dyn import YoloDynError
from yolo_dyn.data.tasks import object_kind
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
        (
            lambda root: write_json(root / "x.json", category_id=4),
            "x.json",
            "x.json: annotation 0: the class 'cow' is none of",
        ),
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


def two_cameras(root: Path, *names: str) -> list[Path]:
    """Two images called alike in folders of their own, and a json that calls its images so, each with one box."""
    files = [root / "images/val" / camera / "frame.png" for camera in ("cam1", "cam2")]
    for file in files:
        file.parent.mkdir()
        shutil.copy(root / "images/val/a.png", file)
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [{"image_id": i, "category_id": 3, "bbox": [i, 5, 20, 15]} for i in range(len(names))],
        "categories": [{"id": 3, "name": "dog"}],
    }
    (root / "x.json").write_text(json.dumps(content))
    return files


def test_json_is_matched_by_path(root):
    files = two_cameras(root, "cam2/frame.png", "cam1/frame.jpg", "cam3/frame.png")
    truth = ground_truth(files, NAMES, root, "val", "x.json")
    assert [(a["image_id"], a["bbox"][0]) for a in truth.coco["annotations"]] == [(0, 1), (1, 0)]
    assert truth.notes == ["1 images are listed in x.json and not in the split: frame"]


def test_json_of_other_folders_is_matched_by_name_and_that_is_said(root):
    file = two_cameras(root, "val2017/frame.jpg")[0]
    truth = ground_truth([file], NAMES, root, "val", "x.json")
    assert len(truth.coco["annotations"]) == 1
    assert truth.notes == ["1 images are matched by their names alone, x.json has other folders: frame.png"]


@pytest.mark.parametrize("names", [("frame.png",), ("frame.png", "frame.png"), ("a/frame.png", "b/frame.png")])
def test_json_that_may_be_of_two_images_is_refused(names, root):
    with pytest.raises(YoloDynError, match=r"x.json: .* may be .* or .*; folders in file_name tell such images apart"):
        ground_truth(two_cameras(root, *names), NAMES, root, "val", "x.json")


def test_xml_that_may_be_of_two_images_is_refused(root):
    write_xml(root / "Annotations")
    shutil.copy(root / "Annotations/a.xml", root / "Annotations/frame.xml")
    with pytest.raises(YoloDynError, match=r"frame.xml may be of .*cam1.* or .*cam2"):
        ground_truth(two_cameras(root), NAMES, root, "val", "Annotations")


@pytest.mark.parametrize(
    "bbox",
    [[10, 5, -20, 15], [10, 5, 20, 0], [float("nan"), 5, 20, 15], [10, 5, float("inf"), 15], [100, 5, 20, 15]],
    ids=["negative", "without height", "NaN", "infinite", "outside"],
)
def test_a_box_that_encloses_nothing_is_left_out_and_named(bbox, root):
    write_json(root / "x.json", bbox=bbox)
    truth = ground_truth(images(root), NAMES, root, "val", "x.json")
    assert truth.coco["annotations"] == []
    assert truth.notes == ["1 images have boxes that enclose nothing of them, which are left out: a.png"]


def test_a_reversed_box_of_xml_is_left_out_and_named(root):
    broken_xml(root, XML.format(difficult=0).replace("<xmax>30", "<xmax>3"))
    truth = ground_truth(images(root), NAMES, root, "val")
    assert truth.coco["annotations"] == []
    assert "enclose nothing" in truth.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [10, 5, 20]}, "annotation 0: bbox must be four numbers"),
        ({"bbox": [10, 5, 20, "15"]}, "annotation 0: bbox must be four numbers"),
        ({"bbox": None}, "annotation 0: bbox must be four numbers"),
        ({"image_id": 8}, "annotation 0 is of image 8, which is not listed"),
        ({"image_id": [7]}, "annotation 0 is none: unhashable"),
        ({"category_id": {}}, "annotation 0 is none: unhashable"),
        ({"iscrowd": 2}, "annotation 0: iscrowd must be 0 or 1, got 2"),
    ],
    ids=str,
)
def test_a_wrong_annotation_of_json_is_named(changes, message, root):
    write_json(root / "x.json", **changes)
    with pytest.raises(YoloDynError, match=re.escape(message)):
        ground_truth(images(root), NAMES, root, "val", "x.json")


@pytest.mark.parametrize("key", ["bbox", "image_id", "category_id"])
def test_a_missing_key_of_json_is_named(key, root):
    write_json(root / "x.json")
    content = json.loads((root / "x.json").read_text())
    del content["annotations"][0][key]
    (root / "x.json").write_text(json.dumps(content))
    with pytest.raises(YoloDynError, match=f"x.json: annotation 0 has no '{key}'"):
        ground_truth(images(root), NAMES, root, "val", "x.json")


SOUND = ["1 0.2 0.25 0.2 0.3", "0 0.5 0.5 0.1 0.1", "1 0.20000000001 0.25 0.2 0.3", "1.0 0.2 0.25 0.2 0.3", ""]
BROKEN = ["2 0.2 0.25 0.2 0.3", "-1 0.2 0.25 0.2 0.3", "nan 0.2 0.25 0.2 0.3", "1 nan 0.2 0.2 0.2", "1 0.1 x 0.1 0.1"]
BORDER = ["1 -0.005 0.5 0.2 0.2", "1 -0.02 0.5 0.2 0.2", "1 1.009 0.5 0.2 0.2", "1 1.02 0.5 0.2 0.2", "1 0.1"]
POLYGONS = ["1 0.1 0.1 0.4 0.2 0.3 0.5", "1 0.1 0.1 0.4 0.2 0.3 0.5 0.2 0.6", "1 0.1 0.1 0.4 0.2 0.3"]


@since("8.4.122", "such checks of labels")
def test_labels_are_taken_as_the_stock_loader_takes_them(root):
    """Random files of sound and broken lines: the same boxes, and an error of ours for what it drops."""
    rng, label, taken = np.random.default_rng(0), root / "labels/val/a.txt", 0
    kinds = (SOUND, [*SOUND, *BORDER[:3:2]], POLYGONS[:2], [*SOUND, *BROKEN, *BORDER, *POLYGONS])
    for number in range(1200):
        label.write_text("\n".join(rng.choice(kinds[number % 4], rng.integers(0, 5))))
        stock = verify_image_label((str(images(root)[0]), str(label), "", False, 2, 0, 0, False))[1]
        if stock is None:
            with pytest.raises(YoloDynError, match=r"a.txt, line \d: "):
                ground_truth(images(root)[:1], NAMES, root, "val")
            continue
        boxes = [
            [a["category_id"], *a["bbox"]]
            for a in ground_truth(images(root)[:1], NAMES, root, "val").coco["annotations"]
        ]
        corner, size = stock[:, 1:3] - stock[:, 3:] / 2, (100, 50)
        expected = np.column_stack([stock[:, 0], corner * size, stock[:, 3:] * size])
        assert np.array(sorted(boxes)) == pytest.approx(np.array(sorted(expected.tolist())), abs=1e-4)
        taken += len(boxes)
    assert taken > 1000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1.7 0.2 0.25 0.2 0.3", "the class 1.7 is none of"),
        ("1 0.5 0.5 -0.005 0.2", "must be fractions of the image"),
        ("1 0.2 0.25 0.2 0.3\n1 0.1 0.1 0.4 0.2 0.3 0.5", "line 1: the file holds polygons"),
        ("1 0.1 0.1 0.4 0.2 0.3 0.5 0.7", "line 1: the file holds polygons"),
    ],
)
def test_lines_that_only_newer_stock_loaders_refuse(line, message, root):
    (root / "labels/val/a.txt").write_text(line)
    with pytest.raises(YoloDynError, match=message):
        ground_truth(images(root), NAMES, root, "val")


def test_what_stands_twice_counts_once_and_is_said(root):
    (root / "labels/val/a.txt").write_text("1 0.2 0.25 0.2 0.3\n\n  \n1 0.20 0.25 0.2 0.3\n")
    truth = ground_truth(images(root), NAMES, root, "val")
    assert len(truth.coco["annotations"]) == 1
    assert truth.notes[-1] == "1 label files hold lines twice, which count once: a.txt"


def test_labels_that_are_no_text_are_named(root):
    (root / "labels/val/a.txt").write_bytes(b"\xff\xfe1 0.2")
    with pytest.raises(YoloDynError, match=r"a.txt is no text"):
        ground_truth(images(root), NAMES, root, "val")


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


def kinds(root: Path, text: str, task: str, **described):
    (root / "labels/val/a.txt").write_text(text)
    kind = object_kind(task, described, "data.yaml")
    return ground_truth(images(root), NAMES, root, "val", kind=kind).coco["annotations"]


def test_polygons_of_yolo_txt_are_masks(root):
    text = "1 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4\n0 0.5 0.5 0.6 0.5 0.5 0.7\n"
    square, triangle = kinds(root, text, "segment")
    assert square["segmentation"] == [pytest.approx([10, 5, 30, 5, 30, 20, 10, 20])]
    assert square["bbox"] == pytest.approx(BOX)
    assert (square["area"], triangle["area"]) == (300, pytest.approx(50, abs=8))
    assert kinds(root, text, "obb")[0]["segmentation"] == square["segmentation"]
    assert "segmentation" not in kinds(root, text, "detect")[0]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_keypoints_of_yolo_txt(root, dimensions):
    points = ("0.2 0.2", "0.3 0.4") if dimensions == 2 else ("0.2 0.2 2", "0 0 0")
    (pose,) = kinds(root, f"1 0.2 0.25 0.2 0.3 {' '.join(points)}\n", "pose", kpt_shape=[2, dimensions])
    expected = [20, 10, 2, 30, 20, 2] if dimensions == 2 else [20, 10, 2, 0, 0, 0]
    assert pose["keypoints"] == pytest.approx(expected)
    assert pose["num_keypoints"] == (2 if dimensions == 2 else 1)
    assert (pose["bbox"], pose["area"]) == (pytest.approx(BOX), pytest.approx(0.53 * 300))


@pytest.mark.parametrize("task", ["segment", "pose"])
def test_masks_and_keypoints_of_json(root, task):
    own = {"segmentation": [[10, 5, 30, 5, 30, 20]]} if task == "segment" else {"keypoints": [20, 10, 2, 0, 0, 0]}
    name = "instances" if task == "segment" else "person_keypoints"
    write_json(root / f"annotations/{name}_val.json", **own)
    (found,) = kinds(root, "", task, kpt_shape=[2, 3])
    assert found.items() >= {**own, "area": 200, "iscrowd": 1}.items()
    assert found.get("num_keypoints", 1) == 1


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("segment", {}, "annotation 0: segmentation must be polygons, or run lengths"),
        (
            "segment",
            {"segmentation": [[1, 2, 3]]},
            "must be polygons of three points or more",
        ),
        ("segment", {"segmentation": {"size": [50, 100]}}, "must be run lengths whose counts sum to 50 x 100 pixels"),
        (
            "segment",
            {"segmentation": {"size": [9, 9], "counts": [81]}},
            r"a mask of a.png is of size \[9, 9\], the image of \[",
        ),
        ("pose", {}, "annotation 0: keypoints must be x, y, visibility of 2, got None"),
        ("pose", {"keypoints": [1, 2, 2]}, "keypoints must be x, y, visibility of 2"),
        ("obb", {}, "annotations: x.json holds nothing for the task obb, which takes YOLO txt"),
    ],
)
def test_json_that_lacks_what_a_task_needs(root, task, changes, message):
    write_json(root / "x.json", **changes)
    kind = object_kind(task, {"kpt_shape": [2, 3]}, "data.yaml")
    with pytest.raises(YoloDynError, match=message):
        ground_truth(images(root), NAMES, root, "val", "x.json", kind)


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        ("1 0.2 0.25 0.2 0.3", "segment", "line 1: the task segment needs polygons"),
        ("1 0.2 0.25 0.2 0.3", "obb", "line 1: the task obb needs four corners"),
        ("1 0.2 0.25 0.2 0.3", "pose", r"line 1: expected a box and keypoints of kpt_shape \[2, 3\]"),
        ("1 0.2 0.25 0.2 0.3 0.2 0.2 2 0 0 0", "detect", "the line has keypoints .* and the task is detect"),
        ("1 0.2 0.25 0.2 0.3 1.2 0.2 2 0 0 0", "pose", "must be fractions of the image"),
        ("1 0.1 0.1 0.3 0.1 0.3 0.4\n1 0.2 0.25 0.2 0.3", "segment", "line 2: the file holds polygons"),
    ],
)
def test_txt_that_lacks_what_a_task_needs(root, text, task, message):
    with pytest.raises(YoloDynError, match=message):
        kinds(root, text, task, kpt_shape=[2, 3])


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({}, "data.yaml has no kpt_shape, which a pose needs"),
        ({"kpt_shape": [0, 3]}, r"kpt_shape must be \[number of keypoints, 2 or 3\], got \[0, 3\]"),
        ({"kpt_shape": [5, 4]}, "kpt_shape must be"),
        ({"kpt_shape": 5}, "kpt_shape must be"),
        ({"kpt_shape": [2, 3], "kpt_oks_sigmas": [0.1]}, "kpt_oks_sigmas must be 2 positive numbers, got .0.1."),
        ({"kpt_shape": [2, 3], "kpt_oks_sigmas": [0.1, 0]}, "kpt_oks_sigmas must be 2 positive numbers"),
    ],
)
def test_keypoints_that_are_not_described(described, message):
    with pytest.raises(YoloDynError, match=message):
        object_kind("pose", described, "data.yaml")


def test_sigmas_of_keypoints():
    assert object_kind("pose", {"kpt_shape": [17, 3]}, "").sigmas[0] == pytest.approx(0.026)
    assert object_kind("pose", {"kpt_shape": [4, 3]}, "").sigmas == (0.25,) * 4
    assert object_kind("pose", {"kpt_shape": [2, 2], "kpt_oks_sigmas": [0.1, 0.2]}, "").sigmas == (0.1, 0.2)
