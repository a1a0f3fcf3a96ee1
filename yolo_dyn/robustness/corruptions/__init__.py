"""Corruptions of images: the 15 of COCO-C and its 4 extra ones, Gaussian noise in grey levels, and a user's own."""

# each file registers its own, in the benchmark's order
from yolo_dyn.robustness.corruptions import noises as noises  # isort: skip
from yolo_dyn.robustness.corruptions import blurs as blurs  # isort: skip
from yolo_dyn.robustness.corruptions import weather as weather  # isort: skip
from yolo_dyn.robustness.corruptions import frost as frost  # isort: skip
from yolo_dyn.robustness.corruptions import digital as digital  # isort: skip
from yolo_dyn.robustness.corruptions import cameras as cameras  # isort: skip
from yolo_dyn.robustness.corruptions import codecs as codecs  # isort: skip
from yolo_dyn.robustness.corruptions.draws import bit_generator as bit_generator
from yolo_dyn.robustness.corruptions.draws import normal_quantiles as normal_quantiles
from yolo_dyn.robustness.corruptions.draws import uniform16 as uniform16
from yolo_dyn.robustness.corruptions.registry import CORRUPTIONS as CORRUPTIONS
from yolo_dyn.robustness.corruptions.registry import ENTRY_POINT_GROUP as ENTRY_POINT_GROUP
from yolo_dyn.robustness.corruptions.registry import GAUSSIAN as GAUSSIAN
from yolo_dyn.robustness.corruptions.registry import GROUPS as GROUPS
from yolo_dyn.robustness.corruptions.registry import SEVERITIES as SEVERITIES
from yolo_dyn.robustness.corruptions.registry import SIGMA as SIGMA
from yolo_dyn.robustness.corruptions.registry import Corruption as Corruption
from yolo_dyn.robustness.corruptions.registry import Image as Image
from yolo_dyn.robustness.corruptions.registry import corrupt as corrupt
from yolo_dyn.robustness.corruptions.registry import expanded as expanded
from yolo_dyn.robustness.corruptions.registry import find as find
from yolo_dyn.robustness.corruptions.registry import find_for as find_for
from yolo_dyn.robustness.corruptions.registry import gaussian_noise_values as gaussian_noise_values
from yolo_dyn.robustness.corruptions.registry import known_corruptions as known_corruptions
from yolo_dyn.robustness.corruptions.registry import register_corruption as register_corruption
