"""The tokenizers of the tiny models: a byte-level BPE and a SentencePiece-style BPE, both with special
tokens, all 256 bytes, a few merges and a ChatML template, in Hugging Face's and in GGUF's form. Tokens that no text makes
fill up a vocabulary of any size."""

TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
# GGUF's token types.
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
SPACE = "\u2581"


def byte_alphabet():
    """GPT-2's letters for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, following = [], 256
    for byte in range(256):
        if byte in printable:
            letters.append(chr(byte))
        else:
            letters.append(chr(following))
            following += 1
    return letters


def added_token(index, text):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": text, **flags}


def fillers(first, vocab):
    return [f"filler{i}" for i in range(first, vocab)]


class ByteLevel:
    MERGES = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("\u0120", "a"), ("i", "n"), ("e", "r"), ("in", "g")]

    def __init__(self, qwen, vocab):
        self.qwen = qwen
        self.special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        self.tokens = self.special + byte_alphabet() + [a + b for a, b in self.MERGES]
        self.tokens += fillers(len(self.tokens), vocab)
        self.types = [CONTROL] * 3 + [NORMAL] * (len(self.tokens) - 3)

    def tokenizer_json(self):
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        if self.qwen:
            split = {"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated", "invert": False}
            steps = [split, {**byte_level, "use_regex": False}]
        else:
            steps = [{"type": "Digits", "individual_digits": True}, {**byte_level, "use_regex": True}]
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [added_token(i, text) for i, text in enumerate(self.special)],
            "normalizer": {"type": "NFC"} if self.qwen else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "post_processor": None,
            "decoder": {**byte_level, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {text: i for i, text in enumerate(self.tokens)},
                "merges": [list(pair) for pair in self.MERGES],
            },
        }

    def tokenizer_config(self):
        return {
            "bos_token": None,
            "eos_token": {"content": "<|im_end|>", "special": True},
            "unk_token": "<|endoftext|>",
            "chat_template": [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "x"}],
        }

    def add_to_gguf(self, writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2" if self.qwen else "smollm")
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges([" ".join(pair) for pair in self.MERGES])
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_bos_token(False)
        writer.add_chat_template(TEMPLATE)


class SentencePiece:
    MERGES = [(SPACE, "t"), ("h", "e"), (SPACE + "t", "he"), (SPACE, "a"), ("i", "n"), ("e", "r"), ("in", "g")]
    LETTERS = [SPACE, *"etaoinshrdlucmfwypvbgkjqxz"]

    def __init__(self, vocab):
        self.special = ["<unk>", "<s>", "</s>"]
        byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
        pieces = [a + b for a, b in self.MERGES] + self.LETTERS
        pieces += fillers(259 + len(pieces), vocab)
        self.tokens = self.special + byte_tokens + pieces
        self.types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(pieces)
        self.scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))]

    def tokenizer_json(self):
        mark = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        template = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        }
        fuse = {"type": "Fuse"}
        strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        unmark = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [added_token(i, text) for i, text in enumerate(self.special)],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, mark]},
            "pre_tokenizer": None,
            "post_processor": template,
            "decoder": {"type": "Sequence", "decoders": [unmark, {"type": "ByteFallback"}, fuse, strip]},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": "<unk>",
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": True,
                "byte_fallback": True,
                "ignore_merges": False,
                "vocab": {text: i for i, text in enumerate(self.tokens)},
                "merges": [" ".join(pair) for pair in self.MERGES],
            },
        }

    def tokenizer_config(self):
        return {
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": {"content": "<unk>"},
            "chat_template": TEMPLATE,
        }

    def add_to_gguf(self, writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list(self.tokens)
        writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_chat_template(TEMPLATE)


def make(kind, architecture, vocab):
    if kind == "sentencepiece":
        return SentencePiece(vocab)
    return ByteLevel(architecture.startswith("qwen"), vocab)
