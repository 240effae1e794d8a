"""The phases of a request, made long enough to be seen, and waiting for them."""

from disturbance import Request, generated_tokens, live_blocks, of_role, running, wait_for

LONG_LINES = 700
STEP_TOKENS, CHUNK_TOKENS, WINDOW_CHUNKS, BLOCK_TOKENS = 32, 256, 2, 16
# Steps and chunks that are small against the prompt, so that every phase lasts long enough to be seen, also where the
# machine is fast: the metrics are taken five times a second.
FINE = {
    "prefill_flags": (f"--chunk_tokens_max={STEP_TOKENS}",),
    "decode_flags": (f"--chunk_tokens={CHUNK_TOKENS}", f"--window_chunks={WINDOW_CHUNKS}"),
}
SHORT = "Count: one, two, three,"


def long_prompt(name):
    """Some 2,800 tokens that no other test has in its cache."""
    return f"A report by {name}. " + " ".join(f"line{i % 7} {i % 10}" for i in range(LONG_LINES)) + " The end is"


def ask(instance, prompt, **options):
    request = Request(instance, prompt, **options).end()
    assert request.whole and request.error is None, vars(request)
    return request


class Watch:
    """Waits for a phase of the one request that a cluster has under way, or of one among several alike; `prefill`, `decode`: who
    has it then."""

    def __init__(self, instance, requests=1):
        self.instance = instance
        self.first_window_blocks = requests * WINDOW_CHUNKS * CHUNK_TOKENS // BLOCK_TOKENS
        self.said = {process.name: generated_tokens(process) for process in of_role(instance, "decode")}

    def _busy(self, role):
        return next((process for process in of_role(self.instance, role) if process.alive() and live_blocks(process)), None)

    def computing(self):
        """A prefill worker has the prompt, and none of its KV is whole on the decode worker."""
        self.prefill = wait_for("a prefill worker holds the prompt", lambda: self._busy("prefill"))
        self.decode = wait_for("a decode worker waits for it", lambda: self._busy("decode"))

    def carrying(self):
        """Some chunks have arrived: more was granted than the first window."""
        self.computing()
        wait_for("chunks arrive", lambda: live_blocks(self.decode) > self.first_window_blocks)

    def decoding(self):
        """Tokens come."""
        def speaker():
            return next((process for process in of_role(self.instance, "decode")
                         if generated_tokens(process) > self.said[process.name] and running(process)), None)

        self.decode = wait_for("tokens come", speaker)

    def until(self, phase):
        getattr(self, phase)()


def question_for(phase, name):
    if phase == "decoding":
        return {"prompt": SHORT, "max_tokens": 400, "ignore_eos": True}
    return {"prompt": long_prompt(name)}


def request_for(instance, phase, name, **options):
    """A request that stays long in the phase."""
    return Request(instance, **question_for(phase, name), **options)
