"""How well a detector keeps detecting when its images are corrupted."""

from yolo_dyn.robustness.corruptions import corrupt as corrupt
from yolo_dyn.robustness.corruptions import known_corruptions as known_corruptions
from yolo_dyn.robustness.corruptions import register_corruption as register_corruption
from yolo_dyn.robustness.fronts import denoise as denoise
from yolo_dyn.robustness.fronts import known_fronts as known_fronts
from yolo_dyn.robustness.fronts import noise_level as noise_level
from yolo_dyn.robustness.fronts import register_front as register_front
