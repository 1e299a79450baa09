"""The command line, in this process except where the process matters."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import minilumiere as ml
from minilumiere import cli
from minilumiere.cli import main
from minilumiere.evaluation.judge import load_judge
from minilumiere.pipeline import Pipeline

ROOT = Path(__file__).parents[1]


def run(arguments: list[str], **options) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    options = {"capture_output": True, "text": True} | options
    return subprocess.run([sys.executable, "-m", "minilumiere", *arguments], **options)


def shell(line: str) -> subprocess.CompletedProcess:
    """A line of bash, in which `minilumiere` is the command line."""
    line = f'minilumiere() {{ "{sys.executable}" -m minilumiere "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True)


def test_generate_writes_the_clip_and_says_where(tmp_path, capsys):
    path = tmp_path / "out.gif"
    assert main(["generate", "a red 3 moving right", "--scale", "tiny", "--seed", "0", "--steps", "1", "-o", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    with Image.open(path) as image:
        assert image.size == (128, 128) and image.n_frames == 16


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "a pink 3"], "pink"),
        (["generate", ""], "empty"),
        (["generate", "a red 3", "--steps", "0"], "steps"),
        (["generate", "a red 3", "--guidance", "nan"], "guidance"),
        (["generate", "a red 3", "--frames", "18"], "16 or 20"),
        (["generate", "a red 3", "-o", "out.avi"], ".gif"),
        (["generate", "a red 3", "--steps", "1", "-o", "/dev/null/out.gif"], "/dev/null"),
        (["generate", "a red 3", "--device", "abacus"], "abacus"),
        (["generate", "a red 3", "--style", "cubist"], "outline, dotted, neon"),
        (["generate", "a red 3", "--style", "neon", "--alpha", "2"], "alpha"),
        (["generate", "a red 3", "--alpha", "0.5"], "--style"),
        (["train", "t2i", "--batch", "-1"], "batch"),
        (["train", "t2i", "--steps", "-5"], "steps"),
        (["evaluate", "--samples", "0"], "samples"),
        (["evaluate", "--frames", "0"], "frames"),
        (["evaluate", "--frames", "18"], "16 or 20"),
        (["evaluate", "--seed", "-1"], "seed"),
        (["train", "judge", "--seed", "-1"], "seed"),
        (["train", "judge", "--steps", "0"], "--steps must be more than 0"),
        (["train", "judge", "--batch", "0"], "--batch must be more than 0"),
        (["train", "judge", "--minutes", "0"], "--minutes must be more than 0"),
        (["train", "judge", "--save-minutes", "nan"], "save_minutes"),
        (["train", "judge", "--folder", ""], "folder is empty"),
        (["train", "judge", "--folder", "/dev/null/run", "--steps", "1"], "/dev/null"),
        (["train", "all"], "--ship"),
        *(
            (["generate", "a red 3", f"--{name}", ""], what)
            for name, what in (
                ("image", "image is empty"),
                ("output", "path is empty"),
                ("style", "outline"),
                ("device", "choose cpu"),
            )
        ),
        *(
            ([*command, "--device", device], "choose cpu")
            for device in ("cuda:99", "meta", "abacus", "")
            for command in (["generate", "a red 3"], ["train", "judge"], ["evaluate"])
        ),
        (["generate", "a red 3", "--style", "nosuch", "--alpha", "0.5"], "outline, dotted, neon"),
        (["generate", "a red three"], "did you mean '3'?"),
        (["generate", "a red 3 moving right fast"], "did you mean 'quickly'?"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_clear_line(arguments, says, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and says in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["generate"],
        ["generate", "a red 3", "--scale", "huge"],
        ["train"],
        ["train", "all of them"],
        ["info", "--seed", "1"],
        ["info", "--device", "cpu"],
    ],
)
def test_bad_usage_is_exit_code_2_and_one_clear_line(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_generate_from_an_image_begins_with_it(tmp_path):
    image = ml.sample_batch(1, captions=["a red 3"], size=128).video[0, :1]
    ml.save_video(image, tmp_path / "first.png")
    arguments = ["generate", "a red 3 moving right", "--steps", "1", "-o", str(tmp_path / "out.webp")]
    assert main([*arguments, "--image", str(tmp_path / "first.png")]) == 0
    with Image.open(tmp_path / "out.webp") as clip:
        first = torch.tensor(np.asarray(clip.convert("RGB"))).permute(2, 0, 1) / 255
    assert (first - image[0]).abs().max() <= 1 / 255  # a PNG and a WebP are lossless
    assert main([*arguments, "--image", str(tmp_path / "none.png")]) == 2


def test_generate_in_a_style(tmp_path):
    arguments = ["generate", "a red 3 moving right", "--steps", "2", "--no-super-resolution", "-o", str(tmp_path / "out.gif")]
    clips = []
    for more in (["--style", "neon", "--alpha", "0"], [], ["--style", "neon"]):
        assert main([*arguments, *more]) == 0
        clips.append((tmp_path / "out.gif").read_bytes())
    assert clips[0] == clips[1] != clips[2]


def test_generate_by_the_student(tmp_path, capsys):
    arguments = ["generate", "a red 3 moving right", "--fast", "--frames", "4", "--no-super-resolution"]
    assert main([*arguments, "-o", str(tmp_path / "out.gif")]) == 0 and (tmp_path / "out.gif").is_file()
    capsys.readouterr()
    assert main([*arguments, "--guidance", "3", "-o", str(tmp_path / "other.gif")]) == 2
    assert "guidance inside" in capsys.readouterr().err and not (tmp_path / "other.gif").exists()


@pytest.mark.parametrize("command", ["generate", "train", "evaluate", "info"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--scale" in capsys.readouterr().out


def test_info_lists_the_shipped_weights(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("t2i", "base", "ssr-image", "ssr", "judge", "32x32 -> 128x128"))
    header, *rows = text.splitlines()[3:]
    device = header.index("  device")
    assert rows and all(row[device - 1].isdigit() and row[device : device + 2] == "  " for row in rows), "in columns"


def test_a_judge_that_is_not_there_is_missed_before_clips_are_made(monkeypatch, capsys):
    def absent(stage, scale):
        raise FileNotFoundError("no weights judge.safetensors")

    load_judge.cache_clear()
    monkeypatch.setattr("minilumiere.evaluation.judge.trained", absent)
    monkeypatch.setattr(Pipeline, "generate", lambda *_, **__: pytest.fail("clips were made"))
    assert main(["evaluate", "--samples", "1"]) == 2
    assert "no weights judge.safetensors" in capsys.readouterr().err


def test_as_a_module_with_an_exit_code():
    run = subprocess.run([sys.executable, "-m", "minilumiere", "generate", "a rad 3"], capture_output=True, text=True)
    assert run.returncode == 2 and "red" in run.stderr and run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--zoom", "0"], "zoom must be from 1 to 64"),
        (["--zoom", "65"], "zoom must be from 1 to 64"),
        (["-o", "out.mp4"], "minilumiere[video]"),
        (["-o", "/dev/null/out.gif"], "/dev/null/out.gif"),
        (["-o", "/proc/out.gif"], "/proc/out.gif"),
        (["-o", "."], ".gif .png"),
        (["-o", "folder.gif"], "folder.gif"),
        (["-o", "out.avi"], ".gif .png"),
    ],
)
def test_what_the_output_lacks_is_found_before_anything_is_loaded(arguments, says, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    (tmp_path / "folder.gif").mkdir()
    monkeypatch.setattr("minilumiere.pipeline.load", lambda *_: pytest.fail("weights were loaded"))
    assert main(["generate", "a red 3", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_picture_that_is_damaged_or_of_another_size_is_one_clear_line(tmp_path, capsys):
    Image.new("RGB", (100, 80)).save(tmp_path / "other.png")
    Image.new("1", (14_000, 14_000)).save(tmp_path / "bomb.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "other.png").read_bytes()[:60])
    for name, says in (("other", "wanted 128x128 or 32x32"), ("bomb", "too large"), ("cut", "cut.png")):
        assert main(["generate", "a red 3", "--image", str(tmp_path / f"{name}.png")]) == 2
        captured = capsys.readouterr()
        assert says in captured.err and captured.err.count("\n") == 1


def test_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    done = run(["--version"])
    assert (done.returncode, done.stdout) == (0, f"minilumiere {project['version']}\n") and ml.__version__ == project["version"]


def test_help_waits_for_no_torch():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "minilumiere", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "torch" not in done.stderr


# How it ends


def test_nobody_reads_what_is_printed():
    for command in ("info", "--help", "generate --help"):
        done = shell(f"minilumiere {command} | true; exit ${{PIPESTATUS[0]}}")
        assert done.returncode in (0, cli.NOBODY_READS) and done.stderr == "", command


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams(closed, tmp_path):
    assert shell(f"minilumiere generate nonsense {closed}").returncode == 2
    done = shell(f"minilumiere train judge --steps 2 --batch 2 --device cpu --folder {tmp_path}/run {closed}")
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint.safetensors", "log.jsonl"}


def test_an_output_that_is_full_is_an_error():
    done = shell("minilumiere info > /dev/full")
    assert done.returncode == 2 and "No space left" in done.stderr and done.stderr.count("\n") == 1


def test_a_terminal_that_lacks_letters_gets_escapes(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = run(["generate", "a rèd 3"], env=environment)
    assert done.returncode == 2 and done.stderr.isascii() and done.stderr.count("\n") == 1
    path = tmp_path / "ünï.gif"
    arguments = ["generate", "a red 3", "--steps", "1", "--frames", "4", "--no-super-resolution", "-o", str(path)]
    done = run(arguments, env=environment)
    assert done.returncode == 0 and done.stdout.isascii() and path.is_file()


def test_ctrl_c_in_train_saves_and_the_same_command_resumes(tmp_path):
    arguments = ["train", "judge", "--steps", "100000", "--batch", "2", "--device", "cpu", "--folder", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "minilumiere", *arguments], stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while not (tmp_path / "run" / "log.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and errors.endswith("run: stopped; the same command resumes it\n")
    assert "Traceback" not in errors and (tmp_path / "run" / "checkpoint.safetensors").is_file()
    assert run([*arguments, "--stop-minutes", "0"]).stdout.endswith("stopped; the same command resumes it\n")


def test_ctrl_c_in_generate_is_one_line(monkeypatch, capsys, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "generate", interrupted)
    assert main(["generate", "a red 3", "-o", str(tmp_path / "out.gif")]) == 130
    assert capsys.readouterr().err == "minilumiere: interrupted, nothing was saved\n"


def test_an_error_has_a_line_of_its_own_after_a_progress_bar(monkeypatch, capsys, tmp_path):
    from tqdm import tqdm

    def failing(*_, **__):
        for _ in tqdm(range(3), "base", leave=False, mininterval=0):
            raise ValueError("the error")

    monkeypatch.setattr(Pipeline, "generate", failing)
    assert main(["generate", "a red 3", "-o", str(tmp_path / "out.gif")]) == 2
    assert capsys.readouterr().err.split("\r")[-1] == "minilumiere: the error\n"


def test_a_line_says_when_smoke_is_on(monkeypatch, capsys, tmp_path):
    arguments = ["generate", "a red 3", "--frames", "4", "--no-super-resolution", "-o", str(tmp_path / "out.gif")]
    for word, lines in (("1", 1), ("false", 0), ("off", 0)):
        monkeypatch.setenv("MINILUMIERE_SMOKE", word)
        assert main([*arguments, "--steps", "1"]) == 0
        assert capsys.readouterr().err.count("MINILUMIERE_SMOKE is on") == lines


def test_threads_wait_without_spinning(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    script = "import sys, os; from minilumiere.cli import main; main(['info']); print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("PASSIVE\n")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | {"OMP_WAIT_POLICY": "ACTIVE"}
    )
    assert done.stdout.endswith("ACTIVE\n")


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    ml.save_video(ml.sample_batch(1, captions=["a red 3"]).video[0, :1], tmp_path / "first.png")
    arguments = ["generate", "a red 3", "--steps", "1", "--frames", "4", "--no-super-resolution", "--image", "~/first.png"]
    assert main([*arguments, "-o", "~/new/out.gif"]) == 0
    assert (tmp_path / "new" / "out.gif").is_file()


def test_nothing_warns(tmp_path):
    options = ["--steps", "1", "--frames", "4", "-o", str(tmp_path / "out.gif")]
    done = run(["generate", "a red 3", *options], env=os.environ | {"PYTHONWARNINGS": "error"})
    assert done.returncode == 0, done.stderr
