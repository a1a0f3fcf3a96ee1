"""What every command refuses before it reads anything: one line names the argument, what is accepted, the value."""

import inspect
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

from yolo_dyn import YoloDynError, cli
from yolo_dyn.output.arguments import ImageSize, Names, Range, Share, checked

NUMBERS = {
    "batch": [0, -1, 1.5, True, "8"],
    "conf": [2, -0.1, math.nan, "high"],
    "iou": [-1, 1.01],
    "max_det": [0],
    "threads": [-3, 1_000_000],
    "resamples": [0],
    "count": [0, -1],
    "rounds": [-1],
    "images": [-1],
    "nc": [-1],
    "model": [3],
    "experts": [1_000_000_000, 0],
    "jobs": [0],
    "workers": [-1],
    "seed": [-1, 0.5],
    "epochs": [0],
}
SIZES = [0, -64, 180, 10**9, 64.5, "big"]
LISTS = {
    "model": [[], 3],
    "runs": [[]],
    "sigma": [[], [-1.0], [math.nan], [math.inf], 20],
    "severity": [[], [0], [6], [2.5]],
}
LISTS |= {"layers": [[]], "formats": [[]], "seeds": [[], [-1]], "arms": [[]], "corruption": [[]]}


def cases() -> list:
    found = []
    for command in cli.COMMANDS:
        parameters = inspect.signature(cli.COMMANDS[command].load()).parameters
        for name in parameters:
            several = any(word in str(parameters[name].annotation) for word in ("list", "Names"))
            values = [*(LISTS if several else NUMBERS).get(name, ())]
            values += SIZES if name == "imgsz" and parameters[name].default else [-32] if name == "imgsz" else []
            found += [pytest.param(command, name, value, id=f"{command} {name}={value}") for value in values]
    return found


@pytest.mark.parametrize(("command", "name", "value"), cases())
def test_a_command_refuses_nonsense_before_it_reads_anything(command, name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = cli.COMMANDS[command].load()
    required = {
        key: ["nowhere.pt"] if "Names" in str(p.annotation) or "list" in str(p.annotation) else "nowhere"
        for key, p in inspect.signature(function).parameters.items()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    }
    with pytest.raises(YoloDynError, match=rf"^{name} must be .*, got ") as refused:
        function(**{**required, name: value})
    assert len(str(refused.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@checked
def command(
    model: Names, imgsz: ImageSize = 640, conf: Share = 0.25, steps: list[Annotated[int, Range(1)]] | None = None
):
    return model, imgsz, conf, steps


def test_what_is_accepted():
    assert command(["a.pt"], np.int64(320), np.float32(0.5), (1, 2)) == (["a.pt"], 320, 0.5, (1, 2))
    assert command("a.pt", conf=1) == ("a.pt", 640, 1, None)
    assert command([Path("a.pt")])[0] == [Path("a.pt")]
    with pytest.raises(TypeError, match="unexpected keyword"):
        command(["a.pt"], size=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": []}, r"model must be a list of at least one, got \[\]"),
        ({"model": [1]}, r"model must be text, got \[1\]"),
        ({"imgsz": 180}, "imgsz must be a multiple of 32, from 32 to 16,384, got 180"),
        ({"imgsz": 320.0}, "imgsz must be an integer, got 320.0"),
        ({"conf": "0.5"}, "conf must be a number, got '0.5'"),
        ({"conf": math.nan}, "conf must be from 0 to 1, got nan"),
        ({"steps": [1, 0]}, r"steps must be at least 1, got \[1, 0\]"),
    ],
)
def test_one_line_says_what_is_accepted(arguments, message):
    with pytest.raises(YoloDynError, match=message):
        command(**{"model": ["a.pt"], **arguments})
