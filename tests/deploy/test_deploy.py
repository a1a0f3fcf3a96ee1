"""`yolo-dyn deploy`: the table holds what each file does, nothing is made twice, and bad input is named."""

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import older, save
from ultralytics import YOLO
from ultralytics.utils import LOGGER

from yolo_dyn import YoloDynError, cli
from yolo_dyn.deploy.deployment import FORMATS, deploy, exported
from yolo_dyn.deploy.quiet import written_to
from yolo_dyn.integration import compat
from yolo_dyn.layers.baking import mixing_layers
from yolo_dyn.robustness.sweep import robustness

INT8 = compat.can_quantize()
FORMS = ["torch", "onnx", "onnx-int8" if INT8 else "torchscript"]
SLACK = 2 if older("8.3.17") else 1  # YOLOv8n has another head there, and at random weights numbers of another size
SMALL = {"sigma": [30.0], "imgsz": 192, "threads": 1, "rounds": 3, "name": "small"}


@pytest.fixture(scope="module")
def folder(detectors, tmp_path_factory):
    copy = tmp_path_factory.mktemp("deploy") / "work"
    shutil.copytree(detectors, copy)
    text = (copy / "data.yaml").read_text().replace(str(detectors), str(copy))
    (copy / "data.yaml").write_text(text)
    return copy


@pytest.fixture(scope="module")
def done(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return deploy(["a.pt"], "data.yaml", FORMS, **SMALL)


@pytest.fixture
def inside(folder, done, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def test_a_row_for_each_model_and_format(done):
    assert [(row.model, row.format) for row in done.rows] == [("a", form) for form in FORMS]
    for row in done.rows:
        assert row.file_mib > 1
        assert (row.peak_mib > 300) == (
            row.format in ("torch", "torchscript")
        )  # torch alone is that large, ONNX Runtime far from it
        assert 0 < row.median_ms <= row.p95_ms
        assert row.ratio == 1


@pytest.mark.accept
def test_models_are_timed_in_turn_with_the_first(inside):
    both = deploy(["a.pt", "b.pt"], "data.yaml", FORMS[:2], **{**SMALL, "name": "both"}).rows
    assert [(row.model, row.format) for row in both] == [(model, form) for model in ("a", "b") for form in FORMS[:2]]
    assert [row.ratio for row in both[:2]] == [1, 1]
    assert all(0.5 < row.ratio < 2 for row in both[2:])  # the same network
    assert both[0].ap > both[2].ap  # b.pt is a.pt with other weights mixed in


@pytest.mark.accept
def test_a_baked_model_is_one_more_row(inside):
    formats = ["torch", "baked", "baked-onnx"]
    dynamic, static, onnx = deploy(["a.pt"], "data.yaml", formats, **{**SMALL, "name": "baked"}).rows
    assert static.file.endswith("exports/a-baked/a-baked.pt")
    assert not mixing_layers(YOLO(static.file).model)
    assert onnx.file.endswith("exports/a-baked-onnx/a-baked-onnx.onnx")
    assert abs(static.box_difference - onnx.box_difference) < 1e-2 * SLACK  # both are beside the dynamic model
    assert static.box_difference > 0
    assert onnx.ap == pytest.approx(static.ap, abs=1e-3 * SLACK)
    assert dynamic.ap != static.ap
    before = Path(static.file).stat().st_mtime_ns
    deploy(["a.pt"], "data.yaml", formats, **{**SMALL, "name": "baked"})
    assert Path(static.file).stat().st_mtime_ns == before


def test_what_cannot_be_baked_is_named_before_anything_long(inside):
    model = YOLO("yolov8n.yaml")
    save(model, "stock.pt")
    with pytest.raises(YoloDynError, match=r"model 'stock\.pt' has no convolution that mixes kernels, to be baked"):
        deploy(["a.pt", "stock.pt"], "data.yaml", ["baked-onnx"])


@pytest.mark.accept
def test_opencv_runs_its_own_file(inside):
    torch_row, opencv = deploy(["a.pt"], "data.yaml", ["torch", "opencv"], **{**SMALL, "name": "opencv"}).rows
    assert opencv.file.endswith("a-opencv.onnx")
    assert 0 < opencv.box_difference < 1e-2
    assert opencv.mpc == pytest.approx(torch_row.mpc, abs=1e-3)
    assert opencv.peak_mib < 300


def test_exports_agree_with_torch_and_eight_bits_are_smaller(done, inside):
    torch_row, onnx, other = done.rows
    assert (torch_row.box_difference, torch_row.score_difference) == (0, 0)
    assert 0 < onnx.box_difference < 1e-2 * SLACK  # pixels
    assert "export success" in Path(onnx.file).with_name("export.log").read_text()
    assert 0 < onnx.score_difference < 1e-4 * SLACK
    assert (other.box_difference > 10 * onnx.box_difference) == INT8
    assert (other.file_mib < onnx.file_mib / 2) == INT8
    assert onnx.ap == pytest.approx(torch_row.ap, abs=1e-3 * SLACK)
    assert onnx.mpc == pytest.approx(torch_row.mpc, abs=1e-3 * SLACK)


def test_scores_are_those_of_the_robustness_command(done, inside, monkeypatch):
    monkeypatch.setattr("yolo_dyn.robustness.sweep.write", lambda *_: None)
    alone = robustness(["a.pt"], "data.yaml", [30.0], imgsz=192, batch=1, threads=1, resamples=1)
    assert alone.summary[0].ap.p == done.rows[0].ap
    assert alone.summary[0].ap.mpc == done.rows[0].mpc


def test_what_is_written(done, inside):
    with (done.folder / "deploy.csv").open() as file:
        table = list(csv.DictReader(file))
    content = json.loads((done.folder / "deploy.json").read_text())
    assert [row["model"] for row in table] == [row["model"] for row in content["rows"]] == [r.model for r in done.rows]
    assert [float(row["median_ms"]) for row in table] == [row["median_ms"] for row in content["rows"]]
    assert (content["threads"], content["imgsz"], content["batch"], content["rounds"]) == (1, 192, 1, 3)
    page = (done.folder / "deploy.html").read_text()
    assert page.count("data:image/png;base64") == 1
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    for row in done.rows:
        assert f"<td>{row.model}</td><td>{row.format}</td>" in page
        assert f"{row.ap:.3f}" in str(done)
    assert (done.folder / "latency.png").stat().st_size > 10_000


def test_the_same_command_again_exports_and_scores_nothing(done, inside, monkeypatch):
    monkeypatch.setattr("ultralytics.YOLO.export", lambda *_, **__: pytest.fail("exported again"))
    monkeypatch.setattr("yolo_dyn.robustness.cells.detect", lambda *_, **__: pytest.fail("detected again"))
    again = deploy(["a.pt"], "data.yaml", FORMS, **SMALL)
    assert [row.ap for row in again.rows] == [row.ap for row in done.rows]


def test_another_checkpoint_is_exported_anew(inside, monkeypatch):
    calls = []
    monkeypatch.setattr("ultralytics.YOLO.export", lambda self, **_: calls.append(self.ckpt_path) or "b-onnx.onnx")
    exported("a.pt", "onnx", 192, "data.yaml", inside / "runs/deploy/small/exports/b-onnx")
    assert len(calls) == 1


def test_eight_bits_where_ultralytics_has_none(inside, monkeypatch):
    monkeypatch.setattr(compat, "can_quantize", lambda: False)
    with pytest.raises(YoloDynError, match=r"format onnx-int8 needs Ultralytics 8\.4\.80 or newer"):
        deploy(["a.pt"], "data.yaml", ["onnx", "onnx-int8"])


def test_a_failed_export_is_named_and_leaves_no_note(inside, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr("ultralytics.YOLO.export", fails)
    with pytest.raises(YoloDynError, match=r"a\.pt cannot be exported to openvino, see .*export\.log: no memory"):
        exported("a.pt", "openvino", 192, "data.yaml", tmp_path / "a-openvino")
    assert [file.name for file in (tmp_path / "a-openvino").iterdir()] == ["export.log"]


def test_what_exporters_print_is_in_a_file_whoever_prints_it(tmp_path, capfd):
    LOGGER.info("before")
    with written_to(tmp_path / "export.log"):
        LOGGER.info("from a logger")
        print("from Python")
        os.write(1, b"from a library\n")
        subprocess.run(["sh", "-c", "echo from a program; echo and its errors >&2"], check=True)
    LOGGER.info("after")
    os.write(1, b"the end\n")
    lines = (tmp_path / "export.log").read_text().splitlines()
    expected = ["from a logger", "from Python", "from a library", "from a program", "and its errors"]
    assert lines == expected
    told = "".join(capfd.readouterr())
    assert not [line for line in expected if line in told]
    assert "the end" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["formats=onx"], r"unknown format 'onx'; did you mean 'onnx'? (known: torch, torchscript, onnx,"),
        (["model=a.onnx"], "model must be a checkpoint (.pt), which is exported from here; got 'a.onnx'"),
        (["model=c.pt"], "model 'c.pt' does not exist"),
        (["data=other.yaml"], "other.yaml"),
        (["sigma=-1"], "sigma must be grey levels of at least 0"),
    ],
)
def test_bad_input_is_named(words, message, inside, capsys):
    given = {word.partition("=")[0] for word in words}
    fill = [word for word in ("model=a.pt", "data=data.yaml", "formats=onnx") if word.partition("=")[0] not in given]
    assert cli.main(["deploy", *words, *fill, "imgsz=192", "name=bad"]) == 2
    assert message in capsys.readouterr().err


def test_every_format_is_documented(done):
    for form in (form for form in FORMATS if not form.startswith("baked-")):  # by any of the others
        assert re.search(rf"\b{form}\b", deploy.__doc__)
