"""Faults of training that public reports led to: a folder is one run's, signals, logs, longer runs, what errors say."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from train_driver import SMALL, go, stage_with_loss, train_child, use_small

from minilumiere.config import STAGES
from minilumiere.training import stages
from minilumiere.training.interrupt import Interrupted, finishing_steps
from minilumiere.training.loop import Divergence, TrainOptions
from minilumiere.training.plan import plan
from minilumiere.weights.checkpoint import read_checkpoint
from minilumiere.weights.run_folder import held, read_log, trim_log
from minilumiere.weights.shipped import read_manifest, ship


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path) -> Path:
    use_small(monkeypatch, tmp_path / "weights")
    return tmp_path / "weights"


def metadata_of(run: Path) -> dict:
    return read_checkpoint(run / "checkpoint.safetensors")[1]


def same_state(one: Path, other: Path) -> bool:
    first, second = (read_checkpoint(run / "checkpoint.safetensors")[0] for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# A folder belongs to one run


def test_a_folder_in_use_is_refused_with_the_number_of_its_process(tmp_path):
    with held(tmp_path / "run"), pytest.raises(ValueError, match=rf"run is in use by process {os.getpid()}: .*another folder"):
        go(tmp_path / "run")
    go(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint.safetensors", "log.jsonl"}


def test_of_two_runs_at_once_one_is_refused_and_the_other_finishes(tmp_path, small, fork_server):
    runs = [
        fork_server.Process(target=train_child, args=(small, tmp_path / "run", "judge", {"steps": 2000, "seed": seed}))
        for seed in (1, 2)
    ]
    runs[0].start()
    while not (tmp_path / "run" / ".pid").exists():
        time.sleep(0.01)
    runs[1].start()
    runs[1].join(120)
    assert runs[1].exitcode == 1 and runs[0].is_alive()
    os.kill(runs[0].pid, signal.SIGTERM)
    runs[0].join(120)
    assert metadata_of(tmp_path / "run")["seed"] == 1


def test_a_killed_run_leaves_no_lock_and_no_litter(tmp_path, small, fork_server):
    run = tmp_path / "run"
    process = fork_server.Process(target=train_child, args=(small, run, "judge", {"save_minutes": 0.0}, ("fsync", 3)))
    process.start()
    process.join(120)
    assert process.exitcode == -9 and list(run.glob(".*.tmp"))
    go(run)
    assert {path.name for path in run.iterdir()} == {"checkpoint.safetensors", "log.jsonl"}


def test_an_error_gives_the_folder_back(tmp_path, monkeypatch):
    monkeypatch.setitem(stages.RECIPES, "judge", stage_with_loss(lambda y, call: y.sum() * float("nan")))
    for _ in range(2):
        with pytest.raises(Divergence):
            go(tmp_path / "run")


def test_stages_shipped_at_once_are_all_in_the_manifest(tmp_path, small):
    names, errors = ["judge", "t2i", "ssr-image"], []
    for name in names:
        go(tmp_path / name, name, steps=1)

    def send(name: str) -> None:
        try:
            for _ in range(5):
                ship(tmp_path / name, name, SMALL)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=send, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and read_manifest(small).keys() == {f"tiny/{name}.safetensors" for name in names}


# Signals


@pytest.fixture
def heard():
    """Signals mean what they mean to a program in front of a terminal: `nohup` and `&` start one that ignores some."""
    meant = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in meant.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_step_and_saves(tmp_path, monkeypatch, number):
    run, handlers = tmp_path / "run", [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

    def loss(y, call):
        if call == 3:
            os.kill(os.getpid(), number)
        return (y - 1).square().mean()

    monkeypatch.setitem(stages.RECIPES, "judge", stage_with_loss(loss))
    with pytest.raises(Interrupted, match="the same command resumes it") as caught:
        go(run, steps=8)
    assert caught.value.signal == number and isinstance(caught.value, KeyboardInterrupt)
    assert metadata_of(run)["step"] == 3
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    monkeypatch.setitem(stages.RECIPES, "judge", stage_with_loss(lambda y, call: (y - 1).square().mean()))
    go(run, steps=8)
    go(tmp_path / "whole", steps=8)
    assert same_state(run, tmp_path / "whole")


@pytest.mark.usefixtures("heard")
def test_asked_twice_a_run_ends_at_once(tmp_path, monkeypatch):
    def loss(y, call):
        if call == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        return (y - 1).square().mean()

    monkeypatch.setitem(stages.RECIPES, "judge", stage_with_loss(loss))
    with pytest.raises(KeyboardInterrupt) as caught:
        go(tmp_path / "run", steps=8)
    assert not isinstance(caught.value, Interrupted) and not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_signal_that_is_ignored_stays_ignored_and_other_threads_get_none():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with finishing_steps() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
        assert asked.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    found = []

    def other() -> None:
        with finishing_steps() as asked:
            found.append(asked.signal)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [0]


# Longer runs, and other options


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_can_be_extended_and_then_resumes_bit_for_bit(tmp_path, finished, capsys):
    one, other = tmp_path / "one", tmp_path / "other"
    for run in (one, other):
        go(run, steps=4, **{} if finished else {"stop_minutes": 0.0})
    begun = 4 if finished else 1
    go(one, steps=8, progress=True)
    assert "extended from 4 steps to 8; from step" in capsys.readouterr().err
    while metadata_of(other)["step"] < 8:
        go(other, steps=8, stop_minutes=0.0)
    assert metadata_of(one)["steps"] == 8 and same_state(one, other)
    assert [row["step"] for row in read_log(one / "log.jsonl")] == [begun, 8]


def test_an_extended_run_is_on_the_learning_rate_of_the_longer_one(tmp_path, monkeypatch):
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    monkeypatch.setitem(stages.RECIPES, "judge", stage_with_loss(lambda y, call: y.square().mean(), rate=1e-2))
    rates = []
    hook = register_optimizer_step_pre_hook(lambda optimiser, *_: rates.append(optimiser.param_groups[0]["lr"]))
    try:
        go(tmp_path / "run", steps=200, batch=1)
        go(tmp_path / "run", steps=400, batch=1)
        extended = rates[200:]
        rates.clear()
        go(tmp_path / "long", steps=400, batch=1)
    finally:
        hook.remove()
    assert extended == pytest.approx(rates[200:])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 3}, r"another number of steps: it has 4, wanted 3; give 4 steps or more .* another folder \(--folder\)"),
        ({"batch": 6}, r"another batch: it has 4, wanted 6; give that batch .* another folder"),
        ({"seed": 1}, r"another seed: it has 0, wanted 1; give that seed .* another folder"),
        ({"stage": "t2i"}, r"another stage: it has 'judge', wanted 't2i'; begin anew in another folder"),
    ],
)
def test_what_does_not_agree_says_what_to_do(tmp_path, change, says):
    go(tmp_path / "run")
    with pytest.raises(ValueError, match=says):
        go(tmp_path / "run", **{"stage": "judge"} | change)


def test_a_plan_takes_up_finished_stages_that_are_asked_for_more(tmp_path):
    go(tmp_path / "tiny-judge", steps=4)
    (tmp_path / "tiny-judge" / "shipped").touch()
    done = {steps: plan(TrainOptions("judge", steps=steps, batch=4, run=tmp_path, device="cpu"))[0].done for steps in (4, 8)}
    assert done == {4: True, 8: False}
    assert STAGES[0] == "judge"


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"save_minutes": -1}, "save_minutes must be from 0"),
        ({"stop_minutes": float("nan")}, "stop_minutes must be from 0"),
        ({"minutes": -1.0, "steps": 0}, "minutes must be from 0"),
        ({"minutes": 1.0, "steps": 3}, "not both"),
        ({"seed": -1}, "seed must be from 0"),
        ({"run": ""}, "folder is empty"),
        ({"run": 3}, "folder must be a string or a path"),
        ({"stage": ["judge"]}, "unknown stage"),
        ({"scale": ["tiny"]}, "unknown scale"),
        ({"batch": 2.0}, "batch must be an integer"),
    ],
)
def test_options_that_make_no_sense(tmp_path, option, says):
    with pytest.raises((ValueError, TypeError), match=says):
        go(**{"run": tmp_path / "run"} | option)
    assert not (tmp_path / "run").exists()


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    go("~/runs/judge")
    assert metadata_of(tmp_path / "runs" / "judge")["step"] == 4


# Logs and manifests


@pytest.mark.parametrize(
    "line",
    ['{"loss": 1.0}', '{"step": 2}', "[]}", '{"step": "2", "loss": 1.0}', "}", "{broken}", "3", '{"step": null, "loss": 1}'],
)
def test_a_line_that_is_none_names_the_file_and_the_line(tmp_path, line):
    path = tmp_path / "run" / "log.jsonl"
    go(tmp_path / "run", stop_minutes=0.0)
    path.write_text(f'{line}\n{{"step": 1, "loss": 2.0}}\n')
    for use in (lambda: go(tmp_path / "run"), lambda: ship(tmp_path / "run", "judge", SMALL), lambda: trim_log(path, 1)):
        with pytest.raises(ValueError, match=r"log\.jsonl, line 1,"):
            use()


@pytest.mark.parametrize("content", [b"", b'{"step": 4, "lo'])
def test_a_run_without_a_log_is_not_shipped(tmp_path, content):
    go(tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=r"log\.jsonl has no lines"):
        ship(tmp_path / "run", "judge", SMALL)


def test_a_log_that_is_not_text_names_the_file(tmp_path):
    go(tmp_path / "run", stop_minutes=0.0)
    (tmp_path / "run" / "log.jsonl").write_bytes(b'\xff\xfe}\n{"step": 1, "loss": 2.0}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1,"):
        go(tmp_path / "run")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tiny/t2i.safetensors": 3}', "\xff"])
def test_a_broken_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"manifest\.json is no manifest"):
        read_manifest(tmp_path)


def test_a_full_disk_while_logging_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"could not write /dev/full"):
        from minilumiere.weights.run_folder import log

        log(Path("/dev/full"), step=1)


# What is on the screen


def test_an_error_does_not_land_on_the_progress_bar_s_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(stages.RECIPES, "judge", stage_with_loss(lambda y, call: y.sum() * (float("nan") if call > 2 else 1)))
    with pytest.raises(Divergence):
        go(tmp_path / "run", steps=30, save_minutes=0.0, progress=True)
    print("the error", file=sys.stderr)
    assert capsys.readouterr().err.endswith("\nthe error\n")


def test_no_standard_error_is_no_progress_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    go(tmp_path / "run", progress=True)


def test_the_loss_of_two_processes_is_the_mean_of_both(tmp_path):
    """And nothing that is said on the way is a warning."""
    several = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    train = ["-m", "minilumiere", "train", "judge", "--batch", "6", "--steps", "1", "--device", "cpu", "--folder"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error", "PYTHONFAULTHANDLER": "1"}
    for name, command in (("two", [*several, *train]), ("one", train)):
        command = [sys.executable, *command, str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr  # whole: torchrun's own words come last, and say nothing of the cause
        assert done.stdout.count("finished") == 1
    losses = [json.loads((tmp_path / name / "log.jsonl").read_text())["loss"] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
