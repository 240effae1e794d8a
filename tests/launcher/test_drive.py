"""The drive holds every reply against the standalone's, and says so when one differs."""

import io

import pytest

from tools.launcher import cluster, drive, load
from tools.launcher.failure import Failure
from tools.launcher.progress import Progress

ON_CPU = {"gpus": 0, "worker_flags": ("--backend=cpu",)}
ON_GPU = {"gpus": 1, "worker_flags": ("--backend=auto",)}


@pytest.fixture
def progress():
    return Progress(io.StringIO(), tty=False)


@pytest.fixture
def model_path(home):
    path = home / "model.gguf"
    path.write_bytes(b"weights")
    return path


def drive_a_cluster(progress, model_path, wanted):
    instance = cluster.start(cluster.Shape(str(model_path), 1, 1, port=0))
    try:
        drive.drive(progress, instance, wanted)
    finally:
        instance.stop()


def test_equal_replies_pass_and_are_reported(stand_ins, progress, model_path):
    wanted = drive.expected(progress, model_path, ON_CPU)
    assert set(wanted) == {job.name for job in load.jobs("")}
    drive_a_cluster(progress, model_path, wanted)
    said = progress.stream.getvalue()
    total = sum(len(job.bodies) for job in load.jobs(""))
    assert f"{total}/{total} replies equal to the standalone run" in said
    assert "24 MB" in said  # the stand-in claims a megabyte for each of the 24 short requests


def test_the_standalones_replies_are_asked_for_once(stand_ins, progress, model_path):
    first = drive.expected(progress, model_path, ON_CPU)
    stand_ins("standalone", die="must not be started again")
    assert drive.expected(progress, model_path, ON_CPU) == first
    with pytest.raises(Failure):
        drive.expected(progress, model_path, ON_GPU)
    model_path.write_bytes(b"other weights")
    with pytest.raises(Failure):
        drive.expected(progress, model_path, ON_CPU)


def test_a_different_reply_is_a_failure_that_shows_both(stand_ins, progress, model_path):
    wanted = drive.expected(progress, model_path, ON_CPU)
    stand_ins("router", suffix="!")
    with pytest.raises(Failure) as caught:
        drive_a_cluster(progress, model_path, wanted)
    assert "differ from the standalone" in caught.value.what
    assert "the standalone says" in caught.value.why


@pytest.mark.parametrize("fault, said", [({"fail": True}, "HTTP 503"), ({"break_off": True}, "without [DONE]")])
def test_a_failed_request_is_a_failure(stand_ins, progress, model_path, fault, said):
    wanted = drive.expected(progress, model_path, ON_CPU)
    stand_ins("router", **fault)
    with pytest.raises(Failure) as caught:
        drive_a_cluster(progress, model_path, wanted)
    assert "clients failed in the drive" in caught.value.what
    assert said in caught.value.why


def test_the_load_is_the_same_every_time():
    assert load.jobs("m") == load.jobs("m")
    kinds = [job.kind for job in load.jobs("m")]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "short": load.SHORT, "chat": load.CHATS, "long": len(load.LONG_WORDS),
    }


def test_a_later_chat_turn_carries_the_earlier_ones():
    body = {"messages": [{"role": "user", "content": "two"}]}
    earlier = [([{"role": "user", "content": "one"}], "reply")]
    contents = [message["content"] for message in load.with_history(body, earlier)["messages"]]
    assert contents == ["one", "reply", "two"]
