"""Renders chat templates with jinja2, set up as Hugging Face's transformers sets it up."""

import datetime
import functools
import json

import jinja2
import jinja2.ext
import jinja2.sandbox


class GenerationTag(jinja2.ext.Extension):
    """{% generation %} marks what the model wrote; without training it is its body."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return body


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


@functools.lru_cache(maxsize=16)
def compiled(template):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationTag, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(template)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def render(template, context, now_s):
    """The template's output; raises what jinja2 or Python raises."""

    def strftime_now(form):
        now = datetime.datetime.fromtimestamp(now_s, datetime.timezone.utc)
        return now.strftime(form)

    return compiled(template).render(strftime_now=strftime_now, **context)
