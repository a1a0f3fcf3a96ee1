"""Dynamic convolution layers and the attention modules they are compared with; they need torch alone."""

from yolo_dyn.layers.a2d2c import A2D2C as A2D2C
from yolo_dyn.layers.a2d2c import A2D2CPlus as A2D2CPlus
from yolo_dyn.layers.cbam import CBAM as CBAM
from yolo_dyn.layers.condconv import CondConv as CondConv
from yolo_dyn.layers.coordatt import CoordAtt as CoordAtt
from yolo_dyn.layers.dcd import DCD as DCD
from yolo_dyn.layers.dynamicconv import DynamicConv as DynamicConv
from yolo_dyn.layers.fmdconv import FMDConv as FMDConv
from yolo_dyn.layers.odconv import ODConv as ODConv
from yolo_dyn.layers.rdconv import RDConv as RDConv
from yolo_dyn.layers.residual import DynamicResidualConv as DynamicResidualConv
from yolo_dyn.layers.rfaconv import RFAConv as RFAConv
from yolo_dyn.layers.sgdm import SGDM as SGDM
