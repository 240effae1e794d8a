"""Chat templates give, byte for byte, what jinja2 gives as transformers sets it up, and fail where it fails.

LONGHAUL_CHAT_TEMPLATES may name more folders of *.jinja files to check, separated by colons: the templates of
published models, which do not lie in this repository.
"""

import json
import os
import pathlib
import subprocess

import chat_conversations
import chat_template_reference
import gguf
import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BUILD = pathlib.Path(os.environ.get("LONGHAUL_BUILD", ROOT / "build" / "release"))
NOW_S = 1_700_000_000
FOLDERS = [HERE / "templates"] + [
    pathlib.Path(folder) for folder in os.environ.get("LONGHAUL_CHAT_TEMPLATES", "").split(":") if folder]
TEMPLATES = sorted(path for folder in FOLDERS for path in folder.glob("*.jinja"))
SNIPPETS = (HERE / "chat_snippets.txt").read_text(encoding="utf-8").splitlines()

# Where white space goes: trim_blocks, lstrip_blocks, signs, line ends.
WHITE_SPACE = [
    "a\n  {% if true %}\n   b\n  {% endif %}  \n c\n\n",
    "{% if true %}\r\nx\r\n{% endif %}\r\n",
    "  {# c #}\nx {# c #}\n",
    "\n\n{%- if true %}\n\n a{% endif -%}\n\n",
    "{{ 1 }}\n{{ 2 }}\n",
    "  {{ 1 }}  \n  {%- set a = 1 +%}\n b",
    "{% raw %}\n {{ x }}\n{% endraw %}\nz",
    "x\n   {%- raw -%}  a  {%- endraw -%}  b",
    "{% for i in range(3) %}\n  - {{ i }}\n{% endfor %}\nend",
    "{% set x = [\n 1,\n 2 ] %}\n{{ x }}",
    "a{#\n\n#}\nb",
    "{% if true %}a\n{%- endif %}\n",
    "\t {% if 1 %}x{% endif %}\n",
    "a \u00a0{% if 1 %}x{% endif %}",
    "a\n{%+ if true %}b{% endif +%}\nc",
    "a\n \u00a0{% if 1 %}x{% endif %}",
    "{{-1 -}}  x {{+2}}",
]


class Tool:
    """The C++ renderer, one process for all templates."""

    def __init__(self):
        self.process = subprocess.Popen(
            [BUILD / "bin" / "chat_template_tool"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, encoding="utf-8")

    def render(self, template, context):
        """(text, None) or (None, error)."""
        request = {"template": template, "context": context, "now": NOW_S}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        reply = json.loads(self.process.stdout.readline())
        return reply.get("text"), reply.get("error")

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def tool():
    renderer = Tool()
    yield renderer
    renderer.close()


def reference(template, context):
    try:
        return chat_template_reference.render(template, context, NOW_S), None
    except Exception as error:  # whatever a template can raise
        return None, repr(error)


def check(tool, template, contexts):
    """How many contexts the template renders; the others both engines refuse."""
    rendered = 0
    for name, context in contexts.items():
        wanted, refusal = reference(template, context)
        text, error = tool.render(template, context)
        assert text == wanted, f"{name}: jinja2 says {refusal or 'text'}, we say {error or 'text'}"
        rendered += wanted is not None
    return rendered


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template(tool, path):
    template = path.read_text(encoding="utf-8")
    assert check(tool, template, chat_conversations.conversations()) > 0


def test_template_of_the_default_model(tool):
    [model_path] = (ROOT / ".longhaul" / "models").glob("SmolLM2-135M-Instruct.*.gguf")
    field = gguf.GGUFReader(model_path).fields["tokenizer.chat_template"]
    template = bytes(field.parts[-1]).decode()
    assert check(tool, template, chat_conversations.conversations()) > 50


@pytest.mark.parametrize("snippet", SNIPPETS + WHITE_SPACE, ids=range(len(SNIPPETS + WHITE_SPACE)))
def test_snippet(tool, snippet):
    context = {
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "U <é>"},
            {"role": "assistant", "content": "A"},
        ],
        "x": {"z": 1},
    }
    check(tool, snippet, {snippet: context})


def test_the_comparison_can_fail(tool):
    text, error = tool.render("{{ 1 }}", {})
    assert (text, error) == ("1", None)
    assert reference("{{ 1 }} ", {})[0] != text
