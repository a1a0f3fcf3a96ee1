"""The examples in docstrings run, every one of them."""

import ast
import subprocess
import sys

from helpers import ROOT

PACKAGE = ROOT / "yolo_dyn"


def examples() -> int:
    """How many docstrings hold an example, by their text alone."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for file in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    return sum(">>> " in (ast.get_docstring(node) or "") for node in nodes if isinstance(node, documented))


def test_every_example_runs():
    """In a process of its own, since examples register layers and corruptions."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--doctest-modules", str(PACKAGE)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{examples()} passed" in done.stdout
