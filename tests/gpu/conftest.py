"""What the tests against a GPU share. Without one they skip themselves; so do those that need torch where it is not."""

import ctypes

import pytest


def _gpus():
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


@pytest.fixture(scope="session")
def gpu():
    if _gpus() == 0:
        pytest.skip("no GPU answers")


@pytest.fixture(params=["cpu", "cuda"])
def backend(request):
    """What holds for one must hold for the other."""
    if request.param == "cuda":
        request.getfixturevalue("gpu")
    return request.param
