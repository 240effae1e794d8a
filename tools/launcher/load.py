"""The drive's mixed load: what is asked, always the same for the same VERSION. No clock, no chance, no wire."""

import random
from dataclasses import dataclass

VERSION = 1  # part of the key under which the standalone's replies are kept
SHORT, CHATS, LONG_WORDS = 24, 4, (700, 1400)
SHORT_WORDS = (6, 40)
SHORT_TOKENS, CHAT_TOKENS, LONG_TOKENS = 16, 24, 16
CHAT_TURNS = ("What is the capital of France?", "Name one river there.", "Say that in one short sentence.")
STREAM_EVERY = 4  # of these short requests one is not streamed

WORDS = (
    "river stone light garden winter bridge letter market silver window forest harbour engine paper music morning "
    "travel signal copper island mirror ladder valley summer candle thunder pocket school button doctor orange yellow "
    "the a of and to in on with from over under because while before after every some many other small large early"
).split()


@dataclass(frozen=True)
class Job:
    """One client's work: its turns one after the other. A chat's later turns carry the earlier replies."""

    kind: str  # "short", "chat" or "long"
    name: str
    path: str
    bodies: tuple


def _text(chance, words):
    return " ".join(chance.choice(WORDS) for _ in range(words)) + "."


def _completion(model, prompt, tokens, stream):
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": stream}
    return body | ({"stream_options": {"include_usage": True}} if stream else {})


def jobs(model):
    """The jobs for a model's served name; long ones first, so that the short ones have something to overtake."""
    chance = random.Random(VERSION)
    made = []
    for i, words in enumerate(LONG_WORDS):
        body = _completion(model, _text(chance, words), LONG_TOKENS, True)
        made.append(Job("long", f"long-{i}", "/v1/completions", (body,)))
    for i in range(CHATS):
        bodies = []
        for turn in CHAT_TURNS:
            bodies.append({
                "model": model, "max_tokens": CHAT_TOKENS, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True},
                "messages": [{"role": "user", "content": f"Visitor {i} asks: {turn}"}],
            })
        made.append(Job("chat", f"chat-{i}", "/v1/chat/completions", tuple(bodies)))
    for i in range(SHORT):
        body = _completion(model, _text(chance, chance.randint(*SHORT_WORDS)), SHORT_TOKENS, i % STREAM_EVERY != 0)
        made.append(Job("short", f"short-{i}", "/v1/completions", (body,)))
    return made


def with_history(body, earlier):
    """A chat turn's body with the conversation before it: `earlier` is a list of (messages, reply text)."""
    if "messages" not in body:
        return body
    messages = []
    for asked, reply in earlier:
        messages += [*asked, {"role": "assistant", "content": reply}]
    return body | {"messages": messages + body["messages"]}
