"""Shipped weights: what is in `data/weights`, how it gets there, and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from train_driver import go, use_small

from minilumiere.config import SCALES, STYLES, architecture
from minilumiere.model.digit_classifier import DigitClassifier
from minilumiere.pipeline import load
from minilumiere.weights import build
from minilumiere.weights.checkpoint import file_sha256, load_weights, read_checkpoint, write_checkpoint
from minilumiere.weights.shipped import (
    BUILT_ON,
    SHIPPED_AS,
    TAUGHT_BY,
    WEIGHTS,
    built_on,
    read_manifest,
    read_shipped,
    ship,
    weights_path,
)

TINY = SCALES["tiny"]
STAGES = {"t2i", "base", "fast", "ssr-image", "ssr", "judge", "video-features", *(f"style-{style}" for style in STYLES)}
MEBIBYTE = 2**20


def fake_run(folder: Path, stage: str = "t2i", scale=TINY, value: float = 0.1, **facts) -> Path:
    """What a training run leaves, with one weight."""
    values = {"w": torch.tensor([value, 1 / 3, 70.5])}
    tensors = {
        f"{prefix}.{name}": tensor + i
        for i, prefix in enumerate(("ema", "model", "exp_avg"))
        for name, tensor in values.items()
    }
    identity = {"stage": stage, "scale": scale.name, "config": architecture(stage, scale), "steps": 9, "batch": 4, "seed": 3}
    if stage in BUILT_ON:
        facts = built_on(stage, scale, folder.parent / "weights") | facts
    write_checkpoint(
        folder / "checkpoint.safetensors", tensors, identity | {"step": 9, "minutes": 1.5, "device": "CPU"} | facts
    )
    (folder / "log.jsonl").write_text("".join(json.dumps({"step": step, "loss": step / 100}) + "\n" for step in range(1, 10)))
    return folder


@pytest.fixture
def folder(tmp_path):
    """A folder of weights with the t2i net in it."""
    ship(fake_run(tmp_path / "t2i"), "t2i", TINY, tmp_path / "weights")
    return tmp_path / "weights"


def test_what_is_shipped_is_the_ema_in_half_precision(folder):
    tensors, metadata = read_shipped("t2i", TINY, folder)
    assert tensors.keys() == {"w"}
    assert tensors["w"].dtype == torch.float16
    assert torch.equal(tensors["w"], torch.tensor([0.1, 1 / 3, 70.5]).half())
    assert {"stage": "t2i", "scale": "tiny", "seed": 3, "batch": 4, "step": 9}.items() <= metadata.items()


def test_the_manifest_tells_each_file(tmp_path, folder):
    ship(fake_run(tmp_path / "judge", "judge"), "judge", TINY, folder)
    manifest = read_manifest(folder)
    assert manifest.keys() == {"tiny/t2i.safetensors", "tiny/judge.safetensors"}
    for name, entry in manifest.items():
        assert entry["sha256"] == file_sha256(folder / name)
        assert entry["bytes"] == (folder / name).stat().st_size
        assert (entry["step"], entry["batch"], entry["seed"], entry["device"]) == (9, 4, 3, "CPU")
        assert entry["loss"] == pytest.approx(0.05)


def test_shipping_again_replaces_file_and_entry(tmp_path, folder):
    before = read_manifest(folder)["tiny/t2i.safetensors"]
    ship(fake_run(tmp_path / "again", value=5.0), "t2i", TINY, folder)
    entry = read_manifest(folder)["tiny/t2i.safetensors"]
    assert entry["sha256"] == file_sha256(weights_path("t2i", TINY, folder)) != before["sha256"]
    assert read_shipped("t2i", TINY, folder)[0]["w"][0] == 5


def test_a_real_run_goes_into_a_model(tmp_path, monkeypatch):
    """Train, ship, read, load: the model has the EMA weights, rounded to half precision."""
    scale = use_small(monkeypatch, tmp_path / "weights")
    ema = go(tmp_path / "run", "judge", steps=2)
    ship(tmp_path / "run", "judge", scale)
    model = DigitClassifier(scale.judge)
    load_weights(model, read_shipped("judge", scale)[0])
    for name, value in ema.named_parameters():
        assert torch.equal(model.get_parameter(name), value.detach().half().float()), name


def test_missing_weights_name_the_command(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="minilumiere train ssr --scale tiny"):
        read_shipped("ssr", TINY, folder)
    with pytest.raises(FileNotFoundError, match="minilumiere train t2i --scale full"):
        read_shipped("t2i", SCALES["full"], folder)
    assert read_manifest(tmp_path / "nowhere") == {}


def test_missing_image_weights_name_their_command(tmp_path, folder):
    """The temporal layers are there, the image net below them is not."""
    ship(fake_run(tmp_path / "base", "base"), "base", TINY, folder)
    weights_path("t2i", TINY, folder).unlink()
    with pytest.raises(FileNotFoundError, match="minilumiere train t2i --scale tiny"):
        read_shipped("base", TINY, folder)


def test_a_pipeline_without_weights_names_the_command(tmp_path, monkeypatch):
    use_small(monkeypatch, tmp_path)
    with pytest.raises(FileNotFoundError, match="minilumiere train"):
        load("tiny", device="cpu")


@pytest.mark.parametrize(("video", "image"), [*BUILT_ON.items(), *TAUGHT_BY.items()])
def test_what_was_trained_on_other_weights_is_refused(tmp_path, video, image):
    """Temporal layers and styles on another image net, a student beside another teacher."""
    folder = tmp_path / "weights"
    for stage in dict.fromkeys([BUILT_ON.get(image, image), image, TAUGHT_BY.get(video, image), video]):
        ship(fake_run(tmp_path / stage, stage), stage, TINY, folder)
    read_shipped(video, TINY, folder)
    ship(fake_run(tmp_path / "other", image, value=0.2), image, TINY, folder)
    named = "(base|fast)" if video in TAUGHT_BY else SHIPPED_AS.get(video, video)  # its teacher is refused, too
    with pytest.raises(ValueError, match=rf"{named}.*other {image} weights"):
        read_shipped(video, TINY, folder)


def test_weights_of_another_model_stage_or_scale_are_refused(tmp_path, folder):
    wider = replace(TINY, t2i=replace(TINY.t2i, channels=(64, 96, 128)))
    with pytest.raises(ValueError, match="another config"):
        read_shipped("t2i", wider, folder)
    path = weights_path("t2i", TINY, folder)
    for stage, scale, what in (("judge", TINY, "stage"), ("t2i", SCALES["full"], "scale")):
        other = weights_path(stage, scale, folder)
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(path.read_bytes())
        with pytest.raises(ValueError, match=f"another {what}"):
            read_shipped(stage, scale, folder)


def test_damaged_weights_are_refused(folder):
    path = weights_path("t2i", TINY, folder)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_shipped("t2i", TINY, folder)


def test_shipping_a_bad_run_changes_nothing(tmp_path, folder):
    def everything() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = everything()
    run = fake_run(tmp_path / "judge", "judge")
    with pytest.raises(ValueError, match="another stage"):
        ship(run, "t2i", TINY, folder)
    with pytest.raises(ValueError, match="another scale"):
        ship(run, "judge", SCALES["full"], folder)
    (run / "checkpoint.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors"):
        ship(run, "judge", TINY, folder)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ship(tmp_path / "nowhere", "judge", TINY, folder)
    with pytest.raises(FileNotFoundError, match="minilumiere train ssr-image"):  # nothing to build it on
        ship(fake_run_without_base(tmp_path / "ssr"), "ssr", TINY, folder)
    assert everything() == before


def fake_run_without_base(run: Path) -> Path:
    fake_run(run, "judge")
    tensors, metadata = read_checkpoint(run / "checkpoint.safetensors")
    facts = metadata | {"stage": "ssr", "config": architecture("ssr", TINY), "built_on": "0" * 64}
    write_checkpoint(run / "checkpoint.safetensors", tensors, facts)
    return run


def test_weights_that_half_precision_cannot_hold_are_not_shipped(tmp_path, folder):
    with pytest.raises(ValueError, match="w"):
        ship(fake_run(tmp_path / "large", value=1e6), "t2i", TINY, folder)
    assert read_shipped("t2i", TINY, folder)[0]["w"].isfinite().all()


# What this repository ships


MANIFEST = read_manifest()


def shipped_names(stage: str, scale) -> dict[str, torch.Size]:
    """The tensors that a stage trains, and their shapes."""
    return {name: value.shape for name, value in build(stage, scale).named_parameters() if value.requires_grad}


def test_every_stage_of_tiny_is_shipped():
    assert {name.removeprefix("tiny/").removesuffix(".safetensors") for name in MANIFEST if name.startswith("tiny/")} == STAGES


def test_the_manifest_names_every_file_and_nothing_else():
    files = {path.relative_to(WEIGHTS).as_posix() for path in WEIGHTS.rglob("*") if path.is_file()}
    assert files - {"manifest.json"} == MANIFEST.keys()
    for name in MANIFEST:
        assert re.fullmatch(rf"({'|'.join(SCALES)})/({'|'.join(STAGES)})\.safetensors", name)


def test_the_weights_stay_small():
    sizes = {path: path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()}
    assert sum(size for path, size in sizes.items() if path.parent.name == "tiny") <= 16 * MEBIBYTE
    assert sum(size for path, size in sizes.items() if path.parent.name == "full") <= 32 * MEBIBYTE
    assert sum(sizes.values()) <= 48 * MEBIBYTE


@pytest.mark.parametrize("name", MANIFEST)
def test_shipped_file(name):
    """The manifest's checksum and size, a readable file, and a value for every parameter of the model."""
    path, entry = WEIGHTS / name, MANIFEST[name]
    assert file_sha256(path) == entry["sha256"]
    assert path.stat().st_size == entry["bytes"]
    scale, stage = SCALES[path.parent.name], path.stem
    tensors, metadata = read_shipped(stage, scale)
    assert {key: metadata[key] for key in ("step", "batch", "seed")} == {key: entry[key] for key in ("step", "batch", "seed")}
    assert {key: value.shape for key, value in tensors.items()} == shipped_names(stage, scale)
    for key, value in tensors.items():
        assert value.dtype == torch.float16, key
        assert value.isfinite().all(), key
