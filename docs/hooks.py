"""What the site adds to the pages of this folder: the READMEs as pages, and the page of the commands.

`python docs/hooks.py` writes `docs/commands.md` from the table of commands and from their docstrings. They are read,
not imported: the site is built without torch.
"""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
READMES = {"README.md": "index.md", "datasets/README.md": "datasets.md", "examples/README.md": "examples.md"}

INTRO = """# Commands

<!-- Made by `make docs` from the table of commands in yolo_dyn/cli.py and the docstrings of their functions. -->
<!-- page needs: the checkpoints, data and hours that its examples name -->

```bash
yolo-dyn help
```

prints a line and an example of each, and with `--help` after a command its keys. Arguments are `key=value`, as `yolo`
takes them; lists have commas and no spaces. Wrong input gets one line that names the key, what was found and what is
accepted, and exit status 2. Status 1 says that what was checked does not hold, 130 that the command was interrupted:
the same command again goes on where it was.
"""


def commands_page() -> str:
    """The page in Markdown: for each command what it does, an example, and its keys."""
    if str(ROOT) not in sys.path:  # mkdocs takes it away again after it has loaded this file
        sys.path.insert(0, str(ROOT))
    from yolo_dyn.cli import COMMANDS, meanings

    sections = [_section(name, command, meanings) for name, command in COMMANDS.items()]
    return "\n\n".join([INTRO.strip(), *sections]) + "\n"


def _section(name: str, command: Any, meanings: Callable[[str], dict[str, str]]) -> str:
    function = _function(command.module, command.function)
    doc = ast.get_docstring(function) or ""
    text, described = re.split(r"\n+(?:Args|Returns|Raises|Examples):\n", doc)[0], meanings(doc)
    rows = [_row(key, default, described, command.words) for key, default in _keys(function)]
    table = ["| key | default | what it is |", "|---|---|---|", *rows] if rows else []
    return "\n\n".join([f"## {name}", text, f"```bash\n{command.example}\n```", *(["\n".join(table)] if table else [])])


def _function(module: str, name: str) -> ast.FunctionDef:
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)


def _keys(function: ast.FunctionDef) -> list[tuple[str, str]]:
    """Each key with its default as it is written; `None` and empty ones stay blank: the description says what holds."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    defaults: list[ast.expr | None] = [None] * (len(arguments) - len(function.args.defaults))
    pairs = [*zip(arguments, [*defaults, *function.args.defaults], strict=True)]
    pairs += zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    keys = [(argument.arg, "required" if value is None else _default(value)) for argument, value in pairs]
    return keys + ([(f"{function.args.kwarg.arg}=...", "")] if function.args.kwarg else [])


def _default(value: ast.expr) -> str:
    written = ast.unparse(value).strip("'")
    return "" if written in ("None", "") else f"`{written}`"


def _row(key: str, default: str, described: dict[str, str], words: str) -> str:
    what = described[key.removesuffix("=...")].replace("|", "\\|")
    shown = "any other" if key.endswith("=...") else f"`{key}`"
    return f"| {shown}{' (or bare words)' if key == words else ''} | {default} | {what} |"


# hooks of mkdocs ------------------------------------------------------------------------------------------------------


def on_pre_build(config: Any) -> None:
    write_commands()


def on_files(files: Any, config: Any) -> Any:
    """Add the READMEs, which lie outside this folder, as pages."""
    from mkdocs.structure.files import File

    for source, page in READMES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links between pages and READMEs, right in the repository, into links of the site."""
    readmes = {page: source for source, page in READMES.items()}
    folder = Path(readmes.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent
    return re.sub(r"(?<=\]\()[^)#:\s]+(?=[)#])", lambda link: _target(link[0], folder), markdown)


def _target(link: str, folder: Path) -> str:
    """A link out of a file in that folder of the repository, as one out of a page of the site."""
    place = (ROOT / folder / link).resolve()
    if not place.exists():
        return link
    name = place.relative_to(ROOT).as_posix()
    return READMES.get(name, name.removeprefix("docs/"))


def on_config(config: Any) -> Any:
    config.markdown_extensions.append(_interrupting_lists())
    return config


def _interrupting_lists() -> Any:
    """Let a list follow a line of text at once, as it may in the repository's Markdown and in docstrings."""
    from markdown.extensions import Extension
    from markdown.preprocessors import Preprocessor

    class BlankLine(Preprocessor):
        def run(self, lines: list[str]) -> list[str]:
            return re.sub(r"^([^\s-].*)\n(?=- )", r"\1\n\n", "\n".join(lines), flags=re.MULTILINE).split("\n")

    class Lists(Extension):
        def extendMarkdown(self, md: Any) -> None:  # noqa: N802 - its name in the library
            md.preprocessors.register(BlankLine(md), "lists", 20)

    return Lists()


def write_commands() -> None:
    page = ROOT / "docs" / "commands.md"
    text = commands_page()
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_commands()
