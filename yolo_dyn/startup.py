"""The start-up hook: when `ultralytics.nn.tasks` is first imported, integrate. Standard library only.

`ultralytics.cfg` comes before it in the stock command, which checks its arguments there: it is told of ours at once.

`yolo_dyn.pth` imports this package at interpreter start, so that the stock `yolo` command and its worker processes
know our layers; Python 3.15 and later read `yolo_dyn.start` in its place, which names `install`. Where neither is read
(`pip install --target`, PYTHONPATH, frozen programs), `import yolo_dyn` does the same. The environment variable
YOLO_DYN_AUTOREGISTER=0 turns all of it off: `yolo-dyn train ...` and `yolo_dyn.integrate()` remain.
"""

import os
import sys

TARGET = "ultralytics.nn.tasks"
CFG = "ultralytics.cfg"


class IntegrateOnImport:
    """A finder that lets the other finders find the two modules, and integrates after each has been executed."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in (TARGET, CFG):
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        if fullname == TARGET:
            sys.meta_path.remove(self)
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            _integrate(fullname)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Integrate now what is imported already, else when it will be. Calling it again changes nothing."""
    if os.environ.get("YOLO_DYN_AUTOREGISTER") == "0":
        return
    if TARGET in sys.modules:
        _integrate(TARGET)
        return
    if CFG in sys.modules:
        _integrate(CFG)
    if not any(isinstance(finder, IntegrateOnImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, IntegrateOnImport())


def _integrate(module: str) -> None:
    ours = sys.modules.get("yolo_dyn.integration")
    if ours is not None and not hasattr(ours, "accept_arguments"):  # it is half imported, and calls these at its end
        vars(ours).setdefault("postponed", []).append(lambda: _integrate(module))
        return
    try:
        from yolo_dyn.integration import accept_arguments, integrate

        if module == TARGET:
            integrate()
        else:
            accept_arguments()
    except Exception as error:  # nothing of ours may keep Ultralytics from being imported
        import warnings

        warnings.warn(f"yolo-dyn's layers cannot be used here: {type(error).__name__}: {error}", stacklevel=2)
