"""Whether 95 % of the intervals hold the true score: in simulated data sets, and the score in thousands of images."""

import numpy as np
import pytest

from yolo_dyn.robustness.scores import RESAMPLED, Result, evaluate, interval, paired_interval, resample

DATASETS, POPULATION = 500, 45_000
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


@pytest.fixture(scope="module")
def truth() -> dict[str, list[dict[str, float]]]:
    """The scores of both models in thousands of images, and their difference."""
    population = drawn(POPULATION, 10**6)
    return {"alone": [result.scores for result in population], "difference": [less(*population)]}


@pytest.mark.accept
@pytest.mark.parametrize("images", [100, 300])
def test_coverage(images, truth, capsys):
    """Intervals of few images are too narrow, as docs/robustness.md says; those of 300 hold what they promise."""
    held: dict[tuple[str, str, str], list[bool]] = {}
    for seed in range(DATASETS):
        results = drawn(images, seed)
        resampled = [resample(result) for result in results]
        bca = {
            "alone": [interval(r, result.scores, images) for r, result in zip(resampled, results, strict=True)],
            "difference": [paired_interval(*resampled, less(*results), images)],
        }
        plain = {"alone": resampled, "difference": [resampled[1] - resampled[0]]}
        for kind, expected in truth.items():
            for scores, intervals, values in zip(expected, bca[kind], plain[kind], strict=True):
                for name, ends in zip(RESAMPLED, np.percentile(values, [2.5, 97.5], 0).T, strict=True):
                    for method, (low, high) in (("BCa", intervals[name]), ("percentiles", ends)):
                        held.setdefault((kind, name, method), []).append(low <= scores[name] <= high)
    with capsys.disabled():
        print(f"\n{DATASETS} data sets of {images} images: share of 95 % intervals that hold the true score")
        for (kind, name, method), each in held.items():
            print(f"{kind:<12}{name:<6}{method:<12}{np.mean(each):.3f}")
    for (_, _, method), each in held.items():
        assert method == "percentiles" or images < 300 or 0.93 <= np.mean(each) <= 0.97
