"""Compare two models on the very same noisy pixels: a table, and a picture of what each of them finds and misses.

python examples/compare_under_noise.py                             # trains two small models first
python examples/compare_under_noise.py --models a.pt,b.pt --data VOC.yaml --imgsz 640
"""

import argparse
from pathlib import Path

from ultralytics import YOLO

from yolo_dyn.robustness.compare import compare
from yolo_dyn.robustness.sweep import robustness

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--models", default="", help="checkpoints, with a comma; two are trained where none is given")
parser.add_argument("--data", default="shapes.yaml", help="any data YAML of Ultralytics; shapes.yaml is drawn offline")
parser.add_argument("--epochs", type=int, default=2, help="of the two trainings")
parser.add_argument("--imgsz", type=int, default=96, help="pixels; small, to be quick")
args = parser.parse_args()
runs = Path("runs/examples").resolve()


def train(yaml: str) -> str:
    """A short training from scratch; the path of the checkpoint."""
    model = YOLO(yaml)
    short = {"optimizer": "AdamW", "lr0": 0.001, "warmup_epochs": 0.5, "mosaic": 0.0, "batch": 8, "nbs": 8}
    where = {"project": runs, "name": Path(yaml).stem, "exist_ok": True}
    common = {"data": args.data, "imgsz": args.imgsz, "device": "cpu", "val": False, "plots": False}
    model.train(epochs=args.epochs, **short, **common, **where)
    return str(model.trainer.best)


if __name__ == "__main__":  # a sweep may start processes, which import this file
    models = args.models.split(",") if args.models else [train("yolov8n.yaml"), train("yolov8n-sgdm.yaml")]

    # Noise of so many grey levels goes on the original image. Its pixels depend on the seed, the file's name and the
    # strength alone, so every model sees the same ones. What is finished is kept for the next run.
    common = {"imgsz": args.imgsz, "device": "cpu", "project": str(runs)}
    sweep = robustness(models, args.data, sigma=[0, 20], name="robustness", **common)
    print(sweep)  # the page with tables, curves and pictures is report.html in the folder that it names

    # The images in which the models differ most. conf is the least score of a box that is drawn.
    print(compare(models, data=args.data, sigma=[0, 20], count=2, conf=0.1, name="compare", **common))
    print("One training each, and a short one: to tell two models apart takes several seeds (`yolo-dyn repeat`).")
