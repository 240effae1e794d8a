"""Asks for answers with all that two servers must have in common: token ids, log probabilities, why it ended."""

import concurrent.futures
import http.client
import json
from dataclasses import dataclass

TOP_LOGPROBS = 2
ID_PREFIX = "token_id:"


@dataclass(frozen=True)
class Answer:
    """One choice. Two are equal when not even the last bit of a log probability differs."""

    text: str
    tokens: tuple  # an end token is the last one
    logprobs: tuple  # of the tokens
    tops: tuple  # for each token, ((id, logprob), ...), the likeliest first
    finish: str
    prompt_tokens: int


def post(instance, path, body, timeout_seconds):
    """(status, parsed body, headers in lower case)"""
    connection = http.client.HTTPConnection(instance.http, timeout=timeout_seconds)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read()), {name.lower(): value for name, value in reply.getheaders()}
    finally:
        connection.close()


def _id(name):
    assert name.startswith(ID_PREFIX), name
    return int(name[len(ID_PREFIX):])


def _answer(choice, usage):
    logprobs = choice["logprobs"]
    if "content" in logprobs:
        values = [entry["logprob"] for entry in logprobs["content"]]
        tops = [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in logprobs["content"]]
    else:
        values, tops = logprobs["token_logprobs"], logprobs["top_logprobs"]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    tops = tuple(tuple((_id(name), value) for name, value in top.items()) for top in tops)
    return Answer(text, tuple(choice["token_ids"]), tuple(values), tops, choice["finish_reason"], usage["prompt_tokens"])


def ask(instance, prompt, timeout_seconds, **options):
    """(answers, cached prompt tokens, headers). `prompt`: a text, a list of token ids, or a list of messages."""
    chat = isinstance(prompt, list) and isinstance(prompt[0], dict)
    body = {"temperature": 0, "return_token_ids": True, "return_tokens_as_token_ids": True} | options
    if chat:
        body |= {"messages": prompt, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
    else:
        body |= {"prompt": prompt, "logprobs": TOP_LOGPROBS}
    status, reply, headers = post(instance, "/v1/chat/completions" if chat else "/v1/completions", body, timeout_seconds)
    assert status == 200, f"{status}: {reply}"
    answers = tuple(_answer(choice, reply["usage"]) for choice in reply["choices"])
    return answers, reply["usage"]["prompt_tokens_details"]["cached_tokens"], headers


def token_ids(instance, case, timeout_seconds):
    """The server's reading of a case's prompt."""
    body = {"messages": case.chat()} if case.form == "chat" else {"prompt": case.text}
    status, reply, _ = post(instance, "/tokenize", body, timeout_seconds)
    assert status == 200, f"{status}: {reply}"
    return reply["tokens"]


def at_once(clients, function, items):
    """[function(item)] with so many in flight."""
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        return list(pool.map(function, items))
