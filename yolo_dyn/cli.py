"""The `yolo-dyn` command: a table of names to functions, whose keyword arguments are the command's keys."""

import importlib
import inspect
import os
import re
import sys
import textwrap
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from yolo_dyn import __version__
from yolo_dyn.errors import YoloDynError, input_error, nearest


@dataclass(frozen=True)
class Command:
    """Where a command's function is, and one example. The function is imported when the command runs."""

    module: str
    function: str
    example: str
    words: str = ""  # the argument that takes words without a key

    def load(self) -> Callable[..., Any]:
        return getattr(importlib.import_module(self.module), self.function)


COMMANDS = {
    "insert": Command(
        "yolo_dyn.integration.insertion", "insert", "yolo-dyn insert model=yolov8.yaml layer=SGDM ratio=0.2"
    ),
    "info": Command("yolo_dyn.study.info", "info", "yolo-dyn info model=yolov8n-sgdm.yaml"),
    "bench": Command("yolo_dyn.bench.models", "bench", "yolo-dyn bench model=yolov8n.yaml,yolov8n-sgdm.yaml imgsz=640"),
    "bench layers": Command("yolo_dyn.bench.layers", "bench_layers", "yolo-dyn bench layers layers=ODConv,DCD"),
    "profile": Command("yolo_dyn.bench.profile", "profile", "yolo-dyn profile model=yolov8n.yaml,yolov8n-sgdm.yaml"),
    "check": Command("yolo_dyn.bench.check", "check", "yolo-dyn check layer=SGDM"),
    "bench forms": Command("yolo_dyn.bench.layers", "bench_forms", "yolo-dyn bench forms"),
    "bench noise": Command("yolo_dyn.bench.noise", "bench_noise", "yolo-dyn bench noise model=best.pt data=VOC.yaml"),
    "fingerprints": Command("yolo_dyn.bench.fingerprints", "fingerprints", "yolo-dyn fingerprints"),
    "robustness": Command(
        "yolo_dyn.robustness.sweep",
        "robustness",
        "yolo-dyn robustness model=a.pt,b.pt data=VOC.yaml sigma=0,10,20,30,40,50",
    ),
    "compare": Command(
        "yolo_dyn.robustness.compare", "compare", "yolo-dyn compare model=a.pt,b.pt source=images/ sigma=0,25,50"
    ),
    "corrupt": Command(
        "yolo_dyn.robustness.corrupted_set", "corrupt_set", "yolo-dyn corrupt data=VOC.yaml out=noisy sigma=0,25,50"
    ),
    "score": Command(
        "yolo_dyn.robustness.score", "score", "yolo-dyn score truth=noisy/annotations.json detections=a.json,b.json"
    ),
    "cam": Command("yolo_dyn.explain.cam", "cam", "yolo-dyn cam model=a.pt,b.pt source=images/ sigma=25"),
    "points": Command("yolo_dyn.explain.points", "points", "yolo-dyn points model=best.pt source=image.jpg"),
    "experts": Command(
        "yolo_dyn.explain.experts", "experts", "yolo-dyn experts model=best.pt data=VOC.yaml sigma=0,25,50"
    ),
    "bake": Command("yolo_dyn.deploy.bake", "bake", "yolo-dyn bake model=best.pt data=VOC.yaml"),
    "deploy": Command(
        "yolo_dyn.deploy.deployment",
        "deploy",
        "yolo-dyn deploy model=a.pt,b.pt data=VOC.yaml formats=onnx,openvino",
    ),
    "noise-calibrate": Command(
        "yolo_dyn.robustness.calibration.calibrate",
        "noise_calibrate",
        "yolo-dyn noise-calibrate frames/ out=camera.yaml",
        "frames",
    ),
    "noise-recipe": Command("yolo_dyn.robustness.training", "noise_recipe", "yolo-dyn noise-recipe sigma=50 p=0.5"),
    "repeat": Command(
        "yolo_dyn.runs.repeat",
        "repeat",
        "yolo-dyn repeat model=yolov8n.yaml,yolov8n-sgdm.yaml data=VOC.yaml seeds=0,1,2",
    ),
    "seeds": Command("yolo_dyn.runs.seeds", "seeds", "yolo-dyn seeds source=runs/repeat base=yolov8n"),
    "curves": Command("yolo_dyn.runs.curves", "curves", "yolo-dyn curves runs/a runs/b", "runs"),
    "tradeoff": Command("yolo_dyn.runs.tradeoff.tradeoff", "tradeoff", "yolo-dyn tradeoff runs/a runs/b", "runs"),
    "tradeoff paper": Command("yolo_dyn.study.tradeoff_paper", "tradeoff_paper", "yolo-dyn tradeoff paper"),
    "study": Command("yolo_dyn.study.run", "study", "yolo-dyn study sgdm-table2 data=VOC.yaml seeds=0,1,2", "study"),
    "results": Command(
        "yolo_dyn.study.run", "results", "yolo-dyn results bccd source=docs/results page=docs/results.md", "study"
    ),
    "demo": Command("yolo_dyn.demo", "demo", "yolo-dyn demo"),
}


# Words that the command of Ultralytics begins with: modes, and tasks before them.
STOCK = ("train", "val", "predict", "export", "track", "benchmark", "detect", "segment", "classify", "pose", "obb")


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0; 1 if what the command checked does not hold; 2 after one line about what was wrong with the
        input; 130 after one line if it was interrupted.
    """
    name, *words = (sys.argv[1:] if argv is None else argv) or ["help"]
    if words and f"{name} {words[0]}" in COMMANDS:
        name, words = f"{name} {words[0]}", words[1:]
    outcome: Any = None
    try:
        if name in ("help", "-h", "--help"):
            print(usage())
        elif name == "--version":
            print(f"yolo-dyn {__version__}")
        elif name in COMMANDS and set(words) & {"-h", "--help"}:
            print(described(name))
        elif name in STOCK:
            stock([name, *words])
        elif name in COMMANDS:
            function = COMMANDS[name].load()
            outcome = function(**parse(function, _keyed(words, COMMANDS[name].words), COMMANDS[name].example))
            print(outcome)
        else:
            raise YoloDynError(
                f"unknown command {name!r}{nearest(name, COMMANDS)} (commands: help, {', '.join(COMMANDS)})"
            )
    except BrokenPipeError:  # who reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\nyolo-dyn: interrupted; what is finished is kept: run the same command again to go on", file=sys.stderr)
        return 130
    except Exception as error:
        told = input_error(error)
        if told is None:
            raise
        print(f"yolo-dyn: error: {' '.join(str(told).splitlines())}", file=sys.stderr)
        return 2
    return int(not getattr(outcome, "ok", True))


def stock(words: list[str]) -> None:
    """Run a command of Ultralytics with our layers known, where the start-up hook is off or not read."""
    from ultralytics.cfg import entrypoint

    from yolo_dyn.integration import integrate

    integrate()
    sys.argv = ["yolo", *words]  # which it reads, and writes into the files of a run
    entrypoint()


def _keyed(words: list[str], argument: str) -> list[str]:
    """Gather the words without a key under the argument that takes them, if there is one."""
    bare = [word for word in words if "=" not in word] if argument else []
    return [word for word in words if word not in bare] + ([f"{argument}={','.join(bare)}"] if bare else [])


def usage() -> str:
    """All commands with what they do and one example each."""
    lines = ["yolo-dyn COMMAND key=value ...   COMMAND --help lists its keys", ""]
    lines += [
        "  train, val, predict, export, track, benchmark: as `yolo` has them, for installations without a hook",
        "",
    ]
    for name, command in COMMANDS.items():
        summary = (inspect.getdoc(command.load()) or "").splitlines()[0]
        lines += [f"  {name:<16}{summary}", f"  {'':<16}  {command.example}"]
    return "\n".join(lines)


def described(name: str) -> str:
    """Every key of a command with its type, default and meaning."""
    function, example = COMMANDS[name].load(), COMMANDS[name].example
    documented = inspect.getdoc(function) or ""
    hints, meaning = typing.get_type_hints(function), meanings(documented)
    lines = [f"yolo-dyn {name}: {documented.splitlines()[0]}", f"  {example}", ""]
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            lines += [f"  other keys: {meaning.get(key, '')}"]
            continue
        needed = parameter.default is parameter.empty
        default = "required" if needed else "" if parameter.default in ("", None) else f"default {parameter.default}"
        lines.append(f"  {key}: {', '.join(filter(None, (_kind(hints[key]), default)))}")
        lines += textwrap.wrap(meaning.get(key, ""), 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def meanings(documented: str) -> dict[str, str]:
    """What a docstring says of each argument."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", documented, re.MULTILINE)
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", section[1].rstrip()) if section else []:
        names, _, meaning = " ".join(entry.split()).partition(": ")
        found |= dict.fromkeys(names.replace("*", "").split(", "), meaning)
    return found


def _kind(hint: Any) -> str:
    for kind, lists in LISTS.items():
        if hint in lists:
            return f"{'name' if kind is str else KINDS[kind]}s, with commas between them"
    return KINDS.get(hint, "text")


def parse(function: Callable[..., Any], words: list[str], example: str) -> dict[str, Any]:
    """Read ``key=value`` words for a function, each value by the type of its argument.

    Raises:
        YoloDynError: naming an unknown or missing key, or a value of the wrong type.
    """
    parameters = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [key for key, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
    hints = typing.get_type_hints(function)
    values = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise YoloDynError(f"expected key=value, got {word!r}; for example: {example}")
        if key not in known and not open_ended:
            raise YoloDynError(f"unknown key {key!r}{nearest(key, known)} (keys: {', '.join(known)})")
        values[key] = _read(key, text, hints.get(key, Any) if key in known else Any)
    missing = [key for key in known if parameters[key].default is inspect.Parameter.empty and key not in values]
    if missing:
        raise YoloDynError(f"missing key {missing[0]!r}; for example: {example}")
    return values


def _read(key: str, text: str, hint: Any) -> Any:
    if hint is Any:
        import yaml

        if text == "None":  # to `yolo` too; in lower case it is an option of our layers
            return None
        try:
            return float(text) if EXPONENT.fullmatch(text) else yaml.safe_load(text)
        except yaml.YAMLError:
            raise YoloDynError(f"{key} must be a number, a word, a [list] or a {{mapping}}, got {text!r}") from None
    for kind, lists in LISTS.items():
        if hint in lists:
            return [_number(key, part, kind) for part in text.split(",") if part]
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise YoloDynError(f"{key} must be True or False, got {text!r}")
        return text.lower() == "true"
    return _number(key, text, hint) if hint in (int, float) else text


EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")  # 1e-3 is a number to `yolo`, but a string to YAML 1.1
KINDS: dict[Any, str] = {int: "integer", float: "number", str: "text", bool: "True or False"}
LISTS = {kind: (list[kind], list[kind] | None) for kind in (str, int, float)}  # type: ignore[valid-type]


def _number(key: str, text: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise YoloDynError(f"{key} must be {'an integer' if kind is int else 'a number'}, got {text!r}") from None
