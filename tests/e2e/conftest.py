"""Real servers for the end-to-end tests: a cluster of five processes, and a standalone, each started once."""

import io

import openai
import pytest

from tools.launcher import build, cluster, model
from tools.launcher.progress import Progress

REQUEST_SECONDS = 60


@pytest.fixture(scope="session")
def model_path():
    for binary in build.SERVING:
        assert build.binary(binary).exists(), f"{binary} is not built; ./longhaul test builds it"
    return str(model.fetch(Progress(io.StringIO(), tty=False)))


@pytest.fixture(scope="session")
def make_server(model_path):
    """make_server(prefill=2, ...): a context of the test's own making; stopped with the session at the latest."""
    instances = []

    def make(**shape):
        # The golden answers' error bounds are the CPU's; tests/gpu has the GPU's.
        shape = {"port": 0, "served_name": model.DEFAULT.name, "worker_flags": ("--backend=cpu",)} | shape
        instance = cluster.start(cluster.Shape(model_path, **shape))
        instances.append(instance)
        return instance

    yield make
    for instance in instances:
        instance.stop()


@pytest.fixture(scope="session")
def cluster_server(make_server):
    # On a busy machine long prompts wait longer than a client should: no matter here.
    return make_server(prefill=2, decode=2, router_flags=("--wait_limit_s=600",))


@pytest.fixture(scope="session")
def standalone_server(make_server):
    return make_server(standalone=True)


@pytest.fixture(scope="session", params=["cluster", "standalone"])
def server(request):
    """What holds for one must hold for the other."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture(scope="session")
def connect():
    """connect(instance): OpenAI's client for it."""

    def client(instance):
        address = f"http://{instance.http}/v1"
        return openai.OpenAI(base_url=address, api_key="unused", max_retries=0, timeout=REQUEST_SECONDS)

    return client


@pytest.fixture(scope="session")
def client(server, connect):
    return connect(server)


@pytest.fixture(scope="session")
def model_id(client):
    return client.models.list().data[0].id
