"""Installing Debian packages, with an apt-get and a dpkg-query of our own on the path."""

import io
import os

import pytest

from tools.launcher import packages
from tools.launcher.failure import Failure
from tools.launcher.progress import Progress

WANTED = {"libone-dev": "the first thing", "libtwo-dev": "the second thing"}


@pytest.fixture
def debian(home, monkeypatch):
    """`debian.listed` says what dpkg knows; apt-get logs its arguments and does what `debian.apt(script)` says."""
    folder = home / "path"
    folder.mkdir()
    listed = home / "listed"
    calls = home / "calls"
    calls.touch()

    def command(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    command("dpkg-query", f"cat {listed}")
    command("dpkg", "exit 0")
    listed.write_text("ii \tlibone-dev\n")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def apt(script):
        command("apt-get", f'echo "$@" >> {calls}\n{script}')

    apt(f"printf 'ii \\tlibone-dev\\nii \\tlibtwo-dev\\n' > {listed}")
    debian = type("Debian", (), {"apt": staticmethod(apt), "listed": listed, "calls": calls, "screen": io.StringIO()})
    monkeypatch.setattr(packages.os, "geteuid", lambda: 0)
    monkeypatch.setattr(packages.sys, "stdin", io.StringIO())
    return debian


def ensure(debian, yes=True):
    packages.ensure(Progress(debian.screen, tty=False), WANTED, yes)


def test_installs_only_what_is_missing_and_says_what_for(debian):
    ensure(debian)
    update, install = debian.calls.read_text().splitlines()
    assert update.endswith("update")
    assert install.endswith("--no-install-recommends libtwo-dev")
    assert "the second thing" in debian.screen.getvalue() and "the first thing" not in debian.screen.getvalue()


def test_does_nothing_when_nothing_is_missing(debian):
    debian.listed.write_text("ii \tlibone-dev\nii \tlibtwo-dev\n")
    ensure(debian)
    assert debian.calls.read_text() == ""
    assert "skipped" in debian.screen.getvalue()


def test_a_half_installed_package_counts_as_missing(debian):
    debian.listed.write_text("ii \tlibone-dev\niU \tlibtwo-dev\n")
    assert packages.missing(WANTED) == ["libtwo-dev"]


def test_apts_error_is_shown(debian):
    debian.apt("echo 'E: Unable to locate package libtwo-dev' >&2; exit 100")
    with pytest.raises(Failure) as caught:
        ensure(debian)
    assert "Unable to locate package libtwo-dev" in caught.value.why


def test_a_full_disk_is_called_by_its_name(debian):
    debian.apt("echo 'E: write error - write (28: No space left on device)'; exit 100")
    with pytest.raises(Failure) as caught:
        ensure(debian)
    assert "disk is full" in caught.value.what


def test_an_apt_that_installs_nothing_is_not_believed(debian):
    debian.apt("exit 0")
    with pytest.raises(Failure) as caught:
        ensure(debian)
    assert "libtwo-dev" in caught.value.what


def test_without_root_and_without_a_terminal_it_needs_yes(debian, monkeypatch):
    monkeypatch.setattr(packages.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(Failure) as caught:
        ensure(debian, yes=False)
    assert "--yes" in caught.value.fix
    assert debian.calls.read_text() == ""


def test_a_person_who_says_no_is_obeyed(debian, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(packages.sys, "stdin", terminal)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    with pytest.raises(Failure):
        ensure(debian, yes=False)
    assert debian.calls.read_text() == ""
