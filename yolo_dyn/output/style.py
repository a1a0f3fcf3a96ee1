"""How pictures look: the same colours, markers and line styles everywhere.

The colours are those of Okabe and Ito, and grey, which people with any colour vision tell apart; line styles and
markers say the same once more.
"""

import functools
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from yolo_dyn.errors import YoloDynError
from yolo_dyn.output.files import written_whole

BLUE, VERMILLION, YELLOW = "#0072B2", "#D55E00", "#F0E442"
COLOURS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = "osD^vPX*<"  # one more than colours, so that a colour comes back with another
STYLES = ("-", "--", "-.", ":")
SAVED: dict[str, Any] = {"bbox_inches": "tight", "dpi": 130}  # arguments of savefig

Function = TypeVar("Function", bound=Callable[..., Any])


def verbatim(draw: Function) -> Function:
    """Draw names as they are: matplotlib would take what stands between two dollar signs for a formula."""

    @functools.wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        import matplotlib

        with matplotlib.rc_context({"text.parse_math": False}):
            return draw(*args, **kwargs)

    return typing.cast(Function, drawn)


def panel_height(width: float, shapes: Iterable[tuple[int, int]]) -> float:
    """How high panels of that width are, so that images of such heights and widths fit in.

    At most four times as high: a strip of 20,000 x 10 pixels would ask for a picture of gigabytes.
    """
    return width * min(4.0, max(height / across for height, across in shapes))


def save(figure: Any, path: Path, argument: str = "", **options: Any) -> None:
    """Write a picture whole, in the format that its ending names, and close it.

    Args:
        figure: matplotlib's.
        path: the file.
        argument: that named it, for messages.
        **options: of savefig, before those of `SAVED`.

    Raises:
        YoloDynError: if there is no such format, or the file cannot be written.
    """
    import matplotlib.pyplot as plt

    ending, known = path.suffix[1:].lower() or "png", figure.canvas.get_supported_filetypes()
    try:
        if ending not in known:
            raise YoloDynError(
                f"{path} cannot be written: Format {ending!r} is not supported (known: {', '.join(known)})"
            )
        with written_whole(path, argument) as partial:
            figure.savefig(partial, format=ending, **{**SAVED, **options})
    finally:
        plt.close(figure)


def style_of(number: int) -> int:
    """Number of a line's style by that of the line, so that a colour comes back with another one."""
    return (number + number // len(COLOURS)) % len(STYLES)


def line(number: int, style: int | None = None) -> dict[str, str]:
    """Colour and style of a picture's line, by its number; the style may have a number of its own."""
    style = style_of(number) if style is None else style
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[style % len(STYLES)]}


def marked_line(number: int, style: int | None = None) -> dict[str, str]:
    """Colour, style and marker of a picture's line with few points, by its number."""
    return {**line(number, style), "marker": MARKERS[number % len(MARKERS)]}
