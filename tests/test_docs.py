"""README and docs: their code runs, their commands and keys exist, their links lead somewhere, nothing is left out.

A comment before a block says how it is checked: `<!-- slow -->` leaves it to `make accept`; `<!-- needs: what -->` says
what is not there in a test, so that its lines are only read; `<!-- tested by: tests/test_x.py -->` names the test that
runs it. Without one Python runs in `make test`, and command lines are read there and run by `make accept`.
"""

import inspect
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

import cv2
import pytest
import torch
import ultralytics.nn.tasks
import yaml
from helpers import ROOT
from ultralytics import YOLO
from ultralytics.cfg import DEFAULT_CFG_DICT, MODES, TASKS, check_dict_alignment
from ultralytics.utils import ROOT as STOCK
from ultralytics.utils import SETTINGS

import yolo_dyn
from yolo_dyn import YoloDynError, cli, registry
from yolo_dyn.data import shapes
from yolo_dyn.robustness import corruptions, fronts
from yolo_dyn.study.definition import read_study

READMES = ["README.md", "datasets/README.md", "examples/README.md"]
PAGES = [*READMES, *sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/**/*.md"))]
LANGUAGES = ("bash", "diff", "python", "toml", "yaml")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; the comment before it says what it needs."""

    page: str
    line: int  # of its first line of code, from 1
    language: str
    text: str
    comment: str

    @property
    def needs(self) -> str:
        """What is not there in a test; empty where it can run."""
        found = re.fullmatch(r"(?:needs|tested by): (.+)", self.comment)
        return found[1] if found else ""

    @property
    def slow(self) -> bool:
        return self.comment == "slow"

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    text = read(page)
    whole = re.search(r"^<!-- page (needs: .+) -->$", text, re.MULTILINE)
    fenced = r"(?:^<!-- (?!page )(.+?) -->\n)?^```(\w*)\n(.*?)^```$"
    for found in re.finditer(fenced, text, re.MULTILINE | re.DOTALL):
        line = text[: found.start(3)].count("\n") + 1
        yield Block(page, line, found[2], found[3], found[1] or (whole[1] if whole else ""))


BLOCKS = [block for page in PAGES for block in blocks(page)]


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def prose(page: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)


def test_every_block_says_its_language_and_what_it_needs():
    assert len(BLOCKS) > 50
    for block in BLOCKS:
        assert block.language in LANGUAGES, str(block)
        assert re.fullmatch(r"|slow|needs: .+|tested by: .+", block.comment), f"{block}: {block.comment}"
    for page in PAGES:
        indented = re.search(r"\n\n {4}.*", prose(page))
        assert not indented, f"{page}: fence this code, so that it says what it is: {indented[0].strip()}"


def test_what_tests_run_names_its_page():
    named = [(b, b.comment.removeprefix("tested by: ")) for b in BLOCKS if b.comment.startswith("tested by: ")]
    assert named
    for block, file in named:
        assert Path(block.page).name in read(file), f"{block}: {file}"


# command lines --------------------------------------------------------------------------------------------------------


def lines_of(block: Block) -> list[str]:
    whole = block.text.replace("\\\n", " ").splitlines()
    return [part.strip() for line in whole for part in line.split(" # ")[:1] if part.strip()]


def inline() -> list[tuple[str, str]]:
    """The commands named in a text: page and words."""
    spans = [
        (page, span) for page in PAGES for span in re.findall(r"(?<!`)`((?:yolo|yolo-dyn|make) [^`]+)`", prose(page))
    ]
    return [(page, span.removesuffix("...").strip()) for page, span in spans]


@pytest.mark.parametrize("block", of("bash"), ids=str)
def test_command_lines_name_commands_and_keys_that_exist(block):
    for line in lines_of(block):
        check_line(line, whole=True)


@pytest.mark.parametrize(("page", "span"), inline())
def test_commands_in_the_text_exist(page, span):
    check_line(span, whole=False)


def test_a_wrong_command_line_is_seen():
    for wrong in (
        "yolo-dyn robust",
        "yolo-dyn info mode=x",
        "yolo trian",
        "yolo train epoch=3",
        "make tests",
        "pip install x",
    ):
        with pytest.raises((AssertionError, YoloDynError, SyntaxError)):
            check_line(wrong, whole=True)


def check_line(line: str, whole: bool) -> None:
    """Raise where a command line names what there is not; `whole` where no key may be missing either."""
    program, *words = shlex.split(line, comments=True)
    assert program in CHECKS, f"nothing here reads {line!r}"
    CHECKS[program](words, whole)


def check_ours(words: list[str], whole: bool) -> None:
    if words[:1] and words[0] in cli.STOCK:
        return check_stock(words, whole)
    name = next((n for n in (" ".join(words[:2]), *words[:1]) if n in {*cli.COMMANDS, "help"}), "")
    assert name, f"unknown command {words[:1]}"
    if name == "help":
        return
    command, given = cli.COMMANDS[name], words[len(name.split()) :]
    bare = [word for word in given if "=" not in word]
    assert command.words or not bare, f"{name} takes no words without a key, got {bare}"
    keyed = [word for word in given if "=" in word] + [f"{command.words}={','.join(bare)}"] * bool(bare)
    try:
        cli.parse(command.load(), keyed, command.example)
    except YoloDynError as error:
        if whole or "missing key" not in str(error):
            raise


def check_stock(words: list[str], whole: bool) -> None:
    keyed = dict(word.split("=", 1) for word in words if "=" in word)
    bare = [word for word in words if "=" not in word]
    if bare == ["settings"]:
        assert keyed.keys() <= SETTINGS.keys()
        return
    assert bare, "no mode"
    assert set(bare) <= {*MODES, *TASKS}, bare
    check_dict_alignment(DEFAULT_CFG_DICT, {key: yaml.safe_load(text) for key, text in keyed.items()})


def check_pip(words: list[str], whole: bool) -> None:
    if words[:2] == ["install", "ultralytics-opencv-headless"]:  # in the place of what pyproject.toml asks for
        assert all(f'"{name}>=' in read("pyproject.toml") for name in words[2:])
        return
    asked = re.fullmatch(r"install (?:--no-deps )?(?:\.|yolo-dyn(?:\[([\w,]+)\])?)", " ".join(words))
    assert asked, words
    assert {*(asked[1] or "").split(",")} - {""} <= {*metadata("yolo-dyn").get_all("Provides-Extra")}


def check_make(words: list[str], whole: bool) -> None:
    targets = re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE)
    assert words[0] in targets
    assert all("=" in word for word in words[1:])


def check_nothing(words: list[str], whole: bool) -> None: ...


CHECKS = {
    "yolo-dyn": check_ours,
    "yolo": check_stock,
    "pip": check_pip,
    "make": check_make,
    "cp": check_nothing,
    "mkdir": check_nothing,
    "python": check_nothing,  # scripts of the pages themselves
}


# code -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def playground(tmp_path) -> Path:
    """A folder with the pictures that the pages name, 000001.jpg, image.jpg and images/, and the committed results."""
    (tmp_path / "images").mkdir()
    for name in ("000001.jpg", "image.jpg", "images/0.png", "images/1.png"):
        cv2.imwrite(str(tmp_path / name), shapes.draw_image("val", 0)[0])
    shutil.copytree(ROOT / "docs" / "results", tmp_path / "docs" / "results")
    return tmp_path


@pytest.fixture
def trained(playground, detectors, random_detector) -> Path:
    """The same folder with the checkpoints and data that the pages name: a.pt, b.pt, best.pt with A2D2C, VOC.yaml."""
    for name in ("a.pt", "b.pt"):
        shutil.copy(detectors / name, playground / name)
    shutil.copy(detectors / "data.yaml", playground / "VOC.yaml")
    model = YOLO("yolov8n-sgdm-a2d2c.yaml")
    model.model = random_detector("yolov8n-sgdm-a2d2c.yaml", dict(enumerate(shapes.NAMES)))
    model.save(playground / "best.pt")
    return playground


def run(words: list[str], folder: Path) -> None:
    """Run in a folder, with our commands found first, and Ultralytics' settings, hence its own runs, in that folder."""
    tools = str(Path(sys.executable).parent)
    surroundings = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "YOLO_CONFIG_DIR": str(folder / "config")}
    done = subprocess.run(words, cwd=folder, env={**os.environ, **surroundings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def shorter(text: str) -> str:
    """The same code with one epoch in place of several."""
    return re.sub(r"\bepochs=\d+", "epochs=1", text)


QUICK = [page for page in PAGES if any(b.language == "python" and not b.needs and not b.slow for b in blocks(page))]


@pytest.mark.parametrize("page", QUICK)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, playground):
    """In a process of its own, as a reader pastes it; what fails is reported by the page's line."""
    script = ["import sys; shared = {'__name__': '__main__'}"]
    for block in blocks(page):
        if block.language == "python" and not block.needs and not block.slow:
            text = "\n" * (block.line - 1) + block.text
            script.append(f"exec(compile({text!r}, {page!r}, 'exec'), shared)")
    run([sys.executable, "-c", "\n".join(script)], playground)


@pytest.mark.accept
@pytest.mark.parametrize("block", [b for b in of("python") if b.slow], ids=str)
def test_slow_python_runs(block, trained):
    run([sys.executable, "-c", shorter(block.text)], trained)


def runnable(block: Block) -> list[str]:
    """The lines of a block that work on the pages' own files; `make` and `pip` would set this environment up anew."""
    return [line for line in lines_of(block) if not block.needs and line.split()[0] not in ("make", "pip")]


@pytest.mark.accept
@pytest.mark.parametrize("block", [b for b in of("bash") if runnable(b)], ids=str)
def test_command_lines_run(block, trained, tiny):
    lines = runnable(block)
    if any("runs/a" in line for line in lines):
        for name in ("a", "b"):
            where = [f"data={tiny}", f"project={trained / 'runs'}", f"name={name}"]
            run(["yolo", "train", "model=yolov8n.yaml", *where, "imgsz=32", "epochs=2", "plots=False"], trained)
    run(["bash", "-euc", shorter("\n".join(lines))], trained)


def rows() -> list[tuple[Block, list]]:
    found = [(block, yaml.safe_load(block.text)) for block in of("yaml")]
    return [(block, row) for block, content in found if isinstance(content, list) for row in content]


@pytest.mark.parametrize(("block", "row"), rows(), ids=str)
def test_rows_build_and_run(block, row):
    before = [-1, 1, "Conv", [row[3][0], 3, 1]]
    layers, _ = ultralytics.nn.tasks.parse_model({"nc": 3, "backbone": [before, [-1, *row[1:]]], "head": []}, ch=3)
    assert layers(torch.rand(2, 3, 32, 32)).shape[1] == row[3][0]


def test_defaults_name_layers_and_their_arguments():
    (content,) = [found for b in of("yaml") if "defaults" in (found := yaml.safe_load(b.text))]
    for name, options in content["defaults"].items():
        assert options.keys() <= inspect.signature(registry.get(name)).parameters.keys()


def test_the_study_is_one(tmp_path):
    (block,) = [b for b in of("yaml") if "arms:" in b.text]
    (tmp_path / "my.yaml").write_text(block.text)
    assert len(read_study(str(tmp_path / "my.yaml")).questions) == 1


def test_entry_points_are_those_that_are_read():
    groups = [re.findall(r'^\[project\.entry-points\."(.+)"\]$', block.text, re.MULTILINE) for block in of("toml")]
    read = (corruptions.ENTRY_POINT_GROUP, fronts.ENTRY_POINT_GROUP, registry.ENTRY_POINT_GROUP)
    assert sorted(groups) == [[group] for group in read]


def test_the_yaml_beside_the_stock_one():
    (block,) = of("diff")
    stock = (STOCK / "cfg" / "models" / "v8" / "yolov8.yaml").read_text().splitlines()
    ours = (ROOT / "models_yaml" / "yolov8-sgdm.yaml").read_text().splitlines()
    for line in block.text.splitlines():
        side = {"-": stock, "+": ours}[line[0]]
        assert line[1:] in [other.split(" # Detect")[0] for other in side]


# what a page must have ------------------------------------------------------------------------------------------------


def slug(title: str) -> str:
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower())


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        place, _, anchor = target.partition("#")
        file = (ROOT / page).parent / place if place else ROOT / page
        assert file.is_file(), f"{page}: {target}"
        assert not anchor or anchor in anchors(file), f"{page}: {target}"


def test_the_readme_is_read_in_two_minutes():
    assert len(read("README.md").splitlines()) <= 130


def test_every_layer_is_in_its_page():
    text = read("docs/layers.md")
    missing = [name for name in registry.names() if f"`{name}`" not in text]
    assert not missing


def test_the_api_has_every_public_name():
    text = read("docs/api.md")
    public = [f"yolo_dyn.{name}" for name in yolo_dyn.__all__]
    public += [f"yolo_dyn.layers.{name}" for name, kind in vars(yolo_dyn.layers).items() if isinstance(kind, type)]
    missing = [name for name in public if f"::: {name}\n" not in text]
    assert not missing


def test_the_page_of_the_commands_is_up_to_date():
    page = runpy.run_path(str(ROOT / "docs" / "hooks.py"))["commands_page"]()
    assert read("docs/commands.md") == page, "python docs/hooks.py writes it anew"
    for name, command in cli.COMMANDS.items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert command.example in section
        for key, parameter in inspect.signature(command.load()).parameters.items():
            assert parameter.kind is parameter.VAR_KEYWORD or f"| `{key}`" in section


def test_every_page_is_in_the_navigation():
    text = read("mkdocs.yml").split("\nnav:")[1].split("\nplugins:")[0]
    for page in PAGES:
        if page.startswith("docs/"):
            assert re.search(rf"\b{re.escape(page.removeprefix('docs/'))}\b", text), page
