"""Real vocabularies as the tokenizer tool reads them, and the reference tokenizer for each."""

import base64
import importlib.util
import json
import pathlib

import gguf
import sentencepiece
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(6)
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

LOWER, UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_alphabet():
    """GPT-2's printable character of each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + i) for i, byte in enumerate(moved)}}


ALPHABET = byte_alphabet()


def package_file(package, path):
    """A file of an installed package, without importing the package and what it needs."""
    return pathlib.Path(importlib.util.find_spec(package).submodule_search_locations[0]) / path


def split_pre_tokenizer(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def reference(vocabulary, merges, pre_tokenizer, special_tokens, normalizer=None, ignore_merges=False):
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in special_tokens])
    return tokenizer


def smollm2(model_path):
    """(path for the tool, reference, special tokens) from the GGUF file that the tests use."""
    fields = gguf.GGUFReader(model_path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    special_tokens = [token for token, kind in zip(tokens, kinds) if kind - 1 == CONTROL]
    splitter = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return model_path, reference(vocabulary, merges, splitter, special_tokens), special_tokens


def merges_of_ranks(ranks):
    """The merges of a tiktoken vocabulary: every way to make a token from two earlier ones, as `transformers` converts it."""
    merges = []
    for token, rank in ranks.items():
        splits = []
        for at in range(1, len(token)):
            left, right = ranks.get(token[:at]), ranks.get(token[at:])
            if left is not None and right is not None:
                splits.append((left, right, token[:at], token[at:]))
        merges += [(left, right) for _, _, left, right in sorted(splits)]
    return merges


def from_tiktoken(path, special_tokens, folder, normalizer=None, ignore_merges=False, pattern=None, name=""):
    """`pattern` is the reference's regex; the tool gets `name`, or the pattern where there is none."""
    ranks = {}
    for line in path.read_bytes().splitlines():
        token, rank = line.split()
        ranks["".join(ALPHABET[byte] for byte in base64.b64decode(token))] = int(rank)
    assert list(ranks.values()) == list(range(len(ranks)))
    merges = merges_of_ranks(ranks)
    tokens = [*ranks, *special_tokens]
    tool_path = write(folder / f"{name or path.stem}.json", model="byte-level", tokens=tokens,
                      kinds=[NORMAL] * len(ranks) + [CONTROL] * len(special_tokens), merges=merges, pre_tokenizer=name, ignore_merges=ignore_merges,
                      pre_tokenizer_patterns=[] if name else [pattern])
    tokenizer = reference(ranks, merges, split_pre_tokenizer(pattern), special_tokens, normalizer, ignore_merges)
    return tool_path, tokenizer, special_tokens


def llama3(folder, pattern=None):
    """With its own splitter, which the tool knows by name, or with another."""
    special_tokens = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"]
    return from_tiktoken(package_file("llama_models", "llama3/tokenizer.model"), special_tokens, folder, ignore_merges=True,
                         pattern=pattern or LLAMA3, name="" if pattern else "llama-bpe")


def qwen2(folder):
    special_tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return from_tiktoken(package_file("dashscope", "resources/qwen.tiktoken"), special_tokens, folder, normalizer=normalizers.NFC(),
                         pattern=QWEN2, name="qwen2")


def mistral_pieces():
    """(the `sentencepiece` library's model, its pieces, their kinds)."""
    model = sentencepiece.SentencePieceProcessor(
        model_file=str(package_file("mistral_common", "data/mistral_instruct_tokenizer_240323.model.v3")))
    ids = range(model.get_piece_size())
    kinds = [UNKNOWN if model.is_unknown(i) else CONTROL if model.is_control(i) else BYTE if model.is_byte(i)
             else UNUSED if model.is_unused(i) else NORMAL for i in ids]
    return model, [model.id_to_piece(i) for i in ids], kinds


def mistral_scores(folder):
    """As GGUF has it, with scores; the reference is the `sentencepiece` library itself."""
    model, pieces, kinds = mistral_pieces()
    path = write(folder / "mistral_scores.json", model="sentencepiece", tokens=pieces, kinds=kinds,
                 scores=[model.get_score(i) for i in range(len(pieces))], unknown_token=model.unk_id(), add_space_prefix=True)
    return path, model, [piece for piece, kind in zip(pieces, kinds) if kind == CONTROL]


def mistral_merges(folder, first_only):
    """As tokenizer.json has it, with merges, in both ways to put a space before the text."""
    _, pieces, kinds = mistral_pieces()
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = merges_of_ranks({piece: i for piece, i in vocabulary.items() if kinds[i] == NORMAL})
    path = write(folder / "mistral_merges.json", model="sentencepiece", tokens=pieces, kinds=kinds, merges=merges,
                 unknown_token=kinds.index(UNKNOWN), add_space_prefix=True, space_prefix_first_only=first_only)
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=pieces[kinds.index(UNKNOWN)],
                                                fuse_unk=True, byte_fallback=True))
    if first_only:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    special_tokens = [piece for piece, kind in zip(pieces, kinds) if kind == CONTROL]
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in special_tokens])
    return path, tokenizer, special_tokens[:10]


def write(path, **fields):
    empty = {"scores": [], "merges": [], "pre_tokenizer": "", "pre_tokenizer_patterns": []}
    path.write_text(json.dumps({**empty, **fields}), encoding="utf-8")
    return path
