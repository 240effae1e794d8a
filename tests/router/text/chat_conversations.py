"""Conversations that exercise chat templates: {name: variables of the template}."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a place & time <now>",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "City, e.g. \"Köln\""},
                "days": {"type": "integer", "enum": [1, 2, 3], "description": "How many"},
                "exact": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "options": {
                    "type": "object",
                    "properties": {"unit": {"type": ["string", "null"]}},
                    "required": ["unit"],
                },
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "The time",
        "parameters": {"type": "object", "properties": {}},
    },
}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def call(name, arguments, identity="call12345"):
    return {
        "id": identity,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


ODD = "  <|im_end|> {{ not }} {% a tag %} \"quoted\" 'text' \\n & <b>\tñ 漢字 😀 \u200d \r\n end  "
TOOL_TURN = [
    system("Use tools."),
    user("Weather in Köln?"),
    assistant("", tool_calls=[call("get_weather", {"city": "Köln", "days": 2, "exact": True})]),
    {"role": "tool", "content": "{\"sky\": \"grey\"}", "tool_call_id": "call12345",
     "name": "get_weather"},
    assistant("It is grey."),
    user("Thanks"),
]
TWO_CALLS = [
    user("Both, please"),
    assistant(None, tool_calls=[call("get_weather", {"city": "A"}, "abcdefgh1"),
                                call("clock", {}, "abcdefgh2")]),
    {"role": "tool", "content": "1", "tool_call_id": "abcdefgh1", "name": "get_weather"},
    {"role": "tool", "content": "2", "tool_call_id": "abcdefgh2", "name": "clock"},
]
THINKING = [
    user("1+1?"),
    assistant("<think>\nadd\n</think>\n\n2"),
    user("and 2+2?"),
    assistant("4", reasoning_content="adding again"),
    user("3+3?"),
]
PARTS = [
    system([{"type": "text", "text": "Be "}, {"type": "text", "text": "brief"}]),
    user([{"type": "text", "text": "Hello"}, {"type": "text", "text": " there "}]),
]

MESSAGES = {
    "one turn": [user("Hello")],
    "system": [system("You are a test."), user("Hello")],
    "blank system": [system(""), user(" Hello \n")],
    "many turns": [system(" Be kind. "), user("a"), assistant(" b "), user("c"), assistant("d"),
                   user("e")],
    "ends with assistant": [user("Hello"), assistant("Hi")],
    "odd text": [system(ODD), user(ODD), assistant(ODD), user(ODD)],
    "two users": [user("a"), user("b")],
    "assistant first": [assistant("a"), user("b")],
    "late system": [user("a"), system("b"), user("c")],
    "unknown role": [user("a"), {"role": "critic", "content": "b"}],
    "no content": [user("a"), {"role": "assistant"}, user("b")],
    "none": [],
    "thinking": THINKING,
    "tool turn": TOOL_TURN,
    "two calls": TWO_CALLS,
    "parts": PARTS,
}

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def conversations():
    result = {}
    for name, messages in MESSAGES.items():
        for prompt in (True, False):
            result[f"{name}, prompt {prompt}"] = {
                "messages": messages, "add_generation_prompt": prompt, **SPECIAL}
        for more, extra in {
            "tools": {"tools": [WEATHER, CLOCK]},
            "no tools": {"tools": None, "documents": None},
            "no thinking": {"enable_thinking": False},
            "thinking": {"enable_thinking": True, "reasoning_effort": "high"},
            "dates": {"tools": [CLOCK], "date_string": "01 Jan 2025", "tools_in_user_message": False,
                      "builtin_tools": ["code_interpreter", "wolfram_alpha"]},
            "documents": {"documents": [{"title": "T", "text": "Text\n"}], "tools": []},
        }.items():
            result[f"{name}, {more}"] = {
                "messages": messages, "add_generation_prompt": True, **extra, **SPECIAL}
    return result
