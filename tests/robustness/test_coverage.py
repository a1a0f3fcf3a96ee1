"""Whether 95 % of the intervals hold the true score: in simulated data sets, and the score in thousands of images."""

import numpy as np
import pytest

from yolo_dyn.robustness.scores import RESAMPLED, Result, evaluate, interval, paired_interval, resample

IMAGES, DATASETS, POPULATION = 300, 500, 45_000
MODELS = ((0.12, 0.0), (0.14, 0.05))  # how far boxes lie off, as a share of their sides, and how many more are missed


def drawn(images: int, seed: int) -> list[Result]:
    """Two models on the same images: three classes, hard and easy images, misses, false alarms, boxes that are off."""
    rng = np.random.default_rng(seed)
    ease, counts = rng.uniform(0.5, 1, images), rng.integers(0, 7, images)
    image = np.repeat(np.arange(images), counts)
    n = len(image)
    sides = rng.choice([16, 60, 150], n)[:, None] * rng.uniform(0.6, 1.4, (n, 2))
    boxes = np.concatenate([rng.uniform(0, 400, (n, 2)), sides], 1)
    classes = rng.choice([1, 2, 3], n, p=[0.5, 0.3, 0.2])
    truth = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": i, "name": str(i)} for i in (1, 2, 3)],
        "annotations": [
            {
                "id": k + 1,
                "image_id": int(i),
                "category_id": int(c),
                "bbox": b.tolist(),
                "area": b[2] * b[3],
                "iscrowd": 0,
            }
            for k, (i, c, b) in enumerate(zip(image, classes, boxes, strict=True))
        ],
    }
    return [evaluate(truth, found(rng, image, boxes, classes, ease, *model)) for model in MODELS]


def found(
    rng: np.random.Generator,
    image: np.ndarray,
    boxes: np.ndarray,
    classes: np.ndarray,
    ease: np.ndarray,
    off: float,
    missed: float,
) -> np.ndarray:
    """Detections, ``[n, 7]``."""
    kept = rng.random(len(image)) < ease[image] - missed
    i, b, c = image[kept], boxes[kept], classes[kept]
    moved = b + rng.normal(0, 1, b.shape) * (off * (1.5 - ease[i]))[:, None] * b[:, [2, 3, 2, 3]]
    moved[:, 2:] = np.maximum(moved[:, 2:], 1)
    hits = [i[:, None], moved, rng.beta(4, 2, (len(i), 1)), c[:, None]]
    alarms = np.repeat(np.arange(len(ease)), rng.poisson(2, len(ease)))
    n = len(alarms)
    corners, sides = rng.uniform(0, 400, (n, 2)), rng.uniform(10, 150, (n, 2))
    return np.concatenate(
        [
            np.concatenate(hits, 1),
            np.concatenate([alarms[:, None], corners, sides, rng.beta(2, 4, (n, 1)), rng.integers(1, 4, (n, 1))], 1),
        ]
    )


def less(first: Result, other: Result) -> dict[str, float]:
    return {name: other.scores[name] - first.scores[name] for name in RESAMPLED}


@pytest.mark.accept
def test_coverage(capsys):
    population = drawn(POPULATION, 10**6)
    true = {"alone": population[0].scores, "difference": less(*population)}
    held = {(kind, name, method): 0 for kind in true for name in RESAMPLED for method in ("BCa", "percentiles")}
    for seed in range(DATASETS):
        first, other = drawn(IMAGES, seed)
        one, two = resample(first), resample(other)
        bca = {
            "alone": interval(one, first.scores, IMAGES),
            "difference": paired_interval(one, two, less(first, other), IMAGES),
        }
        plain = {kind: np.percentile(r, [2.5, 97.5], 0).T for kind, r in (("alone", one), ("difference", two - one))}
        for kind, scores in true.items():
            for k, name in enumerate(RESAMPLED):
                for method, (low, high) in (("BCa", bca[kind][name]), ("percentiles", plain[kind][k])):
                    held[kind, name, method] += low <= scores[name] <= high
    with capsys.disabled():
        print(f"\n{DATASETS} data sets of {IMAGES} images: share of 95 % intervals that hold the true score")
        for (kind, name, method), count in held.items():
            print(f"{kind:<12}{name:<6}{method:<12}{count / DATASETS:.3f}")
    for (_, _, method), count in held.items():
        assert method == "percentiles" or 0.93 <= count / DATASETS <= 0.97
