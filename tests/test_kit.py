"""What stands in several files outside the package says the same in all: versions, commands, and what is handed on."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.version import Version
from ultralytics.utils import USER_CONFIG_DIR

import yolo_dyn
from yolo_dyn.integration.probes import TESTED

KIT = [
    ".pre-commit-config.yaml",
    "CITATION.cff",
    *(p.relative_to(ROOT).as_posix() for p in ROOT.glob(".github/**/*.yml")),
]


SPEC = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
noxfile = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(noxfile)


def read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def parsed(file: str) -> Any:
    return yaml.safe_load(read(file))


def requirement(package: str) -> Requirement:
    """What pyproject.toml asks of a package. (Python 3.10 has no reader of TOML.)"""
    return Requirement(re.search(rf'^ +"({package}[<>=][^"]+)"', read("pyproject.toml"), re.MULTILINE)[1])


def lowest(package: str) -> str:
    """The oldest version that pyproject.toml allows; the newest is whatever there is."""
    (spec,) = requirement(package).specifier
    assert spec.operator == ">="
    return spec.version


def steps() -> list[str]:
    """The commands of the workflow."""
    jobs = parsed(".github/workflows/ci.yml")["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def matrix() -> dict[str, dict[str, str]]:
    """The versions at each end, by the name of the end."""
    rows = parsed(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    return {row["end"]: row for row in rows}


@pytest.mark.parametrize("file", KIT)
def test_yaml_is_read(file):
    assert isinstance(parsed(file), dict)


def test_the_kit_is_whole():
    assert len(KIT) == 5
    for file in ("bug.yml", "layer.yml"):
        form = parsed(f".github/ISSUE_TEMPLATE/{file}")
        assert {"name", "description", "body"} <= form.keys()
        fields = [part["id"] for part in form["body"]]
        assert len(fields) == len(set(fields))


def test_the_workflow_runs_both_ends_of_the_ranges():
    ends = matrix()
    assert ends.keys() == {"oldest", "newest"}
    assert ends["oldest"]["ultralytics"] == lowest("ultralytics") == TESTED[0]
    oldest = Version(ends["oldest"]["torch"])
    assert oldest.release[:2] == Version(lowest("torch")).release
    assert oldest in requirement("torch").specifier
    assert not {"torch", "ultralytics"} & ends["newest"].keys()
    assert f'requires-python = ">={ends["oldest"]["python"]}"' in read("pyproject.toml")
    assert Version(ends["newest"]["python"]) > Version(ends["oldest"]["python"])


def test_the_workflow_runs_what_the_makefile_has():
    targets = re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE)
    made = [step.removeprefix("make ") for step in steps() if step.startswith("make ")]
    assert {"lint", "test", "docs", "smoke"} == {*made} <= {*targets}
    assert [step for step in steps() if not step.startswith("make ")] == [
        "touch constraints.txt",
        "printf 'torch==%s\\nultralytics==%s\\n' '${{ matrix.torch }}' '${{ matrix.ultralytics }}' > constraints.txt",
    ]


def test_hooks_are_the_linters_of_the_makefile():
    hooks = [hook["entry"] for repo in parsed(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    recipe = re.search(r"^lint: setup\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)[1]
    linters = re.findall(r"\$\(BIN\)/(ruff \w+|mypy)", recipe)
    assert [re.match(r"\.venv/bin/(ruff \w+|mypy)", entry)[1] for entry in hooks] == linters


def test_the_citation_is_of_this_version_and_of_the_papers():
    cited = parsed("CITATION.cff")
    assert cited["version"] == yolo_dyn.__version__
    assert f'license = "{cited["license"]}"' in read("pyproject.toml")
    readme = " ".join(read("README.md").split())
    assert len(cited["references"]) == 4
    for paper in cited["references"]:
        assert paper["title"] in readme
        short = ", ".join(
            " ".join([*(f"{name[0]}." for name in person["given-names"].split()), person["family-names"]])
            for person in paper["authors"]
        )
        assert f": {short}. *{paper['title']}.*" in readme
    identifiers = re.findall(r"arXiv:([\d.]+)|doi: (\S+)", read("CITATION.cff"))
    layers = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "yolo_dyn" / "layers").glob("*.py"))
    known = layers + readme
    assert len(identifiers) == 5
    assert all(arxiv + doi in known for arxiv, doi in identifiers)


def test_the_changelog_has_this_version():
    sections = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert yolo_dyn.__version__ in read("CHANGELOG.md").split("\n### ")[0]
    assert f"`v{yolo_dyn.__version__}`" in read("RELEASING.md")


def test_the_sdist_holds_what_builds_and_tests_it():
    """hatchling takes what git does not ignore: nothing of this may be ignored, or left out by a setting."""
    needed = [
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "Makefile",
        "mkdocs.yml",
        "yolo_dyn.pth",
        "yolo_dyn.start",
        "CHANGELOG.md",
        *KIT,
    ]
    for folder in ("yolo_dyn", "models_yaml", "datasets/recipes", "docs", "examples", "tests"):
        files = [file for ending in ("py", "yaml", "j2", "md") for file in (ROOT / folder).rglob(f"*.{ending}")]
        assert files, folder
        needed += [file.relative_to(ROOT).as_posix() for file in files]
    assert all((ROOT / file).is_file() for file in needed)
    assert "[tool.hatch.build.targets.sdist]" not in read("pyproject.toml")
    if not (ROOT / ".git").exists():
        pytest.skip("what git ignores is told by git alone, and this is no checkout")
    asked = ["git", "check-ignore", "--no-index", "--stdin"]
    ignored = subprocess.run(asked, cwd=ROOT, input="\n".join(needed), capture_output=True, text=True)
    assert ignored.returncode == 1, ignored.stdout + ignored.stderr  # 1: none of them


def test_the_matrix_of_versions_runs_tests_that_are_there():
    paths = [path for paths in noxfile.AREAS.values() for path in paths]
    assert len(paths) == len({*paths})
    assert all((ROOT / path).exists() for path in paths)
    assert noxfile.ULTRALYTICS[0] == lowest("ultralytics")
    assert Version(next(iter(noxfile.TORCH))).release[:2] == Version(lowest("torch")).release
    assert f'requires-python = ">={noxfile.PYTHON[0]}"' in read("pyproject.toml")


def test_a_row_of_the_matrix_counts_what_came_out(tmp_path):
    cases = (
        '<testcase classname="tests.integration.test_export" name="a[1]"/>'
        '<testcase classname="tests.deploy.test_deploy" name="b"><failure message="no"/></testcase>'
        '<testcase classname="tests.deploy.test_deploy" name="c"><error message="no"/></testcase>'
        '<testcase classname="tests.explain.test_cam" name="d"><skipped message="Ultralytics has none"/></testcase>'
        '<testcase classname="tests.layers.test_sgdm" name="e"/>'
    )
    (tmp_path / "report.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    areas = noxfile.counted(tmp_path / "report.xml")
    assert areas["export"] == {
        "passed": 1,
        "failed": ["tests/deploy/test_deploy.py::b", "tests/deploy/test_deploy.py::c"],
        "skipped": {},
    }
    assert areas["heat maps"] == {"passed": 0, "failed": [], "skipped": {"Ultralytics has none": 1}}
    assert areas[noxfile.REST] == {"passed": 1, "failed": [], "skipped": {}}
    page = noxfile.table({"python 3.14": {"versions": {}, "areas": areas, "date": "today", "machine": "this"}})
    (row,) = (line for line in page.splitlines() if line.startswith("| python 3.14"))
    assert "**2 FAILED**: tests/deploy/test_deploy.py::b" in row
    assert "0 passed, 1 skipped (1)" in row
    assert "\n1. Ultralytics has none\n" in page
    assert "| python 3.13 | not run: no such interpreter on this machine |" in page
    widths = {line.count("|") for line in page.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_tests_leave_the_users_settings_alone():
    assert Path(os.environ["YOLO_CONFIG_DIR"]) in USER_CONFIG_DIR.parents
