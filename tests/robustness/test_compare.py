"""Pictures: what is marked in them, which images are chosen, and `yolo-dyn compare`."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from yolo_dyn import YoloDynError, cli
from yolo_dyn.robustness import pictures
from yolo_dyn.robustness.compare import compare

SMALL = {"imgsz": 192, "device": "cpu"}


def found(*rows: tuple) -> np.ndarray:
    """Detections of image 0 from (left, top, width, height, score, class)."""
    return np.array([(0, *row) for row in rows], float).reshape(-1, 7)


def thing(left: float, top: float, width: float, height: float, category: int = 0, crowd: int = 0) -> dict:
    return {"bbox": [left, top, width, height], "category_id": category, "iscrowd": crowd}


def test_hits_misses_and_false_alarms():
    objects = [
        thing(0, 0, 10, 10),
        thing(50, 50, 10, 10),
        thing(0, 0, 10, 10, category=1),
        thing(80, 0, 40, 40, crowd=1),
    ]
    judged = pictures.judge(
        found(
            (0, 1, 10, 10, 0.5, 0),  # a second one on the first object
            (0, 0, 10, 10, 0.9, 0),
            (50, 56, 10, 10, 0.8, 0),  # overlaps too little
            (85, 5, 10, 10, 0.7, 0),  # inside a crowd
            (90, 20, 10, 10, 0.6, 0),
        ),
        objects,
    )
    assert judged.found[:, 5].tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert judged.hit.tolist() == [True, False, False, False, False]
    assert judged.ignored.tolist() == [False, False, True, True, False]
    assert judged.missed == objects[1:3]
    assert judged.balance == -1


def test_nothing_found_and_nothing_there():
    assert pictures.judge(found(), [thing(0, 0, 9, 9)]).missed == [thing(0, 0, 9, 9)]
    judged = pictures.judge(found((0, 0, 9, 9, 0.5, 0)), [])
    assert (judged.hit.tolist(), judged.missed) == ([False], [])


@pytest.fixture
def drawn(monkeypatch) -> list:
    """What is drawn: the conditions, the chosen images and each panel's title."""
    import matplotlib.pyplot as plt

    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    return figures


def test_source_without_labels(detectors, tmp_path, monkeypatch, drawn):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(detectors / "images/val", tmp_path / "photos")
    models = [str(detectors / "a.pt"), str(detectors / "b.pt")]
    line = str(compare(models, source="photos", sigma=[0, 30], count=2, **SMALL))
    picture = Path("runs/compare/photos/grid.png")
    assert line.endswith(f"drawn to {picture}")
    assert min(cv2.imread(str(picture)).shape[:2]) > 300
    described = yaml.safe_load(Path("runs/compare/photos/data.yaml").read_text())
    assert len(Path(described["val"]).read_text().splitlines()) == 10
    (figure,) = drawn
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == 2 * 2 * 2
    assert titles[0].startswith("clean\n")
    assert titles[1].startswith("sigma 30\n")
    assert all(title.endswith("detections") for title in titles)


def test_source_with_labels_beside_it_and_named_images(detectors, tmp_path, monkeypatch, drawn):
    monkeypatch.chdir(tmp_path)
    labels = sorted((detectors / "labels/val").iterdir(), key=lambda file: -len(file.read_text().splitlines()))
    full, other = (f"{file.stem}.png" for file in labels[:2])
    words = [
        f"model={detectors / 'a.pt'}",
        f"source={detectors}/images/val/*.png",
        f"images={full},{other}",
        "sigma=120",
    ]
    assert cli.main(["compare", *words, "imgsz=192", "device=cpu", "conf=0.02"]) == 0
    (figure,) = drawn
    assert {axis.get_ylabel() for axis in figure.axes[::2]} == {f"a\n{full}", f"a\n{other}"}
    assert all("found" in axis.get_title() for axis in figure.axes)
    clean, noisy = (sum(int(re.search(r"(\d+) found", a.get_title())[1]) for a in figure.axes[i::2]) for i in (0, 1))
    assert clean > noisy


@pytest.mark.parametrize(
    "names",
    [
        None,
        ["cat", "dog"],
        pytest.param("no list", marks=pytest.mark.accept),
        pytest.param({0: "cat"}, marks=pytest.mark.accept),
    ],
    ids=["none", "other", "broken", "one"],
)
def test_labels_of_other_classes_are_left_aside_and_that_is_said(names, detectors, tmp_path, monkeypatch, drawn, log):
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "labels"):
        shutil.copytree(detectors / folder, tmp_path / "set" / folder)
    if names is not None:
        (tmp_path / "set" / "data.yaml").write_text(yaml.safe_dump({"names": names}))
    compare([str(detectors / "a.pt")], source="set/images/val", sigma=[30], count=1, **SMALL)
    assert any("labels beside set/images/val are left aside" in line for line in log)
    assert all(axis.get_title().endswith("detections") for axis in drawn[0].axes)


def test_a_data_yaml_in_place_of_a_source(detectors, tmp_path, monkeypatch, drawn):
    monkeypatch.chdir(tmp_path)
    line = str(compare([str(detectors / "a.pt")], data=str(detectors / "data.yaml"), severity=[5], count=1, **SMALL))
    assert "runs/compare/detectors0/grid.png" in line
    assert [axis.get_title().split("\n")[0] for axis in drawn[0].axes] == ["clean", "gaussian_noise 5"]


@pytest.mark.parametrize("models", [pytest.param(1, marks=pytest.mark.accept), 2])
def test_only_what_the_choice_of_images_needs_is_run_on_all_of_them(models, detectors, tmp_path, monkeypatch, drawn):
    monkeypatch.chdir(tmp_path)
    files = [str(detectors / name) for name in ("a.pt", "b.pt")[:models]]
    compare(files, data=str(detectors / "data.yaml"), sigma=[0, 20, 60], count=2, **SMALL)
    folder = Path("runs/compare/detectors0")
    choice, shown = (
        sorted((cell["model"], cell["sigma"], cell["images"]) for cell in map(json.loads, map(Path.read_text, files)))
        for files in (folder.glob("choice/cells/*.json"), folder.glob("cells/*.json"))
    )
    assert choice == ([("a", 0, 10), ("a", 60, 10)] if models == 1 else [("a", 60, 10), ("b", 60, 10)])
    assert shown == [(model, sigma, 2) for model in "ab"[:models] for sigma in (0, 20, 60)]
    assert len(drawn[0].axes) == 2 * 3 * models


def test_at_most_four_conditions_the_clean_one_among_them():
    assert pictures.spread(list(range(6)), 4) == [0, 2, 3, 5]
    assert pictures.spread([0, 1], 4) == [0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "give one of source"),
        ({"source": "x", "data": "y.yaml"}, "give one of source"),
        ({"source": "missing/*.jpg"}, "source=missing/[*].jpg: no image found"),
        ({"source": "empty"}, "No images found in empty"),
        ({"data": "data.yaml", "images": ["12.png"]}, "image '12.png' is not in data.yaml, split val; did you mean"),
        ({"data": "data.yaml", "model": ["c.pt"]}, "model 'c.pt' does not exist"),
    ],
    ids=str,
)
def test_bad_input(changes, message, detectors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copy(detectors / "data.yaml", tmp_path)
    with pytest.raises(YoloDynError, match=message):
        compare(**{"model": [str(detectors / "a.pt")], **SMALL, **changes})
