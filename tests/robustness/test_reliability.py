"""Reliability of scores beside slow loops over the definition of D-ECE."""

import itertools

import numpy as np
import pytest

from yolo_dyn.robustness.overlaps import Boxes, Matched, Overlaps
from yolo_dyn.robustness.reliability import image_sizes, reliability

SIZES = np.array([[200.0, 100.0], [50.0, 400.0]])


def matched(scores, hit, ignored=None, boxes=None, images=None) -> Matched:
    """Detections of which is known what they are."""
    n = len(scores)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, n) if images is None else np.asarray(images)
    boxes = np.column_stack([rng.uniform(0, 0.8, (n, 2)) * SIZES[images], rng.uniform(1, 9, (n, 2))])
    none = np.zeros(0, int)
    return Matched(
        Boxes(images, boxes, np.zeros(n, int)),
        np.asarray(scores, float),
        Boxes(none, np.zeros((0, 4)), none),
        Overlaps(none, none, np.zeros(0)),
        np.asarray(hit, bool),
        np.zeros(n, bool) if ignored is None else np.asarray(ignored, bool),
        np.zeros(0, bool),
    )


def oracle(values: list[list[float]], hits: list[bool], bins: int) -> float | None:
    """D-ECE of Küppers et al.: the first of each row's values is the score."""
    total, off = 0, 0.0
    for bounds in itertools.product(range(bins), repeat=len(values[0])):
        inside = [
            number
            for number, row in enumerate(values)
            if all(low / bins <= v < (low + 1) / bins for v, low in zip(row, bounds, strict=True))
        ]
        if len(inside) >= 8:
            precision = sum(hits[i] for i in inside) / len(inside)
            confidence = sum(values[i][0] for i in inside) / len(inside)
            total += len(inside)
            off += len(inside) * abs(precision - confidence)
    return off / total if total else None


@pytest.mark.parametrize("count", [30, 300, 1500])
def test_errors_are_those_of_slow_loops(count):
    rng = np.random.default_rng(count)
    scores, ignored = rng.beta(2, 3, count), rng.random(count) < 0.1
    given = matched(scores, rng.random(count) < scores**2, ignored)
    found = reliability(given, SIZES)
    rated = np.flatnonzero((scores >= 0.3) & ~ignored)
    centres = (given.found.boxes[:, :2] + given.found.boxes[:, 2:] / 2) / SIZES[given.found.images]
    hits = given.hit[rated].tolist()
    by_position = np.column_stack([scores, centres])[rated].tolist()
    assert found.detections == len(rated) < count
    assert found.dece == pytest.approx(oracle([row[:1] for row in by_position], hits, 20), abs=1e-12)
    expected = oracle(by_position, hits, 8)
    assert found.dece_position == (None if expected is None else pytest.approx(expected, abs=1e-12))
    assert (expected is None) == (count < 1500)


def test_scores_that_are_probabilities_and_scores_that_are_not():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.3, 1, 200_000)
    honest = reliability(matched(scores, rng.random(len(scores)) < scores), SIZES)
    assert honest.dece < 0.01
    assert honest.dece_position < 0.03
    sure = reliability(matched(np.full(50, 0.9), np.arange(50) < 20), SIZES)
    assert sure.dece == pytest.approx(0.5)
    (only,) = sure.bins
    assert (only.low, only.high, only.detections) == (0.9, 0.95, 50)
    assert (only.confidence, only.precision) == (pytest.approx(0.9), 0.4)


def test_a_bias_of_one_place_shows_by_position_alone():
    """Too sure on the left, too little on the right, right in the mean."""
    left = np.arange(400) % 2 == 0
    given = matched(
        np.full(400, 0.6), np.where(left, np.arange(400) % 10 < 4, np.arange(400) % 10 > 1), images=[0] * 400
    )
    given.found.boxes[:] = np.where(left[:, None], [0, 40, 10, 10], [180, 40, 10, 10])
    found = reliability(given, SIZES)
    assert found.dece == pytest.approx(0, abs=1e-9)
    assert found.dece_position == pytest.approx(0.2)


def test_bins_tell_all_detections_and_few_make_no_error():
    found = reliability(matched([0.3, 0.32, 0.349, 0.35, 1.0], [1, 0, 0, 1, 1]), SIZES)
    assert [(b.low, b.detections) for b in found.bins] == [(0.3, 3), (0.35, 1), (0.95, 1)]
    assert [b.precision for b in found.bins] == pytest.approx([1 / 3, 1, 1])
    assert found.dece is None
    assert reliability(matched([], []), SIZES).bins == []


def test_scores_beyond_probabilities_and_images_of_unknown_size():
    assert reliability(matched([0.5, 1.2], [0, 1]), SIZES) is None
    assert reliability(matched([-3.0], [0]), SIZES) is None
    assert reliability(matched(np.full(9, 0.5), np.ones(9)), None).dece_position is None
    assert image_sizes({"images": [{"id": 1, "width": 5, "height": 4}, {"id": 2}]}) is None
    assert image_sizes({"images": [{"width": 5, "height": 4}]}).tolist() == [[5, 4]]


def test_a_centre_outside_its_image_is_of_the_nearest_bin():
    given = matched(np.full(16, 0.5), np.arange(16) < 8, images=[0] * 16)
    given.found.boxes[:8], given.found.boxes[8:] = [-90, -90, 20, 20], [1, 1, 2, 2]
    assert reliability(given, SIZES).dece_position == pytest.approx(0)
