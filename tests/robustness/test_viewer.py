"""The page of a sweep: its data are those of the sweep, and a browser does what its controls promise."""

import base64
import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from reference_scores import simulated

from yolo_dyn.data import shapes
from yolo_dyn.robustness import report, viewer
from yolo_dyn.robustness.cells import load_found
from yolo_dyn.robustness.corruptions import GROUPS
from yolo_dyn.robustness.pictures import FALSE_ALARM, IGNORED, judge
from yolo_dyn.robustness.score import score
from yolo_dyn.robustness.sweep import robustness

FAST = {"imgsz": 192, "batch": 5, "device": "cpu", "threads": 1, "resamples": 50}
KEYS = ("image_id", "category_id", "bbox", "score")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def sweep(detectors, tmp_path_factory):
    """Two models, one of them behind a denoiser too, under two corruptions."""
    models = [str(detectors / name) for name in ("a.pt", "b.pt")]
    project = str(tmp_path_factory.mktemp("viewed"))
    words = {"severity": [3, 5], "corruption": ["gaussian_noise", "contrast"], "front": ["median"], "max_det": 40}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yolo_dyn.robustness.report.curves", lambda *_: None)
        patch.setattr("yolo_dyn.robustness.report.grid", lambda *_: None)
        patch.setattr("yolo_dyn.robustness.diagnosis_pictures.PICTURES", {})
        return robustness(models, str(detectors / "data.yaml"), project=project, **words, **FAST)


@pytest.fixture(scope="module")
def page(sweep) -> str:
    return (sweep.folder / "report.html").read_text()


@pytest.fixture(scope="module")
def data(page) -> dict:
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_is_one_file(page):
    assert not re.findall(r'(?:src|href)="(?!data:)|url\(|@import|fetch\(|XMLHttpRequest', page)
    assert len(page) < 10e6


def test_its_data_are_the_sweeps(sweep, data):
    assert data["models"] == sweep.models
    assert [each["name"] for each in data["conditions"]] == list(map(str, sweep.conditions))
    for model, row in zip(sweep.models, data["cells"], strict=True):
        for condition, cell in zip(sweep.conditions, row, strict=True):
            (record,) = (r for r in sweep.records if (r.model, r.condition) == (model, condition))
            assert cell["AP"] == pytest.approx([record.scores["AP"], *record.intervals["AP"]], abs=1e-4)
            assert cell["errors"] == pytest.approx(list(record.diagnosis.errors.gains.values())[:6], abs=1e-4)
            assert np.mean(cell["precision"]) == pytest.approx(record.scores["AP50"], abs=1e-4)


def test_tiles_are_the_images_that_the_models_saw(sweep, data):
    for image in data["images"]:
        assert image["fronts"] == ["+" in model for model in data["models"]]
        assert [len(row) for row in image["tiles"]] == [len(sweep.conditions)] * 2
        assert not set(image["tiles"][0]) & set(image["tiles"][1])
        tiles = [base64.b64decode(tile.partition(",")[2]) for tile in image["tiles"][0]]
        clean, *noisy = [cv2.imdecode(np.frombuffer(tile, np.uint8), cv2.IMREAD_COLOR) for tile in tiles]
        assert clean.shape[1::-1] == tuple(image["size"])  # none of them is larger than a tile
        original = cv2.imread(str(next(f for f in sweep.images.files if f.name == image["name"])))
        assert np.abs(clean.astype(float) - original).mean() < 12  # as WebP keeps a drawing with grain
        assert all(np.abs(each.astype(float) - clean).mean() > 5 for each in noisy)


@pytest.mark.parametrize("least", [0.25, 0.6])
def test_what_is_found_follows_from_the_page_for_any_least_score(least, sweep, data):
    """A detection takes its object from none that scores better: so the page needs one matching for all thresholds."""
    cells = {(cell.label, cell.condition): cell for cell in sweep.cells}
    for image in data["images"]:
        number = [file.name for file in sweep.images.files].index(image["name"])
        objects = [o for o in sweep.images.coco["annotations"] if o["image_id"] == number]
        for model, row in zip(data["models"], image["found"], strict=True):
            for condition, told in zip(sweep.conditions, row, strict=True):
                found, _ = load_found(sweep.folder / "cells", cells[model, condition], sweep.images.kind)
                expected = judge(found[(found[:, 0] == number) & (found[:, 5] >= least)], objects)
                kept = [of for *_, thousandths, of in told if thousandths >= 1000 * least]
                taken = {*kept} - {FALSE_ALARM, IGNORED}
                assert len(kept) == len(expected.found)
                assert len(taken) == expected.hit.sum()
                assert kept.count(FALSE_ALARM) == (~expected.hit & ~expected.ignored).sum()
                assert sum(counts for *_, counts in image["objects"]) - len(taken) == len(expected.missed)


def test_as_many_images_as_there_is_room_for(sweep, monkeypatch):
    whole = json.loads(viewer.content(sweep, range(10)))
    assert len(whole["images"]) == 10
    sizes = [len(json.dumps(image, separators=(",", ":"))) for image in whole["images"]]
    for room, expected in ((sum(sizes[:3]), 3), (sum(sizes[:3]) - 1, 2), (sum(sizes), 10)):
        monkeypatch.setattr(viewer, "BYTES", room)
        assert json.loads(viewer.content(sweep, range(10)))["images"] == whole["images"][:expected]
    monkeypatch.setattr(viewer, "BYTES", 1)
    assert [image["name"] for image in json.loads(viewer.content(sweep, [7, 2]))["images"]] == ["7.png"]
    assert json.loads(viewer.content(sweep, []))["images"] == []


def test_names_cannot_leave_the_data(sweep, monkeypatch):
    monkeypatch.setitem(sweep.images.names, 0, "</script><script>alert(1)</script>")
    text = viewer.content(sweep, [0])
    assert "</script" not in text
    assert json.loads(text)["classes"][0] == "</script><script>alert(1)</script>"


# in a browser -------------------------------------------------------------------------------------------------------

EXERCISE = (Path(__file__).parent / "exercise_report.js").read_text()


def exercised(page: str, folder: Path, *flags: str, script: str = EXERCISE) -> dict:
    """What a page says in a browser after a script."""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", *flags]
    done = subprocess.run(
        [*words, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    return json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)[1]))


@pytest.mark.skipif(BROWSER is None, reason="needs a browser: chromium")
@pytest.mark.parametrize("size", ["1280,900", "500,800"])  # the narrowest that it opens by itself
def test_every_control_does_what_it_says(size, page, data, sweep, tmp_path):
    told = exercised(page, tmp_path, f"--window-size={size}")
    assert "error" not in told
    assert told["scheme"] != told["other"]
    performance = sorted((row.ap.p for row in sweep.summary), reverse=True)
    assert told["descending"] == [f"{p:.3f}" for p in performance]
    assert told["ascending"] == told["descending"][::-1]
    assert (told["charts"], told["metric"], told["hidden"]) == (2, True, True)
    record = next(r for r in sweep.records if r.model == "a" and str(r.condition) == "gaussian_noise 3")
    assert f"a {record.scores['AP50']:.3f} [" in told["said"]
    assert told["pointed"] == "gaussian_noise 5"
    for name in ("errors", "precision", "reliability"):
        assert (told[name], told[f"{name} changed"]) == (4, True)
    for (key, captions), counted in zip(told["captions"].items(), counts(data), strict=True):
        assert captions == counted, key
    assert (told["strength"], told["corruption"]) == ("gaussian_noise 5", "contrast 5")
    image = data["images"][0]
    found, missed, alarms = np.sum([verdict(image, m, 0, 0.25) for m in range(4)], 0).tolist()
    assert told["boxes"] == {"truth": 0, "found": found, "missed": missed, "alarms": alarms}
    assert told["truth"] == 4 * len(image["objects"])
    assert [told[f"without {kind}"] for kind in ("found", "missed", "alarms")] == [0, 0, 0]
    assert (told["names"], told["unnamed"]) == (told["truth"], 0)
    assert told["classes"] > 2
    assert told["again"]
    assert told["one"] != told["captions"]["0.25,0,0"]
    assert (told["after"], told["before"], told["place"]) == ("1", "0", f"1 of {len(data['images'])}")
    assert (told["large"], told["small"]) == (1, 0)
    differing = sum(differ(each, 0) for each in data["images"])
    assert told["differ"].endswith(f"of {differing}" if differing else "agree on all")
    assert not told["wider"]  # nothing makes a phone scroll sideways but what is in a box that does


@pytest.mark.accept
@pytest.mark.skipif(BROWSER is None, reason="needs a browser: chromium")
def test_all_of_the_benchmark_for_four_models_of_80_classes_stays_usable(tmp_path):
    """19 corruptions at 5 severities: under 10 MB, and neither the page nor a step of the slider makes much at once."""
    truth, rows = simulated(20, classes=80, found=60)
    images = [{**image, "file_name": f"{image['id']}.png"} for image in truth["images"]]
    (tmp_path / "truth.json").write_text(json.dumps({**truth, "images": images}))
    slugs = ["clean", *(f"{name}_severity{s}" for name in GROUPS["cococ-extra"] for s in range(1, 6))]
    rng = np.random.default_rng(0)
    for model in "abcd":
        (tmp_path / model).mkdir()
        for slug in slugs:
            kept = rows[rng.random(len(rows)) < 0.7].tolist()
            found = [dict(zip(KEYS, (int(i), int(c), box, s), strict=True)) for i, *box, s, c in kept]
            (tmp_path / model / f"{slug}.json").write_text(json.dumps(found))
    models = [str(tmp_path / model) for model in "abcd"]
    sweep = score(str(tmp_path / "truth.json"), models, resamples=20, project=str(tmp_path))
    assert len(sweep.records) == 4 * 96
    files = []
    for image in images:
        files.append(tmp_path / image["file_name"])
        drawn = cv2.resize(shapes.draw_image("val", len(files))[0], (image["width"], image["height"]))
        cv2.imwrite(str(files[-1]), drawn)
    at_hand = dataclasses.replace(sweep.images, files=files)
    sweep = dataclasses.replace(sweep, images=at_hand, settings={**sweep.settings, "seed": 0})
    page = report.html(sweep, list(range(20)))
    assert len(page) < 10e6
    script = """
const slider = document.getElementById("strength"), count = (place) => place.querySelectorAll("*").length;
let most = 0;
for (const value of [0, 1, 2, 3, 4, 5]) {
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
  most = Math.max(most, count(document.getElementById("panels")));
}
const told = {
  whole: count(document),
  step: most,
  charts: document.querySelectorAll("#curve-charts .chart").length,
  panels: document.querySelectorAll("#panels figure").length,
};
document.body.append(Object.assign(document.createElement("pre"), { id: "told", textContent: JSON.stringify(told) }));
"""
    told = exercised(page, tmp_path, "--window-size=1280,900", script=script)
    assert (told["charts"], told["panels"]) == (19, 4)
    assert told["whole"] < 60_000  # elements, in the order of what a browser lays out in a second
    assert 4 < told["step"] < 2000


def verdict(image: dict, m: int, condition: int, least: float) -> tuple[int, int, int]:
    rows = [of for *_, thousandths, of in image["found"][m][condition] if thousandths >= 1000 * least]
    taken = {of for of in rows if of >= 0}
    return len(taken), sum(counts for *_, counts in image["objects"]) - len(taken), rows.count(FALSE_ALARM)


def differ(image: dict, condition: int) -> bool:
    told = set()
    for row in image["found"]:
        rows = [of for *_, thousandths, of in row[condition] if thousandths >= 250]
        told.add((tuple(sorted(each for each in rows if each >= 0)), rows.count(FALSE_ALARM)))
    return len(told) > 1


def counts(data: dict) -> list[list[str]]:
    """The captions that EXERCISE goes through."""
    each = [(least, image, strength) for least in (0.25, 0.6) for image in (0, 1) for strength in (0, 1, 2)]
    shown = [i for i, c in enumerate(data["conditions"]) if c["corruption"] in ("clean", "gaussian_noise")]
    return [
        [
            "{} {} found, {} missed, {} false".format(model, *verdict(data["images"][image], m, shown[strength], least))
            for m, model in enumerate(data["models"])
        ]
        for least, image, strength in each
    ]
