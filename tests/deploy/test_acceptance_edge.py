"""The edge on real photos: trained models in eight bits, and detections of exported files against torch."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from ultralytics import YOLO

from yolo_dyn.data.images import evaluation_set
from yolo_dyn.deploy.deployment import deploy
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.evaluate import Settings, detect

pytestmark = pytest.mark.accept


def test_eight_bits_cost_sgdm_no_more_than_the_stock_model(blood_cells, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("yolov8n", "yolov8n-sgdm"):
        Path(f"{name}.pt").symlink_to(blood_cells(f"{name}.yaml"))
    data = str(photos / "bccd" / "data.yaml")
    done = deploy(["yolov8n.pt", "yolov8n-sgdm.pt"], data, ["torch", "onnx", "onnx-int8"], split="test", imgsz=320)
    with capsys.disabled():
        print(done)
    stock, _, stock_int8, sgdm, _, sgdm_int8 = done.rows
    for record in done.sweep.records:
        if record.condition.clean and record.model.endswith("torch"):
            assert record.scores["AP50"] >= 0.5
    assert sgdm.ap - sgdm_int8.ap <= 1.5 * (stock.ap - stock_int8.ap) + 0.01


@pytest.mark.parametrize("arguments", [{"format": "onnx"}, {"format": "onnx", "dynamic": True}, {"format": "openvino"}])
def test_detections_of_a_hundred_photos_are_those_of_torch(arguments, blood_cells, photos, tmp_path):
    checkpoint = tmp_path / "sgdm.pt"
    checkpoint.write_bytes(blood_cells("yolov8n-sgdm.yaml").read_bytes())
    exported = YOLO(checkpoint).export(imgsz=320, **arguments)
    data = str(photos / "bccd" / "data.yaml")
    names = [file.name for file in evaluation_set(data, "train").files[:100]]
    images = evaluation_set(data, "train", names)
    assert len(images.files) == 100
    settings = Settings(imgsz=320, batch=1, conf=0.25)
    expected, found = (detect(str(file), images, Corrupter(None), settings).found for file in (checkpoint, exported))
    assert len(found) == len(expected) > 500
    for image in range(100):
        for category in range(3):
            a, b = (r[(r[:, 0] == image) & (r[:, 6] == category)] for r in (expected, found))
            assert len(a) == len(b)
            distance = np.abs(a[:, None, 1:5] - b[None, :, 1:5]).max(2)
            mine, theirs = linear_sum_assignment(distance)
            assert distance[mine, theirs].max(initial=0) < 1  # pixels
            assert np.abs(a[mine, 5] - b[theirs, 5]).max(initial=0) < 1e-3
