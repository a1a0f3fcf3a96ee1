"""How pictures look: the same colours, markers and line styles everywhere.

The colours are those of Okabe and Ito, which people with any colour vision tell apart; line styles and markers say the
same once more.
"""

import functools
import typing
from collections.abc import Callable
from typing import Any, TypeVar

BLUE, VERMILLION, YELLOW = "#0072B2", "#D55E00", "#F0E442"
COLOURS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
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


def line(number: int) -> dict[str, str]:
    """Colour and style of a picture's line, by its number."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)]}


def marked_line(number: int) -> dict[str, str]:
    """Colour, style and marker of a picture's line with few points, by its number."""
    return {**line(number), "marker": MARKERS[number % len(MARKERS)]}
