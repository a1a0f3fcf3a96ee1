"""The `yolo-dyn` command."""

import ast
import inspect
import json
import re
import typing
from pathlib import Path

import pytest
from helpers import ROOT

import yolo_dyn
from yolo_dyn import cli
from yolo_dyn.output.outcome import Outcome


def test_help_names_every_command_with_an_example(capsys):
    for words in ([], ["help"], ["--help"]):
        assert cli.main(words) == 0
        text = capsys.readouterr().out
        assert all(name in text and command.example in text for name, command in cli.COMMANDS.items())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_names_every_key_with_its_meaning(name, capsys):
    assert cli.main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    for key, parameter in inspect.signature(cli.COMMANDS[name].load()).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            assert re.search(r"^  other keys: \S", text, re.M)
            continue
        found = re.search(rf"^  {key}: ([^\n]+)\n      \S", text, re.M)
        assert found, f"{key} has no meaning"
        assert ("required" in found[1]) == (parameter.default is parameter.empty)
        assert "value" not in found[1]


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"yolo-dyn {yolo_dyn.__version__}\n"


def test_an_interrupted_command_ends_in_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("yolo_dyn.study.info.row_costs", interrupted)
    assert cli.main(["info", "model=yolov8n.yaml"]) == 130
    assert capsys.readouterr().err.strip().endswith("run the same command again to go on")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["inser"],
            "unknown command 'inser'; did you mean 'insert'? (commands: help, insert, info, ",
        ),
        (["info", "modle=x.yaml"], "unknown key 'modle'; did you mean 'model'? (keys: model, base, imgsz, nc)"),
        (["info", "yolov8n.yaml"], "expected key=value, got 'yolov8n.yaml'; for example: yolo-dyn info"),
        (["info"], "missing key 'model'; for example: yolo-dyn info"),
        (["info", "model=x.yaml", "imgsz=big"], "imgsz must be an integer, got 'big'"),
        (["info", "model=nowhere.yaml"], "'nowhere.yaml' does not exist"),
        (["info", "model=nowhere.pt"], "model 'nowhere.pt' does not exist"),
        (
            ["info", "model=some.pt", "nc=20"],
            "nc is for a model that is built from a YAML; some.pt has its own classes",
        ),
        (["info", "model=x.onnx"], "model must be a .yaml or a .pt file, got 'x.onnx'"),
        (["robustness", "model=a.pt", "data=x.yaml", "sigma=0,high"], "sigma must be a number, got 'high'"),
        (["robustness", "model=a.pt", "data=x.yaml", "severity=1,2.5"], "severity must be an integer, got '2.5'"),
        (["robustness", "model=a.pt"], "missing key 'data'; for example: yolo-dyn robustness model=a.pt,b.pt"),
        (["bench", "model=yolov8n.yaml", "train=maybe"], "train must be True or False, got 'maybe'"),
        (["bench", "model=yolov8n.yaml", "out=missing/out.json"], "the folder of out=missing/out.json does not exist"),
        (["insert", "model=yolov8.yaml", "layer=SGDN"], "unknown layer 'SGDN'; did you mean 'SGDM'?"),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("yolo-dyn: error: ")
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("2.5E4", 25000.0), (".5e-1", 0.05), ("1e", "1e"), ("SGD", "SGD"), ("3", 3), ("None", None)],
)
def test_the_stock_trainers_arguments_are_read_as_its_command_reads_them(text, value):
    found = cli.parse(cli.COMMANDS["repeat"].load(), ["model=a.yaml", "data=b.yaml", f"lr0={text}"], "")["lr0"]
    assert (found, type(found)) == (value, type(value))


def test_insert_reads_the_layers_arguments(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["insert", "model=yolov8n-seg.yaml", "layer=SGDM", "ratio=0.2", "strip_size=11", "guide=none"]) == 0
    assert capsys.readouterr().out.strip() == "yolov8-seg-sgdm.yaml"
    text = (tmp_path / "yolov8-seg-sgdm.yaml").read_text()
    assert "[15, 1, SGDM, [256, {ratio: 0.2, strip_size: 11, guide: none}]] # 22" in text
    assert "[[22, 23, 24], 1, Segment, [nc, 32, 256]] # 25" in text


def test_info_prints_ours_the_stock_models_and_the_papers(capsys):
    assert cli.main(["info", "model=yolov8n-sgdm.yaml"]) == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert lines["yolov8n-sgdm.yaml"] == ["3,308,564", "8.950"]
    assert lines["yolov8n.yaml"] == ["3,157,200", "8.744"]
    assert lines["increment"] == ["+151,364", "+0.206"]
    assert "3.1 -> 3.3 M" in text
    assert lines["22"] == ["SGDM", "7,536", "0.069", "*"]


def test_a_yaml_that_shadows_a_packaged_one_is_said_and_is_not_the_papers(tmp_path, monkeypatch, capsys, log):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["insert", "model=yolov8.yaml", "layer=SGDM", "ratio=0.2"]) == 0
    assert "yolov8-sgdm.yaml is read in place of the YAML of that name that comes with the package" in log[-1]
    capsys.readouterr()
    assert cli.main(["info", "model=yolov8n-sgdm.yaml"]) == 0
    assert "paper" not in capsys.readouterr().out


@pytest.mark.parametrize("train", ["False", "True"])
def test_bench_times_models_in_turn(train, capsys, tmp_path):
    out = tmp_path / "bench.json"
    words = ["model=yolov8n.yaml,yolov8n-sgdm.yaml", "imgsz=64", "batch=2", "rounds=3", f"train={train}", f"out={out}"]
    assert cli.main(["bench", *words, "device=cpu"]) == 0
    report = json.loads(out.read_text())
    assert [m["model"] for m in report["models"]] == ["yolov8n.yaml", "yolov8n-sgdm.yaml"]
    assert report["models"][0]["ratio"] == 1
    for m in report["models"]:
        assert len(m["ms"]) == 3
        assert min(m["ms"]) <= m["median_ms"] <= m["p95_ms"] <= max(m["ms"])
    assert f"{report['models'][1]['ratio']:.3f}" in capsys.readouterr().out


def test_bench_noise(detectors, capsys):
    words = [f"model={detectors / 'a.pt'}", f"data={detectors / 'data.yaml'}", "imgsz=64", "rounds=2", "device=cpu"]
    assert cli.main(["bench", "noise", *words]) == 0
    text = capsys.readouterr().out
    assert re.search(r"gaussian_noise, severity 3: \d+\.\d ms a 640x480 image on one core", text)
    assert re.search(r"a clean and a noisy pass over 10 images at 64 px, 2 rounds in turn, ratio \d\.\d+", text)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_returns_an_outcome(name):
    """Or, as the one function of them that others call for its file, the path of what it wrote."""
    returned = typing.get_type_hints(cli.COMMANDS[name].load())["return"]
    assert returned is Path if name == "insert" else issubclass(returned, Outcome)


def test_only_cli_prints():
    calls = {}
    for file in sorted((ROOT / "yolo_dyn").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = [n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        calls[str(file.relative_to(ROOT / "yolo_dyn"))] = names.count("print")
    # integration shows our errors in the stock command; runtimes.py, a process of its own, prints its result
    allowed = {"cli.py", "integration/__init__.py", "deploy/runtimes.py"}
    assert {file for file, count in calls.items() if count} == allowed
