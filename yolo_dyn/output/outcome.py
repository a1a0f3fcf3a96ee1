"""What a command comes to. Only `cli` prints: outcomes; what is to be read on the way goes to Ultralytics' log."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


class Outcome:
    """What every command returns: `str` of it is for a terminal, `as_dict` for JSON."""

    @property
    def ok(self) -> bool:
        """False if what the command checked does not hold: its exit status is then 1."""
        return True

    def as_dict(self) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class Text(Outcome):
    """A table or a list that is read and not kept."""

    text: str

    def __str__(self) -> str:
        return self.text

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Written(Outcome):
    """Files that a command wrote, the one to open first at the front."""

    files: tuple[Path, ...]
    text: str = ""  # that says what is in them; their paths if it is empty

    def __str__(self) -> str:
        return self.text or "\n".join(map(str, self.files))

    def as_dict(self) -> dict[str, Any]:
        return {"files": [str(file) for file in self.files], "text": str(self)}
