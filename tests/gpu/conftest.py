"""What the tests against a GPU share. Without one they skip themselves; so do those that need torch where it is not."""

import ctypes

import pytest

import served_answers
from tools.launcher import model


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


@pytest.fixture(scope="session")
def two_gpus():
    if (count := _gpus()) < 2:
        pytest.skip(f"takes two GPUs, {count or 'none'} here")


@pytest.fixture(params=["cpu", "cuda"])
def backend(request):
    """What holds for one must hold for the other."""
    if request.param == "cuda":
        request.getfixturevalue("gpu")
    return request.param


@pytest.fixture(scope="module", params=["noise", "smollm2"])
def subject(request, tmp_path_factory):
    """(name, path of the model, prompts)"""
    if request.param == "noise":
        path = tmp_path_factory.mktemp("model") / "noise"
        served_answers.write_noise(path)
        return request.param, path, served_answers.noise_prompts()
    if not model.DEFAULT.path.exists():
        pytest.skip("the default model has not been fetched; ./longhaul up fetches it")
    return request.param, model.DEFAULT.path, served_answers.real_prompts()


@pytest.fixture(scope="module")
def answers(subject):
    """answers(which prompts, shape's options): {prompt's name: (Answer, headers)} of a server of that shape."""
    _, path, prompts = subject

    def asked(chosen=lambda prompt: True, **shape):
        return served_answers.ask_all(path, list(filter(chosen, prompts)), **shape)

    return asked


@pytest.fixture(scope="module")
def on_gpu(gpu, answers):
    return answers(standalone=True, worker_flags=("--backend=cuda", served_answers.MEMORY))
