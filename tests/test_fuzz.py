"""Ten thousand inputs that nobody thought of: a result or one line for each, no traceback, no nonsense accepted.

What is valid is decided here by rules of their own, apart from the checks of the package: a rule and the package must
agree on every input.
"""

import contextlib
import functools
import inspect
import io
import json
import math
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from yolo_dyn import cli
from yolo_dyn.data.images import evaluation_set, read_image, unlabelled
from yolo_dyn.data.truth import ground_truth
from yolo_dyn.errors import input_error
from yolo_dyn.output.arguments import checked

NAMES = {0: "cell", 1: "disc"}
SIZES = {"a.png": (40, 30), "b.png": (24, 24)}  # width, height

# values that stand where others are expected ------------------------------------------------------------------------

NUMBERS = [0, 1, -1, 2, 3, 0.5, -0.0, 1.7, 1e9, -1e9, 10**12, 2**63, math.nan, math.inf, -math.inf, True, False]
WORDS = ["", " ", "x", "None", "nan", "cell", "Détecteur", "$x_1$", "../../x", "a" * 300, "0", "1.5", "[1", "{a: 1"]
VALUES = st.sampled_from([*NUMBERS, *WORDS, None, [], {}, [1], [None], {"a": 1}, [[1, 2]], {"x": None}, -5, 64])
TEXTS = st.one_of(
    st.sampled_from(
        [*WORDS, *map(str, NUMBERS), "0,1", "1,,2", ",", "5,6", "1e400", "-1,3", "1_000", "0x10", "٣", "640"]
    ),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)


def places(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths to everything in nested lists and dictionaries."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from places(value, (*path, key))


@st.composite
def spoilt(draw: Callable, tree: Any) -> Any:
    """A copy of nested lists and dictionaries with one to three things replaced, taken away or doubled."""
    tree = deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(tree))
        if not found:
            break
        *path, key = draw(st.sampled_from(found))
        inside = functools.reduce(lambda part, at: part[at], path, tree)
        how = draw(st.sampled_from(["replace", "replace", "remove", "double"]))
        if how == "remove":
            del inside[key]
        elif how == "double" and isinstance(inside, list):
            inside.insert(key, deepcopy(inside[key]))
        else:
            inside[key] = deepcopy(draw(VALUES))
    return tree


@st.composite
def damaged(draw: Callable, content: bytes) -> bytes:
    """Bytes with some cut off, changed or put in."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        how = draw(st.sampled_from(["cut", "change", "insert", "drop"]))
        if how == "cut":
            del content[at:]
        elif how == "drop":
            del content[at : at + draw(st.integers(1, 20))]
        elif how == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif content:
            content[at] = draw(st.integers(0, 255))
    return bytes(content)


def refused(run: Callable[[], Any]) -> tuple[Any, bool]:
    """What comes of it, and whether it was refused by one line. Any other error goes on."""
    try:
        return run(), False
    except Exception as error:
        ours = input_error(error)
        if ours is None:
            raise
        assert str(ours).strip()
        return None, True


# arguments ----------------------------------------------------------------------------------------------------------


def whole(low: int, high: float = math.inf, step: int = 1) -> Callable[[str], bool]:
    def valid(text: str) -> bool:
        with contextlib.suppress(ValueError):
            return low <= int(text) <= high and int(text) % step == 0
        return False

    return valid


def real(low: float = -math.inf, high: float = math.inf, finite: bool = True) -> Callable[[str], bool]:
    def valid(text: str) -> bool:
        with contextlib.suppress(ValueError):
            value = float(text)
            return not finite or (low <= value <= high and math.isfinite(value))
        return False

    return valid


def several(valid: Callable[[str], bool], least: int = 1) -> Callable[[str], bool]:
    def all_valid(text: str) -> bool:
        parts = [part for part in text.split(",") if part]
        return len(parts) >= least and all(map(valid, parts))

    return all_valid


def anything(text: str) -> bool:
    return True


def is_file_name(text: str) -> bool:
    return Path(text).name != ""


def switch(text: str) -> bool:
    return text.lower() in ("true", "false")


RULES: dict[str, Callable[[str], bool]] = {
    **dict.fromkeys(("batch", "count", "epochs", "jobs", "max_det", "resamples"), whole(1)),
    **dict.fromkeys(("nc", "seed", "workers"), whole(0)),
    **dict.fromkeys(("conf", "iou"), real(0, 1)),
    **dict.fromkeys(("compiled", "counts", "exist_ok", "filtered", "frozen", "half"), switch),
    **dict.fromkeys(("hashes", "json", "rewire", "seconds", "train"), switch),
    **dict.fromkeys(("arms", "formats", "inputs", "layers", "runs"), several(anything)),
    "args": several(anything, 0),
    "experts": whole(1, 64),
    "imgsz": whole(32, 16384, 32),
    "pictures": several(lambda text: text in ("png", "pdf", "svg")),
    "quality": whole(1, 100),
    "p": real(finite=False),  # noise-recipe checks both by itself
    "rounds": whole(1),
    "seeds": several(whole(0)),
    "severity": several(whole(1, 5)),
    "sigma": several(real(0)),
    "threads": whole(0, 1024),
}
SEVERAL_MODELS = ("bench", "profile", "robustness", "compare", "cam", "deploy", "repeat")
EXCEPTIONS: dict[tuple[str, str], Callable[[str], bool]] = {
    **{(command, "model"): several(anything) for command in SEVERAL_MODELS},
    **{(command, "images"): several(anything) for command in ("compare", "cam")},
    **{(command, "corruption"): several(anything) for command in ("robustness", "compare", "corrupt")},
    **{(command, "front"): several(anything) for command in ("robustness", "compare")},
    **{(command, "imgsz"): whole(0) for command in ("cam", "points")},
    **{(command, "images"): whole(1) for command in ("bake", "experts")},
    **{(command, "model"): is_file_name for command in ("bake", "experts")},
    ("bench", "rounds"): whole(0),
    ("bench noise", "severity"): whole(1, 5),
    ("cam", "layer"): several(whole(-(10**30)), 0),
    ("experts", "sigma"): lambda text: several(real(0))(text) and 0 in map(float, filter(None, text.split(","))),
    **{("insert", key): several(anything) for key in ("at", "replace")},
    ("noise-recipe", "sigma"): real(finite=False),
    ("points", "layer"): several(anything),
    ("tradeoff", "images"): whole(0),
    ("score", "detections"): several(anything),
    ("score", "sigmas"): several(real()),
    ("score", "task"): lambda text: text in ("detect", "segment", "pose"),
    ("corrupt", "task"): lambda text: text in ("detect", "segment", "pose", "obb"),
    **{(command, "out"): is_file_name for command in ("curves", "tradeoff", "noise-calibrate")},
    ("score", "truth"): is_file_name,
}
NOWHERE = {"model": "nowhere.yaml", "data": "nowhere.yaml", "layer": "SGDM", "base": "a", "study": "nowhere.yaml"}
NEED_FILES = (
    "insert",
    "info",
    "bench",
    "bench noise",
    "profile",
    "robustness",
    "compare",
    "cam",
    "points",
    "experts",
    "bake",
    "deploy",
    "repeat",
    "seeds",
)
NEED_FILES += ("curves", "tradeoff", "results", "corrupt", "score", "noise-calibrate")


@functools.cache
def keys(command: str) -> list[str]:
    kinds = inspect.signature(cli.COMMANDS[command].load()).parameters.items()
    return [key for key, parameter in kinds if parameter.kind is not parameter.VAR_KEYWORD]


@st.composite
def arguments(draw: Callable) -> tuple[str, dict[str, str]]:
    command = draw(st.sampled_from(sorted(cli.COMMANDS)))
    chosen = draw(st.lists(st.sampled_from([*keys(command), "bogus"]), min_size=1, max_size=3, unique=True))
    return command, {key: draw(TEXTS) for key in chosen}


def check_arguments(case: tuple[str, dict[str, str]], folder: Path) -> None:
    command, texts = case
    function = cli.COMMANDS[command].load()
    plain = getattr(function, "__wrapped__", function)
    words = [f"{key}={text}" for key, text in (dict.fromkeys(required(command), "nowhere") | texts).items()]
    valid = all(valid_text(command, key, text) for key, text in texts.items())
    stub = checked(functools.wraps(plain)(lambda **values: values))
    _, no = refused(lambda: stub(**cli.parse(function, words, "")))
    assert no == (not valid), f"{command} {texts} was {'refused' if no else 'accepted'}"
    if command in NEED_FILES:
        files = {key: NOWHERE.get(key, "nowhere") for key in required(command)} | texts
        told = told_by(command, [f"{key}={text}" for key, text in files.items()])
        assert len(told) == 1, told
        assert not [path for path in folder.rglob("*") if path.is_file()]


@functools.cache
def required(command: str) -> tuple[str, ...]:
    kinds = inspect.signature(cli.COMMANDS[command].load()).parameters.items()
    return tuple(k for k, p in kinds if p.default is p.empty and p.kind is not p.VAR_KEYWORD)


def valid_text(command: str, key: str, text: str) -> bool:
    if key not in keys(command):
        return command in ("insert", "check", "repeat", "study") and is_yaml(text)
    return EXCEPTIONS.get((command, key), RULES.get(key, anything))(text)


def is_yaml(text: str) -> bool:
    with contextlib.suppress(yaml.YAMLError):
        yaml.safe_load(text)
        return True
    return False


def told_by(command: str, words: list[str]) -> list[str]:
    """Lines of a command that ends with exit status 2."""
    with contextlib.redirect_stderr(io.StringIO()) as told, contextlib.redirect_stdout(io.StringIO()):
        assert cli.main([*command.split(), *words]) == 2
    return told.getvalue().strip().splitlines()


# annotations --------------------------------------------------------------------------------------------------------

COCO = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
        {"id": 2, "file_name": "b.png", "width": 24, "height": 24},
    ],
    "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "disc"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10.5, 12], "area": 120, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [1, 1, 5, 5], "iscrowd": 1},
        {"id": 3, "image_id": 1, "category_id": 2, "bbox": [20, 20, 8, 8], "iscrowd": 0},
    ],
}
Boxes = list[tuple[str, int, int]]  # image, class, whether it is ignored


def encloses(file: str, box: list[float]) -> bool:
    left, top, width, height = box
    wide, high = SIZES[file]
    inside = min(left + width, wide) - max(left, 0), min(top + height, high) - max(top, 0)
    return all(map(math.isfinite, box)) and width > 0 and height > 0 and min(inside) > 0


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def boxes_of_json(content: Any) -> Boxes | None:
    """What a COCO json says by the letter of the format; None if it says nothing valid."""
    try:
        images = {entry["id"]: entry["file_name"] for entry in content["images"]}
        labels = {entry["id"]: entry["name"] for entry in content["categories"]}
        lists = [content[key] for key in ("images", "categories", "annotations")]
        sound = all(type(each) is list for each in lists) and len(images) == len(lists[0])
        if not sound or any(type(name) is not str or not name for name in images.values()):
            return None
        boxes = []
        for a in content["annotations"]:
            name = labels.get(a["category_id"], a["category_id"])
            if name not in NAMES.values() or a["image_id"] not in images or a.get("iscrowd", 0) not in (0, 1):
                return None
            if type(a["bbox"]) is not list or len(a["bbox"]) != 4 or not all(map(is_number, a["bbox"])):
                return None
            file = images[a["image_id"]]
            if file in SIZES and encloses(file, a["bbox"]):
                boxes.append((file, [*NAMES.values()].index(name), int(a.get("iscrowd", 0))))
        return boxes
    except (KeyError, TypeError, AttributeError):
        return None


def check_json(content: Any, folder: Path) -> None:
    truth, no = refused(lambda: written(folder, "labels.json", json.dumps(content)))
    expected = boxes_of_json(content)
    named = [entry["file_name"] for entry in content["images"]] if expected is not None else []
    if len(set(named)) < len(named) or not set(named) <= set(SIZES):
        return  # which image that is has tests of its own
    assert no == (expected is None or not named), content
    assert no or found_boxes(truth) == sorted(expected), content


def check_json_bytes(content: bytes, folder: Path) -> None:
    refused(lambda: written(folder, "labels.json", content))


def written(folder: Path, annotations: str, content: str | bytes) -> Any:
    """The truth of both images by one file of annotations."""
    file = folder / annotations
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    images = [folder / "images" / "val" / name for name in SIZES]
    key = annotations if annotations.endswith("json") else ""
    truth = ground_truth(images, NAMES, folder, "val", key)
    json.dumps(truth.coco, allow_nan=False)
    return truth


def found_boxes(truth: Any) -> Boxes:
    names = {image["id"]: image["file_name"] for image in truth.coco["images"]}
    return sorted((names[a["image_id"]], a["category_id"], a["iscrowd"]) for a in truth.coco["annotations"])


OBJECTS = [
    {"name": "cell", "difficult": "0", "bndbox": {"xmin": "3", "ymin": "4", "xmax": "12.5", "ymax": "15"}},
    {"name": "disc", "difficult": "1", "bndbox": {"xmin": "20", "ymin": "2", "xmax": "33", "ymax": "9"}},
]


def element(tag: str, value: Any) -> ET.Element:
    made = ET.Element(tag)
    if isinstance(value, dict):
        made.extend(element("".join(c for c in str(key) if c.isalpha()) or "x", part) for key, part in value.items())
    elif isinstance(value, list):
        made.extend(element("item", part) for part in value)
    else:
        made.text = str(value)
    return made


def check_xml(objects: Any, folder: Path) -> None:
    root = ET.Element("annotation")
    root.extend(element("object", each) for each in objects)
    text = ET.tostring(root, encoding="unicode")
    truth, no = refused(lambda: written(folder, "Annotations/a.xml", text))
    expected = boxes_of_xml(ET.fromstring(text))
    assert no == (expected is None), text
    assert no or found_boxes(truth) == sorted(expected), text


def boxes_of_xml(root: ET.Element) -> Boxes | None:
    boxes = []
    for each in root.findall("object"):
        name = each.findtext("name")
        sides = [each.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        if name not in NAMES.values() or not all(side is not None and real(finite=False)(side) for side in sides):
            return None
        left, top, right, bottom = map(float, sides)
        if encloses("a.png", [left - 1, top - 1, right - left + 1, bottom - top + 1]):
            boxes.append(("a.png", [*NAMES.values()].index(name), int(each.findtext("difficult") == "1")))
    return boxes


def check_xml_bytes(content: bytes, folder: Path) -> None:
    refused(lambda: written(folder, "Annotations/a.xml", content))


LINES = [["0", "0.3", "0.4", "0.2", "0.5"], ["1", "0.5", "0.5", "0.1", "0.25"], ["0", "0.7", "0.7", "0.2", "0.2"]]


def check_txt(lines: Any, folder: Path) -> None:
    text = "\n".join(" ".join(map(str, line)) if isinstance(line, list) else str(line) for line in lines)
    truth, no = refused(lambda: written(folder, "labels/val/a.txt", text))
    valid, boxes = boxes_of_txt([line.split() for line in text.splitlines() if line.strip()])
    assert no == (not valid), text
    assert no or boxes is None or found_boxes(truth) == sorted(boxes), text


def boxes_of_txt(rows: list[list[str]]) -> tuple[bool, Boxes | None]:
    """Whether they are valid, and the boxes unless they are polygons."""
    polygons = any(len(row) > 6 for row in rows)
    boxes = {}
    for row in rows:
        if not all(map(real(finite=False), row)) or not (len(row) >= 7 and len(row) % 2 if polygons else len(row) == 5):
            return False, None
        kind, *fractions = map(float, row)
        if kind not in (0, 1) or not all(-0.01 <= f <= 1.01 for f in fractions):
            return False, None
        if not polygons:
            x, y, width, height = fractions
            if min(width, height) < 0:
                return False, None
            wide, high = SIZES["a.png"]
            box = [(x - width / 2) * wide, (y - height / 2) * high, width * wide, height * high]
            if encloses("a.png", box):
                boxes[tuple(np.float32([kind, *fractions]))] = ("a.png", int(kind), 0)
    return True, None if polygons else list(boxes.values())


def check_txt_bytes(content: bytes, folder: Path) -> None:
    refused(lambda: written(folder, "labels/val/a.txt", content))


# data sets, images ---------------------------------------------------------------------------------------------------

DATA = {"path": "FOLDER", "train": "images/val", "val": "images/val", "names": NAMES}
KEYS = {"nc": 2, "channels": 3, "annotations": "", "test": None}  # that it may have too


def check_data(content: Any, folder: Path) -> None:
    if isinstance(content, dict) and content.get("path") == "FOLDER":
        content = {**content, "path": str(folder)}
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    found, no = refused(lambda: evaluation_set(str(file)))
    base = {**DATA, **KEYS, "path": str(folder)}
    same = isinstance(content, dict) and all(base.get(key) == value for key, value in content.items())
    complete = same and set(DATA) <= set(content)
    assert not (no and complete), content
    if not no:
        assert list(found.names) == list(range(len(found.names)))
        assert all(type(name) is str for name in found.names.values())
        assert type(found.channels) is int
        assert found.channels >= 1
        assert {file.name for file in found.files} <= set(SIZES)


def check_image(content: bytes, folder: Path) -> None:
    (folder / "photo.png").write_bytes(content)
    found, no = refused(lambda: unlabelled(str(folder / "photo.png")))
    if not no:
        image = read_image(found.files[0])
        entry = found.coco["images"][0]
        assert image.dtype == np.uint8
        assert image.shape == (entry["height"], entry["width"], 3)
    elif cv2.imread(str(folder / "photo.png")) is not None:
        with pytest.raises(Exception):  # noqa: B017, PT011 - as many kinds as there are formats
            whole_image(content)


def whole_image(content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as image:
        image.load()


def encoded(suffix: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


# model YAMLs, studies ------------------------------------------------------------------------------------------------

MODEL = {
    "nc": 2,
    "scales": {"n": [0.33, 0.25, 256]},
    "backbone": [
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "ODConv", [32, 3, 2, {"num_experts": 2}]],
        [-1, 1, "C2f", [64, True, {"dynamic": "DCD"}]],
    ],
    "head": [[-1, 1, "SGDM", [64, {"razor_ratio": 0.5}]], [-1, 2, "CBAM", [64]], [[2, 4], 1, "Detect", ["nc"]]],
}


def check_model(content: Any, folder: Path) -> None:
    import torch

    from yolo_dyn.integration.api import load_model

    file = folder / "yolov8n-x.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    model, no = refused(lambda: load_model(str(file)))
    if content == MODEL:
        assert not no
    if no:
        return
    classes = content["nc"] if isinstance(content, dict) and content.get("nc") is not None else 80
    with torch.inference_mode():
        found = model.eval()(torch.rand(1, 3, 256, 256))[0]  # the size that told the strides
    assert found.shape[:2] == (1, 4 + int(classes))
    assert found.isfinite().all()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert min(*module.stride, *module.dilation, *module.kernel_size, module.groups) >= 1


def check_study(content: Any, folder: Path) -> None:
    from yolo_dyn.study.columns import COLUMNS
    from yolo_dyn.study.definition import read_study

    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    study, no = refused(lambda: read_study(str(file)))
    if no:
        assert content != study_content()
        return
    assert study.trained().keys() <= study.arms.keys()
    assert all(type(arm.model) is str and arm.model for arm in study.trained().values())
    assert set(study.columns) <= set(COLUMNS)
    assert all(is_number(sigma) and 0 <= sigma < math.inf for sigma in study.sigmas)
    assert study.classes >= 0
    assert study.imgsz >= 32
    assert study.imgsz % 32 == 0
    assert study.split in ("train", "val", "test")
    for arm in study.arms:
        assert all(type(seed) is int and seed >= 0 for seed in study.seeds_of(arm))
        assert study.seeds_of(arm)


@functools.cache
def study_content() -> Any:
    from yolo_dyn.study.definition import FOLDER

    content = yaml.safe_load((FOLDER / "bccd.yaml").read_text(encoding="utf-8"))
    arms = {name: content["arms"][name] for name in list(content["arms"])[:3]}
    first, second, _ = arms
    shared = {key: value for key, value in content.items() if key not in ("arms", "questions", "panels", "text")}
    return {**shared, "arms": arms, "questions": [{"ask": "Is it?", "arm": second, "to": first}]}


# results -------------------------------------------------------------------------------------------------------------


def check_cell(content: Any, folder: Path) -> None:
    from yolo_dyn.robustness import cells
    from yolo_dyn.robustness.results import Sweep, terminal

    run, images = finished(folder.parent)
    cell = run.cells[0]
    shutil.copy(run.folder / "cells" / f"{cell.name}.npz", folder / f"{cell.name}.npz")
    (folder / f"{cell.name}.json").write_text(json.dumps(content))
    (folder / "cells").symlink_to(folder)
    cells.changed(folder, [cell])
    cells.of_other_models(folder, [cell])
    sweep = Sweep.read(folder, [cell], images, run.settings, "")
    assert sweep.records or content != record_content(folder.parent)
    assert sweep.records == [] or sweep.records[0].identity == run.records[0].identity
    if sweep.records:
        assert terminal(sweep)
        json.dumps(sweep.as_dict(), allow_nan=False)
        assert all(0 <= value <= 1 for value in sweep.records[0].scores.values())
        told = sweep.records[0].diagnosis
        assert told is None or told.precision is None or len(told.precision) == 101


@functools.cache
def finished(folder: Path) -> Any:
    """A sweep of one cell, made up: no model is run."""
    from yolo_dyn.robustness import cells, scores
    from yolo_dyn.robustness.diagnosis import diagnose
    from yolo_dyn.robustness.evaluate import Settings
    from yolo_dyn.robustness.plan import Plan
    from yolo_dyn.robustness.records import CLEAN, CellRecord, Condition
    from yolo_dyn.robustness.results import Sweep

    place = folder / "finished"
    (place / "cells").mkdir(parents=True)
    data = data_set(place / "data")
    images = evaluation_set(str(data))
    weights = place / "a.pt"
    weights.write_bytes(b"weights")
    plan = Plan({"a": str(weights)}, [Condition(CLEAN)], Settings(), resamples=20)
    (cell,) = plan.cells(images, "a machine")
    detections = np.array([[0, 2, 3, 10, 12, 0.9, 0], [1, 1, 1, 5, 5, 0.6, 1]])
    result = scores.evaluate(images.coco, detections)
    resampled = scores.resample(result, 20)
    record = CellRecord(
        model="a",
        path=str(weights),
        weights=cell.identity["weights"],
        condition=cell.condition,
        seed=0,
        images=2,
        skipped=0,
        detections=2,
        scores=result.scores,
        per_class=result.per_class,
        intervals=scores.interval(resampled, result.scores, 2),
        ultralytics={"AP": 0.5, "AP50": 0.6},
        milliseconds={"inference": 1.0},
        pixels={},
        seconds=1.0,
        identity=cell.identity,
        diagnosis=diagnose(images.coco, detections, result.records),
    )
    cells.save(
        place / "cells", cells.FinishedCell(cell, record, {"detections": detections, "resampled": resampled}, {})
    )
    return Sweep.read(place, [cell], images, plan.as_dict(), ""), images


def data_set(folder: Path) -> Path:
    """Two images with boxes."""
    for part in ("images/val", "labels/val"):
        (folder / part).mkdir(parents=True)
    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / "val" / name), pixels)
    (folder / "labels/val/a.txt").write_text("0 0.175 0.3 0.25 0.4\n")
    (folder / "labels/val/b.txt").write_text("1 0.15 0.15 0.2 0.2\n")
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump({**DATA, "path": str(folder)}))
    return file


def record_content(folder: Path) -> Any:
    run, _ = finished(folder)
    return json.loads((run.folder / "cells" / f"{run.cells[0].name}.json").read_text())


# ---------------------------------------------------------------------------------------------------------------------

XML = ET.tostring(element("annotation", {"object": OBJECTS[0]}))
TXT = "\n".join(map(" ".join, LINES)).encode()
CASES = {  # name -> how inputs are made up, what is to hold, how many of each hundred
    "arguments": (lambda folder: arguments(), check_arguments, 40),
    "json": (lambda folder: spoilt(COCO), check_json, 10),
    "json bytes": (lambda folder: damaged(json.dumps(COCO).encode()), check_json_bytes, 3),
    "xml": (lambda folder: spoilt(OBJECTS), check_xml, 7),
    "xml bytes": (lambda folder: damaged(XML), check_xml_bytes, 3),
    "txt": (lambda folder: spoilt(LINES), check_txt, 7),
    "txt bytes": (lambda folder: damaged(TXT), check_txt_bytes, 3),
    "data": (lambda folder: spoilt(DATA | KEYS) | spoilt(DATA), check_data, 5),
    "png": (lambda folder: damaged(encoded(".png")), check_image, 3),
    "jpeg": (lambda folder: damaged(encoded(".jpg")), check_image, 3),
    "model": (lambda folder: spoilt(MODEL), check_model, 6),
    "study": (lambda folder: spoilt(study_content()), check_study, 5),
    "cell": (lambda folder: spoilt(record_content(folder)), check_cell, 5),
}


def fuzz(name: str, hundreds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, check, share = CASES[name]
    folder = tmp_path / "work"

    @settings(
        max_examples=math.ceil(share * hundreds),
        deadline=20_000,  # milliseconds: a hang is an error
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # they are small as they are made, and making them smaller would take minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy(tmp_path))
    def agrees(case: Any) -> None:
        prepare(name, folder, monkeypatch)
        check(case, folder)

    agrees()


def prepare(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, or one with images, which the check works in."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    monkeypatch.chdir(folder)
    if name not in ("arguments", "cell"):
        data_set(folder)
    if name != "data":
        shutil.rmtree(folder / "labels", ignore_errors=True)


def changed(tree: Any, path: tuple, value: Any = None) -> Any:
    """A copy with something else at a place, or nothing there if it is None."""
    tree = deepcopy(tree)
    *way, key = path
    inside = functools.reduce(lambda part, at: part[at], way, tree)
    if value is None:
        del inside[key]
    else:
        inside[key] = value
    return tree


CONV, ODCONV, SGDM_ROW = ("backbone", 0, 3), ("backbone", 1, 3), ("head", 0)
FOUND_ONCE = [  # inputs that ended in a traceback, a hang or nonsense before they were checked
    *(("arguments", ("robustness", {"imgsz": text})) for text in ("180", "0", "-64")),
    *(("arguments", ("robustness", {"threads": text})) for text in ("-3", "1000000")),
    *(("arguments", ("robustness", {key: "0"})) for key in ("batch", "max_det", "resamples", "jobs")),
    *(("arguments", ("robustness", {key: ""})) for key in ("sigma", "severity", "corruption", "front", "model")),
    ("arguments", ("robustness", {"conf": "2"})),
    ("arguments", ("robustness", {"iou": "-1"})),
    ("arguments", ("robustness", {"name": "../../x"})),
    ("arguments", ("robustness", {"device": "cuda:99"})),
    *(
        ("arguments", ("robustness", {"front": text}))
        for text in ("x", ":", "bilateral:", "nlm:nan", "math:pi", "..:x")
    ),
    *(("arguments", (command, {"count": text})) for command in ("compare", "cam") for text in ("0", "-1")),
    ("arguments", ("bench", {"rounds": "-1"})),
    ("arguments", ("experts", {"sigma": "25"})),
    *(("arguments", (command, {"out": text})) for command in ("curves", "tradeoff") for text in ("", ".", "/")),
    ("arguments", ("bench layers", {"experts": "1000000000"})),
    ("arguments", ("info", {"nc": "-1"})),
    ("arguments", ("insert", {"ratio": "{"})),
    ("arguments", ("insert", {"layer": "Feature"})),
    ("arguments", ("repeat", {"seeds": ""})),
    ("arguments", ("repeat", {"epoch": "3"})),
    *(("arguments", ("repeat", {"data": text})) for text in ("", ".", "README.md")),
    *(("json", changed(COCO, ("annotations", 0, key))) for key in ("bbox", "category_id", "image_id")),
    *(("json", changed(COCO, ("annotations", 0, "bbox"), box)) for box in ("x", [1, 2, 3], [1, 2, "3", 4], {}, 5)),
    *(("json", changed(COCO, ("annotations", 0, "bbox"), [1, 1, side, 4])) for side in (math.nan, math.inf, -3, 0)),
    *(("json", changed(COCO, ("annotations", 0, "category_id"), value)) for value in ([], {}, "x", 9, math.nan)),
    *(("json", changed(COCO, ("annotations", 0, "image_id"), value)) for value in ([], {}, "x", 9)),
    *(("json", changed(COCO, (key,), "")) for key in COCO),
    *(("xml", changed(OBJECTS, (0, "bndbox", "xmax"), side)) for side in ("nan", "inf", "2", "", "x")),
    *(("txt", changed(LINES, (0, 0), kind)) for kind in ("nan", "1.7", "-1", "2", "cell")),
    ("txt", [*LINES, LINES[0]]),
    ("txt bytes", b"0 0.5 0.5 0.2 0.2\n\xff\xfe"),
    ("xml bytes", b"\xff\xfe<annotation>"),
    ("json bytes", b"\xff\xfe{}"),
    *(("model", changed(MODEL, (*ODCONV, 2), stride)) for stride in (0, -1)),
    ("model", changed(MODEL, (*ODCONV, 1), 0)),
    ("model", changed(MODEL, (*ODCONV, 3), {"dilation": 0})),
    ("model", changed(MODEL, (*ODCONV, 3), {3: 4})),
    ("model", changed(MODEL, ("backbone", 2, 3, 2), {"dynamic": 3})),
    ("model", changed(MODEL, (*SGDM_ROW, 3, 1), {"ratio": math.inf})),
    ("model", changed(MODEL, (*SGDM_ROW, 3, 1), {"num_experts": 10**9})),
    ("model", changed(MODEL, SGDM_ROW, 5)),
    ("model", changed(MODEL, ("head",))),
    ("model", changed(MODEL, (*CONV, 0), "wide")),
]


@pytest.mark.parametrize(("name", "case"), FOUND_ONCE, ids=str)
def test_what_was_found_once(name, case, tmp_path, monkeypatch):
    prepare(name, tmp_path / "work", monkeypatch)
    CASES[name][1](case, tmp_path / "work")


def test_what_is_sound_is_accepted(tmp_path, monkeypatch):
    """Checks that agree on every input would also hold if all of them were refused."""
    folder = tmp_path / "work"
    sound = {"json": COCO, "xml": OBJECTS, "txt": LINES, "data": DATA | KEYS, "model": MODEL, "study": study_content()}
    sound |= {"png": encoded(".png"), "jpeg": encoded(".jpg"), "cell": record_content(tmp_path)}
    for name, case in sound.items():
        prepare(name, folder, monkeypatch)
        CASES[name][1](case, folder)
    assert boxes_of_json(COCO)
    objects = "".join(ET.tostring(element("object", each), "unicode") for each in OBJECTS)
    assert boxes_of_xml(ET.fromstring(f"<annotation>{objects}</annotation>"))
    assert boxes_of_txt(LINES)[1]
    assert all(valid_text(command, "imgsz", "640") for command in ("robustness", "cam"))


@pytest.mark.parametrize("name", CASES)
def test_a_short_run(name, tmp_path, monkeypatch):
    fuzz(name, 3, tmp_path, monkeypatch)


@pytest.mark.accept
@pytest.mark.parametrize("name", CASES)
def test_ten_thousand_inputs(name, tmp_path, monkeypatch):
    fuzz(name, 100, tmp_path, monkeypatch)
