"""./longhaul test: builds what the tests need, runs every suite, sums up.

Suites: unit, contract and sim are GoogleTest binaries (build/release/unit_tests.txt lists them) and the Python tests beside
them; tidy and e2e are Python tests; sanitizers runs the pure GoogleTest binaries under ASan, UBSan and TSan.
"""

from tools.launcher import build, gtest_runner, model, paths, pytest_runner, python
from tools.launcher.failure import Failure
from tools.launcher.test_report import Report

SUITES = ("tidy", "unit", "contract", "sim", "e2e", "sanitizers")
SANITIZER_PRESETS = ("asan", "tsan")
REQUIREMENTS = paths.ROOT / "tests" / "requirements.txt"
VOCABULARIES = paths.ROOT / "tests" / "vocabularies.txt"


def _wanted(only):
    return (only,) if only else SUITES


def set_up(progress, machine, only):
    """All but the sanitizers' builds, which come when their turn has come."""
    wanted = set(_wanted(only))
    if wanted == {"sanitizers"}:
        return
    python.ensure_requirements(progress, REQUIREMENTS)
    if wanted == {"tidy"}:
        return
    if "unit" in wanted:
        python.ensure_requirements(progress, VOCABULARIES, "--no-deps")
    build.run(progress, machine, ("unit_tests", *(build.SERVING if "e2e" in wanted else ())))
    model.fetch(progress)


def run(progress, machine, only, pattern):
    """Returns the exit code: 0 when every suite passed and at least one test ran."""
    report = Report(progress)
    release = paths.BUILD / "release"
    for suite in _wanted(only):
        if suite == "sanitizers":
            continue
        if suite in gtest_runner.SUITES:
            gtest_runner.run(report, machine, release, suite, pattern)
        pytest_runner.run(report, suite, pattern)
    if "sanitizers" in _wanted(only):
        for preset in SANITIZER_PRESETS:
            try:
                build.run(progress, machine, ("pure_tests",), preset, name=preset)
            except Failure as failure:
                report.broken(f"sanitizers/{preset}", "build", str(failure))
                continue
            gtest_runner.run(report, machine, paths.BUILD / preset, f"sanitizers/{preset}", pattern)
    return report.close()
