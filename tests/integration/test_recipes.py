"""Recipes for `cfg=`: the stock trainer takes them, and keeps to our arguments in them, also after a resume."""

import math
from types import SimpleNamespace

import pytest
import torch
import yaml
from helpers import ROOT
from torch.nn.modules.module import register_module_forward_pre_hook
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn import tasks
from ultralytics.utils.torch_utils import ModelEMA

from yolo_dyn import YoloDynError, layers
from yolo_dyn.integration.recipes import ARGUMENTS, factor_at, on_train_epoch_start, rescaled

RECIPES = sorted((ROOT / "datasets" / "recipes").glob("*.yaml"))
SMALL = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[-1, 1, "Classify", ["nc"]]]}
DMF = {
    "nc": 2,
    "backbone": [
        [-1, 1, "DMFStem", [6]],
        [0, 1, "GlobalTokens", [2, 16]],
        [[0, 1], 1, "Former", [2]],
        [[0, 2], 1, "DMFBlock", [6, 6]],
    ],
    "head": [[-1, 1, "Classifier", ["nc"]]],
}


def train(folder, data, d=SMALL, stop_after=None, **arguments):
    """Train a few epochs on the drawn images; return the learning rates of each batch, by epoch."""
    file, rates = folder / "small-cls.yaml", {}
    file.write_text(yaml.safe_dump(d))

    def note(trainer):
        rates.setdefault(trainer.epoch, []).append([group["lr"] for group in trainer.optimizer.param_groups])

    def stop(trainer):
        if trainer.epoch == stop_after:
            raise KeyboardInterrupt

    resume = arguments.pop("resume", False)
    model = YOLO(folder / "run" / "weights" / "last.pt" if resume else file)
    model.add_callback("on_train_batch_end", note)
    model.add_callback("on_model_save", stop)
    words = {"data": str(data), "imgsz": 32, "batch": 8, "nbs": 8, "workers": 0, "plots": False, "val": False}
    words |= {"optimizer": "SGD", "lr0": 0.1, "warmup_epochs": 0, "project": str(folder), "name": "run"}
    if stop_after is None:
        model.train(**({"resume": True} if resume else words | arguments))
    else:
        with pytest.raises(KeyboardInterrupt):
            model.train(**(words | arguments))
    return model, rates


def flat(rates):
    """The one learning rate that all groups and batches of each epoch have."""
    assert all(len({rate for batch in batches for rate in batch}) == 1 for batches in rates.values()), rates
    return {epoch: batches[0][0] for epoch, batches in rates.items()}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_the_stock_trainer_takes_every_recipe(recipe):
    """Unknown keys and wrong types raise."""
    given = yaml.safe_load(recipe.read_text())
    found = get_cfg(overrides=given)
    assert all(getattr(found, key) == value for key, value in given.items())
    ours = {("SGD", 300), ("SGD", 150), ("SGD", 100), ("SGD", 70), ("AdamW", 470)}
    assert (found.optimizer, found.epochs) in ours


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("a2d2c", {0: 0.0625, 29: 0.0625, 30: 0.00625, 59: 0.00625, 60: 0.000625, 90: 0.0000625, 99: 0.0000625}),
        ("fmdconv-cifar", {0: 0.1, 29: 0.1, 30: 0.005, 60: 0.00025, 69: 0.00025}),
        ("fmdconv-imagenet", {0: 0.1, 30: 0.1 / 30, 60: 0.1 / 900, 90: 0.1 / 27000, 99: 0.1 / 27000}),
    ],
)
def test_the_steps_are_the_papers(recipe, expected):
    given = yaml.safe_load((ROOT / "datasets" / "recipes" / f"{recipe}.yaml").read_text())
    found = {epoch: given["lr0"] * factor_at(given["lr_steps"], epoch) for epoch in expected}
    assert found == pytest.approx(expected, rel=1e-5)


def test_steps_through_a_resumed_run(colours, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 6\nlr_steps: {2: 0.5, 4: 0.1}\n")
    _, first = train(tmp_path, colours, stop_after=2, cfg=str(recipe))
    last = tmp_path / "run" / "weights" / "last.pt"
    assert torch.load(last, weights_only=False)["train_args"]["lr_steps"] == {2: 0.5, 4: 0.1}
    _, second = train(tmp_path, colours, resume=True)
    assert (list(first), list(second)) == ([0, 1, 2], [3, 4, 5])
    assert flat(first | second) == pytest.approx({0: 0.1, 1: 0.1, 2: 0.05, 3: 0.05, 4: 0.005, 5: 0.005})
    assert yaml.safe_load((tmp_path / "run" / "args.yaml").read_text())["lr_steps"] == {2: 0.5, 4: 0.1}
    YOLO(last).val(data=str(colours), imgsz=32, workers=0, plots=False)


def test_the_warm_up_is_the_stock_trainers(colours, tmp_path):
    words = {"epochs": 2, "warmup_epochs": 1}
    _, stock = train(tmp_path, colours, lrf=1.0, **words)  # the rate stays
    _, ours = train(tmp_path, colours, lr_steps={2: 0.5}, **words)
    assert len({rate for batch in stock[0] for rate in batch}) > 1
    assert ours == stock


def test_a_training_without_our_arguments_is_untouched(colours, tmp_path):
    model, rates = train(tmp_path, colours, epochs=3, lrf=0.1)
    assert flat(rates) == pytest.approx({0: 0.1, 1: 0.07, 2: 0.04})
    assert not set(ARGUMENTS) & set(yaml.safe_load((tmp_path / "run" / "args.yaml").read_text()))
    assert "engine.trainer" in model.trainer.lf.__module__
    assert model.trainer.ema.decay(2000) == pytest.approx(0.9999 * (1 - math.exp(-1)))
    assert model.trainer.preprocess_batch.__name__ == "preprocess_batch"


def test_stochastic_depth_through_a_resumed_run(colours, tmp_path):
    model, _ = train(tmp_path, colours, DMF, stop_after=0, epochs=2, drop_path=0.2)
    for net in (model, train(tmp_path, colours, resume=True)[0]):
        found = [m.drop_path for m in net.trainer.model.modules() if isinstance(m, layers.Former | layers.DMFBlock)]
        assert found == [0, 0.2]


def test_stochastic_depth_of_a_model_that_has_none(colours, tmp_path):
    with pytest.raises(YoloDynError, match=r"drop_path=0.1: no layer of .*small-cls.yaml has stochastic depth"):
        train(tmp_path, colours, epochs=1, drop_path=0.1)


@pytest.mark.parametrize("decay", [0.9995, 0.9])
def test_the_average_of_the_weights_through_a_resumed_run(decay, colours, tmp_path):
    """It rises to the limit as the stock one does to its own."""
    model, _ = train(tmp_path, colours, stop_after=0, epochs=3, ema_decay=decay)
    for net in (model, train(tmp_path, colours, resume=True)[0]):
        ema = net.trainer.ema
        assert [ema.decay(n) for n in (2000, 10**9)] == pytest.approx([decay * (1 - math.exp(-1)), decay])
    assert ema.updates == 3 * 2  # 16 images in batches of 8


def test_an_epoch_that_starts_anew_is_wrapped_once(monkeypatch):
    """The stock trainer does so when memory runs out, and with a new average of the weights when numbers are lost."""
    monkeypatch.setattr("yolo_dyn.integration.recipes.random.choice", max)
    args = SimpleNamespace(task="classify", ema_decay=0.5, image_sizes=[32, 64])
    trainer = SimpleNamespace(args=args, ema=ModelEMA(torch.nn.Linear(1, 1)), preprocess_batch=lambda batch: batch)
    for _ in range(3):
        on_train_epoch_start(trainer)
    assert trainer.preprocess_batch.args[0].__name__ == trainer.ema.decay.args[0].__name__ == "<lambda>"
    trainer.ema = ModelEMA(torch.nn.Linear(1, 1))
    on_train_epoch_start(trainer)
    assert trainer.ema.decay(10**9) == pytest.approx(0.5)
    assert trainer.preprocess_batch({"img": torch.rand(1, 3, 40, 32)})["img"].shape == (1, 3, 64, 64)


def test_sizes_of_batches(colours, tmp_path):
    """Of training alone, also after a resume: a validation sees imgsz."""
    seen = set()

    def note(module, x):
        if getattr(module, "i", None) == 0:
            seen.add((module.training, *x[0].shape[2:]))

    handle = register_module_forward_pre_hook(note)
    try:
        first = {"stop_after": 1, "epochs": 4, "batch": 2, "image_sizes": [64, 96], "val": True}
        for words in (first, {"resume": True}):
            train(tmp_path, colours, **words)
            assert seen >= {(True, 64, 64), (True, 96, 96), (False, 32, 32)}
            assert not {(False, 64, 64), (False, 96, 96)} & seen
            seen.clear()
    finally:
        handle.remove()
    assert yaml.safe_load((tmp_path / "run" / "args.yaml").read_text())["image_sizes"] == [64, 96]


def test_a_rescaled_batch_is_what_the_stock_trainer_prepared():
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(rescaled(dict, [32], {"img": images, "cls": 1})["img"], images)
    smooth = torch.linspace(0, 1, 32).expand(2, 3, 32, 32)
    smaller = rescaled(dict, [16], {"img": smooth})["img"]
    assert smaller.shape == (2, 3, 16, 16)
    assert torch.allclose(smaller[..., 1:-1], smooth.reshape(2, 3, 32, 16, 2).mean(-1)[:, :, ::2, 1:-1], atol=1e-6)


def test_sizes_for_a_detector_are_refused(tiny, tmp_path):
    words = {"data": str(tiny), "imgsz": 64, "epochs": 1, "workers": 0, "plots": False, "project": str(tmp_path)}
    with pytest.raises(YoloDynError, match=r"image_sizes=\[32, 64\] is for classifiers: detectors have .* multi_scale"):
        YOLO("yolov8n.yaml").train(**words, image_sizes=[32, 64])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(
            (
                {"lr_steps": steps},
                r"lr_steps \(cfg=my.yaml\) must map epochs of at least 1 to factors above 0, .*, got ",
            )
            for steps in ({}, [30, 60], 30, "30", {-1: 0.1}, {0: 0.1}, {"30": 0.1}, {30.0: 0.1}, {30: "0.1"}, {30: 0})
        ),
        ({"lr_steps": {30: -0.1}}, r"got {30: -0.1}"),
        ({"lr_steps": {30: True}}, r"got {30: True}"),
        ({"lr_steps": {30: float("inf")}}, r"got {30: inf}"),
        ({"lr_steps": {30: 0.1}, "cos_lr": True}, r"lr_steps \(cfg=my.yaml\) and cos_lr exclude each other: set lr_st"),
        ({"drop_path": 1.0}, r"drop_path must lie in \[0, 1\), got 1.0 \(cfg=my.yaml\)"),
        ({"ema_decay": 1.0}, r"ema_decay \(cfg=my.yaml\) must lie between 0 and 1, got 1.0"),
        ({"ema_decay": "a"}, r"must lie between 0 and 1, got 'a'"),
        *(
            ({"image_sizes": sizes}, r"image_sizes \(cfg=my.yaml\) must list pixels of at least 32, .*, got ")
            for sizes in ([], 224, "224", [16], [224.0], [True], {224: 1})
        ),
        ({"drop_path": "a"}, r"drop_path must lie in \[0, 1\), got 'a' \(cfg=my.yaml\)"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_with_its_file(given, message):
    with pytest.raises(YoloDynError, match=message):
        get_cfg(overrides={**given, "cfg": "my.yaml"})


def test_a_misspelt_argument_is_still_refused():
    with pytest.raises(SyntaxError, match=r"lr_step.* is not a valid YOLO argument. Similar arguments are.*'lr_steps'"):
        get_cfg(overrides={"lr_step": {30: 0.1}})
    with pytest.raises(YoloDynError, match=r"lr_steps must map"):
        get_cfg(overrides={"lr_steps": []})
    assert get_cfg(overrides={"lr_steps": None}).lr_steps is None


def test_the_stock_command_takes_a_recipe_and_a_width_in_an_empty_folder(colours, tmp_path, command):
    recipe = ROOT / "datasets" / "recipes" / "fmdconv-cifar.yaml"
    words = [
        f"cfg={recipe}",
        f"data={colours}",
        "epochs=1",
        "batch=8",
        "plots=False",
        "device=cpu",
        "deterministic=False",
    ]
    words += [f"project={tmp_path}", "name=run", "model=mobilenetv2-x0.5-odconv-cls.yaml"]
    command("yolo", "classify", "train", *words, cwd=tmp_path)
    assert yaml.safe_load((tmp_path / "run" / "args.yaml").read_text())["lr_steps"] == {30: 0.05, 60: 0.05}
    model = YOLO(tmp_path / "run" / "weights" / "last.pt").model
    assert model.yaml["defaults"] == {"TorchvisionBackbone": {"width": 0.5}}
    assert model.model[0].layers[0][0].out_channels == 16  # half of 32
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("lr_steps: [30, 60]\n")
    done = command("yolo", "classify", "train", f"cfg={wrong}", "model=x.yaml", cwd=tmp_path, ok=False, fresh=True)
    assert f"yolo-dyn: error: lr_steps (cfg={wrong}) must map epochs" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenetv2-x0.75-cls.yaml", {"width": 0.75}),
        ("resnet50-cifar-dcd-cls.yaml", {"stem": "cifar"}),
        ("models_yaml/resnet18-cifar-cls.yaml", {"stem": "cifar"}),
    ],
)
def test_what_a_name_says_about_a_backbone(name, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    d = tasks.yaml_model_load(name)
    assert d["defaults"] == {"TorchvisionBackbone": options}
    assert d["yaml_file"].endswith(name)


def test_a_file_of_that_very_name_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet18-cifar-cls.yaml").write_text((ROOT / "models_yaml" / "resnet18-cls.yaml").read_text())
    assert "defaults" not in tasks.yaml_model_load("resnet18-cifar-cls.yaml")
