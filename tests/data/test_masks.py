"""Masks in COCO's format: run lengths as pycocotools has them, and what is none."""

import numpy as np
import pytest
from pycocotools import mask

from yolo_dyn.data.masks import misfit, runs

RANDOM = np.random.default_rng(0)
SIZES = [(1, 1), (7, 5), (40, 33), (640, 480)]


def drawn(size: tuple[int, int], share: float) -> np.ndarray:
    return np.asfortranarray(RANDOM.random(size) < share, dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 1])
def test_run_lengths_are_those_that_pycocotools_wrote(size, share):
    pixels = drawn(size, share)
    flat = pixels.flatten(order="F").astype(int)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat]))) if flat.any() else np.array([], int)
    expected = np.diff(np.concatenate([[0], changes, [flat.size]]))
    compressed = mask.encode(pixels)["counts"]
    assert runs(compressed).tolist() == expected.tolist()
    assert runs(compressed.decode()).tolist() == expected.tolist()
    for counts in (compressed.decode(), expected.tolist()):
        assert misfit({"size": list(size), "counts": counts}, size) == ""


@pytest.mark.parametrize("seed", range(20))
def test_what_is_cut_off_or_longer_is_no_mask(seed):
    random = np.random.default_rng(seed)
    whole = mask.encode(drawn((20, 30), random.random()))["counts"].decode()
    for counts in (whole[: random.integers(len(whole))], whole + "1", whole + whole):
        assert "whose counts sum to 20 x 30 pixels" in misfit({"size": [20, 30], "counts": counts})


WRONG = {
    "nothing": (None, "polygons, or run lengths"),
    "no polygon": ([], "three points or more"),
    "two points": ([[1, 2, 3, 4]], "three points or more"),
    "half a point": ([[1, 2, 3, 4, 5, 6, 7]], "three points or more"),
    "no numbers": ([["a"] * 6], "three points or more"),
    "a huge polygon": ([[0, 0, 1e30, 0, 0, 1]], "100000 pixels away"),
    "no finite one": ([[0, 0, float("nan"), 0, 0, 1]], "100000 pixels away"),
    "no size": ({"counts": "1"}, "with size"),
    "another size": ({"size": [3, 2], "counts": [6]}, r"of the image's size \[2, 3\]"),
    "no counts": ({"size": [2, 3]}, "whose counts sum to 2 x 3 pixels"),
    "no text": ({"size": [2, 3], "counts": "\u00e9"}, "whose counts sum"),
    "no end": ({"size": [2, 3], "counts": "oooo"}, "whose counts sum"),
    "a huge number": ({"size": [2, 3], "counts": "o" * 60 + "0"}, "whose counts sum"),
    "a huge plain number": ({"size": [2, 3], "counts": [10**30]}, "whose counts sum"),
    "a negative one": ({"size": [2, 3], "counts": [7, -1]}, "whose counts sum"),
    "too few": ({"size": [2, 3], "counts": [1, 2]}, "whose counts sum"),
    "true for one": ({"size": [2, 3], "counts": [True, 5]}, "whose counts sum"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_mask(name):
    given, told = WRONG[name]
    assert told.replace("\\", "") in misfit(given, (2, 3))
