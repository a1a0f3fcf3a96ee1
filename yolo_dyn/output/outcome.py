"""What a command comes to. Only `cli` prints: outcomes; what is to be read on the way goes to Ultralytics' log."""

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


class Text(str, Outcome):
    """A table or a list that is read and not kept."""

    def as_dict(self) -> dict[str, Any]:
        return {"text": str(self)}


class Written(Text):
    """Files that a command wrote, the one to open first at the front; the text says what is in them."""

    files: tuple[Path, ...]

    def __new__(cls, files: tuple[Path, ...], text: str = "") -> "Written":
        """Without a text, it is the paths of the files, a line each."""
        written = super().__new__(cls, text or "\n".join(map(str, files)))
        written.files = files
        return written

    def as_dict(self) -> dict[str, Any]:
        return {"files": [str(file) for file in self.files], "text": str(self)}
