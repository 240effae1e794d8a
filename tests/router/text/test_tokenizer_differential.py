"""The tokenizer gives the ids of the reference libraries, on 100,000 generated strings for each of four
real vocabularies."""

import os
import pathlib
import struct
import subprocess
import unicodedata

import numpy
import pytest
import tokenizer_vocabularies
from tokenizer_strings import Strings

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("LONGHAUL_BUILD", ROOT / "build" / "release"))
STRINGS = 100_000
FEWER_STRINGS = 8_000
LONG_STRINGS = 40
INVALID_STRINGS = 5_000


@pytest.fixture(scope="module")
def llama3(tmp_path_factory):
    return tokenizer_vocabularies.llama3(tmp_path_factory.mktemp("llama3"))


@pytest.fixture(scope="module")
def smollm2():
    [model_path] = (ROOT / ".longhaul" / "models").glob("SmolLM2-135M-Instruct.*.gguf")
    return tokenizer_vocabularies.smollm2(model_path)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    return tokenizer_vocabularies.qwen2(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="module", params=["smollm2", "llama3", "qwen2"])
def byte_level(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def sentence_piece(tmp_path_factory):
    return tokenizer_vocabularies.mistral_scores(tmp_path_factory.mktemp("mistral"))


def encode(vocabulary, texts, *options):
    """The ids of our tokenizer for each text."""
    texts = [text if isinstance(text, bytes) else text.encode() for text in texts]
    framed = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    command = [BUILD / "bin" / "tokenizer_tool", vocabulary, *options]
    done = subprocess.run(command, input=framed, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    words = numpy.frombuffer(done.stdout, dtype="<i4").tolist()
    ids, at = [], 0
    for _ in texts:
        count = words[at]
        ids.append(words[at + 1:at + 1 + count])
        at += 1 + count
    assert at == len(words)
    return ids


def assert_same(texts, ours, reference):
    wrong = [i for i, (mine, theirs) in enumerate(zip(ours, reference, strict=True)) if mine != theirs]
    shown = "\n".join(f"{texts[i]!r}\n  ours      {ours[i]}\n  reference {reference[i]}" for i in sorted(wrong, key=lambda i: len(texts[i]))[:5])
    assert not wrong, f"{len(wrong)} of {len(texts)} differ, the shortest:\n{shown}"


def reference_ids(tokenizer, texts):
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def test_byte_level_is_token_exact(byte_level):
    vocabulary, reference, special_tokens = byte_level
    strings = Strings(seed=20261123, special_tokens=special_tokens)
    texts = strings.make(STRINGS) + strings.make_long(LONG_STRINGS)
    assert_same(texts, encode(vocabulary, texts, "parse"), reference_ids(reference, texts))


def test_control_tokens_in_plain_text_stay_text(byte_level):
    vocabulary, reference, special_tokens = byte_level
    texts = Strings(seed=7, special_tokens=special_tokens).make_with_specials(FEWER_STRINGS)
    assert_same(texts, encode(vocabulary, texts, "parse"), reference_ids(reference, texts))
    reference.encode_special_tokens = True
    plain = reference_ids(reference, texts)
    reference.encode_special_tokens = False
    assert_same(texts, encode(vocabulary, texts), plain)


def test_regex_without_a_scanner_is_token_exact(llama3, tmp_path):
    """PCRE2 and the reference's regex engine agree on every character that both know."""
    _, _, special_tokens = llama3
    vocabulary, reference, _ = tokenizer_vocabularies.llama3(tmp_path, pattern=tokenizer_vocabularies.O200K)
    texts = ["".join(char for char in text if unicodedata.category(char) != "Cn")
             for text in Strings(seed=11, special_tokens=special_tokens).make(FEWER_STRINGS)]
    assert_same(texts, encode(vocabulary, texts, "parse"), reference_ids(reference, texts))


def test_invalid_utf8_keeps_every_byte(llama3):
    vocabulary, reference, _ = llama3
    texts = Strings(seed=3).make_invalid(INVALID_STRINGS)
    byte_of = {char: byte for byte, char in tokenizer_vocabularies.ALPHABET.items()}
    for text, ids in zip(texts, encode(vocabulary, texts), strict=True):
        assert bytes(byte_of[char] for i in ids for char in reference.id_to_token(i)) == text


def test_sentence_piece_is_token_exact(sentence_piece):
    vocabulary, reference, special_tokens = sentence_piece
    strings = Strings(seed=42, special_tokens=special_tokens[:10])
    texts = strings.make(STRINGS) + strings.make_long(LONG_STRINGS)
    assert_same(texts, encode(vocabulary, texts), reference.encode(texts))


@pytest.mark.parametrize("first_only", [False, True])
def test_sentence_piece_with_merges_is_token_exact(tmp_path, first_only):
    vocabulary, reference, special_tokens = tokenizer_vocabularies.mistral_merges(tmp_path, first_only)
    texts = Strings(seed=5, special_tokens=special_tokens).make(FEWER_STRINGS)
    assert_same(texts, encode(vocabulary, texts, "parse"), reference_ids(reference, texts))


def test_sentence_piece_keeps_every_invalid_byte(sentence_piece):
    vocabulary, reference, _ = sentence_piece
    texts = Strings(seed=4).make_invalid(INVALID_STRINGS)
    for text, ids in zip(texts, encode(vocabulary, texts), strict=True):
        pieces = [reference.id_to_piece(i) for i in ids]
        decoded = b"".join(bytes([int(piece[3:5], 16)]) if reference.is_byte(i) else piece.replace("\u2581", " ").encode()
                           for i, piece in zip(ids, pieces))
        assert decoded == b" " + text.replace("\u2581".encode(), b" ")
