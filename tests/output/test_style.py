"""How pictures look."""

from yolo_dyn.output.style import COLOURS, STYLES, marked_line


def test_no_two_lines_look_alike():
    lines = [marked_line(number) for number in range(len(COLOURS) * len(STYLES))]
    assert len({(line["color"], line["linestyle"]) for line in lines}) == len(lines)
