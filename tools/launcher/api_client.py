"""A small client of the OpenAI API over the standard library: one request, streamed or not, with its times."""

import http.client
import json
import time
from dataclasses import dataclass, field

CHUNK_PREFIX = b"data: "


class BadReply(Exception):
    """The server answered something that is no success, or broke off."""


@dataclass
class Reply:
    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    headers: dict = field(default_factory=dict)
    token_times: list = field(default_factory=list)  # seconds from sending, one for each chunk with text
    seconds: float = 0.0

    def outcome(self):
        """What must be the same on every server of the same model."""
        return [self.text, self.finish_reason, self.prompt_tokens, self.completion_tokens]


def _take(reply, event):
    if "error" in event:
        raise BadReply(f"the stream carried an error: {event['error'].get('message')}")
    if usage := event.get("usage"):
        reply.prompt_tokens = usage["prompt_tokens"]
        reply.completion_tokens = usage["completion_tokens"]
    added = ""
    for choice in event.get("choices") or ():
        piece = choice.get("delta") or choice.get("message") or choice
        added += piece.get("content") or piece.get("text") or ""
        reply.finish_reason = choice.get("finish_reason") or reply.finish_reason
    reply.text += added
    return added


def ask(address, path, body, timeout_seconds):
    """Sends `body`; returns the Reply. Raises BadReply for anything but a whole success."""
    connection = http.client.HTTPConnection(address, timeout=timeout_seconds)
    reply = Reply()
    started = time.monotonic()
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        reply.headers = {name.lower(): value for name, value in response.getheaders()}
        if response.status != 200:
            raise BadReply(f"HTTP {response.status}: {response.read().decode('utf-8', 'replace').strip()[:400]}")
        if body.get("stream"):
            _read_stream(response, reply, started)
        else:
            _take(reply, json.loads(response.read()))
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise BadReply(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    reply.seconds = time.monotonic() - started
    return reply


def _read_stream(response, reply, started):
    for line in response:
        if not line.startswith(CHUNK_PREFIX):
            continue
        data = line[len(CHUNK_PREFIX):].strip()
        if data == b"[DONE]":
            return
        if _take(reply, json.loads(data)):
            reply.token_times.append(time.monotonic() - started)
    raise BadReply("the stream ended without [DONE]")
