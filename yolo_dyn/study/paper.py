"""Figures of the SGDM paper: parameters in millions and GFLOPs of each baseline and of what is added to it."""

Figures = tuple[float, float]  # parameters in millions, GFLOPs

TABLE_2: dict[str, tuple[Figures, dict[str, Figures]]] = {  # YOLOv5n + SGDM is its outlier: YOLOv8n's widths, twice the
    "yolov5n": (  # increment
        (2.5, 7.2),
        {"cbam": (2.6, 7.3), "coordatt": (2.7, 7.9), "rfaconv": (3.3, 8.8), "sgdm": (2.8, 8.1)},
    ),
    "yolov5s": (
        (9.2, 24.2),
        {"cbam": (9.5, 24.5), "coordatt": (9.2, 24.3), "rfaconv": (12.3, 30.3), "sgdm": (9.8, 25.1)},
    ),
    "yolov6n": (
        (4.5, 13.1),
        {"cbam": (4.5, 13.1), "coordatt": (4.5, 13.1), "rfaconv": (4.7, 13.6), "sgdm": (4.5, 13.2)},
    ),
    "yolov6s": (
        (16.5, 44.9),
        {"cbam": (16.5, 44.9), "coordatt": (16.5, 44.9), "rfaconv": (17.3, 46.5), "sgdm": (16.6, 45.1)},
    ),
    "yolov8n": (
        (3.1, 8.7),
        {"cbam": (3.2, 8.9), "coordatt": (3.2, 8.9), "rfaconv": (4.0, 10.5), "sgdm": (3.3, 9.1)},
    ),
    "yolov8s": (
        (11.2, 28.8),
        {"cbam": (11.5, 29.1), "coordatt": (11.2, 28.9), "rfaconv": (14.4, 34.9), "sgdm": (11.8, 29.7)},
    ),
}
TABLE_3: dict[str, tuple[Figures, dict[str, Figures]]] = {  # does not follow from the module of Table 2
    "yolov5n": (
        (2.5, 7.2),
        {
            "sgdm-condconv": (3.5, 9.0),
            "sgdm-dynamicconv": (3.5, 9.0),
            "sgdm-dcd": (2.8, 8.1),
            "sgdm-odconv": (3.5, 9.0),
        },
    ),
    "yolov8n": (
        (3.1, 8.7),
        {
            "sgdm-condconv": (4.0, 10.0),
            "sgdm-dynamicconv": (4.0, 10.0),
            "sgdm-dcd": (3.3, 9.1),
            "sgdm-odconv": (4.0, 10.0),
        },
    ),
}
TABLE_4: dict[str, tuple[Figures, dict[str, Figures]]] = {  # with VOC's 20 classes; the last arm is below its baseline
    "yolov8n-efficientvit-m0": ((4.0, 9.5), {"sgdm": (4.2, 9.7)}),
    "yolov8n-efficientvit-m0-stride8": ((4.0, 9.5), {"sgdm": (4.2, 9.7)}),
    "yolov8n-fasternet-t0": ((4.2, 10.7), {"sgdm": (4.4, 11.1)}),
    "yolov8n-convnextv2-atto": ((5.7, 14.1), {"sgdm": (2.7, 6.2)}),
}
TABLE_5: dict[str, tuple[Figures, dict[str, Figures]]] = {"yolov5n": ((1.9, 4.6), {"sgdm": (2.0, 4.8)})}
TABLES = {"Table 2": TABLE_2, "Table 3": TABLE_3, "Table 4": TABLE_4, "Table 5, older YOLOv5 code": TABLE_5}


def figures(model: str) -> list[tuple[str, Figures, Figures]]:
    """The tables that hold a model, named like its YAML (yolov8n-sgdm): table, baseline, with the layer."""
    return [
        (name, baseline, figures)
        for name, table in TABLES.items()
        for stock, (baseline, arms) in table.items()
        for layer, figures in arms.items()
        if model == f"{stock}-{layer}"
    ]
