"""Holds the whole repository against the house rules in rules.py."""

import pathlib
import shutil
import subprocess
import warnings

import pytest

import rules

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOT_OURS = ("build/", ".longhaul/", ".git/")


def repository_files():
    """What git tracks or would track; all files where this is no git checkout."""
    listing = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=False,
    )
    if listing.returncode == 0:
        return [name for name in listing.stdout.decode().split("\0") if name]
    return [str(file.relative_to(ROOT)) for file in ROOT.rglob("*") if file.is_file()]


@pytest.fixture(scope="session")
def tree():
    texts = {}
    for name in sorted(repository_files()):
        if not name.startswith(NOT_OURS) and (ROOT / name).is_file():
            try:
                texts[name] = (ROOT / name).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # data, not text
    return texts


@pytest.mark.parametrize("name", rules.CHECKS)
def test_rule(name, tree):
    faults = rules.CHECKS[name](tree)
    if faults:
        pytest.fail(f"{len(faults)} against the rule '{name}':\n" + "\n".join(faults), pytrace=False)


def test_the_tree_is_not_empty(tree):
    assert len([path for path in tree if path.endswith(rules.CODE)]) > 20


def test_long_files_are_warned_about(tree):
    for fault in rules.check_sizes(tree, rules.SOFT_LINES):
        warnings.warn(fault, stacklevel=1)


def test_clang_format(tree):
    formatter = shutil.which("clang-format-14") or shutil.which("clang-format")
    if formatter is None:
        pytest.skip("clang-format is not installed")
    files = [path for path in tree if path.endswith(rules.CODE)]
    result = subprocess.run(
        [formatter, "--dry-run", "-Werror", *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    bad = sorted({line.split(":", 1)[0] for line in result.stderr.splitlines() if "clang-format-violations" in line})
    if result.returncode != 0:
        pytest.fail(f"run clang-format -i on {len(bad)} files:\n" + "\n".join(bad), pytrace=False)
