"""Training with noise: Gaussian noise among the stock trainer's augmentations, so that it can be an arm of a study."""

from pathlib import Path
from typing import Any

import yaml

from yolo_dyn.errors import YoloDynError, needed
from yolo_dyn.output.arguments import checked
from yolo_dyn.output.files import write_text
from yolo_dyn.output.outcome import Written


def gaussian_noise(sigma: float = 50, p: float = 0.5) -> list[Any]:
    """The stock trainer's pixel augmentations and Gaussian noise, for ``model.train(augmentations=...)``.

    The noise goes on the image as the network gets it, after mosaic and resize; for each image its standard deviation
    is drawn evenly from 0 to `sigma`. The stock trainer seeds it by its own `seed`, apart for each worker.

    Args:
        sigma: largest standard deviation in grey levels (0-255).
        p: share of the images that get noise.

    Raises:
        YoloDynError: if sigma or p is out of its range.
    """
    if not 0 < sigma <= 255:
        raise YoloDynError(f"sigma must be grey levels above 0 and at most 255, got {sigma}")
    if not 0 < p <= 1:
        raise YoloDynError(f"p must be above 0 and at most 1, got {p}")
    library = needed("albumentations", "training with noise", "albumentations")  # takes two seconds
    # Ultralytics' own, which a given list replaces
    stock = [getattr(library, name)(p=0.01) for name in ("Blur", "MedianBlur", "ToGray", "CLAHE")]
    return [*stock, library.GaussNoise(std_range=(0, sigma / 255), per_channel=True, p=p)]


@checked
def noise_recipe(sigma: float = 50, p: float = 0.5, out: str = "gaussian-noise.yaml") -> Written:
    """Write a recipe for the stock trainer that adds Gaussian noise: yolo train cfg=gaussian-noise.yaml ...

    Args:
        sigma: largest standard deviation in grey levels (0-255), drawn anew for each image.
        p: share of the images that get noise.
        out: file to write.

    Returns:
        The file.

    Raises:
        YoloDynError: if sigma or p is out of its range, or the file cannot be written.
    """
    augmentations = gaussian_noise(sigma, p)
    import albumentations as A

    head = (
        f"# Training with Gaussian noise: {p:g} of the images, a standard deviation from 0 to {sigma:g} grey levels.\n"
        "# The other augmentations are Ultralytics' own, which a list given here replaces.\n"
        f"#   yolo-dyn noise-recipe sigma={sigma:g} p={p:g}\n"
        f"#   yolo train cfg={Path(out).name} model=yolov8n-sgdm.yaml data=VOC.yaml\n\n"
    )
    body = yaml.safe_dump({"augmentations": [A.to_dict(augmentation) for augmentation in augmentations]})
    write_text(Path(out), head + body, "out")
    return Written((Path(out),))
