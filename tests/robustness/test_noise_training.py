"""Training with noise through the stock trainer."""

import re
from pathlib import Path

import numpy as np
import pytest
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.utils.torch_utils import init_seeds

from yolo_dyn import YoloDynError, cli
from yolo_dyn.integration.api import dataset
from yolo_dyn.robustness.training import gaussian_noise

STILL = {"mosaic": 0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "translate": 0, "scale": 0, "fliplr": 0, "erasing": 0}


def training_images(tiny: Path, augmentations: list | None, seed: int = 0) -> list[np.ndarray]:
    init_seeds(seed)
    args = get_cfg(overrides={"imgsz": 192, **STILL, "augmentations": augmentations})
    data = dataset(str(tiny))
    return [entry["img"].numpy().astype(int) for entry in build_yolo_dataset(args, data["train"], 4, data)]


def test_noise_is_that_of_the_range_and_seeded(tiny):
    only_noise = gaussian_noise(sigma=40, p=1)[-1:]
    clean, noisy = training_images(tiny, []), training_images(tiny, only_noise)
    middle = [(a > 100) & (a < 155) for a in clean]  # what no clipping reaches
    sigmas = [np.std((b - a)[m]) for a, b, m in zip(clean, noisy, middle, strict=True) if m.sum() > 2000]
    assert len(sigmas) > 8
    assert max(sigmas) < 41
    assert np.std(sigmas) > 5  # another one for each image
    assert all((a == b).all() for a, b in zip(noisy, training_images(tiny, only_noise), strict=True))
    assert any((a != b).any() for a, b in zip(noisy, training_images(tiny, only_noise, seed=1), strict=True))


def test_some_images_stay_clean(tiny):
    clean, noisy = training_images(tiny, []), training_images(tiny, gaussian_noise(p=0.5)[-1:])
    assert 3 < sum((a == b).all() for a, b in zip(clean, noisy, strict=True)) < 13  # of 16


@pytest.mark.accept
def test_the_recipe_is_read_by_the_stock_command(tiny, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["noise-recipe", "sigma=30", "p=0.4"]) == 0
    words = ["model=yolov8n-sgdm.yaml", f"data={tiny}", "imgsz=64", "epochs=1", "batch=8", "workers=0", "plots=False"]
    words += ["deterministic=False"]
    done = command(
        "yolo", "train", "cfg=gaussian-noise.yaml", *words, f"project={tmp_path}", "name=noisy", cwd=tmp_path
    )
    log = re.sub(r"\x1b\[\d*m", "", done.stdout + done.stderr)
    line = next(line for line in log.splitlines() if line.startswith("albumentations: "))
    assert "GaussNoise(p=0.4" in line
    assert "std_range=(0.0, 0.117" in line
    assert line.count("p=0.01") == 4  # the stock ones stay


def test_noise_stays_through_a_resume(tiny, tmp_path, log):
    def interrupt(trainer):
        raise KeyboardInterrupt

    words = {"data": str(tiny), "imgsz": 64, "batch": 8, "workers": 0, "plots": False, "project": str(tmp_path)}
    model = YOLO("yolov8n-sgdm.yaml")
    model.add_callback("on_model_save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.train(epochs=2, augmentations=gaussian_noise(sigma=30), name="noisy", **words)
    log.clear()
    resumed = YOLO(tmp_path / "noisy" / "weights" / "last.pt")
    resumed.train(resume=True)
    noise = resumed.trainer.args.augmentations[-1]["transform"]
    assert (noise["__class_fullname__"], noise["std_range"][1]) == ("GaussNoise", pytest.approx(30 / 255))
    assert any("GaussNoise" in message for message in log)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sigma=0", "sigma must be grey levels above 0 and at most 255, got 0"),
        ("p=2", "p must be above 0 and at most 1, got 2"),
        ("out=missing/x.yaml", "out=missing/x.yaml cannot be written"),
    ],
)
def test_bad_input(word, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["noise-recipe", word]) == 2
    assert message in capsys.readouterr().err


def test_the_range_of_sigma():
    with pytest.raises(YoloDynError, match="sigma must be"):
        gaussian_noise(sigma=300)
