"""All stages by one command: in their order, each shipped before the next, and resumed wherever it was cut off."""

from pathlib import Path

import pytest
import torch
from train_driver import SMALL, train_child, use_small

from minilumiere.config import STAGES
from minilumiere.training import TrainOptions, plan
from minilumiere.training.plan import plan as rows_of
from minilumiere.training.plan import train_all
from minilumiere.training.stages import get_stage
from minilumiere.weights.checkpoint import read_checkpoint
from minilumiere.weights.shipped import BUILT_ON, SHIPPED_AS, read_manifest, ship

FILES = {SHIPPED_AS.get(stage, stage) for stage in STAGES}


@pytest.fixture(autouse=True)
def weights(monkeypatch, tmp_path) -> Path:
    """`tiny` is far smaller, and nothing is shipped yet."""
    use_small(monkeypatch, tmp_path / "weights")
    monkeypatch.setattr(plan, "seconds_of", lambda options, device: 0.5)  # the timing of steps is tested in test_loop
    return tmp_path / "weights"


def options(tmp_path: Path, **more) -> TrainOptions:
    return TrainOptions(**{"stage": "judge", "steps": 2, "batch": 4, "run": tmp_path / "runs", "device": "cpu"} | more)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finished(lines: list[str]) -> list[str]:
    """The stages that were said to be finished and shipped, in order."""
    return [line.split(":")[0] for line in lines if "finished, shipped" in line]


def test_every_stage_comes_after_those_that_it_is_built_on():
    for stage, before in (BUILT_ON | SHIPPED_AS).items():
        assert STAGES.index(before) < STAGES.index(stage)


def test_all_stages_are_trained_in_order_and_shipped_and_a_second_call_does_nothing(tmp_path, weights):
    lines = list(train_all(options(tmp_path, progress=False)))
    assert lines[0].split() == ["stage", "steps", "minutes"]
    assert [line.split()[:2] for line in lines[1 : 1 + len(STAGES)]] == [[stage, "2"] for stage in STAGES], "the plan first"
    assert finished(lines) == list(STAGES)
    manifest = read_manifest(weights)
    assert set(manifest) == {f"tiny/{name}.safetensors" for name in FILES}
    assert all(entry["step"] == 2 and entry["batch"] == 4 for entry in manifest.values())
    assert manifest["tiny/base.safetensors"]["trained"] == "conditioned"
    table = lines[-len(manifest) :]
    assert [line.split()[0] for line in table] == list(manifest), "the table last"
    for stage in STAGES:
        metadata = read_checkpoint(tmp_path / "runs" / f"tiny-{stage}" / "checkpoint.safetensors")[1]
        assert (metadata["stage"], metadata["step"]) == (stage, 2)

    before = files(tmp_path)
    again = list(train_all(options(tmp_path, progress=False)))
    assert files(tmp_path) == before
    assert [line.split() for line in again[1 : 1 + len(STAGES)]] == [[stage, "done"] for stage in STAGES]
    assert finished(again) == [] and again[-len(manifest) :] == table


def test_stopped_again_and_again_it_ends_with_the_same_weights(tmp_path, weights):
    """After the first step of every stage: the call that finishes it stops in the next one."""
    list(train_all(options(tmp_path, run=tmp_path / "whole", progress=False)))
    wanted = {name: read_checkpoint(path)[0] for name, path in shipped(weights).items()}
    for path in shipped(weights).values():
        path.unlink()
    (weights / "manifest.json").unlink()
    said: list[str] = []
    for stage in STAGES:
        lines = list(train_all(options(tmp_path, stop_minutes=0.0, progress=False)))
        said += finished(lines)
        assert lines[-1] == f"{stage}: stopped; the same command resumes it", "the first that is not done"
        assert said == list(STAGES[: STAGES.index(stage)]), "what is done is left alone"
    assert finished(list(train_all(options(tmp_path, stop_minutes=0.0, progress=False)))) == [STAGES[-1]]
    for name, path in shipped(weights).items():
        tensors = read_checkpoint(path)[0]
        assert all(torch.equal(tensors[key], value) for key, value in wanted[name].items()), name


def shipped(weights: Path) -> dict[str, Path]:
    return {path.stem: path for path in (weights / "tiny").glob("*.safetensors")}


@pytest.mark.parametrize("stage", [STAGES[0], "conditioned", STAGES[-1]])
def test_killed_between_training_and_shipping_a_stage_is_shipped_by_the_next_call(tmp_path, monkeypatch, stage):
    """Also `conditioned`, whose own weights have by then taken the place of those that it began with."""
    calls = []

    def killed(run: Path, which: str, scale):
        path = ship(run, which, scale)
        calls.append(which)
        if which == stage:
            raise KeyboardInterrupt  # after the file was replaced, before that was noted
        return path

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(plan, "ship", killed)
        list(train_all(options(tmp_path, steps=1, progress=False)))
    assert calls == list(STAGES[: STAGES.index(stage) + 1])
    lines = list(train_all(options(tmp_path, steps=1, progress=False)))
    assert finished(lines) == list(STAGES[STAGES.index(stage) :])


def test_killed_in_a_stage_the_next_call_resumes_it(tmp_path, weights, fork_server):
    """SIGKILL after the third checkpoint of the second stage."""
    list(train_all(options(tmp_path, run=tmp_path / "whole", steps=4, progress=False)))
    wanted = read_checkpoint(weights / "tiny" / "t2i.safetensors")[0]
    runs = tmp_path / "runs"
    for stage, die in (("judge", None), ("t2i", ("replaced", 3))):  # what `train all` does, up to there
        more = {"save_minutes": 0.0, "batch": 4}
        process = fork_server.Process(target=train_child, args=(weights, runs / f"tiny-{stage}", stage, more, die))
        process.start()
        process.join(300)
        assert process.exitcode == (-9 if die else 0)
    ship(runs / "tiny-judge", "judge", SMALL)
    (runs / "tiny-judge" / "shipped").touch()
    rows = {row.stage: row for row in rows_of(options(tmp_path, steps=4))}
    assert rows["judge"].done and not rows["t2i"].done and not rows["t2i"].trained
    assert rows["t2i"].minutes == pytest.approx(0.5 / 60), "one of four steps is left"
    assert finished(list(train_all(options(tmp_path, steps=4, progress=False)))) == list(STAGES[1:])
    found = read_checkpoint(weights / "tiny" / "t2i.safetensors")[0]
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_minutes_are_shared_as_the_recipes_say(tmp_path):
    rows = rows_of(options(tmp_path, steps=0, minutes=53.0))
    assert [row.stage for row in rows] == list(STAGES)
    assert sum(row.options.minutes for row in rows) == pytest.approx(53.0)
    whole = sum(get_stage(stage).minutes for stage in STAGES)
    for row in rows:
        assert row.options.minutes == pytest.approx(53.0 * get_stage(row.stage).minutes / whole)
        assert row.options.run == tmp_path / "runs" / f"tiny-{row.stage}" and row.options.stage == row.stage
        assert row.minutes == pytest.approx(row.options.minutes, rel=0.1), "steps of half a second fill them"


def test_steps_are_the_recipe_s_own_where_nothing_is_said(tmp_path):
    for row in rows_of(options(tmp_path, steps=0)):
        assert row.steps == get_stage(row.stage).steps["tiny"]
        assert row.minutes == pytest.approx(row.steps * 0.5 / 60)


def test_steps_and_minutes_together_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="steps or of minutes, not both"):
        list(train_all(options(tmp_path, minutes=1.0)))
    assert not (tmp_path / "runs").exists()


def test_what_a_step_takes_is_timed_on_nets_without_weights(tmp_path, monkeypatch, weights):
    """Nothing is shipped yet, and yet the plan knows of every stage."""
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as patch:
        use_small(patch, weights)
        rows = rows_of(options(tmp_path, steps=3))
    assert all(0 < row.minutes < 5 and row.steps == 3 for row in rows)
    assert not weights.exists() and not (tmp_path / "runs").exists()
