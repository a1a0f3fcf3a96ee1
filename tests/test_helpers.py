"""The tests' own helpers: where real photos are looked for, and what is said if there are none."""

import pytest
from helpers import PHOTOS, photos_folder


def test_photos_are_those_of_the_variable_alone(tmp_path, monkeypatch):
    for name in PHOTOS:
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "data.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert photos_folder("data") == tmp_path / "data"
    (tmp_path / "data" / "voc20" / "data.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"YOLO_DYN_DATA=data: no data.yaml of voc20 in /"):
        photos_folder("data")


@pytest.mark.parametrize("given", [None, ""])
def test_a_test_without_photos_is_skipped_with_the_name_of_the_variable(given):
    with pytest.raises(pytest.skip.Exception, match="YOLO_DYN_DATA names no folder"):
        photos_folder(given)
