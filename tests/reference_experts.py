"""Float64 oracle of `yolo-dyn experts`: one image, one expert and one value at a time, from the formulas."""

import math

from reference import conv2d
from torch import Tensor

Weights = list[list[list[float]]]  # [image][mixture][expert]


def energy(values: Tensor) -> float:
    return sum(value * value for value in values.flatten().tolist())


def share(weights: list[float]) -> list[float]:
    total = sum(abs(a) for a in weights)
    return [abs(a) / total for a in weights]


def entropy(shares: list[float]) -> float:
    return -sum(p * math.log(p) for p in shares if p > 0) / math.log(len(shares))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def usage(weights: Weights, kernels: Tensor) -> dict[str, object]:
    """What `Usage` holds."""
    mixtures, experts = range(len(weights[0])), range(len(weights[0][0]))
    each = [[share(w[m]) for m in mixtures] for w in weights]
    means = [[mean([w[m][k] for w in weights]) for k in experts] for m in mixtures]
    variances = [[mean([(w[m][k] - means[m][k]) ** 2 for w in weights]) for k in experts] for m in mixtures]
    lengths = [math.sqrt(energy(kernel)) for kernel in kernels]
    cosines = [
        [float((a * b).sum()) / (p * q) if p and q else None for b, q in zip(kernels, lengths, strict=True)]
        for a, p in zip(kernels, lengths, strict=True)
    ]
    pairs = [cosines[i][j] for i in experts for j in experts if i < j and cosines[i][j] is not None]
    most = [max(image[m][k] for image in each for m in mixtures) for k in experts]
    return {
        "weights": [mean([abs(w[m][k]) for w in weights for m in mixtures]) for k in experts],
        "spread": [math.sqrt(mean([variances[m][k] for m in mixtures])) for k in experts],
        "entropy": mean([entropy(image[m]) for image in each for m in mixtures]),
        "evenness": mean([entropy([mean([i[m][k] for i in each]) for k in experts]) for m in mixtures]),
        "variation": math.sqrt(sum(map(sum, variances)) / sum(a * a for row in means for a in row)),
        "dead": [k for k in experts if most[k] < 0.1 / len(experts) or lengths[k] == 0],
        "cosine": mean(pairs) if pairs else None,
        "largest_cosine": max(pairs, default=None),
    }


def variation(kernels: list[Tensor]) -> float:
    """Of the kernels of clean images."""
    middle = sum(kernels) / len(kernels)
    return math.sqrt(mean([energy(kernel - middle) for kernel in kernels]) / energy(middle))


def relative(clean: list[Tensor], noisy: list[Tensor]) -> float:
    """How far noise moves something, over all images."""
    return sum(energy(b - a) for a, b in zip(clean, noisy, strict=True)) / sum(map(energy, clean))


def moved(
    inputs: tuple[list[Tensor], list[Tensor]], kernels: tuple[list[Tensor], list[Tensor]], geometry: tuple
) -> dict[str, float]:
    """What noise moves, from what the kernels convolve and the kernels, of the clean and of the noisy images."""
    stride, padding, _, groups = geometry
    middle = sum(kernels[0]) / len(kernels[0])
    outputs = [
        [conv2d(x, k, stride, padding, groups) for x, k in zip(*pair, strict=True)]
        for pair in zip(inputs, kernels, strict=True)
    ]
    static = [[conv2d(x, middle, stride, padding, groups) for x in some] for some in inputs]
    return {
        "input": relative(*inputs),
        "kernel": relative(*kernels),
        "output": relative(*outputs),
        "static": relative(*static),
    }
