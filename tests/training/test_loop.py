"""Training: it learns, it resumes bit for bit whatever stopped it, it never loses its last good checkpoint."""

import errno
import itertools
import json
import math
import os
import random
import re
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from train_driver import (
    REGISTERED,
    SMALL,
    go,
    identity,
    rank_child,
    stage_with_loss,
    step_by_step,
    train_child,
    use_small,
    wait_for_change,
)

from minilumiere import config
from minilumiere.config import SCALES, smoke
from minilumiere.model.stunet import STUNet
from minilumiere.training import loop, stages
from minilumiere.training.loop import FOR_TRAINING, Divergence, TrainOptions, seconds_a_step, share, steps_in, train
from minilumiere.weights.checkpoint import load_weights, read_checkpoint, write_checkpoint
from minilumiere.weights.shipped import read_shipped, ship, weights_path

STAGES = ["judge", "t2i", "base", "ssr-image", "ssr"]
BUILT_ON = {"base": "t2i", "ssr": "ssr-image"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder of runs t2i and ssr-image, uninterrupted, and of their shipped weights."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        use_small(patch, folder / "weights")
        for stage in BUILT_ON.values():
            go(folder / stage, stage, steps=100, batch=8)
            ship(folder / stage, stage, SMALL)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch, trained) -> Path:
    """`tiny` is far smaller, and its image nets are shipped, in every test here. Returns the folder of the weights."""
    use_small(monkeypatch, trained / "weights")
    return trained / "weights"


def state(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoint.safetensors")[0]


def steps_done(run: Path) -> int:
    return read_checkpoint(run / "checkpoint.safetensors")[1]["step"]


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{len(different)} of {len(one)} tensors differ, the first: {different[:3]}"


def only_checkpoint_and_log(run: Path) -> bool:
    return {path.name for path in run.iterdir()} == {"checkpoint.safetensors", "log.jsonl"}


# Training


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_trains_and_resumes_bit_for_bit(tmp_path, stage):
    """Interrupted after every step, training ends with the very bits of an uninterrupted run: weights, EMA and moments."""
    ema = go(tmp_path / "whole", stage)
    whole, metadata = read_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    assert metadata["step"] == metadata["steps"] == 4
    assert {"stage": stage, "scale": "tiny", "batch": 4, "seed": 0}.items() <= metadata.items()
    trainable = {name: value for name, value in ema.named_parameters() if f"model.{name}" in whole}
    assert whole.keys() == {f"{part}.{name}" for part in ("model", "ema", "exp_avg", "exp_avg_sq") for name in trainable}
    for name, value in trainable.items():
        assert torch.equal(whole[f"ema.{name}"], value), name
    assert [line["step"] for line in log_of(tmp_path / "whole")] == [4]
    assert all(math.isfinite(line["loss"]) for line in log_of(tmp_path / "whole"))
    states = step_by_step(tmp_path / "stopped", stage)
    assert any(not torch.equal(states[0][name], states[-1][name]) for name in states[0] if name.startswith("model."))
    assert_same_bits(states[-1], whole)
    assert only_checkpoint_and_log(tmp_path / "stopped")


def test_a_run_of_many_checkpoints_is_a_run_of_one(tmp_path, trained):
    """Saving after every step changes nothing, nor does a resume in the middle of a longer run."""
    go(tmp_path / "run", "t2i", steps=100, batch=8, save_minutes=0.0, stop_minutes=0.002)
    assert 1 <= steps_done(tmp_path / "run") <= 100
    go(tmp_path / "run", "t2i", steps=100, batch=8, save_minutes=0.0)
    assert_same_bits(state(tmp_path / "run"), state(trained / "t2i"))


def test_the_loss_goes_down(trained):
    losses = {line["step"]: line["loss"] for line in log_of(trained / "t2i")}
    assert list(losses) == [20, 40, 60, 80, 100]
    assert losses[100] < 0.9 * losses[20]


def test_a_compiled_net_is_trained_as_it_is(tmp_path, monkeypatch):
    """By torch's tracer, which must find one whole graph in it; the code that a compiler makes of that is torch's affair."""
    monkeypatch.setitem(config.SCALES, "tiny", replace(SMALL, lengths=(4,)))  # each length is traced anew
    compile, graphs = torch.compile, []

    def traced(net, dynamic):
        graphs.append(net)
        return compile(net, dynamic=dynamic, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", traced)
    go(tmp_path / "plain", "base")
    assert not graphs
    go(tmp_path / "compiled", "base", compile=True)
    assert len(graphs) == 1
    assert_same_bits(state(tmp_path / "compiled"), state(tmp_path / "plain"))


def test_the_seed_decides(tmp_path):
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        go(tmp_path / run, seed=seed)
    assert_same_bits(state(tmp_path / "a"), state(tmp_path / "b"))
    assert not torch.equal(state(tmp_path / "a")["model.layers.0.weight"], state(tmp_path / "c")["model.layers.0.weight"])


def test_training_goes_on_from_the_shipped_weights(tmp_path, trained):
    """Half precision, so nearly the weights that were shipped; fresh ones are far away. Resumes bit for bit as well."""
    far, near = (go(tmp_path / str(known), "t2i", steps=1, from_shipped=known) for known in (False, True))
    shipped = read_shipped("t2i", SMALL)[0]
    for name, value in shipped.items():
        torch.testing.assert_close(dict(near.named_parameters())[name], value.float(), atol=1e-4, rtol=1e-3)
    assert any((value - shipped[name].float()).abs().max() > 0.01 for name, value in far.named_parameters())
    go(tmp_path / "whole", "t2i", from_shipped=True)
    assert_same_bits(step_by_step(tmp_path / "stopped", "t2i", from_shipped=True)[-1], state(tmp_path / "whole"))
    with pytest.raises(ValueError, match="another from"):
        go(tmp_path / "whole", "t2i")


def test_a_finished_run_stays_as_it_is(tmp_path):
    first = go(tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    again = go(tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    assert_same_bits(dict(first.named_parameters()), dict(again.named_parameters()))


def test_the_run_folder_is_named_by_default():
    assert TrainOptions("t2i").folder == Path("runs/tiny-t2i")
    assert TrainOptions("base", "full").folder == Path("runs/full-base")


def test_the_moving_average(tmp_path, monkeypatch):
    """By hand: the first weights, then decay·average + (1 - decay)·weights after each step, decay growing to 0.999."""
    monkeypatch.setitem(stages.RECIPES, "judge", replace(REGISTERED["judge"], rate=0.5))  # far apart after each step
    states = step_by_step(tmp_path / "run", steps=5)
    names = [name.removeprefix("model.") for name in states[0] if name.startswith("model.")]
    torch.manual_seed(0)  # the run's seed
    first = REGISTERED["judge"].build(SCALES["tiny"]).state_dict()
    for name in names:
        average = first[name].double()
        for number, tensors in enumerate(states):
            decay = min(0.999, (1 + number) / (10 + number))
            average = decay * average + (1 - decay) * tensors[f"model.{name}"].double()
            # float32 rounds each of the five steps by 6e-8 of values near 1
            torch.testing.assert_close(tensors[f"ema.{name}"].double(), average, rtol=0, atol=5e-7)
    difference = max(float((states[-1][f"ema.{name}"] - states[-1][f"model.{name}"]).abs().max()) for name in names)
    assert difference > 1e-3  # another decay would be seen


def test_learning_rate_warms_up_and_decays(tmp_path, monkeypatch):
    steps, peak = 1000, 1e-2
    monkeypatch.setitem(stages.RECIPES, "judge", stage_with_loss(lambda y, call: y.square().mean(), rate=peak))
    rates = []
    hook = register_optimizer_step_pre_hook(lambda optimiser, *_: rates.append(optimiser.param_groups[0]["lr"]))
    try:
        go(tmp_path / "run", steps=steps, batch=1)
    finally:
        hook.remove()
    assert len(rates) == steps
    assert rates[0] == pytest.approx(peak / 100)
    assert all(later > earlier for earlier, later in itertools.pairwise(rates[:100]))
    assert 0.97 * peak < max(rates) <= peak
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[100:]))
    assert rates[500] == pytest.approx(peak / 2)  # cosine: half-way, half the peak
    assert rates[-1] < 1e-4 * peak


def test_the_log_tells_the_mean_loss(tmp_path, monkeypatch):
    """Of a loss that is always 1, whenever the run was saved, stopped and resumed."""
    monkeypatch.setitem(stages.RECIPES, "judge", stage_with_loss(lambda y, call: 1 + 0 * y.sum()))
    go(tmp_path / "run", steps=50, stop_minutes=0.0)
    go(tmp_path / "run", steps=50, stop_minutes=0.0, save_minutes=0.0)
    go(tmp_path / "run", steps=50)
    lines = log_of(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 20, 40, 50]
    assert [line["loss"] for line in lines] == [1.0] * 5
    minutes = [line["minutes"] for line in lines]
    assert all(value >= 0 for value in minutes)


# Minutes instead of steps


def test_steps_of_so_many_seconds_fill_the_minutes(monkeypatch):
    assert steps_in(1, 0.5) == int(60 * FOR_TRAINING / 0.5) == 115
    assert steps_in(0.001, 10) == 1, "at least one"
    monkeypatch.setenv("MINILUMIERE_SMOKE", "1")
    assert steps_in(1, 0.5) == smoke(115) < 115


def test_a_step_is_timed_as_it_is_and_nothing_of_it_stays(monkeypatch):
    """Of a clock that only drawing and learning move on; batches are from all over the training."""
    clock, asked = [0.0], []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def draw(step, steps):
        asked.append(step / steps)
        return {"x": torch.randn(2, 1)}

    def loss(y, call):
        clock[0] += 1000.0 if call <= 5 else 3.0  # the first ones pay for what is made once
        return (y - 1).square().mean()

    model = torch.nn.Linear(1, 1, bias=False)
    before = model.weight.detach().clone()
    stage = stage_with_loss(loss)
    assert seconds_a_step(stage, model, draw, torch.device("cpu"), timed=5) == pytest.approx(3.0)
    assert torch.equal(model.weight, before) and model.weight.grad is None
    assert asked == [0.0, 0.2, 0.4, 0.6, 0.8] * 2


@pytest.mark.parametrize("stage", ["judge", "base"])
def test_a_run_of_minutes_is_the_run_of_as_many_steps_wherever_it_was_cut_off(tmp_path, monkeypatch, stage):
    """Their number is found once and stored; a machine that is faster or slower later on changes nothing."""
    seconds = itertools.count(60 * FOR_TRAINING / 6, 100)  # 6 steps a minute at first; later far fewer
    monkeypatch.setattr(loop, "seconds_a_step", lambda *_, **__: next(seconds))
    for _ in range(5):
        assert go(tmp_path / "minutes", stage, steps=0, minutes=1.0, stop_minutes=0.0) is None
    assert go(tmp_path / "minutes", stage, steps=0, minutes=1.0) is not None
    assert next(seconds) == pytest.approx(60 * FOR_TRAINING / 6 + 100), "timed once"
    go(tmp_path / "steps", stage, steps=6)
    go(tmp_path / "minutes", stage, steps=0)  # nor do steps that nobody asked for extend it
    assert_same_bits(state(tmp_path / "minutes"), state(tmp_path / "steps"))


def test_a_run_of_minutes_that_is_killed_before_its_first_step_keeps_their_number(tmp_path, small, fork_server):
    """Really timed, and killed as soon as the number is stored."""
    options = {"steps": 0, "minutes": 0.005}
    process = fork_server.Process(target=train_child, args=(small, tmp_path / "run", "judge", options, ("replaced", 1)))
    process.start()
    process.join(300)
    assert process.exitcode == -9
    metadata = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]
    assert metadata["step"] == 0 and metadata["steps"] >= 1
    assert not any(name.startswith("exp_avg") for name in state(tmp_path / "run")), "AdamW has no moments yet"
    go(tmp_path / "run", **options)
    go(tmp_path / "whole", steps=metadata["steps"])
    assert steps_done(tmp_path / "run") == metadata["steps"]
    assert_same_bits(state(tmp_path / "run"), state(tmp_path / "whole"))


def test_two_processes_agree_on_the_steps_of_minutes(tmp_path, small, fork_server):
    jobs = [{"run": tmp_path / "run", "stage": "judge", "steps": 0, "minutes": 0.005, "batch": 4}]
    assert run_ranks(fork_server, small, jobs) == [0, 0]
    metadata = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]
    assert metadata["step"] == metadata["steps"] >= 1


def test_steps_and_minutes_together_are_refused(tmp_path):
    with pytest.raises(ValueError, match="steps or of minutes, not both"):
        go(tmp_path / "run", steps=3, minutes=1.0)
    assert not (tmp_path / "run").exists()


# Frozen layers


@pytest.mark.parametrize(("video", "image"), BUILT_ON.items())
def test_temporal_training_leaves_the_image_net_alone(tmp_path, monkeypatch, video, image):
    built = []

    def build(scale):
        built.append(REGISTERED[video].build(scale))
        return built[-1]

    monkeypatch.setitem(stages.RECIPES, video, replace(REGISTERED[video], build=build))
    ema = go(tmp_path / "run", video)
    shipped = read_shipped(image, SMALL)[0]
    for model in (built[0], ema):
        assert isinstance(model, STUNet)
        for name, value in model.t2i.named_parameters():
            assert torch.equal(value, shipped[name].float()), name
    names = {name.split(".", 1)[1] for name in state(tmp_path / "run")}
    assert names == {name for name, _ in built[0].named_parameters() if not name.startswith("t2i.")}
    untrained = torch.nn.Module.state_dict(REGISTERED[video].build(SMALL))
    moved = [name for name in names if not torch.equal(state(tmp_path / "run")[f"model.{name}"], untrained[name])]
    assert moved, "no temporal weight has moved"


def test_temporal_weights_are_shipped_and_read_back(tmp_path, small):
    """Through `ship`, on top of the same image weights; they fit into a new STUNet."""
    ema = go(tmp_path / "run", "base")
    path = ship(tmp_path / "run", "base", SMALL)
    try:
        stunet = REGISTERED["base"].build(SMALL)
        load_weights(stunet, read_shipped("base", SMALL)[0])
    finally:
        path.unlink()
    for name, value in stunet.named_parameters():
        expected = ema.get_parameter(name)
        assert torch.equal(value, expected if name.startswith("t2i.") else expected.half().float()), name


def test_conditioned_goes_on_from_base_and_takes_its_place(tmp_path, small):
    go(tmp_path / "base", "base")
    path = ship(tmp_path / "base", "base", SMALL)
    try:
        before, metadata = read_shipped("base", SMALL)
        assert metadata["trained"] == "base" and not before["given.weight"].any()
        go(tmp_path / "tuned", "conditioned")
        tuned = read_checkpoint(tmp_path / "tuned" / "checkpoint.safetensors")
        assert tuned[1]["from"] == metadata["sha256"]
        assert_same_bits(step_by_step(tmp_path / "stopped", "conditioned")[-1], tuned[0])
        for name, value in before.items():  # four small steps from where it began
            assert 0 < (tuned[0][f"model.{name}"] - value.float()).abs().max() < 0.1, name
        assert ship(tmp_path / "tuned", "conditioned", SMALL) == path
        after, metadata = read_shipped("base", SMALL)
        assert metadata["trained"] == "conditioned" and after["given.weight"].any()
    finally:
        path.unlink()


def other_image_weights(tmp_path: Path, monkeypatch) -> Path:
    """Weights of another t2i net than the one in `small`."""
    use_small(monkeypatch, tmp_path / "other")
    go(tmp_path / "t2i", "t2i", seed=1)
    return ship(tmp_path / "t2i", "t2i", SMALL)


def test_temporal_layers_are_not_shipped_with_image_weights_they_were_not_trained_on(tmp_path, monkeypatch):
    go(tmp_path / "run", "base")
    other_image_weights(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="t2i"):
        ship(tmp_path / "run", "base", SMALL)
    assert not weights_path("base", SMALL, tmp_path / "other").exists()


def test_temporal_training_is_not_resumed_on_other_image_weights(tmp_path, monkeypatch):
    go(tmp_path / "run", "base", stop_minutes=0.0)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    other_image_weights(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=r"t2i|built_on"):
        go(tmp_path / "run", "base")
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before


# What is refused


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown stage 'video'") as caught:
        train(TrainOptions("video", run=tmp_path / "run"))
    assert all(stage in str(caught.value) for stage in STAGES)
    with pytest.raises(ValueError, match="unknown scale 'huge'") as caught:
        train(TrainOptions("judge", scale="huge", run=tmp_path / "run"))
    assert all(scale in str(caught.value) for scale in SCALES)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["steps", "batch"])
def test_negative_counts_are_refused(tmp_path, option):
    with pytest.raises(ValueError, match=option):
        go(tmp_path / "run", **{option: -1})


@pytest.mark.parametrize("change", [{"seed": 1}, {"steps": 3}, {"batch": 6}, {"stage": "t2i"}], ids=str)
def test_a_run_is_not_resumed_with_other_options(tmp_path, change):
    go(tmp_path / "run", stop_minutes=0.0)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ValueError, match=rf"another (number of )?{next(iter(change))}\b"):
        go(tmp_path / "run", **{"stage": "judge"} | change)
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before


def test_a_run_is_not_resumed_with_another_model(tmp_path, monkeypatch):
    go(tmp_path / "run", stop_minutes=0.0)
    wider = replace(SMALL, judge=replace(SMALL.judge, channels=(4, 12)))
    monkeypatch.setitem(config.SCALES, "tiny", wider)
    with pytest.raises(ValueError, match="another config"):
        go(tmp_path / "run")


@pytest.mark.parametrize("damage", ["cut", "flipped", "pickle", "empty"])
def test_a_damaged_checkpoint_stops_training_and_is_not_overwritten(tmp_path, damage):
    path = tmp_path / "run" / "checkpoint.safetensors"
    go(tmp_path / "run", stop_minutes=0.0)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    bad = {"cut": content[:-1], "flipped": bytes(flipped), "pickle": b"\x80\x04K\x01.", "empty": b""}[damage]
    path.write_bytes(bad)
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors"):
        go(tmp_path / "run")
    assert path.read_bytes() == bad


@pytest.mark.parametrize("change", ["missing", "renamed", "shape"])
def test_a_checkpoint_of_other_tensors_is_refused(tmp_path, change):
    """As a version of the model with the same sizes but other layers would have left it."""
    path = tmp_path / "run" / "checkpoint.safetensors"
    go(tmp_path / "run", stop_minutes=0.0)
    tensors, metadata = read_checkpoint(path)
    if change == "missing":
        del tensors["exp_avg.layers.0.bias"]
    elif change == "renamed":
        tensors["model.layers.zero.bias"] = tensors.pop("model.layers.0.bias")
    else:
        tensors["model.layers.0.bias"] = tensors["model.layers.0.bias"][:1].clone()  # would broadcast
    write_checkpoint(path, tensors, metadata)
    with pytest.raises(ValueError, match=r"layers\.(0|zero)\.bias"):
        go(tmp_path / "run")


# Losses that are not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_training(tmp_path, monkeypatch, bad):
    """With a clear error; the checkpoint before it stays, and goes on as if nothing had been once the cause is gone."""

    def loss(y, call):
        return (y - 1).square().mean() * (bad if call == 5 else 1.0)

    monkeypatch.setitem(stages.RECIPES, "judge", stage_with_loss(loss))
    with pytest.raises(Divergence, match=r"loss.*step 5"):
        go(tmp_path / "run", steps=8, save_minutes=0.0)
    assert steps_done(tmp_path / "run") == 4
    assert all(value.isfinite().all() for value in state(tmp_path / "run").values())
    go(tmp_path / "run", steps=8)
    monkeypatch.setitem(stages.RECIPES, "judge", stage_with_loss(lambda y, call: (y - 1).square().mean()))
    go(tmp_path / "whole", steps=8)
    assert_same_bits(state(tmp_path / "run"), state(tmp_path / "whole"))


def test_a_loss_that_is_not_finite_is_seen_before_the_next_checkpoint(tmp_path, monkeypatch):
    """Also where it was not finite once only, between two looks at it."""
    monkeypatch.setitem(
        stages.RECIPES, "judge", stage_with_loss(lambda y, call: y.square().mean() * (math.nan if call == 8 else 1.0))
    )
    go(tmp_path / "run", steps=30, stop_minutes=0.0)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(Divergence, match=re.escape(str(tmp_path / "run"))):
        go(tmp_path / "run", steps=30)
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before


def test_gradients_that_are_not_finite_never_reach_a_checkpoint(tmp_path, monkeypatch):
    """A finite loss can have them: the square root of 0 does."""

    def loss(y, call):
        return (y - 1).square().mean() + ((0 * y).abs().sqrt().sum() if call == 5 else 0)

    monkeypatch.setitem(stages.RECIPES, "judge", stage_with_loss(loss))
    with pytest.raises(Divergence):
        go(tmp_path / "run", steps=8, save_minutes=0.0)
    assert all(value.isfinite().all() for value in state(tmp_path / "run").values())
    assert steps_done(tmp_path / "run") == 4


# Interruptions


def test_disk_full_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    """And once there is room again, training goes on as if there always had been."""
    calls = []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match=r"(?i)could not write .*checkpoint\.safetensors.*no space left"):
            go(tmp_path / "run", save_minutes=0.0)
    assert steps_done(tmp_path / "run") == 2
    assert only_checkpoint_and_log(tmp_path / "run")
    go(tmp_path / "run")
    go(tmp_path / "whole")
    assert_same_bits(state(tmp_path / "run"), state(tmp_path / "whole"))


@pytest.mark.parametrize(("where", "leaves"), [("fsync", 2), ("replace", 2), ("replaced", 3)])
def test_killed_at_the_worst_moments(tmp_path, small, fork_server, where, leaves):
    """SIGKILL while the third checkpoint is written, then resumed."""
    arguments = (small, tmp_path / "run", "judge", {"save_minutes": 0.0})
    process = fork_server.Process(target=train_child, args=(*arguments, (where, 3)))
    process.start()
    process.join(300)
    assert process.exitcode == -9
    assert steps_done(tmp_path / "run") == leaves
    go(tmp_path / "run")
    go(tmp_path / "whole")
    assert_same_bits(state(tmp_path / "run"), state(tmp_path / "whole"))
    steps = [line["step"] for line in log_of(tmp_path / "run")]
    assert len(set(steps)) == len(steps)
    assert steps[-1] == 4


def test_killed_at_random_moments(tmp_path, small, fork_server):
    """SIGKILL up to eight times, each after at least one more checkpoint, then to the end."""
    run, delays = tmp_path / "run", random.Random(0)
    path = run / "checkpoint.safetensors"
    options = {"steps": 40, "save_minutes": 0.0}
    for _ in range(8):
        before = identity(path)
        process = fork_server.Process(target=train_child, args=(small, run, "t2i", options))
        process.start()
        wait_for_change(path, process, before)
        time.sleep(delays.uniform(0, 0.1))
        process.kill()
        process.join()
        assert steps_done(run) >= 1  # whole
    go(run, "t2i", **options)
    go(tmp_path / "whole", "t2i", steps=40)
    assert steps_done(run) == 40
    assert_same_bits(state(run), state(tmp_path / "whole"))
    steps = [line["step"] for line in log_of(run)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 40


def test_log_lines_of_steps_done_again_are_dropped(tmp_path):
    run = tmp_path / "run"
    go(run, steps=25, stop_minutes=0.0)
    with open(run / "log.jsonl", "a") as file:  # as left by a run that was killed before its next checkpoint
        file.write('{"step": 20, "loss": 999.0}\n{"step": 25, "loss": 999.0}\n')
    go(run, steps=25)
    assert [line["step"] for line in log_of(run)] == [1, 20, 25]
    assert all(line["loss"] < 999 for line in log_of(run))


@pytest.mark.parametrize("torn", ['{"step": 20, "lo', "{", '{"step"', "\0\0\0"])
def test_a_torn_last_log_line_does_not_keep_a_run_from_resuming(tmp_path, torn):
    """Killed, or out of disk, in the middle of a line."""
    run = tmp_path / "run"
    go(run, stop_minutes=0.0)
    with open(run / "log.jsonl", "a") as file:
        file.write(torn)
    go(run)
    assert [line["step"] for line in log_of(run)] == [1, 4]


# Several processes


def run_ranks(fork_server, folder: Path, jobs: list[dict], trouble: str = "") -> list[int | None]:
    """Train with two processes. Returns their exit codes; None for one that did not come to an end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [fork_server.Process(target=rank_child, args=(rank, port, folder, jobs, trouble)) for rank in range(2)]
    for process in ranks:
        process.start()
    deadline = time.monotonic() + 300
    for process in ranks:
        process.join(max(0, deadline - time.monotonic()))
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    return codes


def test_two_processes_do_what_one_does(tmp_path, small, fork_server):
    """The same gradients, weights and losses after one step and after three, of the same global batch, odd or even.

    Clips of 8 frames come by twos where those of 4 frames come by fours; of three, there is one.
    """
    wanted = [(stage, steps, 4) for stage in ("judge", "t2i", "base") for steps in (1, 3)]
    wanted += [("judge", 3, 5), ("t2i", 1, 5), ("base", 3, 3), ("t2i", 1, 1)]
    jobs = [
        {"run": tmp_path / f"two-{stage}-{steps}-{batch}", "stage": stage, "steps": steps, "batch": batch}
        for stage, steps, batch in wanted
    ]
    assert run_ranks(fork_server, small, jobs) == [0, 0]
    for stage, steps, batch in wanted:
        go(tmp_path / f"one-{stage}-{steps}-{batch}", stage, steps=steps, batch=batch)
        runs = [tmp_path / f"{count}-{stage}-{steps}-{batch}" for count in ("one", "two")]
        losses = [[line["loss"] for line in log_of(run)] for run in runs]
        # The mean of all clips, in whatever order they are added. A process's own mean is off by more than a per cent.
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
        one, two = map(state, runs)
        assert one.keys() == two.keys()
        start = dict(start_of(stage).named_parameters())
        names = [name.removeprefix("model.") for name in one if name.startswith("model.")]

        def flat(tensors, prefix, names=names):
            return torch.cat([tensors[prefix + name].detach().double().flatten() for name in names])

        # Adam's first moment after one step is a tenth of the (clipped) gradient. Summing in another order changes a
        # float32 gradient by about 1e-7 of its norm a summand; a wrong share or mean would change it by tens of per cent.
        moment = flat(one, "exp_avg.")
        assert moment.norm() > 0
        assert (flat(two, "exp_avg.") - moment).norm() < 1e-4 * moment.norm()
        # Adam divides by the gradient's size: where that is pure rounding noise, so is the step. Few weights are there.
        update = flat(one, "model.") - flat(start, "")
        assert update.norm() > 0
        assert (flat(two, "model.") - flat(one, "model.")).norm() < 0.05 * update.norm()


def start_of(stage: str) -> torch.nn.Module:
    """The model before its first step."""
    torch.manual_seed(0)
    return REGISTERED[stage].build(SMALL)


@pytest.mark.parametrize(("clips", "world"), [(6, 3), (5, 2), (7, 3), (2, 3), (1, 4)])
def test_the_shares_of_a_batch_add_up_to_its_mean(clips, world):
    """Whether or not they are equal: every clip counts as much as it does in one process."""
    batch = {"x": torch.arange(2.0 * clips).reshape(clips, 2), "y": torch.randn(clips)}
    shares = [share(batch, rank, world) for rank in range(world)]
    for key, value in batch.items():
        whole = [part[key] for part, weight in shares if weight]
        assert torch.equal(torch.cat(whole), value)
        assert all(len(part[key]) >= 1 for part, _ in shares), "a process without a clip would wait for ever"
    mean = sum(weight * part["y"].mean() for part, weight in shares) / world
    torch.testing.assert_close(mean, batch["y"].mean())
    assert max(map(len, whole)) - min(map(len, whole)) <= 1


def test_processes_whose_clocks_differ_stop_together(tmp_path, small, fork_server):
    """`stop_minutes` is over for one process earlier than for the other: neither may wait for the other for ever."""
    jobs = [{"run": tmp_path / "run", "stage": "judge", "steps": 4, "batch": 4, "stop_minutes": 5.0}]
    assert run_ranks(fork_server, small, jobs, "clocks") == [0, 0]
    assert steps_done(tmp_path / "run") == 1


def test_a_loss_that_is_not_finite_in_one_process_reaches_no_checkpoint(tmp_path, small, fork_server):
    jobs = [{"run": tmp_path / "run", "stage": "judge", "steps": 6, "batch": 4, "save_minutes": 0.0}]
    assert run_ranks(fork_server, small, jobs, "nan") == [1, 1]
    assert "Divergence" in (tmp_path / "error-1.txt").read_text()
    assert all(value.isfinite().all() for value in state(tmp_path / "run").values())
    assert steps_done(tmp_path / "run") == 2
