"""Define a dynamic convolution of your own, check it, and use it in a model YAML, in its own right and inside SGDM.

python examples/own_layer.py
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from ultralytics import YOLO

import yolo_dyn
from yolo_dyn.bench.check import check
from yolo_dyn.layers.functional import conv_per_sample, mix_kernels

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default="shapes.yaml", help="any data YAML of Ultralytics; shapes.yaml is drawn offline")
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--imgsz", type=int, default=96, help="pixels; small, to be quick")
args = parser.parse_args()


@yolo_dyn.register(kind="convolution")  # its arguments are those of nn.Conv2d, then its own by keyword
class TwinConv(nn.Conv2d):
    """Two kernels, mixed for each image by what the means of its channels say."""

    def __init__(self, in_channels: int, out_channels: int, *args, sharpness: float = 1.0, **kwargs):
        super().__init__(in_channels, out_channels, *args, **kwargs)
        self.sharpness = sharpness
        self.twin = nn.Parameter(self.weight.detach().flip(0).clone())  # [C_out, C_in/groups, k, k], like the first
        self.router = nn.Linear(in_channels, 2)
        self.form = "kernel"  # of the mixture: an export that leaves the batch size free sets another one here

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        attention = (self.sharpness * self.router(x.mean((2, 3)))).softmax(1)  # [B, 2]
        kernels = mix_kernels(torch.cat([self.weight, self.twin]), attention)  # [B, C_out, C_in/groups, k, k]
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        return conv_per_sample(x, kernels, self.bias, *geometry, form=self.form)


# The layer contract, line by line: shapes, one image independent of the others, half precision, exports and more.
report = check("TwinConv")
print(report)
assert report.ok, "the contract does not hold"

# In the YAML of any detector: a row before each input of the head, or in the place of SGDM's own dynamic convolution.
# Names of files choose the scale: own/yolov8n-twin.yaml is own/yolov8-twin.yaml at scale n.
runs = Path("runs/examples").resolve()
runs.mkdir(parents=True, exist_ok=True)
alone = yolo_dyn.insert("yolov8.yaml", "TwinConv", str(runs / "yolov8-twin.yaml"), exist_ok=True, sharpness=2.0)
inside = yolo_dyn.insert(
    "yolov8.yaml", "SGDM", str(runs / "yolov8-sgdm-twin.yaml"), exist_ok=True, dynamic="TwinConv", guide="none"
)
for file in (alone, inside):
    model = YOLO(str(file).replace("yolov8-", "yolov8n-"))
    count = sum(isinstance(module, TwinConv) for module in model.model.modules())
    print(f"{file.name}: {count} TwinConv, {sum(p.numel() for p in model.model.parameters()):,} parameters")

# It trains like any other. For the `yolo` command and several GPUs, declare it in an entry point: docs/extend.md.
model.train(
    data=args.data,
    epochs=args.epochs,
    imgsz=args.imgsz,
    device="cpu",
    optimizer="AdamW",
    plots=False,
    project=runs,
    name="own",
    exist_ok=True,
)
print(f"trained model: {model.trainer.best}")
