"""Dynamic convolution layers; they need torch alone."""

from yolo_dyn.layers.rdconv import RDConv as RDConv
from yolo_dyn.layers.sgdm import SGDM as SGDM
