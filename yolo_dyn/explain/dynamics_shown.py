"""What `yolo-dyn experts` shows of its measures: tables for the terminal, and a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from yolo_dyn.explain.dynamics import Dynamics, Movement, Worth
from yolo_dyn.output.style import COLOURS, VERMILLION, marked_line, save, verbatim

PANELS = (4.2, 2.6, 3.6)  # inches, width of the panels of a layer
HEIGHT = 2.2
LEAST_AP = 0.01  # that the axis of differences reaches to: less is nothing to be looked at


def tables(layers: list[Dynamics], worth: list[Worth], own: dict[str, float]) -> list[str]:
    """All tables, line by line.

    Args:
        layers: of a model.
        worth: AP with frozen kernels less the model's own; empty if it was not measured.
        own: AP of the model, by condition.
    """
    found = usage(layers)
    if any(layer.noise for layer in layers):
        found += ["", *noise(layers)]
    if any(layer.unguided for layer in layers):
        found += ["", *guides(layers)]
    if worth:
        found += ["", *frozen(worth, own)]
    return found


def usage(layers: list[Dynamics]) -> list[str]:
    """How each layer uses its experts."""
    heads = ["layer", "kind", "experts", "dead", "entropy", "evenness", "cosine", "largest", "attention", "kernel"]
    rows = []
    for layer in layers:
        use = layer.usage
        measured = (use.entropy, use.evenness, use.cosine, use.largest_cosine, use.variation) if use else [None] * 5
        counted = [str(len(use.weights)), str(len(use.dead))] if use else ["none", "-"]
        rows.append([layer.name, layer.kind, *counted, *map(number, (*measured, layer.variation))])
    return [
        "entropy of the attention in an image, and of its mean (evenness); cosine of two kernels; "
        "how far attention and kernel vary between images",
        "",
        *table(heads, rows),
    ]


def noise(layers: list[Dynamics]) -> list[str]:
    """What noise moves in each layer."""
    heads = ["layer", "sigma", "input", "attention", "kernel", "output", "static", "gain", "static gain", "ratio"]
    rows = [
        [
            layer.name,
            f"{each.sigma:g}",
            *map(number, (each.input, each.attention, each.kernel, each.output, each.static)),
            *(number(each.gain), number(each.static_gain), ratio(each)),
        ]
        for layer in layers
        for each in layer.noise
    ]
    return [
        "energy of what noise changes, over that of the clean images; noise gain, and that of the static mean kernel",
        "",
        *table(heads, rows),
    ]


def guides(layers: list[Dynamics]) -> list[str]:
    """The noise gain of layers that an SGDM guides, with and without the guide."""
    heads = ["layer", "sigma", "gain", "unguided", "ratio to static", "unguided"]
    rows = [
        [layer.name, f"{a.sigma:g}", number(a.gain), number(b.gain), ratio(a), ratio(b)]
        for layer in layers
        for a, b in zip(layer.noise, layer.unguided, strict=False)
    ]
    return ["noise gain with the guide of SGDM and without it, on the same inputs", "", *table(heads, rows)]


def frozen(worth: list[Worth], own: dict[str, float]) -> list[str]:
    """AP with frozen kernels."""
    conditions = list(dict.fromkeys(str(each.condition) for each in worth))
    less = {(each.layer, str(each.condition)): each.less for each in worth}
    rows = [["the model itself", *(number(own.get(condition)) for condition in conditions)]]
    for layer in dict.fromkeys(each.layer for each in worth):
        found = [less.get((layer, condition)) for condition in conditions]
        rows.append([layer, *(f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]" if d else "-" for d in found)])
    return [
        "AP; with the kernel of a layer frozen at its mean less that, with the 95 % interval of a paired bootstrap",
        "",
        *table(["layer", *conditions], rows),
    ]


def ratio(each: Movement) -> str:
    """Of the gain to that of the static convolution, with its interval."""
    between = f" [{each.interval[0]:.3f}, {each.interval[1]:.3f}]" if each.interval else ""
    return f"{number(each.ratio)}{between}"


def number(value: float | None) -> str:
    """Three decimals, or a power of ten where they would be zero."""
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:.0e}"


def table(heads: Sequence[str], rows: list[list[str]]) -> list[str]:
    """Lines with a column of names, then of numbers."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in [heads, *rows]
    ]


@verbatim
def draw(title: str, layers: list[Dynamics], worth: list[Worth], path: Path) -> None:
    """Draw a row for each layer, its experts, their likeness and the noise gain; below, AP with frozen kernels.

    Args:
        title: above all.
        layers: of a model.
        worth: AP with frozen kernels less the model's own; empty if it was not measured.
        path: picture to write.
    """
    import matplotlib.pyplot as plt

    heights = [HEIGHT] * len(layers) + ([0.35 * len({each.layer for each in worth}) + 1.0] if worth else [])
    figure = plt.figure(figsize=(sum(PANELS), sum(heights) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.add_gridspec(len(heights), len(PANELS), height_ratios=heights, width_ratios=PANELS)
    for line, layer in enumerate(layers):
        for column, panel in enumerate((_experts, _cosines, _gain)):
            axis = figure.add_subplot(grid[line, column])
            axis.tick_params(labelsize=7)
            panel(axis, layer)
    if worth:
        axis = figure.add_subplot(grid[-1, :])
        axis.tick_params(labelsize=7)
        _worth(axis, worth)
    save(figure, path)


def _experts(axis: Any, layer: Dynamics) -> None:
    axis.set_title(f"{layer.name}, {layer.kind}", fontsize=8, loc="left")
    if layer.usage is None:
        return _say(axis, "no experts: its kernel is no mixture\nof kernels that all images share")
    use = layer.usage
    places = range(len(use.weights))
    colours = [VERMILLION if k in use.dead else COLOURS[0] for k in places]
    axis.bar(places, use.weights, yerr=use.spread, color=colours, error_kw={"linewidth": 0.8, "capsize": 2})
    axis.axhline(0, color="black", linewidth=0.5)
    axis.locator_params("x", integer=True)
    dead = f", {len(use.dead)} dead (red)" if use.dead else ""
    axis.set_xlabel(f"expert: mean weight and spread between images{dead}", fontsize=7)
    return None


def _cosines(axis: Any, layer: Dynamics) -> None:
    use = layer.usage
    if use is None:
        return _say(axis, "")
    axis.set_title(f"entropy {number(use.entropy)}, cosine {number(use.cosine)}", fontsize=8)
    if not use.cosines:
        return _say(axis, f"{len(use.weights)} kernels, too many to draw;\nlargest cosine {number(use.largest_cosine)}")
    values = [[float("nan") if c is None else c for c in row] for row in use.cosines]
    colours = axis.imshow(values, cmap="PuOr", vmin=-1, vmax=1)
    axis.set_xticks(range(len(values)))
    axis.set_yticks(range(len(values)))
    axis.set_xlabel("cosine of each two kernels", fontsize=7)
    axis.figure.colorbar(colours, ax=axis, shrink=0.9).ax.tick_params(labelsize=6)
    return None


def _gain(axis: Any, layer: Dynamics) -> None:
    if not any(each.gain is not None for each in layer.noise):
        return _say(axis, "no noise was asked for" if not layer.noise else "no energy arrives")
    axis.set_title(f"noise gain; its kernel varies by {number(layer.variation)}", fontsize=8)
    drawn: list[tuple[str, list[Movement], Callable[[Movement], float | None]]] = [
        ("dynamic", layer.noise, lambda each: each.gain),
        ("static, mean kernel", layer.noise, lambda each: each.static_gain),
        ("dynamic, unguided", layer.unguided, lambda each: each.gain),
    ]
    highest = 1.0
    for line, (label, movements, of) in enumerate(drawn):
        points = [(each.sigma, value) for each in movements if (value := of(each)) is not None]
        if points:
            size = 7 - 2 * line  # where one lies on another, both are seen
            axis.plot(*zip(*points, strict=True), label=label, **marked_line(line), markersize=size, linewidth=1)
            highest = max(highest, *(value for _, value in points))
    axis.axhline(1, color="grey", linewidth=0.5)
    axis.set_ylim(0, 1.15 * highest)
    axis.set_xlabel("sigma of the noise, grey levels", fontsize=7)
    axis.legend(fontsize=6)
    return None


def _worth(axis: Any, worth: list[Worth]) -> None:
    layers = list(dict.fromkeys(each.layer for each in worth))
    conditions = list(dict.fromkeys(str(each.condition) for each in worth))
    for number_, condition in enumerate(conditions):
        own = [each for each in worth if str(each.condition) == condition]
        places = [layers.index(each.layer) + 0.7 * ((number_ + 0.5) / len(conditions) - 0.5) for each in own]
        values = [each.less.value for each in own]
        ends = [[each.less.value - each.less.low for each in own], [each.less.high - each.less.value for each in own]]
        style = {**marked_line(number_), "linestyle": "none"}
        axis.errorbar(values, places, xerr=ends, label=condition, **style, markersize=4, linewidth=1, capsize=2)
    axis.axvline(0, color="black", linewidth=0.5)
    widest = max(abs(end) for each in worth for end in (each.less.low, each.less.high))
    axis.set_xlim(-max(1.1 * widest, LEAST_AP), max(1.1 * widest, LEAST_AP))
    axis.set_yticks(range(len(layers)), layers)
    axis.invert_yaxis()
    axis.set_xlabel("AP with the kernel frozen at its mean, less that of the model (95 % interval)", fontsize=7)
    axis.legend(fontsize=6)


def _say(axis: Any, text: str) -> None:
    axis.axis("off")
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, transform=axis.transAxes)
