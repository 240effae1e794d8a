"""A launcher whose folders are a scratch folder and whose binaries are small stand-ins that keep the command-line contract."""

import json
import stat
import sys

import pytest

from tools.launcher import build, paths

STAND_IN = '''\
#!{python}
"""Keeps the contract of a Longhaul binary: --http, --ready_file, SIGTERM. Echoes prompts instead of running a model."""
import http.server, json, os, pathlib, signal, sys

flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
role = pathlib.Path(sys.argv[0]).name.removeprefix("longhaul_")
behaviour = json.loads(os.environ.get("STAND_IN", "{{}}")).get(role, {{}})
if "die" in behaviour:
    sys.exit(behaviour["die"])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        body = {{"data": [{{"id": "echo"}}]}} if self.path == "/v1/models" else {{"ok": True}}
        self.reply(json.dumps(body), "application/json")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = asked.get("prompt") or asked["messages"][-1]["content"]
        text = text[:20] + behaviour.get("suffix", "")
        if len(text) > 2 and behaviour.get("fail"):
            return self.reply('{{"error": {{"message": "no"}}}}', "application/json", 503)
        usage = {{"prompt_tokens": len(text), "completion_tokens": 3}}
        if not asked["stream"]:
            choice = {{"text": text, "finish_reason": "length"}}
            return self.reply(json.dumps({{"choices": [choice], "usage": usage}}), "application/json")
        pieces = [{{"choices": [{{"text": text[i : i + 5], "delta": {{"content": text[i : i + 5]}}}}]}} for i in range(0, 20, 5)]
        pieces += [{{"choices": [{{"finish_reason": "length"}}]}}, {{"choices": [], "usage": usage}}]
        ending = "" if behaviour.get("break_off") else "data: [DONE]\\n\\n"
        self.reply("".join(f"data: {{json.dumps(piece)}}\\n\\n" for piece in pieces) + ending, "text/event-stream")

    def reply(self, text, kind, status=200):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("x-longhaul-kv-bytes", "1000000")
        self.end_headers()
        self.wfile.write(text.encode())


host, port = flags["http"].rsplit(":", 1)
http.server.ThreadingHTTPServer.request_queue_size = 128
server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
address = f"{{host}}:{{server.server_address[1]}}"
if behaviour.get("stubborn"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("listening", file=sys.stderr, flush=True)
scratch = pathlib.Path(flags["ready_file"] + ".part")
grpc = "" if role in ("router", "standalone") else address
scratch.write_text(json.dumps({{"role": role, "name": flags.get("name", role), "pid": os.getpid(), "grpc": grpc, "http": address}}))
scratch.rename(flags["ready_file"])
server.serve_forever()
'''


@pytest.fixture
def home(tmp_path, monkeypatch):
    """All of the launcher's folders, empty."""
    monkeypatch.setattr(paths, "HOME", tmp_path)
    for name in ("MODELS", "DOWNLOADS", "VENV", "UCX", "LOGS", "RUN", "EXPECTED", "REPORTS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    return tmp_path


@pytest.fixture
def stand_ins(home, monkeypatch):
    """Binaries to start; returns a function that sets how a role behaves."""
    folder = home / "bin"
    folder.mkdir()
    for role in ("prefill", "decode", "router", "standalone"):
        file = folder / f"longhaul_{role}"
        file.write_text(STAND_IN.format(python=sys.executable))
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(build, "binary", lambda name, preset="release": folder / name)
    behaviours = {}

    def behave(role, **how):
        behaviours[role] = how
        monkeypatch.setenv("STAND_IN", json.dumps(behaviours))

    return behave
