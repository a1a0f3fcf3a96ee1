"""Types of errors beside slow loops over TIDE's definitions, and beside tidecv itself where it is installed."""

import math

import numpy as np
import pytest

from yolo_dyn.robustness.error_types import SHOWN, WHOLE, error_types
from yolo_dyn.robustness.overlaps import LIMIT, match


def made_up(seed: int) -> tuple[dict, np.ndarray]:
    """A few images of one to four classes, crowds among them, and all kinds of errors; no two scores are equal."""
    rng = np.random.default_rng(seed)
    classes, images = int(rng.integers(1, 5)), int(rng.integers(1, 6))
    boxes = [
        (i, rng.uniform(0, 90, 2), rng.uniform(8, 60, 2)) for i in range(images) for _ in range(rng.integers(0, 7))
    ]
    objects = [(i, int(rng.integers(classes)), [*at, *size], int(rng.random() < 0.15)) for i, at, size in boxes]
    objects.append((0, 0, [5.0, 5.0, 40.0, 30.0], 0))
    if seed % 4 == 0:
        objects.append(objects[0])  # an object twice
    found = []
    for image, category, box, _ in objects:
        for _ in range(rng.choice([0, 1, 1, 2, 3])):
            moved = np.array(box) + rng.normal(0, rng.choice([0.03, 0.12, 0.3]), 4) * np.tile(box[2:], 2)
            other = int(rng.integers(classes + seed % 2))  # in every second set also a class that has no object
            found.append([image, *moved[:2], *moved[2:].clip(1), category if rng.random() < 0.7 else other])
    for _ in range(rng.integers(0, 12) + 120 * (seed % 10 == 3)):  # sometimes more than count
        place = [*rng.uniform(0, 90, 2), *rng.uniform(5, 50, 2)]
        found.append([rng.integers(images), *place, rng.integers(classes)])
    rows = np.array(found, float).reshape(-1, 6)
    rows = np.insert(rows, 5, rng.permutation(len(rows)) / len(rows), 1)
    return truth_of(objects, images, classes + 1), rows


def truth_of(objects: list[tuple], images: int = 1, classes: int = 3) -> dict:
    """COCO's format of objects: image, class, box, whether it is a crowd."""
    return {
        "images": [{"id": 10 - i, "width": 160, "height": 160} for i in range(images)],  # in no order
        "categories": [{"id": k, "name": str(k)} for k in range(classes)],
        "annotations": [
            {"image_id": 10 - i, "category_id": k, "bbox": [float(v) for v in box], "iscrowd": crowd}
            for i, k, box, crowd in objects
        ],
    }


def rows_of(*found: tuple) -> np.ndarray:
    """Detections in the first image: class, score, box."""
    return np.array([[10, *box, score, k] for k, score, box in found], float).reshape(-1, 7)


def as_ids(rows: np.ndarray) -> np.ndarray:
    """Detections whose images are numbered from 0, by the ids of `truth_of`."""
    return np.column_stack([10 - rows[:, 0], rows[:, 1:]])


# the oracle: TIDE, Sec. 2.2 and 2.3, one detection after the other ---------------------------------------------------


def iou(a, b, crowd=False) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / (a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - common)


def oracle(truth: dict, rows: np.ndarray) -> tuple[dict, dict]:
    """AP50 with the gains, and the numbers of errors."""
    objects = [{**a, "best": None, "found": False} for a in truth["annotations"] if not a["iscrowd"]]
    crowds = [a for a in truth["annotations"] if a["iscrowd"]]
    points = []
    for image in truth["images"]:
        own = sorted((list(row) for row in rows if row[0] == image["id"]), key=lambda row: -row[5])[:100]
        here = [o for o in objects if o["image_id"] == image["id"]]
        judged = [first_match(row, here) for row in own]
        for row, hit in zip(own, judged, strict=True):
            inside = any(
                a["image_id"] == image["id"] and a["category_id"] == row[6] and iou(row[1:5], a["bbox"], True) > 0.5
                for a in crowds
            )
            point = {"score": row[5], "class": row[6], "hit": hit, "ignored": inside and not hit, "type": None}
            if not hit:
                judge(point, row, here)
            points.append(point)
    missed = [o for o in objects if not o["found"] and o["best"] is None]
    base = average_precision([p for p in points if not p["ignored"]], objects, objects)
    gains = {}
    for name in SHOWN[:-1]:
        right = [{**p, "hit": True, "class": p["object"]["category_id"]} for p in points if corrects(p, name)]
        rest = [p for p in points if p["type"] != name and not p["ignored"]]
        gains[name] = max(average_precision(rest + right, objects, objects) - base, 0)
    counted = [p for p in points if not p["ignored"]]
    left = [o for o in objects if not any(o is m for m in missed)]
    gains["missed"] = max(average_precision(counted, left, objects) - base, 0)
    last = [{**p, "score": 1 if p["hit"] else 0} for p in counted]
    gains["false_positive"] = average_precision(last, objects, objects) - base
    gains["false_negative"] = average_precision(counted, [o for o in objects if o["found"]], objects) - base
    counts = {name: sum(p["type"] == name for p in counted) for name in SHOWN}
    return {"AP50": base, **gains}, {**counts, "missed": len(missed)}


def first_match(row: list, objects: list[dict]) -> bool:
    free = [o for o in objects if o["category_id"] == row[6] and not o["found"] and iou(row[1:5], o["bbox"]) >= 0.5]
    if free:
        max(free, key=lambda o: iou(row[1:5], o["bbox"]))["found"] = True
    return bool(free)


def judge(point: dict, row: list, objects: list[dict]) -> None:
    """Give a wrong detection its type. All objects know by now whether they are found."""
    own = max((o for o in objects if o["category_id"] == row[6]), key=lambda o: iou(row[1:5], o["bbox"]), default=None)
    other = max(
        (o for o in objects if o["category_id"] != row[6]), key=lambda o: iou(row[1:5], o["bbox"]), default=None
    )
    overlaps = [iou(row[1:5], o["bbox"]) for o in objects]
    if own and 0.1 <= iou(row[1:5], own["bbox"]) <= 0.5:
        point.update(type="localisation", object=own)
    elif other and iou(row[1:5], other["bbox"]) >= 0.5:
        point.update(type="classification", object=other)
    elif any(o["category_id"] == row[6] and o["found"] and iou(row[1:5], o["bbox"]) >= 0.5 for o in objects):
        point["type"] = "duplicate"
    elif max(overlaps, default=0) <= 0.1:
        point["type"] = "background"
    else:
        point["type"] = "both"
    meant = point.get("object")
    if meant and not meant["found"] and (meant["best"] is None or meant["best"]["score"] < point["score"]):
        meant["best"] = point


def corrects(point: dict, name: str) -> bool:
    return point["type"] == name and "object" in point and point["object"]["best"] is point


def average_precision(points: list[dict], objects: list[dict], all_objects: list[dict]) -> float:
    """The mean over the classes that have an object at all, of which something is left."""
    each = []
    for k in {o["category_id"] for o in all_objects}:
        own = sorted((p for p in points if p["class"] == k), key=lambda p: -p["score"])
        count = sum(o["category_id"] == k for o in objects)
        if not own and not count:
            continue
        precision, recall, hits = [], [], 0
        for number, point in enumerate(own, 1):
            hits += bool(point["hit"])
            precision.append(hits / number)
            recall.append(hits / count if count else 0)
        reached = [
            max((p for p, r in zip(precision, recall, strict=True) if r >= x / 100), default=0) for x in range(101)
        ]
        each.append(sum(reached) / 101 if count else 0)
    return sum(each) / len(each) if each else 1.0


# ---------------------------------------------------------------------------------------------------------------------


def found_by(truth: dict, rows: np.ndarray) -> tuple[dict, dict]:
    errors = error_types(match(truth, rows))
    return {"AP50": errors.ap50, **errors.gains}, errors.counts


def test_types_and_gains_are_those_of_slow_loops():
    seen = dict.fromkeys((*SHOWN, *WHOLE), 0)
    for seed in range(120):
        truth, rows = made_up(seed)
        rows = as_ids(rows)
        expected, counts = oracle(truth, rows)
        gains, found = found_by(truth, rows)
        assert found == counts, seed
        assert gains == pytest.approx(expected, abs=1e-12), seed
        for name in seen:
            seen[name] += gains[name] > 1e-6
    assert min(seen.values()) > 20  # each type costs something in many sets


def test_types_and_gains_are_those_of_tidecv():
    tidecv = pytest.importorskip("tidecv")
    from tidecv.errors import main_errors as kinds

    types = (kinds.ClassError, kinds.BoxError, kinds.OtherError, kinds.DuplicateError, kinds.BackgroundError)
    named = dict(zip(SHOWN, (*types, kinds.MissedError), strict=True))
    for seed in range(0, 60, 2):  # sets without a class that has no object
        truth, rows = made_up(seed)
        rows = as_ids(rows)
        truth["annotations"] += [
            {"image_id": 10, "category_id": k, "bbox": [120.0, 30.0 * k, 20.0, 20.0], "iscrowd": 0} for k in range(4)
        ]
        given, taken = tidecv.Data("truth"), tidecv.Data("found")
        for image in truth["images"]:
            given.add_image(image["id"], str(image["id"]))
        for a in truth["annotations"]:
            add = given.add_ignore_region if a["iscrowd"] else given.add_ground_truth
            add(a["image_id"], a["category_id"], a["bbox"])
        for image, *box, score, category in rows.tolist():
            taken.add_detection(int(image), int(category), score, box)
        run = tidecv.TIDE().evaluate(given, taken, mode=tidecv.TIDE.BOX)
        expected = {name: value / 100 for name, value in run.fix_special_errors().items()}
        expected = dict(zip(WHOLE, expected.values(), strict=True))
        main = run.fix_main_errors()
        expected |= {name: main[kind] / 100 for name, kind in named.items()} | {"AP50": run.ap / 100}
        assert found_by(truth, rows)[0] == pytest.approx(expected, abs=1e-12), seed


SQUARE = [0, 0, 20, 20]


@pytest.mark.parametrize(
    ("box", "category", "name"),
    [
        ([0, 0, 20, 20], 1, "classification"),
        ([0, 0, 20, 10], 1, "classification"),  # IoU 0.5
        ([0, 0, 20, 9], 1, "both"),
        ([0, 0, 20, 9], 0, "localisation"),
        ([0, 0, 20, 2], 0, "localisation"),  # IoU 0.1
        ([0, 0, 20, 2], 1, "background"),
        ([0, 0, 20, 1], 0, "background"),
        ([50, 50, 20, 20], 0, "background"),
        ([0, 0, 20, 19], 0, "duplicate"),
        ([0, 0, 20, 10], 0, "localisation"),  # IoU 0.5 is of both ranges: the first type that fits
    ],
)
def test_each_type(box, category, name):
    truth = truth_of([(0, 0, SQUARE, 0), (0, 1, [100, 100, 20, 20], 0)])
    found = rows_of((0, 0.9, SQUARE), (1, 0.8, [100, 100, 20, 20]), (category, 0.7, box))
    assert found_by(truth, found)[1] == {kind: int(kind == name) for kind in SHOWN}


def test_a_match_begins_at_an_iou_of_a_half():
    truth = truth_of([(0, 0, SQUARE, 0)])
    assert found_by(truth, rows_of((0, 0.9, [0, 0, 20, 10])))[0]["AP50"] == 1
    assert found_by(truth, rows_of((0, 0.9, [0, 0, 20, 9.99])))[0]["AP50"] == 0


def test_of_several_errors_at_one_object_the_best_corrects_it():
    truth = truth_of([(0, 0, SQUARE, 0)])
    wrong, moved = (1, 0.9, SQUARE), (0, 0.8, [0, 0, 20, 9])
    gains, counts = found_by(truth, rows_of(wrong, moved))
    assert counts == {**dict.fromkeys(SHOWN, 0), "classification": 1, "localisation": 1}
    assert (gains["classification"], gains["localisation"], gains["missed"]) == (1, 0, 0)
    gains, _ = found_by(truth, rows_of((1, 0.7, SQUARE), moved))
    assert (gains["classification"], gains["localisation"]) == (0, 1)


def test_what_lies_in_a_crowd_is_no_error():
    objects = [(0, 0, SQUARE, 0), (0, 0, [50, 50, 100, 100], 1)]
    inside, beside, other = (0, 0.95, [60, 60, 20, 20]), (0, 0.94, [40, 60, 20, 20]), (1, 0.93, [60, 60, 20, 20])
    hit = (0, 0.5, SQUARE)
    assert found_by(truth_of(objects), rows_of(inside, hit))[0]["AP50"] == 1
    gains, counts = found_by(truth_of(objects), rows_of(inside, beside, other, hit))
    assert counts == {**dict.fromkeys(SHOWN, 0), "background": 2}  # half of a box in a crowd is not enough
    assert gains["AP50"] == gains["background"] == 0.5


def test_only_the_best_detections_of_an_image_count():
    truth = truth_of([(0, 0, SQUARE, 0)])
    far = [(0, 0.9 - i / 1000, [50 + i, 50, 20, 20]) for i in range(LIMIT)]
    assert found_by(truth, rows_of(*far[:-1], (0, 0.1, SQUARE)))[0]["AP50"] == pytest.approx(1 / LIMIT)
    gains, counts = found_by(truth, rows_of(*far, (0, 0.1, SQUARE)))
    assert gains["AP50"] == 0
    assert counts == {**dict.fromkeys(SHOWN, 0), "background": LIMIT, "missed": 1}


def test_nothing_found_and_nothing_to_find():
    truth = truth_of([(0, 0, SQUARE, 0)])
    nothing = np.zeros((0, 7))
    gains, counts = found_by(truth, nothing)
    assert gains == {"AP50": 0, **dict.fromkeys((*SHOWN, *WHOLE), 0), "missed": 1, "false_negative": 1}
    assert counts == {**dict.fromkeys(SHOWN, 0), "missed": 1}
    for objects in ([], [(0, 0, SQUARE, 1)]):
        for found in (nothing, rows_of((0, 0.9, SQUARE))):
            assert error_types(match(truth_of(objects), found)) is None


def test_a_class_without_an_object_is_no_part_of_the_mean():
    """Its detections still take places among those that count, and may mean objects of other classes."""
    truth = truth_of([(0, 0, SQUARE, 0)])
    gains, counts = found_by(truth, rows_of((0, 0.9, SQUARE), (2, 0.8, [50, 50, 9, 9])))
    assert gains == {"AP50": 1, **dict.fromkeys((*SHOWN, *WHOLE), 0)}
    assert counts["background"] == 1
    assert found_by(truth, rows_of((2, 0.8, SQUARE)))[0]["classification"] == 1


def test_memory_is_bounded(monkeypatch):
    truth, rows = made_up(13)
    rows = as_ids(rows)
    whole = found_by(truth, rows)
    assert math.prod(map(len, (truth["annotations"], rows))) > 500
    for chunk in (1, 7, 50):
        monkeypatch.setattr("yolo_dyn.robustness.overlaps.CHUNK", chunk)
        assert found_by(truth, rows) == whole
