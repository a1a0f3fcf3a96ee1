"""What `yolo-dyn experts` prints: how experts are used, what noise moves, and AP with frozen kernels."""

from collections.abc import Sequence

from yolo_dyn.explain.dynamics import Dynamics, Movement
from yolo_dyn.robustness.results import Sweep


def lines(model: str, title: str, layers: list[Dynamics], others: dict[str, str], sweep: Sweep | None) -> list[str]:
    """All tables, line by line."""
    found = ["", f"{model}, {title}: {len(layers)} layers that mix kernels", "", *usage(layers)]
    if any(layer.noise for layer in layers):
        found += ["", *noise(layers)]
    if any(layer.unguided for layer in layers):
        found += ["", *guides(layers)]
    if sweep:
        found += ["", *worth(sweep)]
    if others:
        found += ["", "without experts: " + ", ".join(f"{name} ({kind})" for name, kind in others.items())]
    return found


def usage(layers: list[Dynamics]) -> list[str]:
    """How each layer uses its experts."""
    heads = ["layer", "kind", "experts", "entropy", "evenness", "variation", "of kernel", "dead", "cosine", "largest"]
    rows = []
    for layer in layers:
        use = layer.usage
        of_experts = [f"{len(use.weights)}" if use else "none", *map(number, _used(layer))]
        dead = str(len(use.dead)) if use else "-"
        rows.append([layer.name, layer.kind, *of_experts, number(layer.variation), dead, *map(number, _alike(layer))])
    return table(heads, rows)


def _used(layer: Dynamics) -> list[float | None]:
    return [layer.usage.entropy, layer.usage.evenness, layer.usage.variation] if layer.usage else [None] * 3


def _alike(layer: Dynamics) -> list[float | None]:
    return [layer.usage.cosine, layer.usage.largest_cosine] if layer.usage else [None] * 2


def noise(layers: list[Dynamics]) -> list[str]:
    """What noise moves in each layer."""
    heads = ["layer", "sigma", "input", "attention", "kernel", "output", "static", "gain", "static gain", "ratio"]
    rows = [
        [layer.name, f"{each.sigma:g}", *map(number, _moved(each)), ratio(each)]
        for layer in layers
        for each in layer.noise
    ]
    return [
        "energy that noise moves, over that of the clean images; noise gain beside the static mean kernel",
        "",
        *table(heads, rows),
    ]


def _moved(each: Movement) -> list[float | None]:
    return [each.input, each.attention, each.kernel, each.output, each.static, each.gain, each.static_gain]


def guides(layers: list[Dynamics]) -> list[str]:
    """The noise gain of layers that an SGDM guides, with and without the guide."""
    heads = ["layer", "sigma", "gain", "unguided", "ratio to static", "unguided"]
    rows = [
        [layer.name, f"{a.sigma:g}", number(a.gain), number(b.gain), ratio(a), ratio(b)]
        for layer in layers
        for a, b in zip(layer.noise, layer.unguided, strict=False)
    ]
    return ["noise gain with the guide of SGDM and without it, on the same inputs", "", *table(heads, rows)]


def worth(sweep: Sweep) -> list[str]:
    """AP with frozen kernels."""
    scores = {(record.model, record.condition): record.scores.get("AP") for record in sweep.records}
    rows = [
        [
            row.model,
            str(row.condition),
            number(scores.get((row.model, row.condition))),
            f"{row.ap.value:+.3f}",
            f"[{row.ap.low:+.3f}, {row.ap.high:+.3f}]",
        ]
        for row in sweep.differences
    ]
    first = sweep.models[0]
    own = ", ".join(f"{number(scores.get((first, c)))} {c}" for c in sweep.conditions)
    heads = ["kernels frozen at their mean", "images", "AP", "less", "95 %"]
    return [
        f"AP of {first}: {own}; less it with frozen kernels, by a paired bootstrap over images",
        "",
        *table(heads, rows),
    ]


def ratio(each: Movement) -> str:
    """Of the gain to that of the static convolution, with its interval."""
    between = f" [{each.interval[0]:.3f}, {each.interval[1]:.3f}]" if each.interval else ""
    return f"{number(each.ratio)}{between}"


def number(value: float | None) -> str:
    """Three decimals, or more where there would be none of them."""
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:.0e}"


def table(heads: Sequence[str], rows: list[list[str]]) -> list[str]:
    """Lines with a column of names, then of numbers."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [list(heads), *rows]
    ]
