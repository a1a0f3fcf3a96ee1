"""Tools for finished trainings: repeated ones, tests over seeds, training curves."""

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import older
from scipy import stats
from ultralytics import YOLO

from yolo_dyn import YoloDynError, cli
from yolo_dyn.runs.curves import curves, panels, title
from yolo_dyn.runs.read import read_run
from yolo_dyn.runs.repeat import finished, repeat
from yolo_dyn.runs.seeds import compare_seeds, seeds, shared

# Student (1908), the sleep data: hours of sleep gained by ten patients under two drugs.
DEXTRO = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
LAEVO = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
FAST = {"imgsz": 64, "batch": 8, "workers": 0, "plots": False, "device": "cpu"}


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(values))


def test_the_t_test_on_published_numbers():
    """t(9) = 4.0621, p = 0.002833, mean 1.58, 95 % interval 0.70 to 2.46, as every textbook prints them."""
    test = compare_seeds(by_seed(DEXTRO), by_seed(LAEVO))
    assert test.difference == pytest.approx(1.58)
    assert test.p == pytest.approx(0.002833, abs=5e-7)
    assert (test.low, test.high) == (pytest.approx(0.7001142, abs=1e-6), pytest.approx(2.4598858, abs=1e-6))
    assert test.difference / (test.deviation / 10**0.5) == pytest.approx(4.0621, abs=5e-5)


def test_the_t_test_is_scipy_s():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 0.02, (2, 3))
    test, expected = compare_seeds(by_seed(a), by_seed(b)), stats.ttest_rel(b, a)
    assert test.p == pytest.approx(expected.pvalue, abs=1e-12)
    assert (test.low, test.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=1e-12)


def test_one_seed_is_no_test_and_seeds_that_do_not_pair_are_refused():
    test = compare_seeds({0: 0.4}, {0: 0.5})
    assert (test.p, test.low, test.deviation) == (None, None, None)
    assert str(test) == "+0.100 (one seed: no test)"
    with pytest.raises(YoloDynError, match=r"the seeds do not pair: \[0, 1\] and \[0, 2\]"):
        compare_seeds({0: 0.4, 1: 0.5}, {0: 0.4, 2: 0.5})
    test = compare_seeds({0: 0.25, 1: 0.5}, {0: 0.5, 1: 0.75})
    assert (test.p, test.low, test.deviation) == (None, None, 0)
    assert str(test) == "+0.250 (in all seeds: no test)"
    assert shared({0: 1, 1: 2, 2: 3}, {1: 5, 2: 6, 3: 7}) == ({1: 2, 2: 3}, {1: 5, 2: 6})


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory) -> Path:
    """Two seeds of a model, trained by the command for three epochs."""
    project = tmp_path_factory.mktemp("repeat")
    words = [f"{key}={value}" for key, value in FAST.items()]
    command = ["repeat", "model=yolov8n-sgdm.yaml", f"data={tiny}", "seeds=0,1", "epochs=3", f"project={project}"]
    assert cli.main([*command, *words]) == 0
    return project


def again(runs: Path, tiny: Path, **changes) -> list[str]:
    return repeat(["yolov8n-sgdm.yaml"], str(tiny), [0, 1], str(runs), epochs=3, **{**FAST, **changes})


def test_repeat_trains_each_seed_and_skips_what_is_done(runs, tiny, log):
    weights = [runs / f"yolov8n-sgdm-seed{seed}" / "weights" / "best.pt" for seed in (0, 1)]
    before = [file.read_bytes() for file in weights]
    assert before[0] != before[1]
    assert again(runs, tiny) == [str(file) for file in weights]
    assert sum("is done already" in line for line in log) == 2
    assert [file.read_bytes() for file in weights] == before


def test_repeat_resumes_what_was_interrupted(tiny, tmp_path):
    def interrupt(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    model = YOLO("yolov8n-sgdm.yaml")
    model.add_callback("on_model_save", interrupt)
    words = {"data": str(tiny), "epochs": 3, "seed": 0, "project": str(tmp_path), **FAST}
    with pytest.raises(KeyboardInterrupt):
        model.train(name="yolov8n-sgdm-seed0", **words)
    last = tmp_path / "yolov8n-sgdm-seed0/weights/last.pt"
    assert not finished(last)
    repeat(["yolov8n-sgdm.yaml"], str(tiny), [0], str(tmp_path), epochs=3, **FAST)
    assert finished(last)
    with (last.parents[1] / "results.csv").open() as resumed:
        assert [line.split(",")[0].strip() for line in resumed] == ["epoch", "1", "2", "3"]


def test_repeat_refuses_a_run_of_other_arguments(runs, tiny):
    with pytest.raises(YoloDynError, match="seed0 was trained with imgsz=64, not 96: give another name or project"):
        again(runs, tiny, imgsz=96)
    with pytest.raises(YoloDynError, match="name=x is for a single model, got 2"):
        repeat(["a.yaml", "b.yaml"], str(tiny), name="x")


@pytest.mark.parametrize("key", ["seed", "exist_ok", "resume"])
def test_repeat_refuses_what_it_sets_itself(key, tmp_path):
    """A seed among the arguments would train every run with it, whatever seed its name says."""
    with pytest.raises(YoloDynError, match=f"{key}=5 cannot be given to repeat: "):
        repeat(["yolov8n-cls.yaml"], "data", project=str(tmp_path), **{key: 5})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epoch": 3}, "arguments of yolo train: 'epoch' is not a valid YOLO argument. .*epochs"),
        ({"epochs": "many"}, "arguments of yolo train: 'epochs=many'"),
        ({"fraction": 2.0}, "arguments of yolo train: 'fraction=2.0'"),
        ({"drop_path": 2}, "drop_path"),
    ],
)
def test_repeat_checks_the_arguments_of_the_stock_trainer(arguments, message, tmp_path, log):
    with pytest.raises(YoloDynError, match=message) as refused:
        repeat(["yolov8n-sgdm.yaml"], "data.yaml", project=str(tmp_path), **arguments)
    assert len(str(refused.value).splitlines()) == 1
    assert not log
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("yolov8n.yaml", "", "data must name a data YAML, or a folder by class for classifiers; got ''"),
        ("yolov8n.yaml", "README.md", "data=README.md: (Not a YAML file|Attempting to load non-YAML file)"),
        ("yolov8n.yaml", "empty", "data=empty: "),
        ("yolov8n.yaml", "nowhere.yaml", "data=nowhere.yaml: .*does not exist"),
        ("yolov8n.onnx", "data.yaml", "model must be a .yaml or a .pt file, got 'yolov8n.onnx'"),
        ("yolov8n-sgmd.yaml", "data.yaml", "'yolov8-sgmd.yaml' does not exist; did you mean 'yolov8-sgdm.yaml'"),
    ],
)
def test_repeat_names_data_and_models_that_are_none(model, data, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(YoloDynError, match=message) as refused:
        repeat([model], data, epochs=1, imgsz=32)
    assert len(str(refused.value).splitlines()) == 1


def made_up_runs(folder: Path, arms: dict[str, dict[int, float]]) -> Path:
    for arm, scores in arms.items():
        for seed, score in scores.items():
            run = folder / f"{arm}-seed{seed}"
            run.mkdir(parents=True)
            (run / "results.csv").write_text(
                f"epoch, metrics/mAP50-95(B)\n1, {score - 0.1}\n2, {score}\n3, {score - 0.05}\n"
            )
    return folder


def test_seeds_command(tmp_path, capsys):
    folder = made_up_runs(tmp_path, {"a": {0: 0.40, 1: 0.42, 2: 0.41}, "b": {0: 0.45, 1: 0.48, 2: 0.45}})
    text = seeds(str(folder))
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith(("a ", "b "))}
    assert rows["a"] == ["3", "0.410", "0.010"]
    assert rows["b"][:3] == ["3", "0.460", "0.017"]
    p = stats.ttest_rel([0.45, 0.48, 0.45], [0.40, 0.42, 0.41]).pvalue
    assert f"p = {p:.3f}, 3 seeds" in text
    assert "-0.050" in seeds(str(folder), base="b")
    made_up_runs(tmp_path, {"c": {0: 0.5}})
    with pytest.raises(YoloDynError, match="the seeds do not pair"):
        seeds(str(folder))
    with pytest.raises(YoloDynError, match=r"no arm 'd' in .* \(it has a, b, c\)"):
        seeds(str(folder), base="d")
    with pytest.raises(YoloDynError, match=r"has no column 'mAP' \(it has epoch, metrics/mAP50-95\(B\)\)"):
        seeds(str(folder), metric="mAP")
    with pytest.raises(YoloDynError, match="no run called <arm>-seed<n>"):
        seeds(str(tmp_path / "nowhere"))


def test_curves_command(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [str(runs / f"yolov8n-sgdm-seed{seed}") for seed in (0, 1)]
    assert cli.main(["curves", *folders]) == 0
    assert "2 runs drawn to curves.png" in capsys.readouterr().out
    assert min(cv2.imread("curves.png").shape[:2]) > 500
    assert cli.main(["curves", *folders]) == 2
    assert "curves.png exists; exist_ok=True replaces it, out=... writes another" in capsys.readouterr().err
    assert cli.main(["curves", *folders, "exist_ok=True"]) == 0
    assert cli.main(["curves", str(tmp_path)]) == 2
    assert "has no results.csv" in capsys.readouterr().err
    assert cli.main(["curves", folders[0], "out=missing/x.png"]) == 2
    assert cli.main(["curves"]) == 2
    assert "missing key 'runs'" in capsys.readouterr().err


LOSSES = {
    "detect": ("box_loss", "cls_loss", "dfl_loss"),
    "segment": ("box_loss", "seg_loss", "cls_loss", "dfl_loss", "sem_loss"),
    "pose": ("box_loss", "pose_loss", "kobj_loss", "cls_loss", "dfl_loss"),
    "obb": ("box_loss", "cls_loss", "dfl_loss", "angle_loss"),
    "classify": ("loss",),
}
HEADS = {"detect": "B", "segment": "BM", "pose": "BP", "obb": "B", "classify": ""}


def headers(task: str) -> list[str]:
    """The columns that the stock trainer writes for a task."""
    boxes = [f"metrics/{name}({head})" for head in HEADS[task] for name in ("precision", "recall", "mAP50", "mAP50-95")]
    metrics = boxes or ["metrics/accuracy_top1", "metrics/accuracy_top5"]
    train, val = ([f"{part}/{loss}" for loss in LOSSES[task]] for part in ("train", "val"))
    time = [] if older("8.3.9") else ["time"]
    return ["epoch", *time, *train, *metrics, *val, "lr/pg0"]


def runs_of(task: str, folder: Path) -> Path:
    """Two arms with three seeds, whose columns all differ."""
    rng = np.random.default_rng(0)
    for arm in ("a", "b"):
        for seed in range(3):
            run = folder / f"{arm}-seed{seed}"
            run.mkdir(parents=True)
            rows = [[str(1 + epoch), *rng.random(len(headers(task)) - 1).astype(str)] for epoch in range(3)]
            (run / "results.csv").write_text("\n".join(",".join(row) for row in [headers(task), *rows]) + "\n")
    return folder


def column_of(folder: Path, arm: str, column: str, best) -> list[float]:
    found = []
    for seed in range(3):
        with (folder / f"{arm}-seed{seed}" / "results.csv").open() as text:
            found.append(best(float(row[column]) for row in csv.DictReader(text)))
    return found


@pytest.mark.parametrize(
    ("task", "metric", "column", "best"),
    [
        ("detect", "", "metrics/mAP50-95(B)", max),
        ("detect", "mAP50", "metrics/mAP50(B)", max),
        ("segment", "", "metrics/mAP50-95(M)", max),
        ("segment", "mAP50-95(B)", "metrics/mAP50-95(B)", max),
        ("pose", "", "metrics/mAP50-95(P)", max),
        ("obb", "", "metrics/mAP50-95(B)", max),
        ("classify", "", "metrics/accuracy_top1", max),
        ("classify", "top5", "metrics/accuracy_top5", max),
        ("classify", "accuracy_top1", "metrics/accuracy_top1", max),
        ("classify", "val/loss", "val/loss", min),
        ("pose", "val/pose_loss", "val/pose_loss", min),
    ],
)
def test_seeds_of_every_task_are_scipy_s(task, metric, column, best, tmp_path):
    folder = runs_of(task, tmp_path)
    text = seeds(str(folder), metric=metric)
    a, b = (column_of(folder, arm, column, best) for arm in ("a", "b"))
    test = stats.ttest_rel(b, a)
    low, high = test.confidence_interval(0.95)
    assert text.startswith(f"{column} of the best epoch")
    assert f"{np.mean(b) - np.mean(a):+.3f} [{low:+.3f}, {high:+.3f}], p = {test.pvalue:.3f}, 3 seeds" in text
    assert f"{np.mean(a):.3f}" in text


def test_metrics_that_name_no_column_or_several(tmp_path):
    with pytest.raises(YoloDynError, match=r"several columns 'mAP50': give metric= as one of mAP50\(B\), mAP50\(M\)"):
        seeds(str(runs_of("segment", tmp_path / "segment")), metric="mAP50")
    folder = runs_of("classify", tmp_path / "mixed")
    shutil.rmtree(folder / "b-seed0")
    shutil.copytree(runs_of("obb", tmp_path / "obb") / "b-seed0", folder / "b-seed0")
    with pytest.raises(YoloDynError, match=r"runs of different tasks do not compare: .* has metrics/accuracy_top1"):
        seeds(str(folder))
    file = tmp_path / "obb" / "a-seed0" / "results.csv"
    nan = "\n".join(",".join(["nan"] * len(headers("obb"))) for _ in range(2))
    file.write_text(",".join(headers("obb")) + f"\n{nan}\n")
    with pytest.raises(YoloDynError, match=r"metrics/mAP50-95\(B\): no epoch has a number"):
        seeds(str(tmp_path / "obb"))
    file.write_text("epoch,x\n1,2\n")
    with pytest.raises(YoloDynError, match="has no metric of a known task; give metric=, one of epoch, x"):
        seeds(str(tmp_path / "obb"))


@pytest.mark.parametrize("task", LOSSES)
def test_curves_of_every_task(task, tmp_path):
    folder = runs_of(task, tmp_path / "runs")
    drawn = panels({"a": read_run(folder / "a-seed0")})
    left_out = {f"metrics/{name}({head})" for head in HEADS[task] for name in ("precision", "recall")}
    assert set(drawn) == {c for c in headers(task) if c.startswith(("train/", "val/", "metrics/"))} - left_out
    assert len({title(column) for column in drawn}) == len(drawn)
    picture = tmp_path / "curves.png"
    curves([str(folder / "a-seed0"), str(folder / "b-seed0")], str(picture))
    assert min(cv2.imread(str(picture)).shape[:2]) > 300


def test_curves_of_several_tasks_show_what_they_share(tmp_path):
    boxes, masks, classes = (runs_of(task, tmp_path / task) / "a-seed0" for task in ("detect", "segment", "classify"))
    shared_panels = panels({run.parent.name: read_run(run) for run in (boxes, masks)})
    assert "metrics/mAP50(B)" in shared_panels
    assert "train/seg_loss" not in shared_panels
    with pytest.raises(YoloDynError, match="the runs detect, classify have no loss and no metric in common"):
        panels({run.parent.name: read_run(run) for run in (boxes, classes)})


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    """Images of one square each, labelled for every task: a data YAML a task, and folders by class."""
    folder = tmp_path_factory.mktemp("squares")
    labels = {"segment": "0 .2 .2 .8 .2 .8 .8 .2 .8", "obb": "0 .2 .2 .8 .2 .8 .8 .2 .8", "detect": "0 .5 .5 .6 .6"}
    labels["pose"] = "0 .5 .5 .6 .6 .2 .2 2 .8 .8 2"
    image = np.zeros((64, 64, 3), np.uint8)
    image[13:51, 13:51] = 200
    for split in ("train", "val"):
        for number in range(4):
            for task, row in labels.items():
                for kind in ("images", "labels"):
                    (folder / task / kind / split).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / task / "images" / split / f"{number}.png"), image)
                (folder / task / "labels" / split / f"{number}.txt").write_text(row + "\n")
            place = folder / "classify" / split / "ab"[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / f"{number}.png"), image)
    for task in labels:
        points = "kpt_shape: [2, 3]\n" if task == "pose" else ""
        text = f"path: {folder / task}\ntrain: images/train\nval: images/val\nnames: [square]\n{points}"
        (folder / task / "data.yaml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("task", "suffix"),
    [
        ("classify", "-cls"),
        *(
            pytest.param(t, f"-{s}", marks=pytest.mark.accept)
            for t, s in (("segment", "seg"), ("pose", "pose"), ("obb", "obb"))
        ),
    ],
)
def test_repeat_seeds_and_curves_after_the_stock_trainer(task, suffix, squares, tmp_path):
    data = squares / task if task == "classify" else squares / task / "data.yaml"
    repeat([f"yolov8n{suffix}.yaml"], str(data), [0, 1], str(tmp_path), name="a", epochs=1, **{**FAST, "batch": 4})
    with (tmp_path / "a-seed0" / "results.csv").open() as text:
        written = [head.strip() for head in next(csv.reader(text))]
    assert [head for head in written if not head.startswith("lr/")] == [
        h for h in headers(task) if not h.startswith("lr/")
    ]
    assert "of the best epoch" in seeds(str(tmp_path))
    assert "2 runs drawn" in curves([str(tmp_path / f"a-seed{seed}") for seed in (0, 1)], str(tmp_path / "curves.png"))
