"""The study's tools: repeated trainings, tests over seeds, training curves, and the page of results."""

import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from scipy import stats
from ultralytics import YOLO

from yolo_dyn import YoloDynError, cli
from yolo_dyn.study import arms, results
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


@pytest.mark.parametrize("key", ["seed", "exist_ok", "resume"])
def test_repeat_refuses_what_it_sets_itself(key, tmp_path):
    """A seed among the arguments would train every run with it, whatever seed its name says."""
    with pytest.raises(YoloDynError, match=f"{key}=5 cannot be given to repeat: "):
        repeat(["yolov8n-cls.yaml"], "data", project=str(tmp_path), **{key: 5})
    assert not list(tmp_path.iterdir())


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


def made_up_result(arm: str, seed: int, clean: float, noisy: float) -> dict:
    cells = [{"corruption": "clean", "sigma": 0.0, "AP": clean}]
    cells += [{"corruption": "gaussian_noise", "sigma": sigma, "AP": noisy - sigma / 1000} for sigma in (10.0, 50.0)]
    return {
        **{"arm": arm, "seed": seed, "weights": "0" * 64, "parameters": 3_000_000, "cells": cells},
        **{"latency": {"ratio": 1.1}, "training": {"best_epoch": 50}, "data": {"images": 72}},
        "environment": {"processor": "CPU", "cores": 2, "ultralytics": "8", "torch": "2"},
    }


@pytest.fixture
def three_seeds(tmp_path) -> Path:
    (tmp_path / "results").mkdir()
    rng = np.random.default_rng(0)
    for arm, gain in (("yolov8n", 0), ("sgdm", 0.1), ("unguided", 0.099)):
        for seed in range(3):
            result = made_up_result(arm, seed, 0.5 + rng.normal(0, 0.003), 0.3 + gain + rng.normal(0, 0.003))
            (tmp_path / "results" / f"{arm}-seed{seed}.json").write_text(json.dumps(result))
    return tmp_path


def test_the_page_says_what_the_tests_say(three_seeds):
    results.results(str(three_seeds / "results"), str(three_seeds / "RESULTS.md"))
    text = (three_seeds / "RESULTS.md").read_text()
    found = results.read_results(three_seeds / "results")
    mean = {a: [np.mean([c["AP"] for c in found[a][s]["cells"][1:]]) for s in range(3)] for a in ("yolov8n", "sgdm")}
    expected = stats.ttest_rel(mean["sgdm"], mean["yolov8n"])
    assert f"p = {expected.pvalue:.3f}, 3 seeds. Under noise it does, in this study." in text
    assert re.search(r"Is it the guide\?\*\* .*Under noise these seeds do not tell the two apart", text)
    assert "Not known yet: sgdm and wide share no seed." in text
    assert "| sgdm | with SGDM before P3 to P5 | 3 | 3,000,000 | 1.10 |" in text
    assert "Not run yet: wide, cbam" in text
    assert "![AP over sigma](results/curves.png)" in text
    assert (three_seeds / "results" / "curves.png").is_file()


def test_the_page_claims_nothing_from_one_seed(three_seeds):
    for file in (three_seeds / "results").glob("*-seed[12].json"):
        file.unlink()
    text = results.page(results.read_results(three_seeds / "results"), "curves.png")
    assert "One seed proves nothing." in text
    assert "p = " not in text
    with pytest.raises(YoloDynError, match="no result in"):
        results.read_results(three_seeds)


def test_arms_without_seed_0_are_left_out_of_the_pictures_of_seed_0(three_seeds):
    for file in (three_seeds / "results").glob("yolov8n-seed0.json"):
        file.unlink()
    several, *of_seed_0 = results.panels(results.read_results(three_seeds / "results")).values()
    assert {arm: list(seeds) for arm, seeds in several.items()} == {
        **{"yolov8n": [1, 2]},
        **{arm: [0, 1, 2] for arm in ("sgdm", "unguided")},
    }
    assert [list(shown) for shown in of_seed_0] == [[], ["sgdm"]]


def test_the_headline_of_the_readme_is_the_result():
    headline = (ROOT / "README.md").read_text(encoding="utf-8").split("**Does SGDM")[1].split("![")[0]
    test = results.compared(results.read_results(ROOT / "docs" / "results"), "sgdm", arms.BASE)["mPC"]
    for figure in (f"{test.difference:+.3f}", f"[{test.low:+.3f}, {test.high:+.3f}]", f"(p = {test.p:.3f})"):
        assert figure in headline
    assert ("no effect shows" in headline) == (test.low < 0 < test.high)


def test_the_readme_says_what_training_with_noise_does():
    found = results.read_results(ROOT / "docs" / "results")
    mean = {arm: results.scores(found, arm)[results.MEAN] for arm in found}
    best = max(value for arm in found if not arms.ARMS[arm].noise for value in mean[arm].values())
    said = f"of {mean['yolov8n-noise'][0]:.3f}, and {mean['sgdm-noise'][0]:.3f} with SGDM, where the best model trained"
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{said} without has {best:.3f}" in text


def test_the_committed_page_is_made_from_the_committed_results(tmp_path):
    shutil.copytree(ROOT / "docs" / "results", tmp_path / "results")
    results.results(str(tmp_path / "results"), str(tmp_path / "RESULTS.md"))
    assert (tmp_path / "RESULTS.md").read_text() == (ROOT / "docs" / "RESULTS.md").read_text()


def test_an_arm_from_training_to_its_file(detectors, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arms, "RECIPE", {"imgsz": 64, "epochs": 1, "batch": 4, "plots": False})
    monkeypatch.setattr(arms, "SIGMAS", [0.0, 30.0])
    data = tmp_path / "bccd" / "data.yaml"
    data.parent.mkdir()
    data.write_text((detectors / "data.yaml").read_text() + "test: images/val\n")
    words = [f"data={data}", "arms=yolov8n-noise", "out=results", "device=cpu"]
    assert cli.main(["study", *words]) == 0
    found = json.loads((tmp_path / "results/yolov8n-noise-seed0.json").read_text())
    assert [cell["sigma"] for cell in found["cells"]] == [0, 30]
    assert found["command"].startswith(
        "yolo train model=yolov8n.yaml data=bccd/data.yaml cfg=gaussian-noise.yaml imgsz=64"
    )
    assert found["training"]["epochs"] == 1
    assert found["latency"]["ratio"] > 0
    assert len(found["weights"]) == 64
    capsys.readouterr()
    assert cli.main(["study", *words]) == 0
    assert "missing" not in capsys.readouterr().out
    assert cli.main(["study", f"data={data}", "arms=sgmd"]) == 2
    assert "unknown arm 'sgmd'; did you mean 'sgdm'?" in capsys.readouterr().err


def test_every_arm_has_its_yaml_and_the_wide_one_sgdm_s_size():
    sizes = {}
    for name, arm in arms.ARMS.items():
        sizes[name] = sum(p.numel() for p in YOLO(arm.model).model.parameters())
    assert sizes["wide"] == pytest.approx(sizes["sgdm"], rel=1e-3)
    assert sizes["unguided"] == sizes["sgdm"]
