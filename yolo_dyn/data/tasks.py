"""What the objects of a data set are to a task of Ultralytics: boxes alone, or also masks, keypoints, rotated boxes."""

from dataclasses import dataclass
from typing import Any

from yolo_dyn.errors import YoloDynError

TASKS = ("detect", "segment", "pose", "obb")


@dataclass(frozen=True)
class ObjectKind:
    """A task, and what labels of it say."""

    task: str = "detect"
    kpt_shape: tuple[int, int] | None = None  # number of keypoints, and of numbers each: x, y, perhaps visibility
    sigmas: tuple[float, ...] = ()  # of each keypoint, as OKS has them; empty without keypoints

    def as_dict(self) -> dict[str, Any]:
        """What beside images and labels decides scores; nothing for boxes."""
        sigmas = {"sigmas": list(self.sigmas)} if self.sigmas else {}
        return {} if self.task == "detect" else {"task": self.task, **sigmas}

    def has_keypoints(self, numbers: int) -> bool:
        """Whether a line of YOLO txt of so many numbers is that of an object with keypoints."""
        return self.kpt_shape is not None and numbers == 5 + self.kpt_shape[0] * self.kpt_shape[1]


BOXES = ObjectKind()


def object_kind(task: str, description: dict[str, Any], data: str) -> ObjectKind:
    """What a data YAML says of a task's objects.

    Args:
        task: one of `TASKS`.
        description: the content of the YAML. `kpt_shape` and `kpt_oks_sigmas` are those of Ultralytics; without the
            second one the sigmas are COCO's for 17 keypoints, else one over their number, as there.
        data: its name, for messages.

    Raises:
        YoloDynError: if the task needs keypoints and the YAML does not describe them.
    """
    shape = description.get("kpt_shape")
    if shape is None and task == "pose":
        raise YoloDynError(
            f"{data} has no kpt_shape, which a pose needs: number of keypoints, and 2 or 3 for x, y, visibility"
        )
    if shape is None:
        return ObjectKind(task)
    if not (isinstance(shape, list | tuple) and len(shape) == 2 and all(type(n) is int for n in shape)) or not (
        shape[0] >= 1 and shape[1] in (2, 3)
    ):
        raise YoloDynError(f"{data}: kpt_shape must be [number of keypoints, 2 or 3], got {shape!r}")
    given, name = description.get("kpt_oks_sigmas"), f"{data}: kpt_oks_sigmas"
    sigmas = oks_sigmas(shape[0], shape[1], given, name) if task == "pose" else ()
    return ObjectKind(task, (shape[0], shape[1]), sigmas)


def oks_sigmas(number: int, dimensions: int, given: Any, name: str) -> tuple[float, ...]:
    """Those that are given, or the default of Ultralytics; YoloDynError under this name if they do not fit."""
    if given:
        fits = isinstance(given, list | tuple) and len(given) == number
        if not fits or not all(isinstance(s, int | float) and 0 < s < float("inf") for s in given):
            raise YoloDynError(f"{name} must be {number} positive numbers, got {given!r}")
        return tuple(map(float, given))
    from ultralytics.utils.metrics import OKS_SIGMA

    return tuple(OKS_SIGMA.tolist()) if (number, dimensions) == (17, 3) else (1 / number,) * number
