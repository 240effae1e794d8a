"""The prompts on which the cluster, the standalone and the numpy reference must agree: data, no wire, no chance.

Each case is sent as a raw text, as raw token ids, or as a chat; short, of about 2K tokens, or of about 7K.
"""

import random
from dataclasses import dataclass

SHORT_TOKENS, MIDDLE_TOKENS, LONG_TOKENS = 24, 20, 16

OPENINGS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "Once upon a time, in a village by the sea, there lived a fisherman who",
    "Monday, Tuesday, Wednesday,",
    "The three primary colours are red,",
    "1, 2, 3, 4, 5, 6,",
    "To be, or not to be, that is",
    "Dear Sir or Madam,\n\nI am writing to",
    "Die Hauptstadt von Deutschland ist",
    "Photosynthesis is the process by which plants",
    "Ingredients:\n- 200 g flour\n- 2 eggs\n- ",
    "The quick brown fox jumps over",
    "In 1969, Apollo 11 landed on the",
    "SELECT name, age FROM users WHERE",
    "The opposite of hot is cold. The opposite of up is",
)

QUESTIONS = (
    "What is the capital of Italy?",
    "Name three fruits.",
    "Write one sentence about the moon.",
    "What is 12 plus 30?",
    "Explain in one sentence what a computer is.",
    "Which animal says meow?",
    "Translate 'good morning' to French.",
    "How many days are there in a week?",
    "Why is the sky blue?",
    "Give me a title for a story about a dragon.",
)

PLACES = ("harbour", "market", "library", "station", "garden", "school", "bridge", "museum", "bakery", "tower")
THINGS = ("lantern", "ladder", "kettle", "violin", "blanket", "basket", "mirror", "compass", "hammer", "umbrella")
PEOPLE = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas")
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "orange", "grey", "purple")


@dataclass(frozen=True)
class Case:
    name: str
    length: str  # "short", "2K" or "7K"
    form: str  # "text", "tokens" (the ids of `text`) or "chat"
    max_tokens: int
    text: str = ""
    messages: tuple = ()  # of (role, content)

    def chat(self):
        return [{"role": role, "content": content} for role, content in self.messages]


def _ledger(seed, lines):
    """A ledger that goes on in the way it began."""
    chance = random.Random(seed)
    rows = [
        f"{i}. {chance.choice(PEOPLE)} left a {chance.choice(COLOURS)} {chance.choice(THINGS)} at the "
        f"{chance.choice(PLACES)} and paid {chance.randint(2, 99)} coins."
        for i in range(1, lines + 1)
    ]
    return "The ledger of lost things.\n" + "\n".join(rows) + "\n"


def _story(seed, sentences):
    chance = random.Random(seed)
    parts = []
    for _ in range(sentences):
        who, other = chance.sample(PEOPLE, 2)
        parts.append(
            f"{who} walked from the {chance.choice(PLACES)} to the {chance.choice(PLACES)}, carrying a "
            f"{chance.choice(COLOURS)} {chance.choice(THINGS)} for {other}."
        )
    return " ".join(parts)


def _settings(seed, entries):
    chance = random.Random(seed)
    rows = [f'  "{chance.choice(THINGS)}_{i}": {{"colour": "{chance.choice(COLOURS)}", "count": {i % 10}}},'
            for i in range(entries)]
    return "{\n" + "\n".join(rows) + "\n"


def _short():
    for i, text in enumerate(OPENINGS):
        yield Case(f"short-text-{i}", "short", "text", SHORT_TOKENS, text)
    for i, question in enumerate(QUESTIONS):
        yield Case(f"short-chat-{i}", "short", "chat", SHORT_TOKENS, messages=(("user", question),))
    for i, question in enumerate(QUESTIONS[:2]):
        messages = (("system", "You answer like a pirate."), ("user", question))
        yield Case(f"short-system-{i}", "short", "chat", SHORT_TOKENS, messages=messages)
    for i, (first, then) in enumerate(zip(QUESTIONS[3:5], ("And minus 2?", "Say it again, shorter."))):
        messages = (("user", first), ("assistant", "Let me think about that."), ("user", then))
        yield Case(f"short-turns-{i}", "short", "chat", SHORT_TOKENS, messages=messages)
    for i in range(6):
        # From one block of the KV cache to a few.
        yield Case(f"short-tokens-{i}", "short", "tokens", SHORT_TOKENS, _story(i, 1 + 2 * i))


def _middle():
    for i in range(4):
        yield Case(f"2K-text-{i}", "2K", "text", MIDDLE_TOKENS, _ledger(10 + i, 102 + 3 * i))
    for i in range(4):
        yield Case(f"2K-tokens-{i}", "2K", "tokens", MIDDLE_TOKENS, _settings(20 + i, 98 + 2 * i))
    for i in range(4):
        ask = f"\n\nWho is named first in this text, and what does {PEOPLE[i]} carry?"
        yield Case(f"2K-chat-{i}", "2K", "chat", MIDDLE_TOKENS, messages=(("user", _story(30 + i, 116 + i) + ask),))


def _long():
    yield Case("7K-text-0", "7K", "text", LONG_TOKENS, _ledger(40, 352))
    yield Case("7K-tokens-0", "7K", "tokens", LONG_TOKENS, _settings(41, 352))
    ask = "\n\nIn one sentence: what is this text about?"
    yield Case("7K-chat-0", "7K", "chat", LONG_TOKENS, messages=(("user", _story(42, 415) + ask),))


CASES = (*_short(), *_middle(), *_long())
