"""Train YOLOv8n with SGDM before its head on the embedded data set, validate it, and look at what it finds.

python examples/train_on_shapes.py --epochs 6
"""

import argparse
from pathlib import Path

from ultralytics import YOLO

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default="shapes.yaml", help="any data YAML of Ultralytics; shapes.yaml is drawn offline")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--imgsz", type=int, default=192, help="pixels; the images of shapes.yaml have 192")
parser.add_argument("--device", default="cpu", help="0 is the first GPU")
args = parser.parse_args()

# The model is a YAML that comes with yolo-dyn and is found from any folder; `n` is its scale, as in yolov8n.yaml. No
# import of yolo_dyn is needed: where it is installed, Ultralytics knows its layers.
model = YOLO("yolov8n-sgdm.yaml")

# Everything that the stock trainer takes. These settings let a short training from scratch learn something: many small
# steps, hardly any warm-up, no mosaic. For a real one leave them out, and add
# pretrained="yolov8n.pt" to start from stock weights.
model.train(
    data=args.data,
    epochs=args.epochs,
    imgsz=args.imgsz,
    device=args.device,
    optimizer="AdamW",
    lr0=0.001,
    warmup_epochs=0.5,
    mosaic=0.0,
    batch=8,
    nbs=8,
    project=Path("runs/examples").resolve(),  # a relative folder would go below Ultralytics' own
    name="train",
    exist_ok=True,
)
best = model.trainer.best  # the checkpoint of the best epoch

# The checkpoint is an ordinary one, to be opened wherever yolo-dyn is installed.
trained = YOLO(best)
metrics = trained.val(data=args.data, imgsz=args.imgsz, device=args.device, plots=False, verbose=False)
print(f"AP50 {metrics.box.map50:.3f}, AP {metrics.box.map:.3f} on the validation images")
print(f"trained model: {best}")
