"""Networks of timm and torchvision as rows of a model YAML."""

from yolo_dyn.backbones.feature import Feature as Feature
from yolo_dyn.backbones.timm_backbone import TimmBackbone as TimmBackbone
from yolo_dyn.backbones.torchvision_backbone import TorchvisionBackbone as TorchvisionBackbone
