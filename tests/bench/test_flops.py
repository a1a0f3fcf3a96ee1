"""Multiply-adds counted from shapes, against numbers worked out by hand, and against torch's own counter."""

import pytest
import torch
import torch.nn.functional as F
from helpers import torch_older
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from yolo_dyn.bench.flops import MultiplyAdds, counted_by_row
from yolo_dyn.integration.api import load_model

IMAGE = torch.zeros(2, 4, 6, 5)
CASES = {
    "convolution": (lambda: F.conv2d(IMAGE, torch.zeros(8, 4, 3, 3), padding=1), 2 * 8 * 30 * 4 * 9),
    "stride and groups": (
        lambda: F.conv2d(IMAGE, torch.zeros(8, 2, 3, 3), stride=2, padding=1, groups=2),
        2 * 8 * 9 * 2 * 9,
    ),
    "transposed": (lambda: F.conv_transpose2d(IMAGE, torch.zeros(4, 3, 2, 2), stride=2), 2 * 4 * 30 * 3 * 4),
    "one dimension": (lambda: F.conv1d(IMAGE[0], torch.zeros(8, 6, 3)), 4 * 8 * 3 * 6 * 3),
    "linear": (lambda: nn.Linear(5, 7)(IMAGE), 2 * 4 * 6 * 5 * 7),
    "linear without a bias": (lambda: nn.Linear(5, 7, bias=False)(IMAGE), 2 * 4 * 6 * 5 * 7),
    "batched product": (lambda: IMAGE @ IMAGE.transpose(2, 3), 2 * 4 * 6 * 6 * 5),
    "einsum": (lambda: torch.einsum("bchw,bkhw->bck", IMAGE, IMAGE), 2 * 4 * 4 * 30),
    "matrix and vector": (lambda: torch.zeros(3, 5) @ torch.zeros(5), 15),
    "attention": (
        lambda: F.scaled_dot_product_attention(IMAGE, torch.zeros(2, 4, 7, 5), torch.zeros(2, 4, 7, 5)),
        2 * 4 * 6 * 7 * (5 + 5),
    ),
    "everything else": (lambda: F.batch_norm(IMAGE, torch.zeros(4), torch.ones(4)).relu().mean(), 0),
}
BESIDES = {
    "batch norm": (lambda: nn.BatchNorm2d(4).eval()(IMAGE), 2 * IMAGE.numel()),
    "layer norm": (lambda: nn.LayerNorm(5)(IMAGE), 5 * IMAGE.numel()),
    "group norm": (lambda: nn.GroupNorm(1, 4)(IMAGE), 5 * IMAGE.numel()),
    "mean": (lambda: IMAGE.mean((2, 3)), IMAGE.numel()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_products_are_counted_by_hand(name, device):
    run, expected = CASES[name]
    with torch.device(device), torch.no_grad(), MultiplyAdds() as counter:
        run() if device == "cpu" else _on_meta(run)
    assert counter.total == expected


def _on_meta(run) -> None:
    global IMAGE
    kept, IMAGE = IMAGE, IMAGE.to("meta")
    try:
        run()
    finally:
        IMAGE = kept


@pytest.mark.parametrize("name", BESIDES)
def test_norms_and_means_are_counted_where_that_is_asked(name):
    run, expected = BESIDES[name]
    for besides, count in ((True, expected), (False, 0)):
        with torch.no_grad(), MultiplyAdds(besides) as counter:
            run()
        assert counter.total == count


@pytest.mark.parametrize("name", ["yolov8n-sgdm.yaml", "yolo12n.yaml"])
def test_rows_add_up_to_the_whole_and_agree_with_torchs_counter(name):
    model, image = load_model(name).eval(), torch.zeros(1, 3, 64, 64)
    with torch.no_grad(), counted_by_row(model.model) as rows:
        model(image)
    by_row = {"mods": model} if torch_older("2.4") else {}
    with torch.no_grad(), FlopCounterMode(**by_row, display=False) as theirs:
        model(image)
    counts = theirs.get_flop_counts()
    ours = {f"{type(model).__name__}.model.{i}": 2 * count for i, count in enumerate(rows)}
    assert ours == {name: sum(counts.get(name, {}).values()) for name in ours}
    assert not any(row._forward_hooks or row._forward_pre_hooks for row in model.model)
