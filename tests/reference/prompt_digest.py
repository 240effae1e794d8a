"""A short name for a prompt's token ids, so that the golden file need not hold them."""

import hashlib


def digest_of(tokens):
    return hashlib.sha256(" ".join(map(str, tokens)).encode()).hexdigest()[:32]
