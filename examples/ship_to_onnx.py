"""Export a model with a dynamic layer to ONNX, check the file against torch, and time both in turn.

python examples/ship_to_onnx.py                                    # the network as it is built, without training
python examples/ship_to_onnx.py --model runs/examples/train/weights/best.pt --imgsz 192

Needs what `pip install yolo-dyn[export]` brings. Where the file runs, neither yolo-dyn nor torch is needed.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from ultralytics import YOLO

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="yolov8n-sgdm.yaml", help="a checkpoint, or a model YAML")
parser.add_argument("--imgsz", type=int, default=320, help="pixels, height and width")
parser.add_argument("--rounds", type=int, default=20, help="timed calls of each")
args = parser.parse_args()

checkpoint = Path(args.model)
if checkpoint.suffix == ".yaml":
    checkpoint = Path("runs/examples") / f"{checkpoint.stem}.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    YOLO(args.model).save(checkpoint)

# The layers take the form that ONNX Runtime can run: nothing has to be said. dynamic=True leaves the batch size free.
file = YOLO(checkpoint).export(format="onnx", imgsz=args.imgsz, device="cpu")  # beside the checkpoint

# The same image into both. A fused model is what the stock predictor runs, and what was exported.
torch.set_num_threads(1)
network = YOLO(checkpoint).model.fuse(verbose=False).eval()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # as many as torch has, or the times do not compare
session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
image = np.random.default_rng(0).random((1, 3, args.imgsz, args.imgsz), np.float32)  # [B, RGB, H, W], 0 to 1


@torch.inference_mode()
def in_torch() -> np.ndarray:
    return network(torch.from_numpy(image))[0].numpy()  # [B, 4 + classes, anchors]


def in_onnx() -> np.ndarray:
    return session.run(None, {"images": image})[0]


difference = np.abs(in_torch() - in_onnx())
print(f"boxes within {difference[:, :4].max():.1e} px, class scores within {difference[:, 4:].max():.1e}")
assert difference[:, :4].max() < 1e-2, "the boxes of the file differ from torch's"
assert difference[:, 4:].max() < 1e-4, "the scores of the file differ from torch's"

# In turn, so that a machine whose speed drifts favours none; medians, since some calls are disturbed.
times: dict[str, list[float]] = {"torch": [], "onnx": []}
for _ in range(args.rounds):
    for name, call in (("torch", in_torch), ("onnx", in_onnx)):
        start = time.perf_counter()
        call()
        times[name].append(1e3 * (time.perf_counter() - start))
for name, series in times.items():
    print(f"{name:<6}{statistics.median(series):>7.1f} ms at batch 1, {args.imgsz} px, one thread")
print(f"{file}: {Path(file).stat().st_size / 2**20:.1f} MiB")
