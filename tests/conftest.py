"""What the tests share: real photos where there are any, a tiny data set, and commands in processes of their own."""

import functools
import gc
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdist.scheduler import LoadScopeScheduling

# Before Ultralytics is first imported, and seen by child processes: own settings, and nothing from the network.
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="yolo-dyn-tests-")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ["CI"] = "true"  # OpenVINO sends telemetry otherwise, by forking the process that imported it

import forked
from helpers import BUNDLED, photos_folder, save


class Scheduler(LoadScopeScheduling):
    """Which tests are run in one process, since they share fixtures: those of a file.

    Those of one bundled model share no more than its network, and are so many that they would be the last to end. The
    files test_acceptance_*.py share trained models.
    """

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        model = re.search(r"\[([\w-]+\.yaml)", test)
        apart = model and model[1] in BUNDLED
        return "test_acceptance_" if "test_acceptance_" in file else f"{file} {model[1]}" if apart else file


LONGEST = (  # begun first, so that none of them is the last to end, alone
    "test_acceptance",
    "test_sweep",
    "test_export",
    "test_startup",
    "test_commands",
    "test_trained",
    "test_layers",
    "test_torchvision",
    "test_deploy",
    "test_studies",
    "test_evaluate",
    "test_fuzz",
    "test_study_tables",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((i for i, name in enumerate(LONGEST) if item.path.name.startswith(name)), len(LONGEST))

    items.sort(key=place)
    for item in items:
        if item.get_closest_marker("accept"):
            item.add_marker(pytest.mark.timeout(7200))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    config.option.loadscopereorder = False  # by the number of tests, which says little about their time
    return Scheduler(config, log)


def pytest_runtest_setup() -> None:
    """Every test draws the same numbers in every run, alone and among others: so do its fixtures, and so does it."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


pytest_runtest_call = pytest_runtest_setup


@pytest.fixture(scope="module", autouse=True)
def _settled() -> None:
    """What is imported and built by now is looked through for garbage once, not again in every training of a file."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photos: bccd, voc20 and coco-tiny, each with a data.yaml."""
    return photos_folder(os.environ.get("YOLO_DYN_DATA"))


@pytest.fixture
def same_layers() -> Iterator[None]:
    """Layers that a test registers, or lets packages declare, are forgotten after it."""
    from yolo_dyn import registry

    before = registry.names()
    yield
    for name in set(registry.names()).difference(before):
        registry.unregister(name)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What Ultralytics logs during a test."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ultralytics")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The data YAML of 16 + 4 images of the embedded data set."""
    import cv2

    from yolo_dyn.data import shapes

    folder = tmp_path_factory.mktemp("tiny")
    for split, count in (("train", 16), ("val", 4)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(count):
            image, rows = shapes.draw_image(split, index)
            cv2.imwrite(str(folder / "images" / split / f"{index}.bmp"), image)
            (folder / "labels" / split / f"{index}.txt").write_text("\n".join(rows))
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(shapes.NAMES))
    (folder / "tiny.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return folder / "tiny.yaml"


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """Folders by class, as Ultralytics takes them: reddish and bluish squares."""
    import cv2

    folder, generator = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name, channel in (("blue", 0), ("red", 2)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                image = generator.integers(0, 100, (40, 32, 3), np.uint8)
                image[..., channel] += 150
                cv2.imwrite(str(folder / split / name / f"{i}.png"), image)
    return folder


@pytest.fixture(scope="session")
def command(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """Run an installed command, `yolo` or `yolo-dyn` or `python`, in a process of its own and a given folder.

    That process has imported Ultralytics already, unless it is to be fresh or has variables of its own.
    """
    folder = tmp_path_factory.mktemp("printed")

    def run(
        *words: str, cwd: Path, ok: bool = True, fresh: bool = False, **environment: str
    ) -> subprocess.CompletedProcess:
        if not (fresh or environment or words[0] == "python"):
            done = forked.run(list(words), cwd, folder)
        else:
            program = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
            surroundings = {**os.environ, **environment}
            done = subprocess.run(program, cwd=cwd, env=surroundings, capture_output=True, text=True)
        if ok:
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run


@pytest.fixture(scope="session")
def blood_cells(photos, tmp_path_factory, command) -> Callable[[str], Path]:
    """Train a model for some ten minutes on blood cells, once; the checkpoint."""

    @functools.cache
    def train(model: str) -> Path:
        folder = tmp_path_factory.mktemp("bccd")
        words = [f"data={photos / 'bccd' / 'data.yaml'}", "imgsz=320", "epochs=30", "batch=16", "seed=0", "device=cpu"]
        words += ["val=False", "plots=False", f"project={folder}", "name=run", "close_mosaic=5"]
        command("yolo", "train", f"model={model}", *words, cwd=folder)
        return folder / "run" / "weights" / "best.pt"

    return train


@pytest.fixture(scope="session")
def random_detector() -> Callable[..., Any]:
    """Build a network that finds something without training: random, with calibrated normalisation and wide scores."""
    import torch
    from ultralytics.nn import tasks

    from yolo_dyn.data import shapes
    from yolo_dyn.integration import integrate

    integrate()
    drawn = np.stack([shapes.draw_image("val", i)[0] for i in range(8)])

    def build(yaml: str, names: dict[int, str], seed: int = 0, **options: Any) -> tasks.DetectionModel:
        torch.manual_seed(seed)
        kinds = {"-seg": tasks.SegmentationModel, "-pose": tasks.PoseModel, "-obb": tasks.OBBModel}
        kind = next((kind for part, kind in kinds.items() if part in yaml), tasks.DetectionModel)
        model = kind(yaml, nc=len(names), verbose=False, **options)
        model.names = names
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # statistics of these images, not a moving average
                module.reset_running_stats()  # before 8.3.147 building a model counts as a batch
        with torch.no_grad():
            model.train()(torch.from_numpy(drawn).permute(0, 3, 1, 2) / 255)
        for scores in model.model[-1].cv3:
            scores[-1].weight.data *= 3
            scores[-1].bias.data.fill_(-4)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def detectors(random_detector, tmp_path_factory) -> Path:
    """Ten images of several sizes with labels (data.yaml), and detectors that find something in them (a.pt, b.pt).

    Training would take minutes. What a.pt, a random network, finds in the clean images, moved a little, is the ground
    truth. So a.pt scores well, b.pt, a.pt with other weights mixed in, less, and noise spoils both.
    """
    import cv2
    import torch
    from ultralytics import YOLO

    from yolo_dyn.data import shapes
    from yolo_dyn.data.images import evaluation_set
    from yolo_dyn.robustness.corrupter import Corrupter
    from yolo_dyn.robustness.evaluate import Settings, detect

    folder = tmp_path_factory.mktemp("detectors")
    images, labels = folder / "images" / "val", folder / "labels" / "val"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    sizes = [(192, 192), (160, 200), (231, 173), (100, 192), (256, 256)] * 2
    for index, (height, width) in enumerate(sizes):
        drawn = cv2.resize(shapes.draw_image("val", index)[0], (width, height))
        cv2.imwrite(str(images / f"{index}.png"), drawn)
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(shapes.NAMES))
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/val\nval: images/val\nnames:\n{names}")

    model, other = (random_detector("yolov8n-sgdm.yaml", dict(enumerate(shapes.NAMES)), seed) for seed in (0, 1))
    wrapper = YOLO("yolov8n-sgdm.yaml")
    wrapper.model = model
    save(wrapper, folder / "a.pt")
    first, second = model.state_dict(), other.state_dict()
    model.load_state_dict(
        {key: torch.lerp(a, second[key], 0.08) if a.is_floating_point() else a for key, a in first.items()}
    )
    save(wrapper, folder / "b.pt")

    unlabelled = evaluation_set(str(folder / "data.yaml"))
    found = detect(str(folder / "a.pt"), unlabelled, Corrupter(None), Settings(imgsz=192, conf=0.05)).found
    best = found[np.argsort(-found[:, 5])[:60]]
    best[:, 1:5] *= np.random.default_rng(0).uniform(0.94, 1.06, (len(best), 4))
    for i, (file, entry) in enumerate(zip(unlabelled.files, unlabelled.coco["images"], strict=True)):
        left, top, width, height = (best[best[:, 0] == i, 1:5] / ([entry["width"], entry["height"]] * 2)).T
        rows = np.column_stack([best[best[:, 0] == i, 6], left + width / 2, top + height / 2, width, height])
        rows[:, 1:] = rows[:, 1:].clip(0, 1)
        (labels / f"{file.stem}.txt").write_text("".join(f"{int(c)} {x} {y} {w} {h}\n" for c, x, y, w, h in rows))
    return folder
