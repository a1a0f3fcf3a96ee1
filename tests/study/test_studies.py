"""Studies as data: their files, their networks, what a run of one leaves, and the page made from it."""

import copy
import json
import re
import shutil
from decimal import Decimal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT
from scipy import stats

from yolo_dyn import YoloDynError, cli
from yolo_dyn.integration.api import load_model
from yolo_dyn.output.files import hash_file
from yolo_dyn.runs.read import read_run
from yolo_dyn.study.columns import agrees, half_a_unit
from yolo_dyn.study.definition import read_study, studies
from yolo_dyn.study.measure import hash_weights
from yolo_dyn.study.networks import counts, model_file, with_options
from yolo_dyn.study.page import counted, differences, write_page
from yolo_dyn.study.picture import panels
from yolo_dyn.study.records import RunRecord, read_record, write_record
from yolo_dyn.study.results import StudyResults

FAST = ["imgsz=64", "epochs=1", "batch=4", "workers=0", "plots=False", "deterministic=False", "device=cpu"]
SMALL = {
    "title": "Does it help?",
    "paper": "A paper, Table 1",
    "columns": ["params", "gflops", "AP", "mPC"],
    "base": "stock",
    "sigmas": [0, 30],
    "imgsz": 64,
    "classes": 7,
    "train": {"epochs": 1, "imgsz": 64},
    "seeds": [0, 1],
    "arms": {
        "stock": {"model": "yolov8n.yaml", "what": "the stock model", "paper": {"params": 3.0, "AP": 50.10}},
        "narrow": {
            "model": "yolov8n-sgdm.yaml",
            "what": "a narrower razor",
            "options": {"SGDM": {"razor_ratio": 0.25}},
            "paper": {"params": 9.99, "AP": 60},
            "why": {"params": "the paper counts twice"},
        },
        "transformer": {"left_out": "no dynamic convolution", "paper": {"AP": 41}},
    },
}


def written(folder: Path, **changes) -> Path:
    """A study's file, with changed keys."""
    content = copy.deepcopy(SMALL)
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    (folder / "small.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "small.yaml"


def test_a_study_keeps_the_papers_digits(tmp_path):
    file = written(tmp_path)
    file.write_text(file.read_text().replace("AP: 50.1\n", "AP: 50.10\n"))
    study = read_study(str(file))
    assert str(study.arms["stock"].paper["AP"]) == "50.10"
    assert half_a_unit(Decimal("50.10")) == pytest.approx(0.005)
    assert half_a_unit(Decimal("44")) == 0.5
    assert agrees(0.50104, "AP", Decimal("50.10"))
    assert not agrees(0.50106, "AP", Decimal("50.10"))
    assert study.seeds_of("narrow") == [0, 1]
    assert (study.compared_to("narrow"), study.compared_to("stock")) == ("stock", "")
    assert list(study.trained()) == ["stock", "narrow"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "x"}, r"small.yaml: unknown key 'titel'; did you mean 'title'\?"),
        ({"title": None}, "small.yaml: title is missing"),
        ({"arms": None}, "small.yaml: arms must be a mapping"),
        ({"arms": {}}, "small.yaml: arms must be a mapping"),
        ({"arms__stock": ["yolov8n.yaml"]}, "small.yaml, arms, stock: a mapping is needed"),
        ({"arms__stock__modle": "x"}, r"arms, stock: unknown key 'modle'; did you mean 'model'\?"),
        ({"arms__stock__model": None}, "arms, stock: model is missing"),
        ({"arms__stock__seeds": "0"}, "arms, stock: seeds must be a list, got '0'"),
        ({"arms__stock__noise": 1}, "arms, stock: noise must be True or False, got 1"),
        ({"arms__stock__paper__A": 1}, "arms, stock, paper: unknown column 'A'"),
        ({"arms__stock__paper__AP": "high"}, "paper: AP must be a number as it is printed, got 'high'"),
        ({"arms__narrow__to": "stok"}, r"arms, narrow, to: unknown arm 'stok'; did you mean 'stock'\?"),
        ({"columns": ["parms"]}, r"columns: unknown column 'parms'; did you mean 'params'\?"),
        ({"task": "segment"}, "task must be one of detect, classify, got 'segment'"),
        ({"task": "classify"}, "sigmas are for detectors"),
        ({"seeds": [0, 0]}, r"seeds: must be different integers of at least 0, got \[0, 0\]"),
        ({"seeds": [-1]}, r"got \[-1\]"),
        ({"questions": [{"ask": "?"}]}, "questions: each must have the keys ask, arm and to"),
        ({"panels": {"x": {"arms": ["y"]}}}, "panels, x, y: unknown arm 'y'"),
        ({"panels": {"x": ["y"]}}, "panels must be a mapping with a mapping, got"),
        ({"columns": ["noise_gain"], "sigmas": [0]}, r"noise_gain needs noise: sigmas with one above 0, got \[0\]"),
        ({"columns": ["entropy"], "task": "classify"}, "entropy is for detectors, and task is classify"),
        ({"columns": ["module_params"]}, "module: must have the keys layer and shape"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, changes, message):
    with pytest.raises(YoloDynError, match=message):
        read_study(str(written(tmp_path, **changes)))


def test_a_study_that_is_not_there_or_is_no_yaml(tmp_path, capsys):
    with pytest.raises(YoloDynError, match=r"unknown study 'bcdc'; did you mean 'bccd'\?"):
        read_study("bcdc")
    with pytest.raises(YoloDynError, match=r"the study nowhere.yaml does not exist"):
        read_study("nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("arms: [")
    with pytest.raises(YoloDynError, match=r"broken.yaml is no YAML"):
        read_study(str(tmp_path / "broken.yaml"))
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    assert cli.main(["study", str(tmp_path / "binary.yaml")]) == 2
    assert "is no YAML" in capsys.readouterr().err
    assert cli.main(["study"]) == 0
    assert set(studies()) <= set(re.findall(r"^\S+", capsys.readouterr().out, re.MULTILINE))


def test_options_go_into_every_row_of_a_layer(tmp_path):
    rows = {
        "backbone": [[-1, 1, "Conv", [16, 3, 2]]],
        "head": [[-1, 1, "SGDM", [16]], [-1, 1, "SGDM", [16, {"ratio": 0.2}]]],
    }
    found = with_options(rows, {"SGDM": {"razor_ratio": 0.25}}, "x.yaml")
    assert [row[3] for row in found["head"]] == [[16, {"razor_ratio": 0.25}], [16, {"ratio": 0.2, "razor_ratio": 0.25}]]
    assert rows["head"][0][3] == [16]
    with pytest.raises(YoloDynError, match=r"x.yaml has no row of 'SGMD'; did you mean 'SGDM'\? \(it has Conv, SGDM\)"):
        with_options(rows, {"SGMD": {}}, "x.yaml")
    study = read_study(str(written(tmp_path)))
    file = model_file(study.arms["narrow"], "narrow", tmp_path)
    assert Path(file).name == "yolov8n-sgdm-narrow.yaml"  # the letter of the scale stays
    assert model_file(study.arms["stock"], "stock", tmp_path) == "yolov8n.yaml"


def test_options_keep_what_a_models_name_says_of_its_width(tmp_path):
    study = read_study("a2d2c-table6")
    assert counts(study, "a2d2c", tmp_path)["params"] == pytest.approx(4.049, abs=0.001)
    assert counts(study, "x0.5", tmp_path)["params"] == pytest.approx(1.969, abs=0.001)  # torchvision's own


def test_counts_stand_beside_the_papers(tmp_path, capsys):
    file = written(tmp_path)
    assert cli.main(["study", str(file), "counts=True", f"project={tmp_path}"]) == 0
    out = capsys.readouterr().out
    study = read_study(str(file))
    ours = counts(study, "stock", tmp_path)
    assert f"{ours['params']:.3f} (3.0)" in out
    assert "- narrow, parameters, M: ours 3.1" in out
    assert "the paper's 9.99: the paper counts twice." in out
    assert "stock, parameters" not in out  # 3.01 rounds to 3.0
    del study.arms["narrow"].why["params"]
    assert "does not follow" in differences(study, {"narrow": {"params": 3.2}})[0]
    with pytest.raises(YoloDynError, match="has no column that needs no training"):
        counted(read_study(str(written(tmp_path, columns=["AP"]))), ["stock"], tmp_path)


def cell(corruption: str, sigma: float, ap: float) -> dict:
    counts = {"seed": 0, "images": 72, "skipped": 0, "detections": 9}
    return {
        "corruption": corruption,
        "sigma": sigma,
        **counts,
        "AP": ap,
        "per_class": {},
        "intervals": {},
        "ultralytics": {},
    }


def made_up(arm: str, seed: int, clean: float, noisy: float, **environment) -> dict:
    """A result file's content."""
    cells = [cell("clean", 0.0, clean)]
    cells += [cell("gaussian_noise", sigma, noisy - sigma / 1000) for sigma in (10.0, 50.0)]
    machine = {"processor": "CPU", "cores": 2, "ultralytics": "8", "torch": "2", **environment}
    return {
        **{"arm": arm, "what": "", "seed": seed, "command": f"yolo train seed={seed}", "weights": "0" * 64},
        **{"parameters": 1, "training": {"epochs": 60, "best_epoch": 50}, "environment": machine},
        **{"data": {"images": 72}, "cells": cells},
    }


def put(folder: Path, record: dict, suffix: str = "") -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{record['arm']}-seed{record['seed']}{suffix}.json").write_text(json.dumps(record))


@pytest.fixture
def three_seeds(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for arm, gain in (("yolov8n", 0), ("sgdm", 0.1), ("unguided", 0.099)):
        for seed in range(3):
            put(tmp_path / "results", made_up(arm, seed, 0.5 + rng.normal(0, 0.003), 0.3 + gain + rng.normal(0, 0.003)))
    return tmp_path


def test_the_page_says_what_the_tests_say(three_seeds):
    write_page(read_study("bccd"), three_seeds / "results", three_seeds / "page.md")
    text = (three_seeds / "page.md").read_text()
    found = StudyResults.read(read_study("bccd"), three_seeds / "results")
    mean = {arm: sorted(found.scores(arm, "mPC").items()) for arm in ("yolov8n", "sgdm")}
    expected = stats.ttest_rel(*([value for _, value in mean[arm]] for arm in ("sgdm", "yolov8n")))
    assert f"p = {expected.pvalue:.3f}, 3 seeds. Under noise it does, in this study." in text
    assert re.search(r"Is it the guide\?\*\* .*Under noise these seeds do not tell the two apart", text)
    assert "Not known yet: sgdm and wide share no seed that was trained alike." in text
    assert "Not run yet: yolov8n (seeds 3, 4, 5, 6, 7)" in text
    assert "![AP](results/curves.png)" in text
    assert min(cv2.imread(str(three_seeds / "results" / "curves.png")).shape[:2]) > 400


def test_the_page_claims_nothing_from_one_seed(three_seeds):
    for file in (three_seeds / "results").glob("*-seed[12].json"):
        file.unlink()
    write_page(read_study("bccd"), three_seeds / "results", three_seeds / "page.md")
    text = (three_seeds / "page.md").read_text()
    assert "One seed proves nothing." in text
    assert "p = " not in text


def test_only_seeds_that_were_trained_alike_are_paired(three_seeds):
    folder = three_seeds / "results"
    put(folder, made_up("sgdm", 1, 0.9, 0.9, torch="3"))
    put(folder, made_up("sgdm", 2, 0.9, 0.9, processor_kind="AVX512"))
    put(folder, made_up("yolov8n", 2, 0.5, 0.3, processor_kind="AVX512"), "-again")
    found = StudyResults.read(read_study("bccd"), folder)
    test = found.compared("sgdm", "yolov8n", "AP")
    assert test.seeds == [0, 2]
    assert test.difference == pytest.approx(np.mean([0.4, found.scores("sgdm", "AP")[0] - 0.5]), abs=0.01)
    assert len(found.machines) == 3
    put(folder, made_up("yolov8n", 0, 0.5, 0.3), "-twice")
    with pytest.raises(YoloDynError, match="of an arm, a seed and a machine that another file is of"):
        StudyResults.read(read_study("bccd"), folder)


def test_a_seed_that_was_trained_on_several_machines_counts_once(three_seeds):
    """Its runs are not independent: on machines of one kind they are the same."""
    folder = three_seeds / "results"
    before = StudyResults.read(read_study("bccd"), folder)
    for arm, score in (("yolov8n", 0.5), ("sgdm", 0.8)):
        put(folder, made_up(arm, 1, score, 0.3, processor_kind="AVX512"), "-again")
    found = StudyResults.read(read_study("bccd"), folder)
    test, earlier = (results.compared("sgdm", "yolov8n", "AP") for results in (found, before))
    assert test.seeds == earlier.seeds == [0, 1, 2]
    first, second = (before.scores(arm, "AP")[1] for arm in ("yolov8n", "sgdm"))
    assert test.difference == pytest.approx(earlier.difference + ((0.3 - (second - first)) / 2) / 3)
    assert len(found.runs("sgdm", "AP")) == 4
    write_page(found.study, folder, three_seeds / "page.md")
    row = next(line for line in (three_seeds / "page.md").read_text().splitlines() if line.startswith("| sgdm |"))
    assert row.split(" | ")[2] == "3"


def test_damaged_and_foreign_results_are_named(three_seeds):
    folder, study = three_seeds / "results", read_study("bccd")
    with pytest.raises(YoloDynError, match=r"no result in .*nowhere"):
        write_page(study, three_seeds / "nowhere", three_seeds / "page.md")
    put(folder, made_up("someone", 0, 0.5, 0.3))
    with pytest.raises(YoloDynError, match="is of the arm 'someone', which study bccd does not have"):
        StudyResults.read(study, folder)
    (folder / "someone-seed0.json").write_text('{"arm": "sgdm", "se')
    with pytest.raises(YoloDynError, match=r"someone-seed0.json is damaged .*: delete it, and it is measured again"):
        StudyResults.read(study, folder)
    (folder / "someone-seed0.json").write_text("[]")
    with pytest.raises(YoloDynError, match="is no result of a study"):
        StudyResults.read(study, folder)
    (folder / "someone-seed0.json").unlink()
    (folder / "timing.json").write_text("{")
    with pytest.raises(YoloDynError, match=r"timing.json is damaged .*: delete it, and seconds=True measures it again"):
        StudyResults.read(study, folder)
    (folder / "timing.json").unlink()
    with pytest.raises(YoloDynError, match=r"page=.* cannot be written"):
        write_page(study, folder, folder)


def test_arms_without_seed_0_are_left_out_of_the_pictures_of_seed_0(three_seeds):
    (three_seeds / "results" / "yolov8n-seed0.json").unlink()
    several, *of_seed_0 = panels(StudyResults.read(read_study("bccd"), three_seeds / "results")).values()
    assert {arm: [run.seed for run in runs] for arm, runs in several.records.items()} == {
        **{"yolov8n": [1, 2]},
        **{arm: [0, 1, 2] for arm in ("sgdm", "unguided")},
    }
    assert [list(shown.records) for shown in of_seed_0] == [[], ["sgdm"]]


def test_mpc_is_the_mean_over_the_noisy_cells():
    cells = RunRecord.from_dict(made_up("a", 0, 0.5, 0.3)).conditions()
    assert list(cells) == ["clean", "sigma 10", "sigma 50", "mPC"]
    assert cells["mPC"]["AP"] == pytest.approx((0.29 + 0.25) / 2)


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "results").rglob("*-seed*.json")), ids=lambda file: file.name)
def test_committed_results_are_kept_whole_as_typed_records(file):
    assert json.loads(json.dumps(read_record(file).as_dict())) == json.loads(file.read_text())


@pytest.mark.parametrize(
    ("name", "source", "page"), [("bccd", "results", "results.md"), ("cifar10", "results/classify", "classifiers.md")]
)
def test_the_committed_pages_are_made_from_the_committed_results(name, source, page, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "docs" / "results", tmp_path / "docs" / "results")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["results", name, f"source=docs/{source}", f"page=docs/{page}"]) == 0
    assert (tmp_path / "docs" / page).read_text() == (ROOT / "docs" / page).read_text()


def section(title: str) -> str:
    """A section of the README, on one line."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return " ".join(text.split(f"\n## {title}\n")[1].split("\n## ")[0].split())


def test_the_readme_says_the_result():
    found = StudyResults.read(read_study("bccd"), ROOT / "docs" / "results")
    said = section("Results")
    noisy, clean = (found.compared("sgdm", "yolov8n", column) for column in ("mPC", "AP"))
    guide = found.compared("sgdm", "unguided", "mPC")
    assert guide.low < 0 < guide.high
    for test in (noisy, clean, guide):
        assert f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}] (p = {test.p:.3f})" in said
        assert len(test.seeds) == 8
    assert "Over 8 seeds" in said
    assert ("no effect shows" in said) == (noisy.low < 0 < noisy.high)


def test_the_readme_says_what_training_with_noise_does():
    study = read_study("bccd")
    found = StudyResults.read(study, ROOT / "docs" / "results")
    mean = {arm: list(found.scores(arm, "mPC").values()) for arm in found.records}
    best = max(max(values) for arm, values in mean.items() if not study.arms[arm].noise)
    noisy = np.mean(mean["yolov8n-noise"])
    said = section("Results")
    assert f"a mean AP under noise of {noisy:.3f}, where the best model trained without has {best:.3f}" in said
    test = found.compared("sgdm-noise", "yolov8n-noise", "mPC")
    seeds = f"{len(test.seeds)} seeds, p = {test.p:.3f}"
    assert (
        f"With SGDM that is {test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}] ({seeds}): no difference" in said
    )
    assert test.low < 0 < test.high


@pytest.fixture
def tested(detectors, tmp_path, monkeypatch) -> Path:
    """A data YAML with the split that the study asks for."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "set" / "data.yaml"
    data.parent.mkdir()
    data.write_text((detectors / "data.yaml").read_text() + "test: images/val\n")
    return data


def test_a_study_from_training_to_its_page(tested, tmp_path, capsys, monkeypatch, log):
    """Killed after its first result, it goes on with the second, and changes nothing that is there."""
    columns = [*SMALL["columns"], "entropy", "noise_gain"]
    words = ["study", str(written(tmp_path, split="test", columns=columns)), f"data={tested}", *FAST]

    def killed(file, record):
        write_record(file, record)
        raise KeyboardInterrupt

    monkeypatch.setattr("yolo_dyn.study.run.write_record", killed)
    assert cli.main([*words, "arms=narrow,stock", "seeds=0"]) == 130
    monkeypatch.setattr("yolo_dyn.study.run.write_record", write_record)
    results = tmp_path / "runs" / "study" / "small" / "results"
    assert [file.name for file in results.iterdir()] == ["narrow-seed0.json"]
    before = (results / "narrow-seed0.json").read_bytes()

    assert cli.main([*words, "arms=narrow,stock", "seeds=0"]) == 0
    assert "1 of 2 results are there already" in "\n".join(log)
    assert (results / "narrow-seed0.json").read_bytes() == before
    record = json.loads(before)
    assert record["command"].startswith(
        "yolo train model=yolov8n-sgdm-narrow.yaml data=set/data.yaml epochs=1 imgsz=64"
    )
    assert [cell["sigma"] for cell in record["cells"]] == [0, 30]
    assert record["training"]["epochs"] == 1
    assert len(record["weights"]) == 64  # SHA-256, in hexadecimal digits
    assert record["environment"]["device"] == "cpu"
    page = (results.parent / "page.md").read_text()
    assert "| transformer |  | 0 | - | - | - (0.410) | - | - | - |" in page
    assert set(record["experts"]) == {"entropy", "noise_gain"}
    assert 0 < record["experts"]["entropy"] <= 1
    assert f"| {record['experts']['noise_gain']:.3f} |" in page
    assert "experts" not in json.loads((results / "stock-seed0.json").read_text())
    assert "- transformer: no dynamic convolution." in page
    assert "stock (seeds 1); narrow (seeds 1)" in page
    assert "narrow less stock" in page
    again = re.search(r"`yolo-dyn (results [^`]*)`", page)[1].split()
    assert cli.main(again) == 0  # a study of one's own is found again by what the page names
    assert (results.parent / "page.md").read_text() == page

    assert cli.main([*words, "arms=stock", "seeds=0", "mosaic=0.5"]) == 2
    assert "stock-seed0.json is of `yolo train" in capsys.readouterr().err


def test_the_hash_of_weights_is_of_their_values(detectors, tmp_path):
    """A checkpoint has a date: the file of the same training is another each time."""
    content = torch.load(detectors / "a.pt", weights_only=False)
    torch.save({**content, "date": "another"}, tmp_path / "later.pt")
    assert hash_file(tmp_path / "later.pt") != hash_file(detectors / "a.pt")
    net = load_model(str(detectors / "a.pt"))
    weights = hash_weights(net)
    assert weights == hash_weights(load_model(str(tmp_path / "later.pt")))
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] += 1e-3
    assert hash_weights(net) != weights != hash_weights(net.bfloat16())


@pytest.mark.accept
def test_lanes_and_timing(tested, tmp_path):
    """Two trainings at a time, each in a process of its own; then the time of an image of both."""
    file = written(tmp_path, split="test", sigmas=[0], columns=["ratio", "ms", "AP"])
    words = ["study", str(file), f"data={tested}", *FAST[:-1]]
    assert cli.main([*words, "seeds=0", "device=cpu,cpu"]) == 0
    results = tmp_path / "runs" / "study" / "small" / "results"
    assert {file.name for file in results.glob("*.json")} == {"stock-seed0.json", "narrow-seed0.json"}
    assert cli.main([*words, "seeds=0", "seconds=True"]) == 0
    timing = json.loads((results / "timing.json").read_text())
    assert timing["image"]["ratio"]["stock"] == 1
    assert timing["image"]["ms"]["narrow"] > 0
    assert "in turn with stock" in (results.parent / "page.md").read_text()


@pytest.mark.accept
def test_a_ray_cluster_takes_arms_and_seeds(tested, tmp_path, monkeypatch, capsys):
    """Its workers start elsewhere, and paths are relative; what is trained there is trained here."""
    ray = pytest.importorskip("ray")
    words = ["study", written(tmp_path, split="test", sigmas=[0]).name, "data=set/data.yaml", *FAST[:-1]]
    assert cli.main([*words, "executor=ray"]) == 2
    assert "executor=ray found no Ray cluster" in capsys.readouterr().err
    monkeypatch.chdir("/")
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    monkeypatch.chdir(tmp_path)
    try:
        assert cli.main([*words, "executor=ray", "device=0"]) == 2
        assert "device=0: the Ray cluster has no GPU" in capsys.readouterr().err
        assert cli.main([*words, "executor=ray", "arms=narrow,stock", "device=cpu"]) == 0
    finally:
        ray.shutdown()
    results = tmp_path / "runs" / "study" / "small" / "results"
    hashes = {file.stem: json.loads(file.read_text())["weights"] for file in results.glob("*-seed*.json")}
    assert len(set(hashes.values())) == len(hashes) == 4
    assert cli.main([*words, "arms=stock", "seeds=0", "device=cpu", "project=here"]) == 0
    there, here = (read_run(folder / "stock-seed0") for folder in (results.parent, tmp_path / "here"))
    for column in (name for name in there if "loss" in name):
        assert there[column] == pytest.approx(here[column], rel=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["arms=narow"], "unknown arm 'narow'; did you mean 'narrow'?"),
        (["arms=transformer"], "the arm 'transformer' is left out: no dynamic convolution"),
        (["executor=slurm"], "executor must be ray, or not given, got 'slurm'"),
        (["executor=ray", "device=0,1"], "several devices or jobs do not go with it"),
        (["jobs=0"], "jobs must be at least 1, got 0"),
        (["data=nowhere.yaml"], "nowhere.yaml"),
        (["seeds="], "seeds must be a list of at least one, got []"),
    ],
    ids=str,
)
def test_bad_arguments_are_named_before_anything_long(tested, tmp_path, words, message, capsys):
    file = written(tmp_path, split="test")
    asked = {"data": str(tested)} | dict(word.split("=") for word in words)
    assert cli.main(["study", str(file), *(f"{key}={value}" for key, value in asked.items()), *FAST[:-1]]) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("*.pt"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "test", "arms__stock__model": "yolov8n-sgmd.yaml"}, "study small, arm stock: "),
        ({"split": "test", "train__cfg": "nowhere.yaml"}, "cfg=nowhere.yaml is no file and no recipe"),
        (
            {"split": "test", "arms__narrow__options": {"ODConv": {}}},
            "study small, arm narrow: yolov8n-sgdm.yaml has no row",
        ),
        ({"split": "exam"}, "split must be one of train, val, test, got 'exam'"),
    ],
    ids=str,
)
def test_a_study_that_does_not_fit_is_named_before_anything_long(tested, tmp_path, changes, message, capsys):
    assert cli.main(["study", str(written(tmp_path, **changes)), f"data={tested}", *FAST]) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("*.pt"))


def test_every_arm_of_the_bccd_study_has_its_yaml_and_the_wide_one_sgdm_s_size(tmp_path):
    study = read_study("bccd")
    sizes = {name: counts(study, name, tmp_path)["params"] for name in study.arms}
    assert sizes["wide"] == pytest.approx(1.04 * sizes["sgdm"], rel=1e-3)  # the stock head narrows with the classes
    wide, sgdm = (sum(p.numel() for p in load_model(f"yolov8n-{arm}.yaml").parameters()) for arm in ("wide", "sgdm"))
    assert wide == pytest.approx(sgdm, rel=1e-3)
    assert sizes["unguided"] == sizes["sgdm"] == sizes["sgdm-average"]
