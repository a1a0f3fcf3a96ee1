"""Scores against pycocotools called by hand, and the bootstrap against scoring each resample anew."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo_dyn import YoloDynError
from yolo_dyn.robustness.scores import (
    NAMES,
    average_precision,
    evaluate,
    mean_performance,
    paired_difference,
    relative_performance,
)


def made_up(images: int = 30, seed: int = 0) -> dict:
    """Objects of three classes and all sizes, some of them crowds, and an image without any."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image in range(1, images):
        for _ in range(rng.integers(1, 7)):
            size = rng.choice([16, 60, 150])
            left, top = rng.uniform(0, 400, 2)
            width, height = rng.uniform(0.6, 1.4, 2) * size
            box = [float(v) for v in (left, top, width, height)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.choice([3, 7, 8], p=[0.6, 0.3, 0.1])),
                    "bbox": box,
                    "area": float(width * height),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
    return {
        "images": [{"id": i} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in (3, 7, 8, 9)],  # the last has no object
    }


def jittered(truth: dict, jitter: float = 0.12, seed: int = 0) -> list[dict]:
    """Detections made from the truth: moved boxes, misses, doubles, false alarms and wrong classes."""
    rng = np.random.default_rng(seed)
    images = [entry["id"] for entry in truth["images"]]
    classes = [entry["id"] for entry in truth["categories"]]
    found = []
    for a in truth["annotations"]:
        for _ in range(rng.choice([0, 1, 1, 1, 1, 2])):
            width, height = a["bbox"][2:]
            box = np.array(a["bbox"]) + rng.normal(0, jitter, 4) * [width, height, width, height]
            box[2:] = np.maximum(box[2:], 1)
            category = a["category_id"] if rng.random() < 0.9 else int(rng.choice(classes))
            found.append((a["image_id"], category, box, rng.beta(4, 2)))
    for _ in range(len(found) // 3):
        box = np.concatenate([rng.uniform(0, 400, 2), rng.uniform(10, 150, 2)])
        found.append((int(rng.choice(images)), int(rng.choice(classes)), box, rng.beta(2, 4)))
    return [
        {"image_id": i, "category_id": c, "bbox": [float(v) for v in box], "score": float(round(score, 2))}
        for i, c, box, score in found  # rounded: equal scores occur
    ]


def by_hand(truth: dict, detections: list[dict]) -> np.ndarray:
    """COCO's twelve figures."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = {"info": {}, **copy.deepcopy(truth)}
        ground.createIndex()
        coco = COCOeval(ground, ground.loadRes(copy.deepcopy(detections)), "bbox")
        coco.evaluate()
        coco.accumulate()
        coco.summarize()
    return coco.stats


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_are_those_of_pycocotools(seed):
    truth = made_up(seed=seed)
    detections = jittered(truth, seed=seed)
    result, expected = evaluate(truth, detections), by_hand(truth, detections)
    assert 0.2 < result.scores["AP"] < 0.7
    assert [result.scores[name] for name in NAMES] == pytest.approx(expected[:6], abs=1e-9)
    assert result.scores["AR100"] == pytest.approx(expected[8], abs=1e-9)
    assert set(result.per_class) == {"class 3", "class 7", "class 8"}
    assert np.mean(list(result.per_class.values())) == pytest.approx(expected[0], abs=1e-9)
    found = average_precision(result.records, np.ones(result.images, int))
    assert [found.mean(), found[0], found[5]] == pytest.approx(expected[:3], abs=1e-9)


def test_scores_on_official_annotations_with_crowds(photos):
    truth = json.loads((photos / "coco-tiny" / "annotations" / "instances_val2017.json").read_text())
    assert any(a["iscrowd"] for a in truth["annotations"])
    detections = jittered(truth, jitter=0.08)
    expected, result = by_hand(truth, detections), evaluate(truth, detections)
    assert 0.3 < expected[0] < 0.7
    assert [result.scores[name] for name in NAMES] == pytest.approx(expected[:6], abs=1e-9)
    found = average_precision(result.records, np.ones(result.images, int))
    assert found.mean() == pytest.approx(expected[0], abs=1e-9)


def resampled(truth: dict, detections: list[dict], times: np.ndarray) -> tuple[dict, list[dict]]:
    """The images as often as they were drawn, each copy an image of its own."""
    images, annotations, found = [], [], []
    for image, count in zip(truth["images"], times, strict=True):
        for _ in range(count):
            new = len(images) + 1
            images.append({"id": new})
            annotations += [{**a, "image_id": new} for a in truth["annotations"] if a["image_id"] == image["id"]]
            found += [{**d, "image_id": new} for d in detections if d["image_id"] == image["id"]]
    annotations = [{**a, "id": i} for i, a in enumerate(annotations, 1)]
    return {**truth, "images": images, "annotations": annotations}, found


def test_a_resample_equals_scoring_its_images_anew():
    truth = made_up()
    detections = [{**d, "score": d["score"] + i * 1e-6} for i, d in enumerate(jittered(truth))]  # no ties
    result, rng = evaluate(truth, detections), np.random.default_rng(0)
    for _ in range(5):
        times = rng.multinomial(result.images, np.full(result.images, 1 / result.images))
        expected = by_hand(*resampled(truth, detections, times))
        assert average_precision(result.records, times).mean() == pytest.approx(expected[0], abs=1e-9)


def test_the_interval_of_a_difference():
    truth = made_up(60)
    good, bad = evaluate(truth, jittered(truth, 0.05)), evaluate(truth, jittered(truth, 0.2))
    found = paired_difference(good, bad, resamples=200)
    for name in ("AP", "AP50"):
        assert found[name].value == pytest.approx(bad.scores[name] - good.scores[name], abs=1e-9)
        assert found[name].low < found[name].value < found[name].high < 0
    assert paired_difference(good, bad, resamples=200) == found
    assert paired_difference(good, good, resamples=20)["AP"] == paired_difference(bad, bad, resamples=20)["AP"]
    with pytest.raises(YoloDynError, match="the models do not pair: 60 and 30 images"):
        paired_difference(good, evaluate(made_up(30), []))


def test_no_detections_and_no_objects():
    truth = made_up()
    nothing = evaluate(truth, [])
    assert nothing.scores["AP"] == nothing.scores["AR100"] == 0
    assert average_precision(nothing.records, np.ones(nothing.images, int)).max() == 0
    empty = evaluate({**truth, "annotations": []}, jittered(truth))
    assert empty.scores == {}
    assert empty.per_class == {}


@pytest.mark.parametrize(("key", "value"), [("image_id", 999), ("category_id", 4)])
def test_a_detection_of_something_unknown(key, value):
    truth = made_up()
    detections = [{**jittered(truth)[0], key: value}]
    with pytest.raises(YoloDynError, match=f"names the {key.removesuffix('_id')} {value}"):
        evaluate(truth, detections)


def test_mean_and_relative_performance():
    cells = {("gaussian_noise", 1): 0.4, ("gaussian_noise", 2): 0.2}
    assert mean_performance(cells) == pytest.approx(0.3)
    assert relative_performance(0.6, cells) == pytest.approx(0.5)
    assert mean_performance({}) is None
    assert relative_performance(0.6, {}) is None
    assert relative_performance(0, cells) is None


def test_reference_points_of_the_public_leaderboard():
    """Faster R-CNN under Gaussian noise on COCO and VOC: mPC and rPC follow from its five severities."""
    for clean, severities, kept in (
        (36.4, (28.9, 23.7, 17.0, 9.8, 4.0), 46),
        (80.5, (69.6, 59.6, 44.3, 25.8, 11.0), 52),
    ):
        cells = {("gaussian_noise", s): score for s, score in enumerate(severities, 1)}
        assert round(100 * relative_performance(clean, cells)) == kept
