"""The main job on the embedded data set: train with and without SGDM, compare under noise, predict, export, check."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from yolo_dyn.integration import integrate
from yolo_dyn.integration.api import dataset
from yolo_dyn.output.arguments import Positive, checked
from yolo_dyn.output.outcome import Outcome
from yolo_dyn.robustness.results import Sweep
from yolo_dyn.robustness.sweep import robustness

MODEL, BASELINE, DATA, IMGSZ = "yolov8n-sgdm.yaml", "yolov8n.yaml", "shapes.yaml", 192
SIGMAS = [0.0, 10.0, 20.0, 30.0]
AP50_EXPECTED = 0.30  # a working installation passes it with room; without learning it stays near zero
PICTURES = 12
# A short training from scratch on a CPU: many small steps (nbs is the batch that a step is accumulated to), hardly any
# warm-up, and no mosaic, since there is no time to leave it again.
RECIPE: dict[str, Any] = {
    "optimizer": "AdamW",
    "lr0": 0.001,
    "cos_lr": True,
    "warmup_epochs": 0.5,
    "mosaic": 0.0,
    "batch": 8,
    "nbs": 8,
    "seed": 0,
}


@dataclass(frozen=True)
class Demo(Outcome):
    """What the demo measured, and where its files are."""

    sweep: Sweep
    ap50: float  # of the SGDM model on the clean validation images
    box_difference: float  # of ONNX to torch, pixels
    score_difference: float
    weights: Path
    predictions: Path
    onnx: Path

    @property
    def failures(self) -> list[str]:
        """What a working installation does not show."""
        lines = []
        if self.ap50 < AP50_EXPECTED:
            lines.append(
                f"AP50 {self.ap50:.3f} is below {AP50_EXPECTED}: this installation does not learn as it should"
            )
        if self.box_difference > 1e-2 or self.score_difference > 1e-4:
            lines.append("the ONNX file disagrees with torch: boxes must agree within 1e-2 px, scores within 1e-4")
        return lines

    @property
    def ok(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        files = {
            "weights": self.weights,
            "training": self.weights.parents[1] / "results.csv",
            "report": self.sweep.folder / "report.html",
            "predictions": self.predictions,
            "ONNX": self.onnx,
        }
        lines = [
            f"AP50 {self.ap50:.3f} on the clean validation images (expected: at least {AP50_EXPECTED})",
            f"ONNX against torch on {PICTURES} images: boxes within {self.box_difference:.1e} px,"
            f" class scores within {self.score_difference:.1e}",
        ]
        return "\n".join(
            [str(self.sweep), "", *lines, "", *(f"  {k:<13}{v}" for k, v in files.items()), *self.failures]
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "sweep": self.sweep.as_dict(),
            "AP50": self.ap50,
            "box_difference": self.box_difference,
            "score_difference": self.score_difference,
            "files": [str(file) for file in (self.weights, self.predictions, self.onnx)],
        }


@checked
def demo(epochs: Positive = 6, out: str = "runs/demo") -> Demo:
    """Train yolov8n with and without SGDM on the embedded data set, compare both under noise, predict, export to ONNX.

    Args:
        epochs: passes over the 800 training images, for each model.
        out: folder for the results.

    Returns:
        What was measured; not `ok` if the models do not learn as they should, or the ONNX file disagrees with torch.
    """
    integrate()
    from ultralytics import YOLO

    folder = Path(out).resolve()
    common: dict[str, Any] = {"imgsz": IMGSZ, "device": "cpu", "project": str(folder), "exist_ok": True}
    trained = {}
    for yaml in (BASELINE, MODEL):
        name = Path(yaml).stem
        YOLO(yaml).train(data=DATA, epochs=epochs, name=name, val=False, plots=False, **RECIPE, **common)
        trained[yaml] = folder / name / "weights" / "best.pt"
    best = trained[MODEL]

    images = sorted(Path(dataset(DATA)["val"]).glob("*.bmp"))[:PICTURES]
    picture = folder / "predictions.png"
    results = YOLO(best).predict(images, verbose=False, **common)
    cv2.imwrite(str(picture), _grid([_drawn(result) for result in results]))
    onnx = Path(YOLO(best).export(format="onnx", imgsz=IMGSZ, device="cpu"))
    boxes, scores = _disagreement(best, onnx, images)
    models = [str(file) for file in trained.values()]
    sweep = robustness(models, DATA, SIGMAS, imgsz=IMGSZ, device="cpu", name="robustness", project=str(folder))
    return Demo(sweep, sweep.summary[1].ap50.p or 0.0, boxes, scores, best, picture, onnx)


def _drawn(result: Any, factor: int = 2) -> Any:
    """Boxes drawn into the enlarged image, so that the labels leave the small shapes to be seen."""
    result.orig_img = cv2.resize(result.orig_img, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    result.orig_shape = result.orig_img.shape[:2]
    boxes = result.boxes.data.clone()
    boxes[:, :4] *= factor
    result.update(boxes=boxes)
    return result.plot(line_width=1)


def _grid(tiles: list[Any], columns: int = 4) -> Any:
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _disagreement(weights: Path, onnx: Path, images: list[Path]) -> tuple[float, float]:
    """Largest difference between torch and onnxruntime on the same images: boxes in pixels, class scores."""
    import onnxruntime
    from ultralytics import YOLO

    model = YOLO(weights).model.eval()
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    difference = torch.zeros(2)
    for image in images:
        pixels = (
            np.ascontiguousarray(cv2.imread(str(image)), np.float32)[..., ::-1].transpose(2, 0, 1)[None] / 255
        )  # [1, 3, H, W], RGB
        with torch.no_grad():
            expected: Tensor = model(torch.from_numpy(pixels))[0]  # [1, 4 + classes, anchors]
        found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: pixels})[0])
        error = (expected - found).abs()[0]
        difference = torch.maximum(difference, torch.stack([error[:4].max(), error[4:].max()]))
    return difference[0].item(), difference[1].item()
