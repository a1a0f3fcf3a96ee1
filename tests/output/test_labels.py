"""Short names of models, wherever a command is called from; and pictures that take names as they are."""

import matplotlib.pyplot as plt
import pytest

from yolo_dyn.output.labels import model_labels
from yolo_dyn.output.style import verbatim


@pytest.mark.parametrize("file", ["weights/best.pt", "../train/weights/best.pt", "./weights/best.pt", "best.pt"])
def test_a_checkpoint_is_called_after_its_run_from_inside_it(file, tmp_path, monkeypatch):
    (tmp_path / "train" / "weights").mkdir(parents=True)
    inside = "weights" if file == "best.pt" else "."
    monkeypatch.chdir(tmp_path / "train" / inside)
    assert model_labels([file]) == {"train": file}


def test_names_with_dollar_signs_are_drawn_as_they_are(tmp_path):
    @verbatim
    def draw(path):
        figure, axis = plt.subplots()
        axis.set_title("a$\\frac{b$c")
        axis.plot([0, 1], label="$x_")
        axis.text(0, 0, "cost in $ and $$")
        figure.legend()
        figure.savefig(path)
        plt.close(figure)

    draw(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"ParseFatalException|Expected"):
        draw.__wrapped__(tmp_path / "b.png")
