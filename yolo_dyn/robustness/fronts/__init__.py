"""Denoisers in front of a model: the package's own, and a user's."""

from yolo_dyn.robustness.fronts import denoisers as denoisers  # registers its own
from yolo_dyn.robustness.fronts.level import noise_level as noise_level
from yolo_dyn.robustness.fronts.registry import ENTRY_POINT_GROUP as ENTRY_POINT_GROUP
from yolo_dyn.robustness.fronts.registry import FRONTS as FRONTS
from yolo_dyn.robustness.fronts.registry import Front as Front
from yolo_dyn.robustness.fronts.registry import chosen_fronts as chosen_fronts
from yolo_dyn.robustness.fronts.registry import denoise as denoise
from yolo_dyn.robustness.fronts.registry import find_front as find_front
from yolo_dyn.robustness.fronts.registry import known_fronts as known_fronts
from yolo_dyn.robustness.fronts.registry import register_front as register_front
