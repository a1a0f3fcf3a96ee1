"""The start-up hook: when `ultralytics.nn.tasks` is first imported, integrate. Standard library only.

`yolo_dyn.pth` imports this package at interpreter start, so that the stock `yolo` command and its worker processes
know our layers. Where `.pth` files are not read (`pip install --target`, PYTHONPATH, frozen programs), `import
yolo_dyn` does the same. The environment variable YOLO_DYN_AUTOREGISTER=0 turns both off.
"""

import os
import sys

TARGET = "ultralytics.nn.tasks"


class IntegrateOnImport:
    """A finder that lets the other finders find the target, and integrates after the target has been executed."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != TARGET:
            return None
        sys.meta_path.remove(self)
        specs = (finder.find_spec(fullname, path, target) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            _integrate()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Integrate now where the target is imported already, else when it will be. Calling it again changes nothing."""
    if os.environ.get("YOLO_DYN_AUTOREGISTER") == "0":
        return
    if TARGET in sys.modules:
        _integrate()
    elif not any(isinstance(finder, IntegrateOnImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, IntegrateOnImport())


def _integrate() -> None:
    from yolo_dyn.integration import integrate

    integrate()
