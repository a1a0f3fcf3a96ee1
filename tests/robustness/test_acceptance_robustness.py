"""Robustness on real photos: a trained model through the command, the stock data YAMLs, and memory."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ultralytics import YOLO
from ultralytics.utils import ops
from ultralytics.utils.metrics import compute_ap

from yolo_dyn.data.images import evaluation_set
from yolo_dyn.data.truth import ground_truth
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.corruptions import SIGMA
from yolo_dyn.robustness.evaluate import Settings, detect
from yolo_dyn.robustness.scores import evaluate

pytestmark = pytest.mark.accept


@pytest.fixture(scope="module")
def trained(blood_cells) -> Path:
    return blood_cells("yolov8n-sgdm.yaml")


def test_a_trained_model_through_the_whole_command(trained, photos, tmp_path, command):
    words = [f"model={trained}", f"data={photos / 'bccd' / 'data.yaml'}", "split=test", "imgsz=320", "sigma=0,20,40"]
    text = command("yolo-dyn", "robustness", *words, "hashes=True", "name=run", cwd=tmp_path).stdout
    folder = tmp_path / "runs/robustness/run"
    report = json.loads((folder / "results.json").read_text())
    print(text[text.index("AP (COCO") :])
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(folder / "annotations.json")
    assert [record["sigma"] for record in report["cells"]] == [0, 20, 40]
    for record in report["cells"]:
        (saved,) = (
            file
            for file in (folder / "cells").glob("*.json")
            if json.loads(file.read_text())["strength"] == record["strength"]
        )
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCOeval(truth, truth.loadRes(np.load(saved.with_suffix(".npz"))["detections"]), "bbox")
            coco.evaluate()
            coco.accumulate()
            coco.summarize()
        assert [record["AP"], record["AP50"], record["AP75"]] == pytest.approx(coco.stats[:3], abs=1e-9)
        # where clipped boxes weigh little; for all of AP the next test takes the difference apart
        assert record["ultralytics"]["AP50"] == pytest.approx(record["AP50"], abs=0.01)
    clean, middle, strong = (record["AP"] for record in report["cells"])
    assert clean > 0.2
    assert clean > middle > strong


def test_the_difference_to_ultralytics_own_ap_is_the_clipping_and_the_interpolation(trained, photos, monkeypatch):
    images = evaluation_set(str(photos / "bccd" / "data.yaml"), "test")

    def unclipped(network, boxes, original, ratio_pad):
        left, top = ratio_pad[1]
        return (boxes - boxes.new_tensor([left, top, left, top])) / ratio_pad[0][0]

    monkeypatch.setattr(ops, "scale_boxes", unclipped)
    found = detect(str(trained), images, Corrupter(None), Settings(imgsz=320))
    areas = []
    for record in evaluate(images.coco, found.found).records:
        for hits in record.hits:
            counted = hits.cumsum()
            areas.append(compute_ap(counted / record.objects.sum(), counted / np.arange(1, len(hits) + 1))[0])
    assert np.mean(areas) == pytest.approx(found.ultralytics["AP"], abs=5e-4)


def test_batch_sizes_and_workers_on_real_photos(trained, photos):
    images = evaluation_set(str(photos / "bccd" / "data.yaml"), "test")
    corrupter = Corrupter(SIGMA, 30.0)
    scores, hashes, found = [], [], []
    for batch, workers in ((16, 0), (16, 2), (1, 0), (7, 0), (72, 0)):
        detections = detect(str(trained), images, corrupter, Settings(imgsz=320, batch=batch), workers, hashes=True)
        scores.append(evaluate(images.coco, detections.found).scores["AP"])
        hashes.append(detections.hashes)
        found.append(detections.found)
    print("AP at batch 16, 16 with two workers, 1, 7, 72:", scores)
    assert all(h == hashes[0] for h in hashes)
    assert (found[0] == found[1]).all()
    assert scores == pytest.approx([scores[0]] * 5, abs=1e-4)


def test_the_routes_of_the_ground_truth_agree_on_real_photos(photos, random_detector, tmp_path):
    """The same detections against XML and json with crowds, and against txt, which has none."""
    names = yaml.safe_load((photos / "voc20/data.yaml").read_text())["names"]
    files = sorted((photos / "voc20/images/val").iterdir())[:200]
    truths = {
        "json": ground_truth(files, names, photos / "voc20", "val", "annotations_coco/instances_val.json"),
        "xml": ground_truth(files, names, photos / "voc20", "val", "Annotations"),
        "txt": ground_truth(files, names, photos / "voc20/labels", "val"),
    }
    crowds = [a for a in truths["json"].coco["annotations"] if a["iscrowd"]]
    plain = [a for a in truths["json"].coco["annotations"] if not a["iscrowd"]]
    rng = np.random.default_rng(0)
    rows = []
    for a in [*plain, *crowds]:  # what is found in a crowd is a false alarm only where crowds are not known
        box = np.array(a["bbox"]) * rng.uniform(0.98, 1.02, 4)
        rows.append([a["image_id"], *box, rng.uniform(0.3, 1), a["category_id"]])
    scores = {name: evaluate(truth.coco, np.array(rows)).scores["AP50"] for name, truth in truths.items()}
    assert scores["xml"] == pytest.approx(scores["json"], abs=1e-2)  # XML has whole pixels
    without = [row for row, a in zip(rows, [*plain, *crowds], strict=True) if not a["iscrowd"]]
    again = {name: evaluate(truth.coco, np.array(without)).scores["AP50"] for name, truth in truths.items()}
    print(len(crowds), "crowds; AP50:", scores, "without detections on crowds:", again)
    assert again["json"] == scores["json"]
    assert again["txt"] > scores["txt"] + 0.003
    assert again["txt"] == pytest.approx(again["json"], abs=1e-2)


@pytest.fixture
def stock_layouts(photos, tmp_path) -> tuple[Path, dict[str, str]]:
    """Folders as Ultralytics' VOC download and coco.yaml have them, and the environment that makes it look there."""
    datasets = tmp_path / "datasets"
    voc = datasets / "VOC" / "images"
    for folder in ("train2012", "train2007", "val2012", "val2007", "test2007"):
        (voc / folder).mkdir(parents=True)
    for file in sorted((photos / "voc20/images/val").iterdir())[:40]:
        shutil.copy(file, voc / "test2007")
        xml = photos / "voc20/Annotations" / f"{file.stem}.xml"
        (voc / "VOCdevkit/VOC2007/Annotations").mkdir(parents=True, exist_ok=True)
        shutil.copy(xml, voc / "VOCdevkit/VOC2007/Annotations")
    shutil.copytree(photos / "coco-tiny", datasets / "coco")
    for split in ("train2017", "val2017"):
        listed = sorted((photos / "coco-tiny/images" / split).iterdir())
        (datasets / "coco" / f"{split}.txt").write_text("".join(f"./images/{split}/{f.name}\n" for f in listed))
    return datasets, {"YOLO_CONFIG_DIR": str(tmp_path / "config")}


@pytest.mark.parametrize(
    ("data", "images", "source", "ignored"),
    [
        ("VOC.yaml", 40, "VOCdevkit/VOC2007/Annotations (VOC XML: difficult objects are known and ignored)", None),
        ("coco.yaml", 80, "instances_val2017.json (COCO json: crowds are known and ignored)", 11),
    ],
)
def test_stock_data_yamls(data, images, source, ignored, stock_layouts, random_detector, tmp_path, command):
    from ultralytics.utils.checks import check_yaml

    datasets, environment = stock_layouts
    names = dict(enumerate(yaml.safe_load(Path(check_yaml(data)).read_text(encoding="utf-8"))["names"].values()))
    wrapper = YOLO("yolov8n.yaml")
    wrapper.model = random_detector("yolov8n.yaml", names)
    wrapper.save(tmp_path / "m.pt")
    command("yolo", "settings", f"datasets_dir={datasets}", cwd=tmp_path, **environment)
    words = [f"data={data}", "model=m.pt", "imgsz=160", "sigma=0,20", "resamples=20"]
    text = command("yolo-dyn", "robustness", *words, cwd=tmp_path, **environment).stdout
    assert source in text
    folder = tmp_path / "runs/robustness" / Path(data).stem
    report = json.loads((folder / "results.json").read_text())
    assert report["data"]["images"] == images
    assert all(record["detections"] > 100 for record in report["cells"])
    crowds = sum(a["iscrowd"] for a in json.loads((folder / "annotations.json").read_text())["annotations"])
    assert crowds == ignored if ignored else crowds > 0


CELLS = """
import ctypes, gc, sys
import psutil
from yolo_dyn.robustness import sweep

sweep.write = lambda *_: None
folder = sys.argv[1]
for count in (10, 40):
    fast = {"imgsz": 192, "batch": 5, "device": "cpu", "threads": 1, "resamples": 50, "project": "runs"}
    sweep.robustness([f"{folder}/a.pt"], f"{folder}/data.yaml", sigma=[1 + i / 2 for i in range(count)], **fast)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free and not given back is no growth: tens of MiB at times
    print("MiB:", psutil.Process().memory_info().rss / 2**20)
"""


def test_memory_does_not_grow_with_the_cells(detectors, tmp_path, command):
    text = command("python", "-c", CELLS, str(detectors), cwd=tmp_path).stdout  # whose memory no other test has used
    used = [float(line.split()[1]) for line in text.splitlines() if line.startswith("MiB:")]
    print("MiB after 11 and 41 cells:", used)
    assert used[1] - used[0] < 10  # thirty more models of 13 MiB, or images of 1 MiB, would take more
