"""Dynamic convolution layers, the attention modules they are compared with, and DMF; they need torch alone.

Each is imported when it is first asked for: an Ultralytics that builds stock models pays for none of them.
"""

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from yolo_dyn.layers.a2d2c import A2D2C as A2D2C
    from yolo_dyn.layers.a2d2c import A2D2CPlus as A2D2CPlus
    from yolo_dyn.layers.cbam import CBAM as CBAM
    from yolo_dyn.layers.classifier import Classifier as Classifier
    from yolo_dyn.layers.condconv import CondConv as CondConv
    from yolo_dyn.layers.coordatt import CoordAtt as CoordAtt
    from yolo_dyn.layers.dcd import DCD as DCD
    from yolo_dyn.layers.dmf import BneckLite as BneckLite
    from yolo_dyn.layers.dmf import DMFBlock as DMFBlock
    from yolo_dyn.layers.dmf import DMFHead as DMFHead
    from yolo_dyn.layers.dmf import DMFStem as DMFStem
    from yolo_dyn.layers.dynamicconv import DynamicConv as DynamicConv
    from yolo_dyn.layers.fdconv import FDConv as FDConv
    from yolo_dyn.layers.fmdconv import FMDConv as FMDConv
    from yolo_dyn.layers.former import Former as Former
    from yolo_dyn.layers.former import GlobalTokens as GlobalTokens
    from yolo_dyn.layers.kwconv import KWConv as KWConv
    from yolo_dyn.layers.ldconv import LDConv as LDConv
    from yolo_dyn.layers.odconv import ODConv as ODConv
    from yolo_dyn.layers.rdconv import RDConv as RDConv
    from yolo_dyn.layers.residual import DynamicResidualConv as DynamicResidualConv
    from yolo_dyn.layers.rfaconv import RFAConv as RFAConv
    from yolo_dyn.layers.sgdm import SGDM as SGDM

FILES = {  # of each layer, in this folder
    "A2D2C": "a2d2c",
    "A2D2CPlus": "a2d2c",
    "CBAM": "cbam",
    "Classifier": "classifier",
    "CondConv": "condconv",
    "CoordAtt": "coordatt",
    "DCD": "dcd",
    "BneckLite": "dmf",
    "DMFBlock": "dmf",
    "DMFHead": "dmf",
    "DMFStem": "dmf",
    "DynamicConv": "dynamicconv",
    "FDConv": "fdconv",
    "FMDConv": "fmdconv",
    "Former": "former",
    "GlobalTokens": "former",
    "KWConv": "kwconv",
    "LDConv": "ldconv",
    "ODConv": "odconv",
    "RDConv": "rdconv",
    "DynamicResidualConv": "residual",
    "RFAConv": "rfaconv",
    "SGDM": "sgdm",
}


def __getattr__(name: str) -> object:
    if name not in FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    layer = getattr(importlib.import_module(f"{__name__}.{FILES[name]}"), name)
    globals()[name] = layer
    return layer


def __dir__() -> list[str]:
    return sorted({*globals(), *FILES})
