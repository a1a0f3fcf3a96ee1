"""What goes wrong in a cell: beside the scores of the same evaluation, as JSON, and where something is lacking."""

import json
import time

import numpy as np
import pytest

from yolo_dyn.robustness.diagnosis import (
    NO_OBJECT,
    NO_PROBABILITIES,
    NO_SIZES,
    TOO_FEW,
    TOO_FEW_BY_POSITION,
    Diagnosis,
    diagnose,
    mean_precision,
)
from yolo_dyn.robustness.scores import evaluate


def case(objects: int = 300, seed: int = 0, classes: int = 3) -> tuple[dict, np.ndarray]:
    """Objects and crowds of several classes in 40 images, and detections that find most of them."""
    rng = np.random.default_rng(seed)
    boxes = np.column_stack([rng.uniform(0, 400, (objects, 2)), rng.uniform(10, 150, (objects, 2))])
    kinds, images = rng.integers(0, classes, objects), rng.integers(0, 40, objects)
    annotations = [
        {
            "id": n + 1,
            "image_id": int(i),
            "category_id": int(k),
            "bbox": b.tolist(),
            "area": 1.0,
            "iscrowd": int(n % 9 == 0),
        }
        for n, (i, k, b) in enumerate(zip(images, kinds, boxes, strict=True))
    ]
    truth = {
        "images": [{"id": i, "width": 600, "height": 600} for i in range(40)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(classes + 1)],
        "annotations": annotations,
    }
    which = rng.integers(0, objects, 3 * objects) if objects else np.zeros(0, int)
    moved = boxes[which] + rng.normal(0, 0.1, (len(which), 4)) * np.tile(boxes[which, 2:], 2)
    moved[:, 2:] = moved[:, 2:].clip(1)
    kind = np.where(rng.random(len(which)) < 0.8, kinds[which], classes)
    return truth, np.column_stack([images[which], moved, rng.beta(3, 3, len(which)), kind])


def diagnosed(truth: dict, found: np.ndarray) -> tuple[Diagnosis, dict]:
    result = evaluate(truth, found)
    return diagnose(truth, found, result.records), result.scores


@pytest.mark.parametrize("classes", [1, 3])
def test_the_mean_of_the_precision_is_ap50(classes):
    truth, found = case(classes=classes)
    told, scores = diagnosed(truth, found)
    assert 0.2 < scores["AP50"] < 0.9
    assert len(told.precision) == 101
    assert np.mean(told.precision) == pytest.approx(scores["AP50"], abs=1e-12)
    assert (np.diff(told.precision) <= 1e-12).all()
    assert told.errors.ap50 == pytest.approx(scores["AP50"], abs=1e-3)  # 100 an image, over all classes
    assert told.missing == []


def test_as_json_and_back():
    told, _ = diagnosed(*case())
    content = json.loads(json.dumps(told.as_dict(), allow_nan=False))
    assert Diagnosis.from_dict(content) == told
    assert told.reliability.bins
    assert content["errors"].keys() == {"AP50", "dAP50", "counts"}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"errors": 3},
        {"errors": 0},
        {"errors": {"AP50": 0.5}},
        {"precision": "abc"},
        {"precision": [2.0] * 101},
        {"precision": [0.5] * 100},
        {"reliability": {"D-ECE": 0.1, "D-ECE_position": None, "detections": 3, "bins": [{"low": 0}]}},
        {"missing": 3},
    ],
)
def test_what_is_no_diagnosis_is_found_out_anew(change):
    told, _ = diagnosed(*case(60))
    assert Diagnosis.from_dict({**told.as_dict(), **change}) is None
    for content in (None, [], {}, {"version": 1}):
        assert Diagnosis.from_dict(content) is None


def test_nothing_found():
    truth, found = case()
    told, scores = diagnosed(truth, found[:0])
    assert scores["AP50"] == told.errors.ap50 == 0
    assert told.precision == [0] * 101
    assert told.errors.gains["missed"] == 1
    assert told.reliability.bins == []
    assert told.missing == [TOO_FEW, TOO_FEW_BY_POSITION]


def test_nothing_to_find():
    truth, found = case()
    told, scores = diagnosed({**truth, "annotations": []}, found)
    assert scores == {}
    assert (told.errors, told.precision) == (None, None)
    assert {b.precision for b in told.reliability.bins} == {0}
    assert 0.3 < told.reliability.dece < 1
    assert told.missing == [NO_OBJECT]
    crowds = [{**a, "iscrowd": 1} for a in truth["annotations"]]
    assert diagnosed({**truth, "annotations": crowds}, found)[0].missing[0] == NO_OBJECT


def test_scores_of_other_frameworks_that_are_no_probabilities():
    truth, found = case()
    more = np.column_stack([found[:, :5], found[:, 5] * 40 - 10, found[:, 6]])
    told, _ = diagnosed(truth, more)
    assert told.reliability is None
    assert told.missing == [NO_PROBABILITIES]
    assert told.errors == diagnosed(truth, found)[0].errors  # which ask for the order alone


def test_images_of_unknown_size():
    truth, found = case()
    told, _ = diagnosed({**truth, "images": [{"id": i} for i in range(40)]}, found)
    assert told.missing == [NO_SIZES]
    assert told.reliability.dece > 0


@pytest.mark.accept
def test_a_set_of_the_size_of_voc_takes_less_than_its_scoring():
    """5,000 images of 20 classes, 200 detections each; processor time, which other work on the machine leaves alone."""
    rng = np.random.default_rng(0)
    images, objects, count = 5000, 12_000, 1_000_000
    boxes = np.column_stack([rng.uniform(0, 300, (objects, 2)), rng.uniform(20, 180, (objects, 2))])
    image, kind = rng.integers(0, images, objects), rng.integers(0, 20, objects)
    columns = zip(image.tolist(), kind.tolist(), boxes.tolist(), strict=True)
    truth = {
        "images": [{"id": i, "width": 500, "height": 500} for i in range(images)],
        "categories": [{"id": k, "name": str(k)} for k in range(20)],
        "annotations": [
            {
                "id": n,
                "image_id": i,
                "category_id": k,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(n % 10 == 0),
            }
            for n, (i, k, box) in enumerate(columns, 1)
        ],
    }
    which = rng.integers(0, objects, count)
    near = boxes[which] + rng.normal(0, 0.15, (count, 4)) * np.tile(boxes[which, 2:], 2)
    far = np.column_stack([rng.uniform(0, 300, (count, 2)), rng.uniform(20, 180, (count, 2))])
    placed = np.where(rng.random((count, 1)) < 0.5, near, far)
    placed[:, 2:] = placed[:, 2:].clip(1)
    found = np.column_stack([image[which], placed, rng.beta(1, 6, count), kind[which]])
    start = time.process_time()
    result = evaluate(truth, found)
    scored = time.process_time()
    told = diagnose(truth, found, result.records)
    assert told.missing == []
    assert time.process_time() - scored < scored - start


def test_precision_at_each_recall_is_that_of_the_curve(photos):
    """On real annotations with crowds, beside the array that pycocotools keeps."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = json.loads((photos / "coco-tiny" / "annotations" / "instances_val2017.json").read_text())
    rng = np.random.default_rng(0)
    rows = [[a["image_id"], *a["bbox"], rng.uniform(), a["category_id"]] for a in truth["annotations"] * 2]
    found = np.array(rows) + np.pad(rng.normal(0, 8, (len(rows), 4)), ((0, 0), (1, 2)))
    found[:, 3:5] = found[:, 3:5].clip(1)
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = {"info": {}, **truth}
        ground.createIndex()
        coco = COCOeval(ground, ground.loadRes(found), "bbox")
        coco.evaluate()
        coco.accumulate()
    precision = coco.eval["precision"][0, :, :, 0, -1]
    expected = precision[:, (precision > -1).all(0)].mean(1)
    assert 0.2 < expected.mean() < 0.9
    assert mean_precision(evaluate(truth, found).records) == pytest.approx(expected, abs=1e-12)
