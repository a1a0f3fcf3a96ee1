"""What makes the pixels of a condition, and their hashes."""

import hashlib
from dataclasses import dataclass

import numpy as np

from yolo_dyn.robustness.corruptions import Corruption, Image, find_for
from yolo_dyn.robustness.records import Condition


@dataclass(frozen=True)
class Corrupter:
    """One corruption at one strength, as the data loader's workers apply it; without a corruption images stay clean."""

    corruption: Corruption | None
    strength: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, condition: Condition, seed: int) -> "Corrupter":
        """What makes the pixels of a condition."""
        if condition.strength is None:
            return cls(None, seed=seed)
        return cls(find_for(condition.corruption, condition.severity), condition.strength, seed)

    def __call__(self, image: Image, name: str) -> Image:
        return self.corruption.apply(image, self.strength, self.seed, name) if self.corruption else image

    def hashes(self, image: Image, name: str) -> dict[str, str]:
        """SHA-256 of the decoded image, of the corruption on plain grey of its size, and of the two together."""
        shown = {"decoded": image, "noise": self(np.full_like(image, 128), name), "used": self(image, name)}
        return {key: hashlib.sha256(value.tobytes()).hexdigest() for key, value in shown.items()}
