"""What the tests against a GPU share. Without one they skip themselves; so do those that need torch where it is not."""

import pytest

import served_answers
from tools.gpu import machine
from tools.launcher import model


@pytest.fixture(scope="session")
def gpu():
    if machine.gpu_count() == 0:
        pytest.skip("no GPU answers")


@pytest.fixture(scope="session")
def two_gpus():
    if (count := machine.gpu_count()) < 2:
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
