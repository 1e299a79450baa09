"""The command line, in this process except where the process matters."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import minilumiere as ml
from minilumiere.cli import main


def test_generate_writes_the_clip_and_says_where(tmp_path, capsys):
    path = tmp_path / "out.gif"
    assert main(["generate", "a red 3 moving right", "--scale", "tiny", "--seed", "0", "--steps", "1", "-o", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    with Image.open(path) as image:
        assert image.size == (64, 64) and image.n_frames == 16


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
        (["train", "everything"], "everything"),
        (["train", "t2i", "--batch", "-1"], "batch"),
        (["train", "t2i", "--steps", "-5"], "steps"),
        (["evaluate", "--samples", "0"], "samples"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_clear_line(arguments, says, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and says in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize("arguments", [[], ["dance"], ["generate"], ["generate", "a red 3", "--scale", "huge"], ["train"]])
def test_bad_usage_is_exit_code_2_and_one_clear_line(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_generate_from_an_image_begins_with_it(tmp_path):
    image = ml.sample_batch(1, captions=["a red 3"], size=64).video[0, :1]
    ml.save_video(image, tmp_path / "first.png")
    arguments = ["generate", "a red 3 moving right", "--steps", "1", "-o", str(tmp_path / "out.webp")]
    assert main([*arguments, "--image", str(tmp_path / "first.png")]) == 0
    with Image.open(tmp_path / "out.webp") as clip:
        first = torch.tensor(np.asarray(clip.convert("RGB"))).permute(2, 0, 1) / 255
    assert (first - image[0]).abs().mean() < 0.02
    assert main([*arguments, "--image", str(tmp_path / "none.png")]) == 2


def test_generate_in_a_style(tmp_path):
    arguments = ["generate", "a red 3 moving right", "--steps", "2", "--no-super-resolution", "-o", str(tmp_path / "out.gif")]
    clips = []
    for more in (["--style", "neon", "--alpha", "0"], [], ["--style", "neon"]):
        assert main([*arguments, *more]) == 0
        clips.append((tmp_path / "out.gif").read_bytes())
    assert clips[0] == clips[1] != clips[2]


@pytest.mark.parametrize("command", ["generate", "train", "evaluate", "info"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--scale" in capsys.readouterr().out


def test_info_lists_the_shipped_weights(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("t2i", "base", "ssr-image", "ssr", "judge", "32x32 -> 64x64"))


def test_as_a_module_with_an_exit_code():
    run = subprocess.run([sys.executable, "-m", "minilumiere", "generate", "a rad 3"], capture_output=True, text=True)
    assert run.returncode == 2 and "red" in run.stderr and run.stderr.count("\n") == 1
