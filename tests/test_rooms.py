"""The house: imports between its files and rooms run one way, and layers need torch alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = ROOT / "yolo_dyn"
ENTRY = ("__init__", "startup", "cli", "demo")  # they stand at the door: what is imported there is imported late
ORDER = (  # from the cellar up
    ("errors", "layers", "output"),
    ("registry",),
    ("conversion",),
    ("integration",),
    ("backbones", "data"),
    ("runs", "robustness"),
    ("bench", "explain"),
    ("deploy", "study"),
)


def modules() -> dict[str, Path]:
    """Dotted names of all files, below the package."""
    found = {}
    for file in sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "__main__.py"}):  # which is `cli` by another name
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = file
    return found


MODULES = modules()


def imported(file: Path) -> Iterator[str]:
    """Modules of the package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "yolo_dyn":
            base = node.module.split(".")[1:]
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                yield inner if inner in MODULES else ".".join(base) or "__init__"
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("yolo_dyn.") for alias in node.names if "yolo_dyn." in alias.name)


def arrows() -> dict[str, set[str]]:
    return {name: {other for other in imported(file) if other != name} for name, file in MODULES.items()}


def room(name: str) -> str:
    return name.split(".")[0]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The names on one circle of a graph; nothing where there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name not in done:
            done.add(name)
            for other in sorted(graph.get(name, ())):
                if found := walk(other, [*path, name]):
                    return found
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_files_import_in_no_circle():
    graph = {name: others for name, others in arrows().items() if name not in ENTRY}
    assert not circle(graph)


def test_rooms_import_from_below_alone():
    floors = {name: floor for floor, names in enumerate(ORDER) for name in names}
    assert {room(name) for name in MODULES} == {*floors, *ENTRY}
    assert len(floors) + len(ENTRY) <= 18
    between: dict[str, set[str]] = {}
    for name, others in arrows().items():
        if room(name) not in ENTRY:
            between.setdefault(room(name), set()).update({room(other) for other in others} - {room(name), "__init__"})
    up = [(a, b) for a, others in between.items() for b in others if floors[b] > floors[a]]
    assert not up
    assert not circle(between)


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_layers_need_torch_alone():
    standard = {"abc", "collections", "dataclasses", "functools", "importlib", "inspect", "math", "typing"}
    allowed = {"torch", "yolo_dyn", *standard}
    for file in (PACKAGE / "layers").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert {n.split(".")[0] for n in names} <= allowed, file


def test_only_integration_changes_ultralytics():
    """Elsewhere nothing of Ultralytics is assigned to: it is called, or subclassed where `integration` says so."""
    named = (PACKAGE / "integration" / "__init__.py").read_text(encoding="utf-8")
    subclassing = set()
    for name, file in MODULES.items():
        tree, of_ultralytics = ast.parse(file.read_text(encoding="utf-8")), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ultralytics"):
                of_ultralytics |= {alias.asname or alias.name for alias in node.names}
            if isinstance(node, ast.Import):
                of_ultralytics |= {(a.asname or a.name).split(".")[0] for a in node.names if "ultralytics" in a.name}
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                root = target
                while isinstance(root, ast.Attribute | ast.Subscript):
                    root = root.value
                changed = root is not target and isinstance(root, ast.Name) and root.id in of_ultralytics
                assert not changed or room(name) == "integration", f"{name} assigns to {ast.unparse(target)}"
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                if bases & of_ultralytics and room(name) != "integration":
                    subclassing.add(name)
    assert subclassing == {name for name in subclassing if f"`{name}`" in named}
    assert subclassing


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def borrowed(file: Path) -> Iterator[str]:
    """What a test file takes that is not its to take: from another test, or private names of the package.

    Those are imported, read as attributes of what is imported, or named for monkeypatch.
    """
    tree, ours = ast.parse(file.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            path = (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
            names = [alias.name for alias in node.names]
            if path.split(".")[0] == "yolo_dyn":
                ours |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
                yield from (f"{path}.{name}" for name in names if any(map(private, [*path.split("."), name])))
            elif any(part.startswith(("test_", "conftest")) for part in [*path.split("."), *names]):
                yield path
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr) and ast.unparse(node).split(".")[0] in ours:
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("monkeypatch."):
            of_ours = node.args and ast.unparse(node.args[0]).strip("'\"").split(".")[0] in {*ours, "yolo_dyn"}
            words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield from (word for word in words if of_ours and any(map(private, word.split("."))))


def test_no_test_borrows_from_another_or_takes_private_names():
    found = {str(file.relative_to(ROOT)): list(borrowed(file)) for file in sorted((ROOT / "tests").rglob("*.py"))}
    assert not {file: names for file, names in found.items() if names}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from test_layers import build", ["test_layers"]),
        ("from layers.test_layers import build", ["layers.test_layers"]),
        ("import conftest", ["conftest"]),
        ("from yolo_dyn.registry import _TABLE", ["yolo_dyn.registry._TABLE"]),
        ("from yolo_dyn import registry\nregistry._TABLE['x']", ["registry._TABLE"]),
        ("import yolo_dyn\nmonkeypatch.setattr('yolo_dyn.cli._read', None)", ["yolo_dyn.cli._read"]),
        ("from yolo_dyn import cli\nmonkeypatch.setattr(cli, '_read', None)", ["_read"]),
        ("from helpers import build\nfrom yolo_dyn import cli\ncli.__name__\nmodule._forward_hooks", []),
    ],
)
def test_what_is_borrowed_is_found(tmp_path, line, found):
    (tmp_path / "test_x.py").write_text(line)
    assert list(borrowed(tmp_path / "test_x.py")) == found
