"""What the tests share: real photos where there are any, a tiny data set, and the stock command in a fresh process."""

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Before Ultralytics is first imported, and seen by child processes: own settings, and nothing from the network.
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="yolo-dyn-tests-")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photos: bccd, voc20 and coco-tiny, each with a data.yaml."""
    folder = Path(os.environ.get("YOLO_DYN_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real photos at {folder}: set YOLO_DYN_DATA")
    return folder


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What Ultralytics logs during a test."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ultralytics")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The data YAML of 16 + 4 images of the embedded data set."""
    import cv2

    from yolo_dyn import shapes

    folder = tmp_path_factory.mktemp("tiny")
    for split, count in (("train", 16), ("val", 4)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(count):
            image, rows = shapes.draw_image(split, index)
            cv2.imwrite(str(folder / "images" / split / f"{index}.bmp"), image)
            (folder / "labels" / split / f"{index}.txt").write_text("\n".join(rows))
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(shapes.NAMES))
    (folder / "tiny.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return folder / "tiny.yaml"


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess]:
    """Run an installed command, `yolo` or `yolo-dyn` or `python`, in a fresh process and a given folder."""

    def run(*words: str, cwd: Path, ok: bool = True, **environment: str) -> subprocess.CompletedProcess:
        program = Path(sys.executable).with_name(words[0])
        done = subprocess.run(
            [str(program), *words[1:]],
            cwd=cwd,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        if ok:
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run
