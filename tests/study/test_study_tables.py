"""The studies that come with the package: their files, their networks, and each of them from training to its page."""

import json
from pathlib import Path

import pytest
from ultralytics.nn.modules import conv

from yolo_dyn import cli, layers
from yolo_dyn.integration.api import load_model
from yolo_dyn.study.columns import agrees
from yolo_dyn.study.definition import Study, read_study, studies
from yolo_dyn.study.measure import recipe
from yolo_dyn.study.networks import counts
from yolo_dyn.study.page import DOES_NOT_FOLLOW, differences
from yolo_dyn.study.paper import figures
from yolo_dyn.study.records import write_record

TRAINED = [name for name in studies() if read_study(name).trained()]
FAST = ["epochs=1", "batch=4", "workers=0", "plots=False", "deterministic=False", "device=cpu"]
COUNTED = ("sgdm-table6", "fmdconv-table8")  # by `make test`; all by `make accept`


def listed(names, light) -> list:
    """Parameters of a test, those that are not light marked."""
    return [pytest.param(name, marks=[] if light(name) else pytest.mark.accept) for name in names]


@pytest.mark.parametrize("name", listed(studies(), COUNTED.__contains__))
def test_every_network_builds_and_every_difference_has_its_reason(name, tmp_path):
    study = read_study(name)
    numbers = {arm: counts(study, arm, tmp_path) for arm in study.trained()}
    for arm in study.trained().values():
        for arguments in (study.train, arm.train):
            assert "cfg" not in arguments or recipe(arguments["cfg"])
    assert not [line for line in differences(study, numbers) if DOES_NOT_FOLLOW in line]
    for arm, found in numbers.items():
        printed = study.arms[arm].paper
        differ = {c for c in found.keys() & printed.keys() if not agrees(found[c], c, printed[c])}
        assert study.arms[arm].why.keys() <= differ  # no reason without a difference


PRINTED = [  # typed from the papers
    ("sgdm-table2", "yolov6s-rfaconv", {"params": "17.3", "gflops": "46.5", "AP50": "83.8", "AP": "65.2"}),
    ("sgdm-table3", "yolov8n-sgdm-odconv", {"params": "4.0", "gflops": "10.0", "AP50": "80.1", "ms": "1.7"}),
    ("sgdm-table4", "convnextv2-atto-sgdm", {"params": "2.7", "gflops": "6.2", "AP50": "78.9", "AP": "57.9"}),
    ("sgdm-table5", "yolov5n-coordatt", {"AP": "28.1", "AP75": "29.2", "AP50": "46.2", "AP_medium": "32", "ms": "4.8"}),
    ("sgdm-table6", "r0.25", {"module_params": "0.10", "module_gflops": "0.25", "AP50": "79.3", "AP": "59.8"}),
    ("sgdm-table7", "k13", {"AP50": "81.0", "AP": "61.0"}),
    ("sgdm-table8", "r0.3", {"AP50": "80.2", "AP": "60.8"}),
    ("fmdconv-table2", "none", {"top1": "89.7", "top5": "99.65", "seconds": "47.01"}),
    ("fmdconv-table3", "fmdconv", {"top1": "94.21", "seconds": "114.7", "ies": "121.75", "rcs": "492.82"}),
    ("fmdconv-table4", "odconv", {"top1": "72.63", "seconds": "222.1", "ies": "305.79", "rcs": "196.21"}),
    ("fmdconv-table5", "condconv", {"top1": "71.99", "top5": "90.27", "rcs": "1474.10"}),
    ("fmdconv-table6", "fmdconv", {"top1": "78.34", "seconds": "1028.57", "ies": "1099.25"}),
    ("fmdconv-table7", "fmdconv", {"top1": "70.23", "top5": "92.07", "rcs": "10298.31"}),
    ("fmdconv-table8", "t34", {"top1": "73.65", "top5": "93.47"}),
    ("fmdconv-table9", "k16", {"params": "177.09", "top1": "73.13", "seconds": "132.26"}),
    ("a2d2c-table1", "a2d2cplus", {"params": "43.93", "gmadds": "1.93", "top1": "74.49", "top5": "92.93"}),
    ("a2d2c-table3", "x0.75-odconv", {"params": "7.50", "gmadds": "0.229", "top1": "72.07", "top5": "92.51"}),
    ("a2d2c-table8", "a2d2c", {"AP": "40.9", "AP_large": "52.8", "params": "110.24", "gmadds": "260.18"}),
    ("a2d2c-table12", "uniform", {"params": "44.93", "gmadds": "1.93", "top1": "71.57", "top5": "91.42"}),
    ("dmf-table3", "afka", {"params": "12.6", "madds": "196.6", "top1": "73.6"}),
    ("dmf-table8", "k6", {"params": "14.6", "madds": "197.4", "top1": "73.2", "top5": "90.9"}),
    ("fmdconv-table10", "lr16", {"top1": "74.50", "top5": "93.12", "seconds": "115.59"}),
]


@pytest.mark.parametrize(("name", "arm", "printed"), PRINTED, ids=[row[0] for row in PRINTED])
def test_figures_are_those_of_the_papers(name, arm, printed):
    found = read_study(name).arms[arm].paper
    assert {column: str(found[column]) for column in printed} == printed


@pytest.mark.parametrize("name", studies())
def test_every_arm_of_a_paper_has_what_its_columns_ask_for(name):
    study = read_study(name)
    if not study.paper:
        return
    assert study.paper.split(", ")[1] == f"Table {name.rpartition('table')[2]}"
    for arm in study.arms.values():
        assert set(arm.paper) <= set(study.columns)
        assert arm.what


def test_the_reasons_count_what_they_say():
    """Rows of the SGDM paper's Table 2 are of 20 classes or of 80, and its CBAM is Ultralytics' own."""

    def millions(model: str, nc: int) -> float:
        net = load_model(f"{model}.yaml", nc)
        for row in net.model:
            if isinstance(row, layers.CBAM):
                width = next(row.parameters()).shape[1]
                row.swapped = conv.CBAM(width)
        swapped = [row for row in net.model if hasattr(row, "swapped")]
        own = sum(p.numel() for row in swapped for k, p in row.named_parameters() if not k.startswith("swapped"))
        return (sum(p.numel() for p in net.parameters()) - own) / 1e6

    table = {name: float(arm.paper["params"]) for name, arm in read_study("sgdm-table2").arms.items()}
    for model, nc in (("yolov5n", 20), ("yolov5n-cbam", 20), ("yolov5n-rfaconv", 20), ("yolov5n-sgdm", 80)):
        assert round(millions(model, nc), 1) == table[model], model
    for model in ("yolov5s-cbam", "yolov6n-cbam", "yolov6s-cbam", "yolov8n-cbam", "yolov8s-cbam"):
        assert round(millions(model, 80), 1) == table[model], model


def test_figures_of_a_model_are_those_of_its_tables():
    found = {table: [str(x) for pair in pairs for x in pair] for table, *pairs in figures("yolov5n-sgdm")}
    assert found == {"Table 2": ["2.5", "7.2", "2.8", "8.1"], "Table 5": ["1.9", "4.6", "2.0", "4.8"]}
    assert [table for table, *_ in figures("yolov8n-sgdm")] == ["Table 2"]  # Tables 3 and 5 repeat it
    assert figures("yolov8n") == figures("yolov11n") == []


def smallest(study: Study, folder: Path) -> str:
    """The arm that is trained here: of classifiers the smallest, of detectors the first."""
    size = (lambda arm: counts(study, arm, folder)["params"]) if study.task == "classify" else (lambda arm: 0.0)
    return min(study.trained(), key=size)


@pytest.mark.accept
@pytest.mark.parametrize("name", TRAINED)
def test_a_study_from_training_to_its_page(name, tiny, colours, tmp_path, monkeypatch, log):
    """Killed after its first result, it goes on with what is missing, and changes nothing that is there."""
    monkeypatch.chdir(tmp_path)
    study = read_study(name)
    arm = smallest(study, tmp_path / "models")
    (tmp_path / "data.yaml").write_text(tiny.read_text() + "test: images/val\n")
    data, imgsz = (colours, 32) if study.task == "classify" else (tmp_path / "data.yaml", 64)
    words = ["study", name, f"data={data}", f"arms={arm}", "seeds=0,1", f"imgsz={imgsz}", *FAST]
    words += ["image_sizes=None"] if name.startswith("dmf") else []  # the recipe's are far above 32

    def killed(file, record):
        write_record(file, record)
        raise KeyboardInterrupt

    monkeypatch.setattr("yolo_dyn.study.run.write_record", killed)
    assert cli.main(words) == 130
    monkeypatch.setattr("yolo_dyn.study.run.write_record", write_record)
    results = tmp_path / "runs" / "study" / name / "results"
    first = results / f"{arm}-seed0.json"
    before = first.read_bytes()
    assert [file.name for file in results.iterdir()] == [first.name]

    assert cli.main(words) == 0
    assert "1 of 2 results are there already" in "\n".join(log)
    assert first.read_bytes() == before
    records = [json.loads((results / f"{arm}-seed{seed}.json").read_text()) for seed in (0, 1)]
    assert [record["training"]["epochs"] for record in records] == [1, 1]
    assert records[0]["weights"] != records[1]["weights"]
    page = (results.parent / "page.md").read_text()
    assert page.startswith(f"# {study.title}")
    assert f"| {arm} | {study.arms[arm].what} | 2 |" in page
    assert DOES_NOT_FOLLOW not in page
