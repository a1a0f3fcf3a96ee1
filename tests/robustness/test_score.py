"""`yolo-dyn score`: what other frameworks have found, scored as `robustness` scores its models."""

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo_dyn import YoloDynError, cli
from yolo_dyn.robustness import scores
from yolo_dyn.robustness.corrupted_set import corrupt_set
from yolo_dyn.robustness.score import json_files, score
from yolo_dyn.robustness.sweep import robustness

FAST = {"imgsz": 192, "batch": 5, "max_det": 15, "device": "cpu", "threads": 1, "resamples": 50}


def as_json(found: np.ndarray) -> list[dict]:
    """Detections ``[n, 7]`` as COCO's format has them."""
    keys = ("image_id", "category_id", "bbox", "score")
    return [dict(zip(keys, (int(i), int(c), box, s), strict=True)) for i, *box, s, c in found.tolist()]


def pycocotools(truth: Path, detections: Path) -> np.ndarray:
    """Its twelve numbers."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO(str(truth))
        coco = COCOeval(ground, ground.loadRes(str(detections)), "bbox")
        coco.evaluate()
        coco.accumulate()
        coco.summarize()
    return coco.stats


@pytest.fixture(scope="module")
def given(detectors, tmp_path_factory) -> Path:
    """A sweep of both models (runs/sweep), and the folders a/ and b/ with what they found, as others would give it."""
    folder, data = tmp_path_factory.mktemp("score"), str(detectors / "data.yaml")
    models = [str(detectors / name) for name in ("a.pt", "b.pt")]
    sweep = robustness(models, data, sigma=[25], project=str(folder / "runs"), name="sweep", json=True, **FAST)
    corrupt_set(data, str(folder / "noisy"), sigma=[25])
    for cell in sweep.cells:
        (folder / cell.label).mkdir(exist_ok=True)
        found = np.load(sweep.folder / "cells" / f"{cell.name}.npz")["detections"].astype(float)
        (folder / cell.label / f"{cell.condition.slug}.json").write_text(json.dumps(as_json(found)))
    return folder


def test_a_sweep_writes_its_detections_for_others(given):
    written = sorted(
        file.relative_to(given / "runs/sweep/detections") for file in given.glob("runs/sweep/detections/**/*.json")
    )
    expected = [Path(model, f"{name}.json") for model in "ab" for name in ("clean", "gaussian_noise_sigma25")]
    assert written == expected
    for name in expected:
        content = json.loads((given / "runs/sweep/detections" / name).read_text())
        assert len(content) > 100
        assert content == json.loads((given / name).read_text())


def test_detections_of_others_score_as_those_of_a_model(given):
    sweep = json.loads((given / "runs/sweep/results.json").read_text())
    scored = score(
        str(given / "noisy/annotations.json"),
        [str(given / "a"), str(given / "b")],
        resamples=50,
        project=str(given / "runs"),
    )
    again = json.loads((scored.folder / "results.json").read_text())
    same = ("model", "corruption", "sigma", "AP", "AP50", "AP75", "AR100", "per_class", "intervals", "detections")
    same += ("diagnosis",)
    assert [{key: cell[key] for key in same} for cell in again["cells"]] == [
        {key: cell[key] for key in same} for cell in sweep["cells"]
    ]
    assert again["summary"] == sweep["summary"]
    assert again["differences"] == sweep["differences"]
    assert again["degradation"] == sweep["degradation"]
    page = (scored.folder / "report.html").read_text()
    assert 'id="curves"' in page
    assert "Ultralytics" not in str(scored)


def viewed(folder: Path) -> list[dict]:
    """The images of the viewer of a report, by name."""
    page = (folder / "report.html").read_text()
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1]
    return sorted(json.loads(data)["images"], key=lambda image: image["name"])


def test_the_report_shows_the_images_that_the_detectors_saw(given, tmp_path):
    """Its tiles, objects and detections are those of a sweep, which corrupts the images by itself."""
    truth, found = str(given / "noisy/annotations.json"), [str(given / "a"), str(given / "b")]
    scored = score(truth, found, resamples=50, project=str(tmp_path))
    shown, expected = viewed(scored.folder), viewed(given / "runs/sweep")
    assert len(shown) == 10
    for image, other in zip(shown, expected, strict=True):
        assert Path(image.pop("name")).stem == Path(other.pop("name")).stem
        assert image == other
    assert (scored.folder / "grid.png").stat().st_size > 10_000


def test_where_the_images_are(given, tmp_path, caplog):
    truth, clean = tmp_path / "truth.json", str(given / "a/clean.json")
    truth.write_text((given / "noisy/annotations.json").read_text())
    common = {"resamples": 10, "project": str(tmp_path / "runs")}
    assert viewed(score(str(truth), [clean], **common).folder) == []
    images = str(given / "noisy/clean/images")
    assert len(viewed(score(str(truth), [clean], source=images, **common).folder)) == 10
    with pytest.raises(YoloDynError, match=r"source=.* cannot be shown: .*gaussian_noise_sigma25.*png is missing"):
        score(str(truth), [str(given / "a")], source=images, **common)
    content = json.loads(truth.read_text())
    truth.write_text(json.dumps({**content, "images": [{**i, "width": 0} for i in content["images"]]}))
    with pytest.raises(YoloDynError, match=r"truth\.json does not say how large each image is"):
        score(str(truth), [clean], source=images, **common)


def test_one_file_is_of_clean_images_and_scores_as_pycocotools(given):
    file, truth = given / "a/clean.json", given / "noisy/annotations.json"
    (record,) = score(str(truth), [str(file)], resamples=50, project=str(given / "one")).records
    stats = pycocotools(truth, file)
    assert record.condition.clean
    assert record.scores["AP"] == pytest.approx(stats[0], abs=1e-12)
    assert record.scores["AP50"] == pytest.approx(stats[1], abs=1e-12)
    assert record.scores["AR100"] == pytest.approx(stats[8], abs=1e-12)


def test_ids_of_any_kind_crowds_and_boxes_of_no_size(tmp_path):
    """COCO's own ids are neither consecutive nor in the order of the list, which decides between equal scores."""
    images = [{"id": i, "file_name": f"a/{i}.jpg", "width": 100, "height": 100} for i in (397133, 37777, 252219)]
    rng = np.random.default_rng(0)
    annotations = [
        {
            "id": n,
            "image_id": images[n % 3]["id"],
            "category_id": (1, 90)[n % 2],
            "bbox": [*rng.uniform(0, 60, 2), *rng.uniform(5, 40, 2)],
            "iscrowd": int(n % 7 == 0),
            "area": float(rng.uniform(100, 12000)),
        }
        for n in range(1, 40)
    ]
    annotations.append({**annotations[0], "id": 99, "iscrowd": 0, "bbox": [5, 5, 0, 0]})
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}]
    found = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": (np.array(a["bbox"]) * rng.uniform(0.8, 1.2, 4)).tolist(),
            "score": round(float(rng.uniform()), 1),
        }
        for a in annotations * 3
    ]
    truth, detections = tmp_path / "truth.json", tmp_path / "found.json"
    truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    detections.write_text(json.dumps(found))
    (record,) = score(str(truth), [str(detections)], resamples=10, project=str(tmp_path)).records
    stats = pycocotools(truth, detections)
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    assert 0.05 < stats[0] < 0.9
    assert [record.scores[name] for name in names] == pytest.approx(stats[:6].tolist(), abs=1e-12)


def test_an_engine_that_is_asked_for_scores(given, tmp_path, monkeypatch):
    """Also where the other has scored the same, with the same numbers."""
    asked = []
    evaluate = scores.evaluate
    monkeypatch.setattr(scores, "evaluate", lambda *a: asked.append(a[2]) or evaluate(*a))
    truth, file = str(given / "noisy/annotations.json"), str(given / "a/clean.json")
    same = {"resamples": 50, "project": str(tmp_path)}
    found = [score(truth, [file], engine=name, **same).records[0] for name in ("", "pycocotools", "hotcoco", "")]
    assert asked == ["", "pycocotools", "hotcoco"]
    assert all((r.scores, r.intervals) == (found[0].scores, found[0].intervals) for r in found)
    with pytest.raises(YoloDynError, match="unknown engine 'coco'"):
        score(truth, [file], engine="coco", **same)


def test_nothing_found_is_a_score_of_zero(given, tmp_path):
    (tmp_path / "empty.json").write_text("[]")
    truth = str(given / "noisy/annotations.json")
    (record,) = score(truth, [str(tmp_path / "empty.json")], resamples=10, project=str(tmp_path)).records
    assert record.scores["AP"] == 0


def test_the_same_command_again_scores_nothing(given, tmp_path, monkeypatch):
    arguments = (str(given / "noisy/annotations.json"), [str(given / "a"), str(given / "b")], 10)
    first = score(*arguments, project=str(tmp_path))
    monkeypatch.setattr("yolo_dyn.robustness.score.finished", lambda *_: pytest.fail("scored again"))
    assert score(*arguments, project=str(tmp_path)).records == first.records


def test_names_of_conditions(tmp_path):
    for name in ("clean", "gaussian_noise_sigma12.5", "gaussian_noise_severity2", "fog_severity3"):
        (tmp_path / f"{name}.json").touch()
    assert {str(condition): path.stem for condition, path in json_files(tmp_path).items()} == {
        "clean": "clean",
        "sigma 12.5": "gaussian_noise_sigma12.5",
        "gaussian_noise 2": "gaussian_noise_severity2",
        "fog 3": "fog_severity3",
    }
    assert {condition.slug for condition in json_files(tmp_path)} == {path.stem for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", ["noise", "fog_severity6", "fog_sigma3", "mist_severity3", "gaussian_noise_sigma.."])
def test_a_name_that_says_no_condition(tmp_path, name):
    (tmp_path / f"{name}.json").touch()
    with pytest.raises(YoloDynError, match="mist" if name.startswith("mist") else "the name must say the condition"):
        json_files(tmp_path)


GOOD = {"image_id": 0, "category_id": 0, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "found.json is no JSON"),
        ("{}", "must hold a list of detections, got dict"),
        ([GOOD, 3], "detection 1 must have image_id, category_id, bbox"),
        ([{**GOOD, "image_id": 77}], "detection 0: image_id 77 is not in the truth"),
        ([{**GOOD, "category_id": "cat"}], "detection 0: category_id 'cat' is not in the truth"),
        ([{**GOOD, "image_id": [0]}], "detection 0 must have"),
        ([GOOD, {**GOOD, "bbox": [1, 2, 3]}], "detection 1: bbox must be four numbers"),
        ([{**GOOD, "bbox": None}], "detection 0 must have"),
        ([{**GOOD, "bbox": [1, 2, -3, 4]}], "detection 0 must have finite numbers and no negative size"),
        ([{**GOOD, "score": float("nan")}], "detection 0 must have finite numbers"),
        ([{"segmentation": []}], "detection 0 must have image_id, category_id, bbox and score: KeyErr"),
    ],
)
def test_detections_that_are_none(given, tmp_path, content, told):
    (tmp_path / "found.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(YoloDynError, match=told):
        score(str(given / "noisy/annotations.json"), [str(tmp_path / "found.json")], project=str(tmp_path / "runs"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"images": None}, "is no COCO annotation file"),
        ({"images": [{"id": 0}]}, "is no COCO annotation file: KeyError..file_name"),
        ({"images": [{"id": 0, "file_name": "a"}, {"id": 1, "file_name": "a"}]}, "two images or categories are called"),
        ({"categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "a"}]}, "two images or categories are called a"),
        ({"annotations": [{"image_id": 5, "category_id": 0, "bbox": [1, 2, 3, 4]}]}, "annotation 0 is of image 5"),
        ({"annotations": [{"image_id": 0, "category_id": 0, "bbox": [1, 2, 3]}]}, "bbox must be four numbers"),
    ],
)
def test_a_truth_that_is_none(tmp_path, change, told):
    content = {"images": [{"id": 0, "file_name": "a"}], "categories": [{"id": 0, "name": "a"}], "annotations": []}
    (tmp_path / "truth.json").write_text(json.dumps({**content, **change}))
    (tmp_path / "found.json").write_text("[]")
    with pytest.raises(YoloDynError, match=told):
        score(str(tmp_path / "truth.json"), [str(tmp_path / "found.json")], project=str(tmp_path / "runs"))


MASK = {"size": [4, 4], "counts": [0, 4, 12]}


def _with_masks(folder: Path, **changes) -> str:
    box = {"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 4], "iscrowd": 0}
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 4, "height": 4}],
        "categories": [{"id": 3, "name": "a"}],
        "annotations": [box | {"segmentation": MASK, "keypoints": [1, 1, 2, 0, 0, 0, 2, 3, 1]}],
    }
    (folder / "truth.json").write_text(json.dumps(content | changes))
    return str(folder / "truth.json")


@pytest.mark.parametrize(
    ("task", "found", "told"),
    [
        ("segment", {"bbox": [0, 0, 1, 4]}, "detection 0 must have image_id, category_id, segmentation and score: Key"),
        ("segment", {"segmentation": {**MASK, "size": [4, 5]}}, r"segmentation must be of the image's size \[4, 4\]"),
        ("segment", {"segmentation": {**MASK, "counts": [4]}}, "whose counts sum to 4 x 4 pixels"),
        ("segment", {"segmentation": [[1, 2]]}, "segmentation must be polygons of three points or more"),
        ("pose", {"keypoints": [1, 2, 3]}, "keypoints must be x, y, score of 3, got"),
        ("pose", {"keypoints": [1, 2, float("inf")] * 3}, "keypoints must be x, y, score of 3, got"),
        ("pose", {"segmentation": MASK}, "must have image_id, category_id, keypoints and score"),
    ],
)
def test_masks_and_keypoints_that_are_none(tmp_path, task, found, told):
    (tmp_path / "found.json").write_text(json.dumps([{"image_id": 7, "category_id": 3, "score": 0.5, **found}]))
    with pytest.raises(YoloDynError, match=told):
        score(_with_masks(tmp_path), [str(tmp_path / "found.json")], task=task, project=str(tmp_path / "runs"))


@pytest.mark.parametrize(
    ("task", "changes", "options", "told"),
    [
        ("obb", {}, {}, "task must be one of detect, segment, pose, got 'obb'"),
        (
            "segment",
            {"images": [{"id": 7, "file_name": "a.png"}]},
            {},
            "need the width and height of each image",
        ),
        (
            "segment",
            {"images": [{"id": 7, "file_name": "a.png", "width": 4, "height": 5}]},
            {},
            "is of size .4, 4., the",
        ),
        ("segment", {}, {"sigmas": [0.1]}, "sigmas are of keypoints, which the task segment has none of"),
        ("pose", {"annotations": []}, {}, "has no annotation with keypoints"),
        ("pose", {}, {"sigmas": [0.1, 0.2]}, "sigmas must be 3 positive numbers, got .0.1, 0.2."),
        ("pose", {}, {"sigmas": [0.1, 0.2, 0]}, "sigmas must be 3 positive numbers"),
    ],
)
def test_a_truth_that_lacks_what_the_task_needs(tmp_path, task, changes, options, told):
    (tmp_path / "found.json").write_text("[]")
    truth = _with_masks(tmp_path, **changes)
    with pytest.raises(YoloDynError, match=told):
        score(truth, [str(tmp_path / "found.json")], task=task, project=str(tmp_path / "runs"), **options)


@pytest.mark.parametrize("task", ["segment", "pose"])
def test_the_right_mask_or_pose_alone_is_found(tmp_path, task):
    """By polygons and run lengths, plain and compressed; with ids of others' own and no boxes."""
    right = {"segment": [[0, 0, 1, 0, 1, 4, 0, 4]], "pose": [1, 1, 0.9, 3, 3, 0.1, 2, 3, 0.8]}[task]
    key = "segmentation" if task == "segment" else "keypoints"
    named = {"image_id": 7, "category_id": 3, "score": 0.5}
    for given in (right, *([MASK] if task == "segment" else ())):
        (tmp_path / "found.json").write_text(json.dumps([named | {key: given}]))
        options = {"sigmas": [0.1, 0.1, 0.1]} if task == "pose" else {}
        (record,) = score(
            _with_masks(tmp_path), [str(tmp_path / "found.json")], task=task, project=str(tmp_path / "runs"), **options
        ).records
        assert record.scores["AP"] == pytest.approx(1)
    (tmp_path / "found.json").write_text("[]")
    (record,) = score(
        _with_masks(tmp_path), [str(tmp_path / "found.json")], task=task, project=str(tmp_path / "runs")
    ).records
    assert record.scores["AP"] == 0


def test_from_the_command_line(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    truth = given / "noisy/annotations.json"
    assert cli.main(["score", f"truth={truth}", f"detections={given / 'a'},{given / 'b'}", "resamples=10"]) == 0
    assert "4 cells" in capsys.readouterr().out
    for words, told in (
        (["truth=no.json", f"detections={given / 'a'}"], "truth=no.json does not exist"),
        ([f"truth={truth}", "detections=no.json"], "detections=no.json does not exist"),
        ([f"truth={truth}", f"detections={tmp_path}"], "has no .json"),
        ([f"truth={truth}", f"detections={given / 'a'},{given / 'a'}"], "given twice"),
    ):
        assert cli.main(["score", *words]) == 2
        assert told in capsys.readouterr().err
