"""The trade-off scores IES and RCS: on the paper's own tables, on made-up runs, and on real ones of both kinds."""

import csv
import itertools
import math
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from helpers import since
from ultralytics import YOLO

from yolo_dyn import YoloDynError, cli
from yolo_dyn.output.labels import run_names
from yolo_dyn.runs.read import AP, TOP1, training_images
from yolo_dyn.runs.tradeoff import picture as tradeoff_picture
from yolo_dyn.runs.tradeoff.scores import Row, ies, rcs, seconds_per_epoch
from yolo_dyn.runs.tradeoff.tradeoff import tradeoff
from yolo_dyn.study import tradeoff_paper
from yolo_dyn.study.tradeoff_paper import Published, images_by_columns, overlap, rounded, tables

TABLES = tables()
SCORED = [pytest.param(table, row, id=f"{table.name} {row.model}") for table in TABLES for row in table.rows]
WRONG = {("Table 2", "channel attention"), ("Table 6", "FMDConv, K=4")}  # their IES
FAST = {"epochs": 3, "workers": 0, "plots": False, "device": "cpu", "exist_ok": True, "verbose": False}


# the scores, and the paper's tables ----------------------------------------------------------------------------------


def test_the_scores_are_those_of_the_equations():
    assert ies(100.50, 0.8119) == pytest.approx(123.78, abs=0.005)  # Table 3, CondConv
    assert rcs(100.50, 0.8119, 60_000) == pytest.approx(484.72, abs=0.005)
    assert ies(2, 0) == math.inf
    assert rcs(2, 0, 100) == 0
    assert ies(2, 1) == 2


@pytest.mark.parametrize(
    ("seconds", "top1", "images", "message"),
    [
        (0, 0.5, 10, "the seconds of an epoch must be positive, got 0"),
        (math.nan, 0.5, 10, "the seconds of an epoch must be positive, got nan"),
        (math.inf, 0.5, 10, "the seconds of an epoch must be positive, got inf"),
        (1, 81.19, 10, "the accuracy must be a fraction between 0 and 1, got 81.19"),
        (1, math.nan, 10, "the accuracy must be a fraction between 0 and 1, got nan"),
        (1, 0.5, 0, "images must be a positive number, got 0"),
    ],
)
def test_what_is_no_score_is_refused(seconds, top1, images, message):
    with pytest.raises(YoloDynError, match=message):
        rcs(seconds, top1, images)
    if images:
        with pytest.raises(YoloDynError, match=message):
            ies(seconds, top1)


@pytest.mark.parametrize(("table", "row"), SCORED)
def test_the_papers_scores_follow_from_the_columns_beside_them(table, row):
    """From the corners of what the printed columns can stand for, so that the tolerance is their rounding alone."""
    seconds, top1 = rounded(row.seconds), [value / 100 for value in rounded(row.top1)]
    corners = list(itertools.product(seconds, top1))
    by_columns = {
        "ies": [ies(*corner) for corner in corners],
        "rcs": [rcs(*corner, table.images) for corner in corners],
    }
    for score, values in by_columns.items():
        printed = getattr(row, score)
        if not printed:
            assert row.model == "no attention"
            continue
        low, high = rounded(printed)
        follows = min(values) <= high and low <= max(values)
        assert follows == ((table.name, row.model) not in WRONG or score == "rcs")


def test_the_rows_that_do_not_follow_are_named():
    assert tradeoff_paper.errata() == [
        "Table 2, channel attention: IES 65.65, by its columns 65.54 to 65.56",
        "Table 6, FMDConv, K=4: IES 1099.25, by its columns 1312.87 to 1313.05",
    ]


def test_the_check_of_the_tables_sees_a_wrong_digit():
    """The tolerance is narrow: one score of the paper, moved by three units of its last digit, no longer follows."""
    row = Published("CondConv", "81.19", "100.50", "123.81", "484.72")  # Table 3 has 123.78
    assert not overlap(rounded(row.ies), row.ies_by_columns())
    row = Published("CondConv", "81.19", "100.50", "123.78", "484.82")  # 484.72
    assert not overlap(rounded(row.rcs), row.rcs_by_columns(60_000))
    assert overlap(rounded("484.72"), row.rcs_by_columns(60_000))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_number_of_images_is_that_of_each_table(table):
    low, high = images_by_columns(table)
    assert low <= table.images <= high
    others = {50_000, 10_000, 60_000, 1_281_167, 1_281_167 + 50_000, 50_000 + 1_281_167 + 100_000} - {table.images}
    assert not any(low <= other <= high for other in others)
    assert (high - low) / table.images < 3e-4


def test_printed_figures_stand_for_what_is_rounded_to_them():
    assert rounded("114.7") == pytest.approx((114.65, 114.75), abs=1e-12)
    assert rounded("100.50") == pytest.approx((100.495, 100.505), abs=1e-12)
    assert rounded("7") == (6.5, 7.5)


def test_tradeoff_paper_prints_every_row_and_the_errors(capsys):
    assert cli.main(["tradeoff", "paper"]) == 0
    text = capsys.readouterr().out
    assert sum(line.count(" =") for line in text.splitlines() if "N =" not in line) == 48
    assert [line.split()[0] for line in text.splitlines() if " !" in line] == ["channel", "FMDConv,"]
    assert "2 of 50 scores do not follow" in text
    assert "Table 6: Dynamic convolutions in ResNet-50, on ImageNet; N = 1,281,167" in text
    assert "N = 1,281,167 (by the column RCS 1,281,076 to 1,281,258)" in text


# seconds of an epoch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ([30, 40, 50, 60], 10),  # the first epoch warms up
        ([10, 20, 500, 510, 520], 10),  # the machine slept
        ([30, 40, 50, 25, 35, 45], 10),  # resumed after the third epoch: the clock starts again, and it warms up again
        ([30], 30),
        ([30, 28], 29),  # resumed after the only epoch: nothing but warm-ups
    ],
)
def test_seconds_per_epoch(time, seconds):
    assert seconds_per_epoch(time) == seconds


# made-up runs --------------------------------------------------------------------------------------------------------


def made_up(folder: Path, name: str, accuracies, column=TOP1, seconds=10.0, **arguments) -> str:
    run = folder / name
    run.mkdir(parents=True)
    rows = [f"{i},{5 + seconds * i},{value}" for i, value in enumerate(accuracies, 1)]
    (run / "results.csv").write_text("\n".join([f"epoch,time,{column}", *rows]) + "\n")
    (run / "args.yaml").write_text(yaml.safe_dump({"task": "classify", "epochs": len(accuracies), **arguments}))
    return str(run)


def test_the_table_the_csv_and_the_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a = made_up(tmp_path, "a", [0.25, 0.5, 0.4], seconds=10)
    b = made_up(tmp_path, "b", [0.8, 0.75, 0.7], seconds=20)
    assert cli.main(["tradeoff", a, b, "images=60000"]) == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith(("a ", "b "))}
    assert lines["a"] == ["3", "2", "60,000", "10.00", "0.5000", "20.00", "3000.00"]
    assert lines["b"] == ["3", "1", "60,000", "20.00", "0.8000", "25.00", "2400.00"]
    assert "N: as given." in text
    assert "not trained alike" not in text
    with Path("tradeoff.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["a", "b"]
    assert [float(row["ies"]) for row in rows] == [20, 25]
    assert [float(row["rcs"]) for row in rows] == [3000, 2400]
    assert {row["metric"] for row in rows} == {"top-1"}
    assert min(cv2.imread("tradeoff.png").shape[:2]) > 500
    Path("tradeoff.png").unlink()
    assert cli.main(["tradeoff", a, b, "images=60000"]) == 2
    assert "tradeoff.csv exists; exist_ok=True replaces it" in capsys.readouterr().err
    assert not Path("tradeoff.png").exists()
    assert cli.main(["tradeoff", a, b, "images=60000", "exist_ok=True"]) == 0


def test_a_detectors_accuracy_is_its_ap_and_the_table_says_so(tmp_path):
    run = made_up(tmp_path, "a", [0.25, 0.5], AP, task="detect")
    text = tradeoff([run], images=100, out=str(tmp_path / "x.png"))
    assert text.splitlines()[0].split() == ["run", "epochs", "best", "N", "seconds", "an", "epoch", "AP", "IES", "RCS"]
    assert "AP (IoU 0.50 to 0.95) stands in top-1's place" in text
    assert "IES = seconds / AP" in text


def test_an_accuracy_of_zero_is_marked(tmp_path):
    runs = [made_up(tmp_path, "a", [0, 0]), made_up(tmp_path, "b", [0.5, math.nan])]
    text = tradeoff(runs, images=100, out=str(tmp_path / "x"))
    assert (tmp_path / "x.png").is_file()
    assert "a: top-1 is 0, so IES is infinite" in text
    assert [line.split()[-2:] for line in text.splitlines()[1:3]] == [["inf", "0.00"], ["20.00", "5.00"]]


def test_what_speaks_against_comparing_is_said(tmp_path):
    a = made_up(tmp_path, "a", [0.5], batch=16, val=True, epochs=30)
    b = made_up(tmp_path, "b", [0.5, 0.5], batch=32, val=True)
    text = tradeoff([a, b], images=10, out=str(tmp_path / "x.png"))
    assert "not trained alike, batch: a 16, b 32" in text
    assert "not trained alike, val" not in text
    assert "a: a single epoch, so its seconds hold the warm-up" in text
    assert "a: 1 of 30 epochs; stopped early, or not finished" in text
    assert "b: " not in text


def bad_runs(folder: Path) -> dict[str, str]:
    """Folders with something wrong, by what it is."""
    runs = {"good": made_up(folder, "good", [0.5]), "detector": made_up(folder, "detector", [0.5], AP)}
    runs["no accuracy"] = made_up(folder, "masks", [0.5], "metrics/mIoU")
    runs["percent"] = made_up(folder, "percent", [81.19])
    runs["nan"] = made_up(folder, "nan", [math.nan])
    for name, text in {
        "no time": f"epoch,{TOP1}\n1,0.5\n",
        "no epoch": f"epoch,time,{TOP1}\n",
        "empty": "",
        "sweep": "model,corruption,AP\na.pt,clean,0.5\n",
        "short": f"epoch,time,{TOP1}\n1,3\n",
    }.items():
        runs[name] = str(folder / name)
        (folder / name).mkdir()
        (folder / name / "results.csv").write_text(text)
    runs["nothing"] = str(folder / "nothing")
    runs["arguments"] = made_up(folder, "arguments", [0.5])
    (folder / "arguments" / "args.yaml").write_text("- 1\n")
    return runs


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("nothing", "nothing has no results.csv: it is no run of `yolo train`"),
        ("no time", "results.csv has no column 'time'; it has epoch, metrics/accuracy_top1"),
        ("no accuracy", "results.csv has no accuracy (metrics/accuracy_top1 or metrics/mAP50-95(B)); it has epoch, "),
        ("good,detector", "classifiers and detectors do not compare: the runs have top-1 (good) and AP (detector)"),
        ("percent", "results.csv: the accuracy must be a fraction between 0 and 1, got 81.19"),
        ("nan", "results.csv: the accuracy must be a fraction between 0 and 1, got nan"),
        ("no epoch", "results.csv holds no epoch"),
        ("empty", "results.csv holds no epoch"),
        ("sweep", "results.csv, row 1, model: 'a.pt' is no number; it is no run of `yolo train`"),
        ("short", "results.csv, row 1: 2 values for 3 columns"),
        ("arguments", "args.yaml must hold a mapping of arguments, got [1]"),
        ("good,good", "good is given twice"),
    ],
)
def test_bad_runs_are_one_error(names, message, tmp_path, capsys):
    runs = bad_runs(tmp_path)
    words = [runs[name] for name in names.split(",")]
    assert cli.main(["tradeoff", *words, "images=10", f"out={tmp_path / 'x.png'}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images=-1"], "images must be at least 0, got -1"),
        (["images=many"], "images must be an integer, got 'many'"),
        (["images=10", "out=missing/x.png"], "missing/x.png cannot be written: No such file or directory"),
        (["images=10", "out=x.doc"], "x.doc cannot be written: Format 'doc' is not supported"),
        (["images=10", "out=x.csv"], "x.csv cannot be written: Format 'csv' is not supported"),
        (["images=10", "out=run/results.png"], "its table would be called results.csv, like that of a run"),
        ([], "the data of run are not found from here: give images=, the number of its training images"),
    ],
)
def test_bad_arguments_are_one_error(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_up(tmp_path, "run", [0.5], data="nowhere")
    before = Path("run/results.csv").read_bytes()
    assert cli.main(["tradeoff", "run", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert Path("run/results.csv").read_bytes() == before


def test_the_runs_must_be_named(capsys):
    assert cli.main(["tradeoff"]) == 2
    assert "missing key 'runs'" in capsys.readouterr().err
    assert cli.main(["tradeoff", "runs="]) == 2
    assert "runs must be a list of at least one" in capsys.readouterr().err


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    assert run_names(["x/a/train", "x/b/train", "x/c"]) == ["a/train", "b/train", "c"]
    assert run_names(["x/train/", "x/a/train"]) == ["x/train", "a/train"]
    with pytest.raises(YoloDynError, match="is given twice"):
        run_names(["x/a", "x/b/../a"])


# images of an epoch --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    """A classification data set: two classes of noise, bright and dark, 8 + 2 images each."""
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for name, level in (("bright", 170), ("dark", 40)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(level, level + 60, (32, 32, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / split / name / f"{i}{'.jpg' if i else '.PNG'}"), pixels)
    (folder / "train" / "bright" / "notes.txt").write_text("no image")
    return folder


def test_images_are_those_of_the_train_split(classes, tiny):
    classifier, detector = (
        {"task": task, "data": str(data)} for task, data in (("classify", classes), ("detect", tiny))
    )
    assert training_images(classifier) == training_images(detector) == 16
    for fraction, count in ((1, 16), (0.5, 8), (5, 5), (100, 16), ([0.25, 1.0], 4), (0.001, 1)):
        assert training_images({**classifier, "fraction": fraction}) == count
        assert training_images({**detector, "fraction": fraction}) == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "the run has no args.yaml"),
        ({"task": "classify"}, "data=None is no folder or data YAML"),
        ({"task": "detect", "data": "https://example.com/data.zip"}, "is no folder or data YAML"),
        ({"task": "detect", "data": "data.ndjson"}, "data=data.ndjson is no folder or data YAML"),
        ({"task": "detect", "data": "nowhere.yaml"}, "'nowhere.yaml' does not exist"),
        ({"task": "classify", "data": "nowhere"}, "no image is found in .*nowhere/train"),
    ],
)
def test_data_that_are_not_found_are_not_downloaded(arguments, message):
    with pytest.raises(YoloDynError, match=message):
        training_images(arguments)


def test_a_data_set_that_would_be_downloaded_is_not(tmp_path):
    data = tmp_path / "data.yaml"
    data.write_text("path: away\ntrain: a\nval: b\nnames: [x]\ndownload: raise RuntimeError('downloaded')\n")
    with pytest.raises(YoloDynError, match=r"data=.*data\.yaml: Dataset .* images not found"):
        training_images({"task": "detect", "data": str(data)})


# real runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(classes, tiny, tmp_path_factory) -> Path:
    """A run of each kind by the stock trainer, three epochs."""
    project = tmp_path_factory.mktemp("runs")
    YOLO("yolov8n-cls.yaml").train(data=str(classes), imgsz=32, batch=8, project=str(project), name="cls", **FAST)
    words = {"imgsz": 64, "batch": 8, "project": str(project), "name": "det", "fraction": 0.5}
    YOLO("yolov8n-sgdm.yaml").train(data=str(tiny), **words, **FAST)
    return project


@since("8.3.9", "seconds in results.csv")
@pytest.mark.parametrize(("name", "metric", "images"), [("cls", "top-1", 16), ("det", "AP", 8)])
def test_real_runs(trained, name, metric, images, tmp_path, capsys):
    out = tmp_path / "x.png"
    assert cli.main(["tradeoff", str(trained / name), f"out={out}"]) == 0
    text = capsys.readouterr().out
    with out.with_suffix(".csv").open() as file:
        (row,) = csv.DictReader(file)
    with (trained / name / "results.csv").open() as file:
        epochs = list(csv.DictReader(file))
    times = [float(epoch["time"]) for epoch in epochs]
    column = {"top-1": "metrics/accuracy_top1", "AP": "metrics/mAP50-95(B)"}[metric]
    assert (row["metric"], int(row["images"]), int(row["epochs"])) == (metric, images, 3)
    assert float(row["seconds"]) == pytest.approx((times[2] - times[0]) / 2)  # the median of two is their mean
    assert float(row["accuracy"]) == max(float(epoch[column]) for epoch in epochs)
    assert float(row["rcs"]) == pytest.approx(float(row["accuracy"]) * images / float(row["seconds"]))
    assert "N: images of the train split." in text


# the picture ---------------------------------------------------------------------------------------------------------


def apart(boxes) -> bool:
    return not any(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a, b in itertools.combinations(boxes, 2)
    )


@pytest.mark.parametrize("spread", [0, 5, 40, 400])
def test_labels_hide_neither_each_other_nor_a_bubble(spread):
    rng, frame = random.Random(spread), (0, 0, 800, 500)
    circles = [(400 + spread * rng.uniform(-1, 1), 250 + spread * rng.uniform(-0.6, 0.6), 19) for _ in range(8)]
    sizes = [(rng.randint(60, 200), rng.choice((14, 28))) for _ in range(8)]
    found = tradeoff_picture.places(circles, sizes, frame)
    boxes = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for (x, y), (w, h) in zip(found, sizes, strict=True)]
    assert apart(boxes)
    assert all(b[0] >= 0 and b[1] >= 0 and b[2] <= 800 and b[3] <= 500 for b in boxes)
    for x, y, radius in circles:
        assert all(math.dist((x, y), (min(max(x, b[0]), b[2]), min(max(y, b[1]), b[3]))) > radius for b in boxes)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_labels_of_a_drawn_picture_stand_where_they_were_put(spread, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    rng = random.Random(0)
    names = [f"yolov8n-sgdm-arm{i}-of-the-study-seed{i}" for i in range(7)] + ["short"]
    rows = [Row(name, "AP", 3, 1, 205, 20 + spread * rng.random(), 0.5 + spread * rng.random() / 9) for name in names]
    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)
    tradeoff_picture.draw(rows, tmp_path / "x.png")
    monkeypatch.undo()
    axis = drawn[0].axes[0]
    boxes = [text.get_window_extent().extents for text in axis.texts]
    frame = axis.get_window_extent().extents
    assert len(boxes) == 8
    assert apart(boxes)
    assert all(b[0] > frame[0] and b[1] > frame[1] and b[2] < frame[2] and b[3] < frame[3] for b in boxes)
    plt.close(drawn[0])
