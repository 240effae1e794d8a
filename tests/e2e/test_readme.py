"""Runs the README's snippets as they stand there, against a live cluster."""

import re
import subprocess
import sys

import pytest

from tools.launcher import commands, paths

README = (paths.ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
DEFAULT_ADDRESS = "127.0.0.1:8000"
RUNNABLE = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
SNIPPETS = [(kind, text) for kind, text in BLOCKS if kind in RUNNABLE and "longhaul" not in text.split("\n")[0]]


@pytest.mark.parametrize("kind, text", SNIPPETS, ids=[kind for kind, _ in SNIPPETS])
def test_snippet(kind, text, cluster_server):
    code = text.replace(DEFAULT_ADDRESS, cluster_server.http)
    assert code != text, "a snippet that does not talk to the cluster proves nothing"
    result = subprocess.run([*RUNNABLE[kind], code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert '"error"' not in result.stdout, result.stdout
    assert "Paris" in result.stdout, result.stdout


def test_the_readme_has_both_kinds_of_snippet():
    assert {kind for kind, _ in SNIPPETS} == {"bash", "python"}


def test_every_launcher_command_in_the_readme_parses():
    lines = re.findall(r"^\./longhaul ([^#\n]*)", "\n".join(text for _, text in BLOCKS), re.MULTILINE)
    assert {"up", "test"} <= {line.split()[0] for line in lines}
    for line in lines:
        commands._parser().parse_args(line.split())
