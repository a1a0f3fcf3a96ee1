"""What several test files use and is no fixture: where the repository is, its model files, and the folder of photos."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DETECTORS = sorted(p.name for p in (ROOT / "models_yaml").glob("*.yaml") if not p.stem.endswith("-cls"))
CLASSIFIERS = sorted(p.name for p in (ROOT / "models_yaml").glob("*-cls.yaml"))
PHOTOS = ("bccd", "voc20", "coco-tiny")


def nano(name: str) -> str:
    """The name that builds a bundled detector at nano scale."""
    return name.replace("-", "n-", 1)


BUNDLED = {*DETECTORS, *map(nano, DETECTORS), *CLASSIFIERS}


def photos_folder(given: str | None) -> Path:
    """The folder that YOLO_DYN_DATA names, absolute, since tests change the current one. Without a name, skip the test.

    Raises:
        FileNotFoundError: if one of its data sets is missing, lest a misspelt folder pass for no folder.
    """
    if not given:
        pytest.skip("needs real photos: YOLO_DYN_DATA names no folder of them (see CONTRIBUTING.md)")
    folder = Path(given).expanduser().resolve()
    missing = [name for name in PHOTOS if not (folder / name / "data.yaml").is_file()]
    if missing:
        raise FileNotFoundError(f"YOLO_DYN_DATA={given}: no data.yaml of {', '.join(missing)} in {folder}")
    return folder
