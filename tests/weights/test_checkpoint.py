"""Checkpoints: whole or refused with `ValueError`, never unpickled; whatever happens while one is written, one is there."""

import errno
import io
import json
import math
import os
import pickle
import random
import resource
import struct
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn
from train_driver import identity, wait_for_change, write_child

from minilumiere.weights import checkpoint
from minilumiere.weights.checkpoint import load_weights, read_checkpoint, write_atomically, write_checkpoint

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool]
FACTS = {"stage": "base", "scale": "tiny", "config": {"channels": [8, 16], "size": 16}, "step": 7}
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def small_tensors() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2], dtype=torch.int64).half()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """The same names, dtypes, shapes and bits (NaN included)."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].shape == other[name].shape and bits(one[name]) == bits(other[name])
        for name in one
    )


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@contextmanager
def no_pickle():
    """Whatever unpickles fails the test (`AssertionError` is not what a reader of bad files catches)."""

    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
            patch.setattr(module, name, refuse)
        yield


def put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # file systems hurry to save a file that was cut to nothing and written again
    path.write_bytes(content)


def assert_refused(path: Path, content: bytes) -> None:
    put(path, content)
    with no_pickle(), pytest.raises(ValueError, match=path.name):
        read_checkpoint(path)


@pytest.fixture
def whole(tmp_path) -> bytes:
    """The bytes of a very small checkpoint."""
    path = tmp_path / "whole.safetensors"
    write_checkpoint(path, {"w": torch.tensor([1, 2])}, {"step": 7})
    return path.read_bytes()


# Round trips


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_layout_comes_back(tmp_path, dtype):
    values = torch.randint(0, 2, (2, 3, 4, 5), generator=torch.Generator().manual_seed(0)).to(dtype)
    tensors = {
        "plain": values.clone(),
        "channels_last": values.to(memory_format=torch.channels_last),
        "transposed": values.mT,
        "strided": values[..., ::2],
        "scalar": values[0, 0, 0, 0].clone(),
        "empty": values[:0].clone(),
    }
    write_checkpoint(tmp_path / "c", tensors, {})
    assert same(read_checkpoint(tmp_path / "c")[0], tensors)


@FUZZ
@given(data=st.data())
def test_random_tensors_and_metadata_come_back(tmp_path, data):
    name = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__")
    shape = st.lists(st.integers(0, 4), max_size=4)
    tensors = {}
    for key, dtype, size in data.draw(st.lists(st.tuples(name, st.sampled_from(DTYPES[:-1]), shape), max_size=4)):
        length = math.prod(size) * dtype.itemsize
        content = torch.tensor(list(data.draw(st.binary(min_size=length, max_size=length))), dtype=torch.uint8)
        tensors[key] = content.view(dtype).reshape(size)
    facts = data.draw(
        st.dictionaries(st.text("abcé", min_size=1), st.none() | st.integers() | st.text() | st.lists(st.booleans()))
    )
    checksum = write_checkpoint(tmp_path / "c", tensors, facts)
    found, metadata = read_checkpoint(tmp_path / "c", **facts)
    assert same(found, tensors)
    assert metadata == facts | {"version": 1, "sha256": checksum}


def test_the_same_content_is_the_same_file(tmp_path):
    """Manifests name files by checksum: writing again what did not change must change nothing."""
    tensors = small_tensors()
    write_checkpoint(tmp_path / "one", tensors, FACTS)
    write_checkpoint(tmp_path / "other", dict(reversed(tensors.items())), dict(reversed(FACTS.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_parameters_that_require_gradients_are_written(tmp_path):
    layer = nn.Linear(2, 3)
    write_checkpoint(tmp_path / "new" / "folder" / "c", dict(layer.named_parameters()), {})
    assert same(read_checkpoint(tmp_path / "new" / "folder" / "c")[0], layer.state_dict())


# What a reader refuses


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_checkpoint(tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path)  # a folder


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("stage", "ssr"),
        ("scale", "full"),
        ("config", FACTS["config"] | {"size": 32}),
        ("config", {}),
        ("step", 8),
        ("seed", 0),
    ],
)
def test_another_checkpoint_than_expected_is_refused_by_name(tmp_path, key, wanted):
    write_checkpoint(tmp_path / "c", small_tensors(), FACTS)
    read_checkpoint(tmp_path / "c", **FACTS)
    with pytest.raises(ValueError, match=rf"c is of another {key}\b"):
        read_checkpoint(tmp_path / "c", **FACTS | {key: wanted})


def test_another_format_version_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT_VERSION", checkpoint.FORMAT_VERSION + 1)
        write_checkpoint(tmp_path / "c", small_tensors(), FACTS)
    with pytest.raises(ValueError, match="version"):
        read_checkpoint(tmp_path / "c")


def test_truncated_at_any_length(tmp_path, whole):
    for length in range(len(whole)):
        assert_refused(tmp_path / "cut", whole[:length])


def test_any_flipped_bit(tmp_path, whole):
    """All of them. A flip that changes nothing that is read (none is known) would be let through."""
    path = tmp_path / "flipped"
    with no_pickle():
        for bit in range(8 * len(whole)):
            content = bytearray(whole)
            content[bit // 8] ^= 1 << bit % 8
            put(path, bytes(content))
            try:
                tensors, metadata = read_checkpoint(path)
            except ValueError as error:
                assert path.name in str(error)
            else:
                assert same(tensors, {"w": torch.tensor([1, 2])})
                assert metadata["step"] == 7


@FUZZ
@given(start=st.integers(0, 300), length=st.integers(0, 40), new=st.binary(max_size=40))
def test_any_stretch_replaced(tmp_path, whole, start, length, new):
    content = whole[:start] + new + whole[start + length :]
    if content != whole:
        assert_refused(tmp_path / "spliced", content)


@FUZZ
@given(st.binary(max_size=300))
def test_arbitrary_bytes(tmp_path, content):
    assert_refused(tmp_path / "junk", content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "U8", "I64", "BOOL", "F8_E4M3", "F4", "C64", "X"]) | json_values,
        "shape": st.lists(st.integers(-1, 2**64), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | json_values,
    }
)
headers = st.dictionaries(st.sampled_from(["a", "b", "__metadata__", ""]), entries | json_values, max_size=3)
metadatas = st.dictionaries(st.sampled_from(["sha256", "minilumiere"]), st.text(max_size=5) | json_values)


@FUZZ
@given(headers, metadatas, st.binary(max_size=40), st.integers(-2, 2) | st.integers(0, 2**63))
def test_arbitrary_headers(tmp_path, header, metadata, body, wrong):
    """Nearly right files come further than random bytes do."""
    text = json.dumps(header | {"__metadata__": metadata}).encode()
    length = max(0, len(text) + wrong if abs(wrong) < 3 else wrong)
    assert_refused(tmp_path / "headers", struct.pack("<Q", length) + text + body)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"text"', "", "{", "[" * 100_000, "{}", '{"version": "1"}'])
def test_forged_metadata_with_the_right_checksum(tmp_path, text):
    """The checksum is no signature: whoever tampers can write a new one."""
    tensors = small_tensors()
    stored = {"minilumiere": text, "sha256": checkpoint._checksum(tensors, text)}
    assert_refused(tmp_path / "forged", save(tensors, stored))


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickled(payload: Payload, how: str) -> bytes:
    buffer = io.BytesIO()
    if how == "pickle":
        pickle.dump(payload, buffer)
    else:
        torch.save({"model": payload}, buffer, _use_new_zipfile_serialization=how == "torch")
    return buffer.getvalue()


@pytest.mark.parametrize("how", ["pickle", "torch", "torch legacy"])
def test_a_pickle_is_refused_and_not_executed(tmp_path, how):
    mark = tmp_path / "executed"
    content = pickled(Payload(mark), how)
    torch.load(io.BytesIO(content), weights_only=False) if how != "pickle" else pickle.loads(content)
    assert mark.is_dir()  # the payload works
    mark.rmdir()
    path = tmp_path / "evil.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="evil"):
        read_checkpoint(path)
    assert_refused(path, content)
    assert not mark.exists()


# What a writer survives


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class HalfWritten:
    """A file on a disk that becomes full in the middle of a write."""

    def __init__(self, *arguments):
        self.file = open(*arguments)  # noqa: SIM115 (closed below)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        full_disk()


@pytest.mark.parametrize("fails", ["opening", "write", "fsync", "replace"])
@pytest.mark.parametrize("exists", [True, False])
def test_disk_full_keeps_the_old_file(tmp_path, monkeypatch, fails, exists):
    path = tmp_path / "run" / "checkpoint.safetensors"
    if exists:
        write_checkpoint(path, small_tensors(), FACTS)
        before = path.read_bytes()
    with monkeypatch.context() as patch:
        if fails in ("opening", "write"):
            patch.setattr(checkpoint, "open", HalfWritten if fails == "write" else full_disk, raising=False)
        else:
            patch.setattr(os, fails, full_disk)
        with pytest.raises(OSError, match=r"(?i)could not write .*checkpoint\.safetensors.*no space left") as caught:
            write_checkpoint(path, {"other": torch.ones(1000)}, {})
    assert caught.value.errno == errno.ENOSPC
    assert [file.name for file in path.parent.iterdir()] == ([path.name] if exists else [])
    if exists:
        assert path.read_bytes() == before
        assert same(read_checkpoint(path)[0], small_tensors())


def test_a_write_that_the_system_cuts_short_keeps_the_old_file(tmp_path):
    """The same, with a real failing write: no file may become longer than 100 kB."""
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, small_tensors(), FACTS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(OSError, match="could not write"):
            write_checkpoint(path, {"large": torch.ones(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(read_checkpoint(path)[0], small_tensors())
    assert list(tmp_path.iterdir()) == [path]


def test_a_target_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "file" / "checkpoint", tmp_path / "folder"):
        with pytest.raises(OSError, match="could not write"):
            write_atomically(target, b"content")
    assert (tmp_path / "file").read_text() == "not a folder"


def assert_whole(path: Path, at_least: int = 0) -> int:
    tensors, metadata = read_checkpoint(path)
    assert torch.equal(tensors["w"], torch.full((50_000,), float(metadata["step"])))
    assert metadata["step"] >= at_least
    return metadata["step"]


@pytest.mark.parametrize(("where", "leaves"), [("fsync", 2), ("replace", 2), ("replaced", 3)])
def test_killed_at_the_worst_moments(tmp_path, fork_server, where, leaves):
    """SIGKILL in the third write, just before the content is safe, just before the rename, and just after it."""
    path = tmp_path / "checkpoint.safetensors"
    process = fork_server.Process(target=write_child, args=(path, 1, (where, 3)))
    process.start()
    process.join(300)
    assert process.exitcode == -9
    assert assert_whole(path) == leaves


def test_killed_at_random_moments(tmp_path, fork_server):
    path = tmp_path / "checkpoint.safetensors"
    delays = random.Random(0)
    last = 0
    for _ in range(8):
        before = identity(path)
        process = fork_server.Process(target=write_child, args=(path, last + 1))
        process.start()
        wait_for_change(path, process, before)
        time.sleep(delays.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode == -9
        last = assert_whole(path, at_least=last + 1)


# Weights into models


def test_load_weights_converts_half_precision():
    layer, other = nn.Linear(3, 2), nn.Linear(3, 2)
    load_weights(
        layer, {f"net.{name}": value.half() for name, value in other.state_dict().items()} | {"x": torch.ones(1)}, "net."
    )
    assert layer.weight.dtype == torch.float32
    assert torch.equal(layer.weight, other.weight.half().float())
    assert torch.equal(layer.bias, other.bias.half().float())


def test_load_weights_keeps_the_memory_format():
    layer = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    values = torch.randn(4, 4, 3, 3)
    load_weights(layer, {"weight": values, "bias": torch.zeros(4)})
    assert torch.equal(layer.weight, values)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_load_weights_refuses_an_unknown_tensor():
    with pytest.raises(ValueError, match="extra"):
        load_weights(nn.Linear(3, 2), {"weight": torch.ones(2, 3), "bias": torch.ones(2), "extra": torch.ones(2)})


def test_load_weights_refuses_a_missing_tensor():
    with pytest.raises(ValueError, match="bias"):
        load_weights(nn.Linear(3, 2), {"weight": torch.ones(2, 3)})


def test_load_weights_leaves_frozen_parameters_to_their_own_file():
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    load_weights(layer, {"weight": torch.ones(2, 3)})
    assert (layer.weight == 1).all()


@pytest.mark.parametrize("shape", [(3, 2), (1, 3), (2, 1), (3,), (6,), (), (1, 2, 3)])
def test_load_weights_refuses_another_shape(shape):
    """Even one that would broadcast."""
    with pytest.raises(ValueError, match=r"weight.*\(2, 3\)"):
        load_weights(nn.Linear(3, 2), {"weight": torch.ones(shape), "bias": torch.ones(2)})
