"""How well a detector keeps detecting when its images are corrupted."""

from yolo_dyn.robustness.corruptions import corrupt as corrupt
from yolo_dyn.robustness.corruptions import known_corruptions as known_corruptions
from yolo_dyn.robustness.corruptions import register_corruption as register_corruption
