"""Files are written whole or not at all, and what hinders that is one line."""

import errno
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from yolo_dyn import YoloDynError
from yolo_dyn.output import files, style


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_file_that_cannot_be_written_is_one_line_and_leaves_the_one_before(number, tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    files.write_json(file, {"a": 1})
    before = file.read_bytes()

    def fails(path, *_, **__):
        path.touch()
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", fails)
        with pytest.raises(YoloDynError, match=f"^out={file} cannot be written: {os.strerror(number)}$"):
            files.write_json(file, {"a": 2}, "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_bytes() == before


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(YoloDynError, match=r"a/b.txt cannot be written: Not a directory"):
        files.write_text(tmp_path / "a" / "b.txt", "text")


def test_names_are_no_formulas_in_a_spreadsheet(tmp_path):
    files.write_csv(tmp_path / "a.csv", [["=1+1", "+a", "-b", "@c", "d-e", -1.5, None]])
    assert (tmp_path / "a.csv").read_text() == "'=1+1,'+a,'-b,'@c,d-e,-1.5,\n"


def test_pictures_are_written_whole(tmp_path, monkeypatch):
    def figure():
        return plt.subplots(figsize=(1, 1))[0]

    others = plt.get_fignums()  # of tests before this one
    style.save(figure(), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    assert before.startswith(b"\x89PNG")

    def stops(self, file, **_):
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", stops)
    with pytest.raises(YoloDynError, match=f"^out={tmp_path}/a.png cannot be written: No space left on device$"):
        style.save(figure(), tmp_path / "a.png", "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before
    assert plt.get_fignums() == others


def test_an_image_like_a_thread_fits_into_a_picture():
    assert style.panel_height(3, [(100, 200), (300, 200)]) == 4.5
    assert style.panel_height(3, [(20_000, 10)]) == 12


@pytest.mark.parametrize("name", ["../elsewhere", "../../x", "/x", "a/../../b"])
def test_results_stay_inside_their_project(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.results_folder("runs", "a/b") == Path("runs/a/b")
    with pytest.raises(YoloDynError, match=f"name must be a folder inside project=runs, got '{name}'"):
        files.results_folder("runs", name)
