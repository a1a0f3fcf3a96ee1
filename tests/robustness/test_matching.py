"""Engines against pycocotools by hand: all scores and matches, of random sets and of official annotations."""

import json

import numpy as np
import pytest
from reference_scores import by_pycocotools, records_of, resampled_precision, simulated

from yolo_dyn import YoloDynError
from yolo_dyn.robustness import matching
from yolo_dyn.robustness.matching import ENGINES, engine, score
from yolo_dyn.robustness.scores import average_precision, draw_images


def random_set(seed: int) -> tuple[dict, np.ndarray]:
    """One to twelve images; in many of them more than a hundred detections of a class, and equal scores."""
    rng = np.random.default_rng(seed)
    images, classes, found = int(rng.integers(1, 13)), int(rng.integers(1, 6)), int(rng.choice([5, 40, 160]))
    truth, detections = simulated(images, seed, classes, found, objects=float(rng.uniform(1, 9)))
    if seed % 2:
        detections[:, 5] = np.round(detections[:, 5], 2)
    return truth, detections[rng.permutation(len(detections))]


def check(truth: dict, detections: np.ndarray) -> None:
    """Precisions and recalls by class, size (all, small, medium, large) and limit (1, 10, 100); and all matches."""
    expected = by_pycocotools(truth, detections)
    matched = records_of(expected)
    for name in ENGINES:
        found = score(engine(name), truth, detections)
        for key in ("precision", "recall"):
            assert found.evaluation.eval[key].shape[-2:] == (4, 3)
            np.testing.assert_array_equal(found.evaluation.eval[key], expected.eval[key])
        # means of these, whose last bit depends on the order in which a numpy adds up
        np.testing.assert_array_max_ulp(found.evaluation.stats, expected.stats, maxulp=4)
        for ours, theirs in zip(found.records, matched, strict=True):
            for key in ("images", "hits", "ignored", "objects"):
                np.testing.assert_array_equal(getattr(ours, key), getattr(theirs, key), err_msg=key)


@pytest.mark.parametrize("seed", range(12))
def test_random_sets(seed):
    check(*random_set(seed))


@pytest.mark.accept
def test_a_thousand_random_sets():
    for seed in range(1000):
        check(*random_set(seed))


def test_the_random_sets_hold_what_is_hard():
    """Crowds that are found, more than a hundred of a class in an image, all sizes, and APs that tell."""
    sets = [random_set(seed) for seed in range(20)]
    evaluated = [by_pycocotools(*each) for each in sets]
    assert sum(record.ignored.any() for coco in evaluated for record in records_of(coco)) > 5
    pairs = [np.unique(found[:, [0, 6]], axis=0, return_counts=True)[1].max() for _, found in sets]
    assert sum(most > 100 for most in pairs) > 3
    stats = np.array([coco.stats for coco in evaluated])
    assert (stats >= 0).mean() > 0.8
    assert stats[stats >= 0].std() > 0.1


def test_official_annotations_with_crowds(photos):
    truth = json.loads((photos / "coco-tiny/annotations/instances_val2017.json").read_text())
    assert any(a["iscrowd"] for a in truth["annotations"])
    rng = np.random.default_rng(0)
    rows = []
    for a in truth["annotations"]:
        for _ in range(rng.integers(0, 4)):
            box = np.array(a["bbox"]) + rng.normal(0, 0.1, 4) * np.array(a["bbox"])[[2, 3, 2, 3]]
            rows.append([a["image_id"], *box[:2], *np.maximum(box[2:], 1), rng.random(), a["category_id"]])
    check(truth, np.array(rows))


@pytest.mark.parametrize("seed", range(0, 12, 2))
def test_a_bootstrap_is_that_of_the_dumbest_loop(seed):
    truth, detections = random_set(seed)
    records = score(engine(), truth, detections).records
    times = draw_images(len(truth["images"]), 5)
    expected = [resampled_precision(records, row) for row in times]
    np.testing.assert_allclose(average_precision(records, times), expected, rtol=0, atol=1e-12)


def test_recalls_that_are_no_exact_hundredths():
    """Where every object is found, each of the 101 recalls is reached by a whole number of hits."""
    truth, _ = simulated(100, classes=1, objects=1)
    kept = {a["image_id"]: a for a in truth["annotations"]}
    truth["annotations"] = [{**a, "iscrowd": 0} for a in kept.values()]
    rows = np.array([[a["image_id"], *a["bbox"], 1 - i / 200, 0] for i, a in enumerate(truth["annotations"])])
    alarms = np.column_stack([rows[:, 0], rows[:, 1:5] + 1000, rows[:, 5] - 0.001, rows[:, 6]])
    records = score(engine(), truth, np.concatenate([rows, alarms])).records
    assert records[0].objects.sum() == len(rows) == 100
    times = np.ones((1, 100), int)
    np.testing.assert_allclose(
        average_precision(records, times)[0], resampled_precision(records, times[0]), rtol=0, atol=1e-12
    )


@pytest.fixture
def fresh():
    """Engines are chosen anew."""
    engine.cache_clear()
    yield
    engine.cache_clear()


def test_the_compiled_engine_is_the_default(fresh):
    assert engine() is engine("hotcoco")


@pytest.mark.parametrize("key", ["precision", "matches", "error"])
def test_an_engine_that_is_not_as_pycocotools_scores_nothing(key, fresh, monkeypatch, caplog):
    class Changed:
        """hotcoco as a newer version of it might be."""

        def __init__(self, *arguments):
            self._coco = compiled.evaluation(*arguments)

        def __getattr__(self, name):
            if key == "error" and name == "evaluate":
                raise TypeError("evaluate() needs an argument")
            value = getattr(self._coco, name)
            if key == "precision" and name == "eval":
                return {**value, "precision": value["precision"] * 0.999}
            if key == "matches" and name == "evalImgs":
                return [entry and {**entry, "dtMatches": np.zeros_like(entry["dtMatches"])} for entry in value]
            return value

    compiled = engine("hotcoco")
    changed = matching.Engine("hotcoco", compiled.dataset, Changed)
    monkeypatch.setattr(matching, "engine", lambda name="": changed if name == "hotcoco" else engine(name))
    assert engine() is engine("pycocotools")
    assert "scoring by pycocotools" in caplog.text
    assert ("evaluate() needs an argument" if key == "error" else "are not those of pycocotools") in caplog.text


def test_an_unknown_engine():
    with pytest.raises(YoloDynError, match="unknown engine 'cocotools'; did you mean 'pycocotools'"):
        engine("cocotools")
