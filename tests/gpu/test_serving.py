"""What is served from a GPU: a process of all parts, and a cluster of separate processes on one GPU, in real text and in noise.
served_answers.py says what must be equal, and how nearly.
"""

import json

import pytest

from served_answers import MEMORY, Reference, TESTS, hold, hold_to_the_bit, reference_of

GOLDEN = json.loads((TESTS / "e2e/golden/truth.json").read_text())


@pytest.mark.timeout(900)
def test_a_cluster_of_processes_equals_one_process_bit_for_bit(answers, on_gpu):
    hold_to_the_bit(answers(prefill=2, decode=2, worker_flags=("--backend=cuda", MEMORY)), on_gpu)


@pytest.mark.timeout(900)
def test_the_gpu_says_what_the_numpy_reference_says(on_gpu, subject, capsys):
    if subject[0] != "smollm2":
        pytest.skip("the golden file is the default model's")
    references = {name: Reference(golden["tokens"], golden["runners_up"], golden["gaps"]) for name, golden in GOLDEN.items()
                  if name in on_gpu}
    hold("smollm2 beside numpy", references, on_gpu, capsys)


@pytest.mark.timeout(900)
def test_the_gpu_says_what_the_cpu_says(answers, on_gpu, subject, capsys):
    on_cpu = answers(lambda prompt: not prompt.slow, standalone=True, worker_flags=("--backend=cpu",))
    hold(f"{subject[0]} beside the CPU", {name: reference_of(answer) for name, (answer, _) in on_cpu.items()}, on_gpu, capsys)
