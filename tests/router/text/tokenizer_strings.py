"""Seeded texts that try a tokenizer: all planes, scripts, code, emoji, white space, marks, special tokens."""

import pathlib
import random

CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'Ll", "'\u017f", "'x", "''s", "\u2019s"]
SPACES = [" ", "  ", "    ", "\t", "\n", "\r\n", "\n\n", "\r", "\u00a0", "\u3000", "\u2028", "\u0085", "\u1680", "\u200b",
          "\u200a", "\x0b", "\x0c", "\u180e", "\u202f", "\u2581", " " * 17, " " * 90, "\t" * 9, "\n" * 12]
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "->", "!=", "();", "\u2014", "\u3002", "\uff0c", "\u00ab", "\u20ac"]
SCRIPTS = [(0x41, 0x7A), (0xC0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x530, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F),
           (0xE00, 0xE7F), (0x10A0, 0x10FF), (0x1E00, 0x1FFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
           (0x1100, 0x11FF), (0x20000, 0x20FFF), (0x1D400, 0x1D7FF), (0x2150, 0x218F), (0x660, 0x669), (0x966, 0x96F),
           (0xFF01, 0xFF5E), (0x2460, 0x24FF)]
EMOJI = ["\U0001F600", "\u2764\ufe0f", "\U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466", "\U0001F1E9\U0001F1EA",
         "\U0001F44D\U0001F3FD", "\U0001F3F4\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F", "1\ufe0f\u20e3", "\U0001FAE8"]
MARKS = [(0x300, 0x36F), (0x591, 0x5BD), (0x64B, 0x65F), (0x93C, 0x94D), (0x1DC0, 0x1DFF), (0x3099, 0x309A), (0x1161, 0x1175),
         (0x11A8, 0x11C2), (0x10A38, 0x10A3F), (0x1D165, 0x1D169)]
ASSIGNED_MAX = 0x323AF


def corpus():
    """English prose and code that every Debian machine with Python has."""
    files = sorted(pathlib.Path("/usr/share/common-licenses").glob("*"))
    files += sorted(pathlib.Path(random.__file__).parent.glob("[a-e]*.py"))
    return "\n".join(file.read_text(encoding="utf-8", errors="ignore") for file in files if file.is_file())


class Strings:
    def __init__(self, seed, special_tokens=()):
        self._random = random.Random(seed)
        self._special_tokens = list(special_tokens) or ["<none>"]
        self._corpus = corpus()
        self._words = sorted(set(self._corpus.split()))
        self._parts = [self._word, self._word, self._word, self._slice, self._script, self._script, self._any_plane, self._number,
                       self._marks, self._choice_of(EMOJI), self._choice_of(SPACES), self._choice_of(SPACES),
                       self._choice_of(PUNCTUATION), self._choice_of(CONTRACTIONS), self._special]

    def make(self, count):
        return [self._make_one() for _ in range(count)]

    def make_with_specials(self, count):
        return ["".join(self._special() + self._make_one() for _ in range(2)) for _ in range(count)]

    def make_long(self, count):
        return ["".join(self._make_one() for _ in range(300)) for _ in range(count)]

    def make_invalid(self, count):
        """Byte strings that are not UTF-8: cut, mixed and random."""
        made = []
        for _ in range(count):
            text = bytearray(self._make_one().encode())
            for _ in range(self._random.randint(1, 6)):
                at = self._random.randint(0, len(text))
                text[at:at] = self._random.choice([b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x82",
                                                   bytes([self._random.randrange(256)])])
            made.append(bytes(text))
        return made

    def _make_one(self):
        kind = self._random.random()
        if kind < 0.25:
            return " ".join(self._random.choice(self._words) for _ in range(self._random.randint(1, 9)))
        if kind < 0.4:
            return self._slice()
        if kind < 0.5:
            part = self._random.choice(self._parts)
            return "".join(part() for _ in range(self._random.randint(1, 8)))
        return "".join(self._random.choice(self._parts)() for _ in range(self._random.randint(1, 10)))

    def _choice_of(self, values):
        return lambda: self._random.choice(values)

    def _word(self):
        word = self._random.choice(self._words)
        return self._random.choice([word, " " + word, word.upper(), " " + word.title()])

    def _slice(self):
        at = self._random.randrange(len(self._corpus) - 200)
        return self._corpus[at:at + self._random.randint(1, 80)]

    def _script(self):
        first, last = self._random.choice(SCRIPTS)
        return "".join(chr(self._random.randint(first, last)) for _ in range(self._random.randint(1, 8)))

    def _any_plane(self):
        made = ""
        for _ in range(self._random.randint(1, 5)):
            code_point = self._random.randrange(ASSIGNED_MAX if self._random.random() < 0.7 else 0x110000)
            made += chr(code_point) if not 0xD800 <= code_point < 0xE000 else ""
        return made

    def _number(self):
        return str(self._random.randrange(10 ** self._random.randint(1, 12))) + self._random.choice(["", ".", ",", "\u00b2", "\u0664", "%"])

    def _marks(self):
        made = chr(self._random.randint(*self._random.choice(SCRIPTS)))
        for _ in range(self._random.randint(1, 5)):
            made += chr(self._random.randint(*self._random.choice(MARKS)))
        return made

    def _special(self):
        token = self._random.choice(self._special_tokens)
        return self._random.choice([token, token, token[:-1], token[1:], "<" + token])
