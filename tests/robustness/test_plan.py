"""What a sweep takes: conditions by name, group and severity, and keys that a changed definition changes."""

import numpy as np
import pytest

from yolo_dyn import YoloDynError
from yolo_dyn.data.images import EvaluationSet
from yolo_dyn.output.files import write_json
from yolo_dyn.robustness.cells import Cell, changed
from yolo_dyn.robustness.corrupter import Corrupter
from yolo_dyn.robustness.corruptions import CORRUPTIONS, GROUPS, SIGMA, Corruption, cameras, corrupt, frost
from yolo_dyn.robustness.corruptions.benchmark import Benchmark
from yolo_dyn.robustness.evaluate import Settings
from yolo_dyn.robustness.plan import Plan, chosen_conditions
from yolo_dyn.robustness.records import CellRecord, Condition


@pytest.fixture(autouse=True)
def without_textures(monkeypatch):
    monkeypatch.delenv(frost.VARIABLE, raising=False)


def keys(conditions: list[Condition], seed: int = 0) -> list[str]:
    """What of each condition is part of a cell's identity."""
    images = EvaluationSet("x.yaml", "val", {}, 3, [], {}, "", {}, [], True, "")
    plan = Plan({"a": __file__}, conditions, Settings(), seed)
    return [cell.identity["corruption"] for cell in plan.cells(images, "")]


def test_a_group_stands_for_its_corruptions_at_all_severities():
    conditions = chosen_conditions(None, None, ["cococ"])
    assert len(conditions) == 1 + 15 * 5
    assert conditions[0] == Condition("clean")
    assert conditions[1:6] == [Condition("gaussian_noise", s, s) for s in (1, 2, 3, 4, 5)]
    names = list(dict.fromkeys(c.corruption for c in conditions[1:]))
    assert names == ["frost_procedural" if name == "frost" else name for name in GROUPS["cococ"]]
    assert len(chosen_conditions(None, [3], ["cococ-extra"])) == 1 + 19
    assert len(chosen_conditions(None, [1, 5], ["noise", "shot_noise", "digital"])) == 1 + 2 * 7
    assert [c.corruption for c in chosen_conditions(None, [1], ["frost"])] == ["clean", "frost_procedural"]


def test_gaussian_noise_by_sigma_and_by_severity_are_two_things():
    by_sigma, by_severity = Condition("gaussian_noise", 3.0), Condition("gaussian_noise", 3, 3)
    image = np.full((40, 40, 3), 128, np.uint8)
    assert Corrupter.of(by_sigma, 0).corruption is SIGMA
    assert np.array_equal(Corrupter.of(by_sigma, 0)(image, "a"), corrupt(image, sigma=3, name="a"))
    assert np.array_equal(Corrupter.of(by_severity, 0)(image, "a"), corrupt(image, severity=3, name="a"))
    assert len(set(keys([by_sigma, by_severity]))) == 2
    assert (by_sigma.sigma, by_severity.sigma) == (3, None)


def test_cells_of_sigma_keep_their_keys():
    """Of results from before the benchmark's own Gaussian noise."""
    assert keys(chosen_conditions([25.0], None, None)) == ["clean", "gaussian_noise 25 41b9ee797ba82d1f"]


def test_each_severity_of_each_corruption_has_a_key_of_its_own():
    found = keys(chosen_conditions(None, None, ["cococ-extra"]))
    assert len(set(found)) == len(found)


def test_a_changed_definition_changes_the_key(monkeypatch):
    conditions = chosen_conditions(None, [2], ["fog"])
    before = keys(conditions)
    thinner = Benchmark("fog", CORRUPTIONS["fog"].function.rgb, ((1.5, 2),) * 5)
    monkeypatch.setitem(CORRUPTIONS, "fog", Corruption("fog", thinner, (1, 2, 3, 4, 5), "severity"))
    assert keys(conditions)[0] == before[0]
    assert keys(conditions)[1] != before[1]


def test_cells_of_an_earlier_definition_are_reported(tmp_path):
    """Severity 1 of fog was a strength of 0.2 once."""
    record = CellRecord(
        condition=Condition("fog", 0.2, 1),
        seed=0,
        images=1,
        skipped=0,
        detections=0,
        scores={},
        per_class={},
        intervals={},
        ultralytics={},
        model="a",
        path="a.pt",
        weights="0",
        milliseconds={},
        pixels={},
        seconds=1.0,
        identity={"corruption": "fog 0.2 0123456789abcdef"},
    )
    write_json(tmp_path / "a_fog_0.2_0.json", record.as_dict())
    now = [Cell("a.pt", "a", c, {"corruption": f"{c} new"}) for c in chosen_conditions(None, [1, 2], ["fog"])]
    assert changed(tmp_path, now) == ["1 finished cells here are of other corruption and are left aside"]


def test_other_textures_change_the_key_of_frost(tmp_path, monkeypatch):
    import cv2

    drawn = keys(chosen_conditions(None, [2], ["frost"]))[1]
    found = []
    for level in (100, 101):
        folder = tmp_path / str(level)
        folder.mkdir()
        for number in range(1, 7):  # the sixth alone is another, which no image gets
            cv2.imwrite(
                str(folder / f"frost{number}.png"), np.full((40, 50, 3), level if number == 6 else 90, np.uint8)
            )
        monkeypatch.setenv(frost.VARIABLE, str(folder))
        conditions = chosen_conditions(None, [2], ["frost"])
        assert conditions[1] == Condition("frost", 2, 2)
        found.append(keys(conditions)[1])
    assert len({drawn, *found}) == 3
    assert all(key.startswith("frost 2 ") and " textures " in key for key in found)


def test_what_a_camera_file_says_is_part_of_the_key(tmp_path):
    """Not where it lies, nor how it is written."""
    texts = ("a: 0.005\nb: 0.0001", "b: 1.0e-4\na: 0.005  # the same", "a: 0.005\nb: 0.00010000001")
    found, cells = [], []
    for number, text in enumerate(texts):
        file = tmp_path / f"camera{number}.yaml"
        file.write_text(text)
        conditions = chosen_conditions(None, [2], [f"sensor_noise:{file}"])
        assert conditions[1] == Condition(f"sensor_noise:{file}", 2.0, 2)
        found.append(keys(conditions)[1])
        cells.append(Cell("a.pt", "a", conditions[1], {"corruption": found[-1]}).name)
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found[0].startswith("sensor_noise 2 ")
    assert " camera " in found[0]
    assert cells[0].startswith("a_sensor_noise-camera0.yaml_2_")
    assert found[0] != keys(chosen_conditions(None, [2], ["sensor_noise"]))[1]


def test_sensors_and_codecs_have_groups_of_their_own():
    conditions = chosen_conditions(None, [1, 5], ["sensor", "codec"])
    names = ["sensor_noise", "low_light", "sensor_noise_phone", "sensor_noise_full_frame", "jpeg_chain", "h264_like"]
    assert [c.corruption for c in conditions[1::2]] == names
    assert not set(names) & set(GROUPS["cococ-extra"])
    found = keys(conditions)
    assert len(set(found)) == len(found)


def test_another_strength_of_a_severity_changes_the_key_of_sensor_noise(monkeypatch):
    conditions = chosen_conditions(None, [2], ["sensor_noise"])
    before = keys(conditions)
    monkeypatch.setattr(cameras, "SHOT", (6e-4, 1.9e-3, 5e-3, 1.2e-2, 2.2e-2))
    assert keys(conditions)[1] != before[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, [0], ["cococ"]), "severity must be one of 1, 2, 3, 4, 5, got 0"),
        ((None, [6], ["fog"]), "severity must be one of 1, 2, 3, 4, 5, got 6"),
        ((None, [3], ["blurr"]), r"unknown corruption 'blurr'; did you mean 'blur'\?"),
        (([25.0], None, ["cococ"]), "sigma is the strength of gaussian_noise; other corruptions take severity"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(YoloDynError, match=message):
        chosen_conditions(*arguments)
