"""What a deployment leaves behind: deploy.csv, deploy.json, latency.png and deploy.html."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from yolo_dyn.output.environment import environment
from yolo_dyn.output.files import write_csv, write_json, write_text
from yolo_dyn.output.outcome import Outcome
from yolo_dyn.output.pages import embedded, render
from yolo_dyn.output.style import COLOURS, MARKERS, save, verbatim
from yolo_dyn.robustness.results import Sweep

HEADS = {  # of the table, with how many digits follow the point
    "file_mib": ("MiB", 1),
    "box_difference": ("box diff, px", 4),
    "score_difference": ("score diff", 6),
    "ap": ("AP clean", 3),
    "mpc": ("AP noisy", 3),
    "median_ms": ("median ms", 2),
    "p95_ms": ("p95 ms", 2),
    "ratio": ("ratio", 3),
    "peak_mib": ("peak MiB", 0),
}


@dataclass(frozen=True)
class DeploymentRow:
    """One model in one format."""

    model: str
    format: str
    file: str
    file_mib: float
    box_difference: float  # largest difference to torch before non-maximum suppression, pixels
    score_difference: float
    peak_mib: float  # most that a process of its own needs to load and run it
    median_ms: float
    p95_ms: float
    ratio: float  # of the time to that of the first model in the same format
    ap: float | None  # clean
    mpc: float | None  # mean AP over the sigmas above 0


@dataclass(frozen=True)
class Deployment(Outcome):
    """What a deployment comes to."""

    folder: Path
    rows: list[DeploymentRow]
    sweep: Sweep
    imgsz: int
    threads: int
    rounds: int

    def __str__(self) -> str:
        return terminal(self)

    def as_dict(self) -> dict[str, Any]:
        """What is written to deploy.json."""
        return {
            "imgsz": self.imgsz,
            "batch": 1,
            "threads": self.threads,
            "rounds": self.rounds,
            "data": {"data": self.sweep.images.data, "split": self.sweep.images.split},
            "environment": environment(),
            "rows": [asdict(row) for row in self.rows],
        }


def write(deployment: Deployment) -> Path:
    """Write everything; the page, which is returned, is the last."""
    folder = deployment.folder
    heads = [field.name for field in fields(DeploymentRow)]
    write_csv(folder / "deploy.csv", [heads, *(asdict(row).values() for row in deployment.rows)])
    write_json(folder / "deploy.json", deployment.as_dict())
    draw(deployment, folder / "latency.png")
    text = render(
        Path(__file__).with_name("deploy.html.j2"),
        deployment=deployment,
        setting=setting(deployment),
        heads=[head for head, _ in HEADS.values()],
        cells=[(row, cells(row)) for row in deployment.rows],
        note=NOTE,
        environment=environment(),
        picture=embedded(folder / "latency.png"),
    )
    write_text(folder / "deploy.html", text)
    return folder / "deploy.html"


def cells(row: DeploymentRow) -> list[str]:
    """The figures of a row as text."""
    values: list[Any] = [getattr(row, key) for key in HEADS]
    digits = [number for _, number in HEADS.values()]
    return ["-" if value is None else f"{value:.{n}f}" for value, n in zip(values, digits, strict=True)]


def terminal(deployment: Deployment) -> str:
    """The table as text."""
    wide = 2 + max(len("model"), *(len(row.model) for row in deployment.rows))
    widths = [max(10, len(head) + 2) for head, _ in HEADS.values()]
    heads = "".join(f"{head:>{width}}" for (head, _), width in zip(HEADS.values(), widths, strict=True))
    lines = ["", setting(deployment), "", f"{'model':<{wide}}{'format':<14}{heads}"]
    for row in deployment.rows:
        texts = "".join(f"{text:>{width}}" for text, width in zip(cells(row), widths, strict=True))
        lines.append(f"{row.model:<{wide}}{row.format:<14}{texts}")
    return "\n".join([*lines, "", NOTE, "", f"table, picture and deploy.html in {deployment.folder}"])


NOTE = (
    "diff: largest difference to torch before non-maximum suppression; AP noisy: mean over the sigmas above 0;"
    " ratio: median over the rounds of the time to that of the first model in the same format"
)


def setting(deployment: Deployment) -> str:
    """How it was measured, in one line."""
    machine = environment()
    return (
        f"{deployment.sweep.title}; batch 1, {deployment.imgsz} px, {deployment.threads} thread(s) on"
        f" {machine['cores']} cores ({machine['processor']}), {deployment.rounds} rounds in turn"
    )


@verbatim
def draw(deployment: Deployment, picture: Path) -> None:
    """AP over latency: a colour for each format, a marker for each model; hollow under noise, filled clean."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    models = list(dict.fromkeys(row.model for row in deployment.rows))
    formats = list(dict.fromkeys(row.format for row in deployment.rows))
    colours = {form: COLOURS[i % len(COLOURS)] for i, form in enumerate(formats)}
    markers = {model: MARKERS[i % len(MARKERS)] for i, model in enumerate(models)}
    figure, axis = plt.subplots(figsize=(8.4, 4.8), layout="constrained")
    for row in deployment.rows:
        marker = {"color": colours[row.format], "marker": markers[row.model], "linestyle": "none", "markersize": 8}
        for score, face in ((row.ap, colours[row.format]), (row.mpc, "none")):
            if score is not None:
                axis.plot([row.median_ms], [score], markerfacecolor=face, **marker)
    axis.set_xlabel("median latency, ms", fontsize=9)
    axis.set_ylabel("AP (IoU 0.50 to 0.95)", fontsize=9)
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.set_title(setting(deployment), fontsize=8)
    look: dict[str, Any] = {"linestyle": "none", "markersize": 7}
    handles: list[Any] = [Patch(color=colours[form], label=form) for form in formats]
    handles += [Line2D([], [], color="#444444", marker=markers[model], label=model, **look) for model in models]
    handles += [
        Line2D([], [], color="#444444", marker="o", label="clean", **look),
        Line2D([], [], color="#444444", marker="o", markerfacecolor="none", label="under noise", **look),
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    save(figure, picture)
