"""Scores against pycocotools called by hand, and the bootstrap against scoring each resample anew."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.stats import bootstrap

from yolo_dyn import YoloDynError
from yolo_dyn.robustness.scores import (
    SCORES,
    average_precision,
    draw_images,
    evaluate,
    interval,
    mean_performance,
    paired_interval,
    relative_performance,
    resample,
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


def rows(detections: list[dict]) -> np.ndarray:
    """Detections as our evaluator takes them, ``[n, 7]``."""
    return np.array([[d["image_id"], *d["bbox"], d["score"], d["category_id"]] for d in detections]).reshape(-1, 7)


def once(images: int) -> np.ndarray:
    return np.ones((1, images), int)


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
    result, expected = evaluate(truth, rows(detections)), by_hand(truth, detections)
    assert 0.2 < result.scores["AP"] < 0.7
    assert result.scores == pytest.approx({name: expected[at] for name, at in SCORES.items()}, abs=1e-9)
    assert set(result.per_class) == {"class 3", "class 7", "class 8"}
    assert np.mean(list(result.per_class.values())) == pytest.approx(expected[0], abs=1e-9)
    (found,) = average_precision(result.records, once(result.images))
    assert [found.mean(), found[0], found[5]] == pytest.approx(expected[:3], abs=1e-9)


def test_scores_on_official_annotations_with_crowds(photos):
    truth = json.loads((photos / "coco-tiny" / "annotations" / "instances_val2017.json").read_text())
    assert any(a["iscrowd"] for a in truth["annotations"])
    detections = jittered(truth, jitter=0.08)
    expected, result = by_hand(truth, detections), evaluate(truth, rows(detections))
    assert 0.3 < expected[0] < 0.7
    assert result.scores == pytest.approx({name: expected[at] for name, at in SCORES.items()}, abs=1e-9)
    found = average_precision(result.records, once(result.images))
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
    result = evaluate(truth, rows(detections))
    for times, found in zip(draw_images(result.images, 5), resample(result, 5), strict=True):
        expected = by_hand(*resampled(truth, detections, times))
        assert found == pytest.approx(expected[:2], abs=1e-9)


def test_the_draws_are_fair_and_the_same_everywhere():
    times = draw_images(50, 4000)
    assert (times.sum(1) == 50).all()
    assert times.mean(0) == pytest.approx(1, abs=0.08)  # five standard errors of a mean of 4,000
    assert times.var() == pytest.approx(1 - 1 / 50, abs=0.02)
    assert times[0, :10].tolist() == [1, 3, 1, 1, 0, 0, 3, 2, 2, 0]
    assert (draw_images(50, 10) == times[:10]).all()
    assert (draw_images(50, 10, seed=1) != times[:10]).any()


def test_memory_of_a_bootstrap_is_bounded(monkeypatch):
    truth = made_up()
    result = evaluate(truth, rows(jittered(truth)))
    whole = resample(result, 20)
    monkeypatch.setattr("yolo_dyn.robustness.scores.CHUNK", 100)
    assert (resample(result, 20) == whole).all()


def test_the_interval_of_a_difference():
    truth = made_up(60)
    good, bad = (evaluate(truth, rows(jittered(truth, jitter))) for jitter in (0.05, 0.2))
    one, other = resample(good, 200), resample(bad, 200)
    less = {name: bad.scores[name] - good.scores[name] for name in ("AP", "AP50")}
    for name, (low, high) in paired_interval(one, other, less, 60).items():
        assert low < less[name] < high < 0
        alone = interval(other, bad.scores, 60)[name]
        assert alone[0] < bad.scores[name] < alone[1]
    assert paired_interval(one, one, {"AP": 0.0, "AP50": 0.0}, 60) == {"AP": (0, 0), "AP50": (0, 0)}
    with pytest.raises(YoloDynError, match="the models do not pair: 200 and 100 resamples"):
        paired_interval(one, other[:100], less, 60)


def test_intervals_of_a_mean_are_those_of_scipy():
    """Of skewed values, whose interval is far from that of percentiles."""
    values = np.random.default_rng(3).exponential(size=40)
    drawn = draw_images(40, 40_000)
    found = interval(np.stack([drawn @ values / 40] * 2, 1), {"AP": values.mean(), "AP50": values.mean()}, 40)["AP"]
    expected = {
        method: bootstrap((values,), np.mean, n_resamples=40_000, method=method, rng=0).confidence_interval
        for method in ("BCa", "percentile")
    }
    shift = np.subtract(expected["BCa"], expected["percentile"])
    assert shift.min() > 0.01
    assert found == pytest.approx(tuple(expected["BCa"]), abs=0.2 * shift.min())


@pytest.mark.parametrize("lost", [0, 1])
def test_extreme_resamples(lost):
    """A score outside all its resamples, resamples without an object, and one resample alone."""
    scores, few = {"AP": 0.9, "AP50": 0.9}, np.linspace(0.1, 0.5, 20)[:, None].repeat(2, 1)
    few[:lost] = np.nan
    assert interval(few, scores, 5)["AP"] == pytest.approx((0.5, 0.5), abs=0.1)
    assert interval(few[-1:], scores, 5)["AP"] == (0.5, 0.5)
    assert interval(few[:lost], scores, 5) == {}


def test_no_detections_and_no_objects():
    truth = made_up()
    nothing = evaluate(truth, rows([]))
    assert nothing.scores["AP"] == nothing.scores["AR100"] == 0
    assert average_precision(nothing.records, once(nothing.images)).max() == 0
    empty = evaluate({**truth, "annotations": []}, rows(jittered(truth)))
    assert empty.scores == {}
    assert empty.per_class == {}
    assert np.isnan(average_precision(empty.records, once(empty.images))).all()


@pytest.mark.parametrize(("key", "value"), [("image_id", 999), ("category_id", 4)])
def test_a_detection_of_something_unknown(key, value):
    truth = made_up()
    detections = [{**jittered(truth)[0], key: value}]
    with pytest.raises(YoloDynError, match=f"names the {key.removesuffix('_id')} {value}"):
        evaluate(truth, rows(detections))


def test_mean_and_relative_performance():
    assert mean_performance([0.4, 0.2]) == pytest.approx(0.3)
    assert relative_performance(0.6, [0.4, 0.2]) == pytest.approx(0.5)
    assert mean_performance([]) is None
    assert relative_performance(0.6, []) is None
    assert relative_performance(0, [0.4]) is None


def test_reference_points_of_the_public_leaderboard():
    """Faster R-CNN under Gaussian noise on COCO and VOC: mPC and rPC follow from its five severities."""
    for clean, severities, kept in (
        (36.4, [28.9, 23.7, 17.0, 9.8, 4.0], 46),
        (80.5, [69.6, 59.6, 44.3, 25.8, 11.0], 52),
    ):
        assert round(100 * relative_performance(clean, severities)) == kept
