"""What is installed, and whether it fits: versions, the probes of Ultralytics' internals, and how many OpenCVs."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from typing import Any

from yolo_dyn.integration import integrate, probes
from yolo_dyn.output.environment import environment
from yolo_dyn.output.outcome import Outcome


@dataclass(frozen=True)
class Installation(Outcome):
    """Versions and findings, as a bug report needs them."""

    environment: dict[str, Any]
    opencv: dict[str, str]  # versions of the distributions that bring `cv2`
    probes: dict[str, str]  # the result of each: empty if it passes, else the reason

    @property
    def ok(self) -> bool:
        return not any(self.probes.values())

    def __str__(self) -> str:
        lines = [f"{name:<16}{value}" for name, value in self.environment.items()]
        width = max(map(len, self.probes))
        results = {name: f"FAILS: {reason}" if reason else "passes" for name, reason in self.probes.items()}
        lines += ["", *(f"{name:<{width}}  {result}" for name, result in results.items()), ""]
        if probes.is_untested():
            lines.append(f"Ultralytics is newer than any that yolo-dyn is tested with ({probes.TESTED[1]}).")
        if len(self.opencv) != 1:
            named = ", ".join(f"{name} {version}" for name, version in self.opencv.items()) or "none"
            lines.append(f"OpenCV: {named}; {self._advice()}")
        if not self.ok:
            lines.append("yolo-dyn's layers cannot be used here; stock models are not touched.")
        return "\n".join(lines).rstrip()

    def _advice(self) -> str:
        if not self.opencv:
            return "one of opencv-python and opencv-python-headless is needed"
        alike = len(set(self.opencv.values())) == 1
        return (
            "all own the same files cv2/, of one version: removing one breaks the other until it is installed anew"
            if alike
            else "all own the same files cv2/, and what is imported is the last that was installed: keep one version"
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def installation() -> Installation:
    """Look at what is installed, and run the probes."""
    integrate()
    brought = {
        dist.metadata["Name"]: dist.version
        for dist in distributions()
        if (dist.metadata["Name"] or "").lower().replace("_", "-").startswith("opencv-")
    }
    return Installation({**environment(), "platform": platform.platform()}, brought, probes.results())
