"""Which versions work: `make matrix` runs the tests, one factor varied at a time.

Rows go to docs/versions.json, one by one, and the page of them is versions.md. An Ultralytics is unpacked into a
folder of its own, before what is installed, and runs the tests that touch it; a torch, a Python or an OpenCV gets an
environment of its own and runs all. One row alone: `nox -s "ultralytics(number='8.3.0')"`; the page alone:
`nox -s page`.
"""

import json
import os
import shutil
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib.metadata import requires, version
from pathlib import Path

import nox
from packaging.requirements import Requirement

ULTRALYTICS = ("8.3.0", "8.3.100", "8.3.200", "8.3.253", "8.4.0", "8.4.50", "8.4.100", "8.4.129", "newest")
TORCH = {  # with what was built for it where pip does not know
    "2.2.2": ["torchvision==0.17.2", "numpy<2", "onnx<1.18"],
    "2.5.1": ["torchvision==0.20.1"],
    "2.9.1": ["torchvision==0.24.1"],
    "2.14.1": ["torchvision==0.29.1"],
}
PYTHON = ("3.10", "3.11", "3.12", "3.13", "3.14")
AREAS = {  # columns of the table: the tests that touch Ultralytics
    "build, load, fuse": [
        *(
            f"tests/integration/test_{name}.py"
            for name in ("integration", "models", "insert", "places", "probes", "devices", "trained")
        ),
        "tests/test_startup.py",
        "tests/test_convert.py",
        "tests/test_light.py",
    ],
    "train, resume": [
        *(f"tests/integration/test_{name}.py" for name in ("anneal", "recipes")),
        "tests/backbones/test_classify.py",
        "tests/robustness/test_noise_training.py",
        "tests/test_commands.py",
        "tests/runs",
    ],
    "export": ["tests/integration/test_export.py", "tests/deploy"],
    "robustness": [
        *(f"tests/robustness/test_{name}.py" for name in ("compare", "evaluate", "scores", "sweep", "tasks")),
        "tests/data",
    ],
    "heat maps": ["tests/explain"],
}
REST = "all else"
TOUCHING = tuple(path for paths in AREAS.values() for path in paths)
NAMES = (  # rows of the table
    *(f"ultralytics {number}" for number in ULTRALYTICS),
    *(f"torch {number}" for number in TORCH),
    *(f"python {number}" for number in PYTHON),
    "opencv headless alone",
)
HERE = Path(__file__).parent
ROWS = HERE / "docs/versions.json"
SHOWN = ("python", "torch", "ultralytics", "numpy", "opencv-python")

nox.options.sessions = ["ultralytics", "torch", "python", "opencv", "page"]
nox.options.error_on_missing_interpreters = False


@nox.session(venv_backend="none")
@nox.parametrize("number", ULTRALYTICS)
def ultralytics(session: nox.Session, number: str) -> None:
    """Versions of Ultralytics, before the environment that nox runs in."""
    if number == "newest":
        return measure(session, "ultralytics", number)
    folder = HERE / ".nox" / f"ultralytics-{number}"
    if not folder.is_dir():
        unpack(session, f"ultralytics=={number}", folder)
    return measure(session, "ultralytics", number, folder)


@nox.session(venv_backend="venv")
@nox.parametrize("number", list(TORCH))
def torch(session: nox.Session, number: str) -> None:
    """Versions of torch, with the newest Ultralytics."""
    session.install("-e", ".[dev]", f"torch=={number}", *TORCH[number])
    measure(session, "torch", number, tests=["tests"])
    shutil.rmtree(session.virtualenv.location)  # six gigabytes


@nox.session(python=PYTHON)
def python(session: nox.Session) -> None:
    """Versions of Python."""
    session.install("-e", ".[dev]")
    measure(session, "python", str(session.python), tests=["tests"])
    shutil.rmtree(session.virtualenv.location)


@nox.session(venv_backend="venv")
def opencv(session: nox.Session) -> None:
    """OpenCV without windows, alone: what would bring another is installed without what it asks for."""
    wanted = [Requirement(each) for each in requires("yolo-dyn") or []]
    replaced = ("yolo-dyn", "ultralytics", "opencv-python", "grad-cam")
    others = [f"{each.name}{each.specifier}" for each in wanted if each.name not in replaced]
    session.install("ultralytics-opencv-headless", "opencv-python-headless", *dict.fromkeys(others))
    session.install("--no-deps", "-e", ".", "grad-cam", "ttach")
    session.install("scikit-learn", "tqdm")
    session.run("python", "-c", "from importlib.metadata import version; version('opencv-python')", success_codes=[1])
    measure(session, "opencv", "headless alone", tests=["tests"])
    shutil.rmtree(session.virtualenv.location)


@nox.session(venv_backend="none")
def page(session: nox.Session) -> None:
    """The table of all rows."""
    rows = kept()
    ROWS.with_suffix(".md").write_text(table(rows), encoding="utf-8")
    red = [name for name, row in rows.items() if any(area["failed"] for area in row.get("areas", {}).values())]
    if red:
        session.error(f"red: {', '.join(red)}")


def unpack(session: nox.Session, wanted: str, folder: Path) -> None:
    """Install into a folder, with what pip would change for it, but for torch, in the environment that is there."""
    held = [f"{package}=={version(package)}" for package in ("torch", "torchvision")]
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    resolved = session.run(*pip, "--dry-run", "--report", "-", wanted, *held, silent=True)
    changed = [each["metadata"] for each in json.loads(resolved[resolved.index("{") :])["install"]]
    pins = [f"{each['name']}=={each['version']}" for each in changed]
    session.run(*pip, "--no-deps", "--target", str(folder), *pins)


def measure(session: nox.Session, factor: str, number: str, *before: Path, tests: Sequence[str] = TOUCHING) -> None:
    """Run the tests and keep the row, sorted by area."""
    interpreter = sys.executable if session.virtualenv.is_sandboxed is False else "python"
    environment = {"PYTHONPATH": os.pathsep.join(map(str, before)), "OMP_NUM_THREADS": "1"}
    script = "import json; from yolo_dyn.output import environment as e; print(json.dumps(e.versions(e.PACKAGES)))"
    versions = json.loads(session.run(interpreter, "-c", script, env=environment, silent=True).splitlines()[-1])
    report, begun = HERE / ".nox" / "report.xml", time.monotonic()
    words = ["--numprocesses", "logical", "--dist", "loadscope", "-m", "not accept", "-q", f"--junitxml={report}"]
    session.run(interpreter, "-m", "pytest", *words, *session.posargs, *tests, env=environment, success_codes=[0, 1])
    asked = [interpreter, "-c", "import platform; print(platform.python_version())"]
    versions["python"] = session.run(*asked, env=environment, silent=True).strip()
    row = {"versions": versions, "minutes": round((time.monotonic() - begun) / 60, 1), "areas": counted(report)}
    keep(f"{factor} {number}", row)


def counted(report: Path) -> dict[str, dict]:
    """What came out of each area: passed, the names of the failed, and the skipped by their reason."""
    areas: dict[str, dict] = defaultdict(lambda: {"passed": 0, "failed": [], "skipped": Counter()})
    for case in ET.parse(report).iter("testcase"):
        file = case.get("classname", "").replace(".", "/")
        named = (name for name, paths in AREAS.items() if any(f"{file}.py".startswith(path) for path in paths))
        area = areas[next(named, REST)]
        skipped = case.find("skipped")
        if skipped is not None:
            area["skipped"][skipped.get("message", "").strip()] += 1
        elif len(case) and any(child.tag in ("failure", "error") for child in case):
            area["failed"].append(f"{file}.py::{case.get('name')}")
        else:
            area["passed"] += 1
    return areas


def kept() -> dict[str, dict]:
    return json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.is_file() else {}


def keep(name: str, row: dict) -> None:
    rows = kept() | {name: row | {"date": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} CPU cores"}}
    ROWS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def table(rows: dict[str, dict]) -> str:
    """Rows in the order of the factors; a cell is what passed, and a number for each reason that something did not."""
    notes: dict[str, int] = {}
    lines = [
        "# Versions",
        "",
        "What `make matrix` found, one factor varied at a time, all else the newest that pip resolves: for each",
        "Ultralytics the tests that touch it, for the other rows all that `make test` runs.",
        "",
        f"| row | {' | '.join([*SHOWN, *AREAS, REST])} | run |",
        "|" + "---|" * (len(SHOWN) + len(AREAS) + 3),
    ]
    for name in NAMES:
        row = cells(rows[name], notes) if name in rows else [unrun(name), *[""] * (len(SHOWN) + len(AREAS) + 1)]
        lines.append(f"| {name} | {' | '.join(row)} |")
    listed = [f"{number}. {reason}" for reason, number in notes.items()]
    return "\n".join([*lines, "", "What is skipped, by reason:", "", *listed, ""])


def unrun(name: str) -> str:
    return "not run: no such interpreter on this machine" if name.startswith("python") else "not run"


def cells(row: dict, notes: dict[str, int]) -> list[str]:
    """Versions, areas and date of a row."""
    versions = [str(row["versions"].get(package)) for package in SHOWN]
    areas = [cell(row["areas"][name], notes) if name in row["areas"] else "" for name in [*AREAS, REST]]
    return [*versions, *areas, f"{row['date']}, {row['machine']}"]


def cell(area: dict, notes: dict[str, int]) -> str:
    """What passed, failed and was skipped, with the numbers of the reasons."""
    numbers = sorted(notes.setdefault(why, len(notes) + 1) for why in area["skipped"])
    skipped = [f"{sum(area['skipped'].values())} skipped ({', '.join(map(str, numbers))})"] if numbers else []
    failed = [f"**{len(area['failed'])} FAILED**: {', '.join(area['failed'])}"] if area["failed"] else []
    return ", ".join([f"{area['passed']} passed", *failed, *skipped])
