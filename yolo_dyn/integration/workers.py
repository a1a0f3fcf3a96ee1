"""The processes that training on several GPUs starts, one for each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

HEAD = "import yolo_dyn\n\nyolo_dyn.integrate()\n"


def generate_ddp_file(stock: Callable) -> Callable:
    """Wrap the stock writing of the program that they run: it integrates by itself, where no start-up hook may."""

    def generate_ddp_file(trainer: Any, *args: Any, **kwargs: Any) -> str:
        file = Path(stock(trainer, *args, **kwargs))
        file.write_text(HEAD + file.read_text(encoding="utf-8"), encoding="utf-8")
        return str(file)

    return generate_ddp_file
