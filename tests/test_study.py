"""Tools for finished trainings: repeated ones, tests over seeds, training curves."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import stats
from ultralytics import YOLO

from yolo_dyn import YoloDynError, cli
from yolo_dyn.study.repeat import finished, repeat
from yolo_dyn.study.significance import compare_seeds, seeds, shared

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
    with pytest.raises(YoloDynError, match="there is nothing to test"):
        compare_seeds({0: 0.25, 1: 0.5}, {0: 0.5, 1: 0.75})
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


def test_repeat_trains_each_seed_and_skips_what_is_done(runs, tiny, capsys):
    weights = [runs / f"yolov8n-sgdm-seed{seed}" / "weights" / "best.pt" for seed in (0, 1)]
    before = [file.read_bytes() for file in weights]
    assert before[0] != before[1]
    capsys.readouterr()
    assert again(runs, tiny) == [str(file) for file in weights]
    assert capsys.readouterr().out.count("is done already") == 2
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
        assert [row["epoch"] for row in csv.DictReader(resumed)] == ["1", "2", "3"]


def test_repeat_refuses_a_run_of_other_arguments(runs, tiny):
    with pytest.raises(YoloDynError, match="seed0 was trained with imgsz=64, not 96: give another name or project"):
        again(runs, tiny, imgsz=96)
    with pytest.raises(YoloDynError, match="name=x is for a single model, got 2"):
        repeat(["a.yaml", "b.yaml"], str(tiny), name="x")


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
    with pytest.raises(YoloDynError, match="has no column"):
        seeds(str(folder), metric="mAP")
    with pytest.raises(YoloDynError, match="no run called <arm>-seed<n>"):
        seeds(str(tmp_path / "nowhere"))


def test_curves_command(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [str(runs / f"yolov8n-sgdm-seed{seed}") for seed in (0, 1)]
    assert cli.main(["curves", *folders]) == 0
    assert "2 runs drawn to curves.png" in capsys.readouterr().out
    assert min(cv2.imread("curves.png").shape[:2]) > 500
    assert cli.main(["curves", str(tmp_path)]) == 2
    assert "has no results.csv" in capsys.readouterr().err
    assert cli.main(["curves", folders[0], "out=missing/x.png"]) == 2
    assert cli.main(["curves"]) == 2
    assert "missing key 'runs'" in capsys.readouterr().err
