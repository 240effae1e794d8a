"""The API as OpenAI's own client sees it, on the cluster and on the standalone."""

import openai
import pytest

PROMPT = "The capital of France is"
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
COUNTING = "Count: one, two, three, four, five, six, seven,"
CONTEXT_TOKENS = 8192


def complete(client, model_id, prompt=PROMPT, **options):
    options = {"max_tokens": 12, "temperature": 0} | options
    return client.completions.create(model=model_id, prompt=prompt, **options)


def chat(client, model_id, **options):
    options = {"max_tokens": 12, "temperature": 0} | options
    return client.chat.completions.create(model=model_id, messages=QUESTION, **options)


def test_lists_its_model(client, model_id):
    (listed,) = client.models.list().data
    assert listed.object == "model"
    assert client.models.retrieve(model_id).id == model_id


def test_chat(client, model_id):
    reply = chat(client, model_id)
    (choice,) = reply.choices
    assert reply.object == "chat.completion" and reply.model == model_id
    assert choice.message.role == "assistant" and "Paris" in choice.message.content
    assert choice.finish_reason in ("stop", "length")


def test_completion(client, model_id):
    reply = complete(client, model_id)
    assert reply.object == "text_completion"
    assert "Paris" in reply.choices[0].text
    assert reply.choices[0].finish_reason == "length"


def test_usage_adds_up(client, model_id):
    usage = complete(client, model_id).usage
    assert usage.prompt_tokens >= 5 and usage.completion_tokens == 12
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_streamed_chat_is_the_whole_chat(client, model_id):
    whole = chat(client, model_id)
    chunks = list(chat(client, model_id, stream=True, stream_options={"include_usage": True}))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    *pieces, last = chunks
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == whole.choices[0].message.content
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == [] and last.usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in pieces)


def test_a_streamed_completion_is_the_whole_completion(client, model_id):
    whole = complete(client, model_id)
    chunks = list(complete(client, model_id, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["length"]


def test_n_choices_with_a_seed_differ_from_each_other_and_repeat(client, model_id):
    def ask():
        reply = complete(client, model_id, "Once upon a time", n=3, seed=11, temperature=1.0, max_tokens=16)
        assert [choice.index for choice in reply.choices] == [0, 1, 2]
        return [choice.text for choice in reply.choices]

    first = ask()
    assert len(set(first)) > 1
    assert ask() == first


def test_another_seed_gives_another_text(client, model_id):
    texts = {complete(client, model_id, "Once upon a time", seed=seed, temperature=1.0, max_tokens=24).choices[0].text
             for seed in range(4)}
    assert len(texts) > 1


def test_a_stop_string_ends_the_text_before_it(client, model_id):
    free = complete(client, model_id, COUNTING, max_tokens=24).choices[0].text
    assert "ten" in free
    reply = complete(client, model_id, COUNTING, max_tokens=24, stop=["ten"])
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].text == free[: free.index("ten")]


def test_a_stop_string_holds_for_a_stream_too(client, model_id):
    chunks = list(complete(client, model_id, COUNTING, max_tokens=24, stop="ten", stream=True))
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert "ten" not in text and chunks[-1].choices[0].finish_reason == "stop"


def test_chat_log_probabilities(client, model_id):
    choice = chat(client, model_id, logprobs=True, top_logprobs=2, max_tokens=4).choices[0]
    assert 1 <= len(choice.logprobs.content) <= 4
    for entry in choice.logprobs.content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 2
        # Greedy: the chosen token is the likeliest.
        assert entry.token == entry.top_logprobs[0].token
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob


def test_completion_log_probabilities(client, model_id):
    logprobs = complete(client, model_id, logprobs=2, max_tokens=4).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 4
    assert all(value <= 0 for value in logprobs.token_logprobs)


def test_several_prompts_in_one_request(client, model_id):
    prompts = [PROMPT, COUNTING]
    reply = complete(client, model_id, prompts)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert [choice.text for choice in reply.choices] == [
        complete(client, model_id, prompt).choices[0].text for prompt in prompts
    ]


def test_text_of_several_bytes_a_character_survives_streaming(client, model_id):
    prompt = "Repeat: 日本語 🙂 naïve. 日本語 🙂 naïve. 日本語"
    whole = complete(client, model_id, prompt, max_tokens=24).choices[0].text
    chunks = complete(client, model_id, prompt, max_tokens=24, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole


def test_an_unknown_model_is_404(client, model_id):
    with pytest.raises(openai.NotFoundError) as caught:
        complete(client, "no-such-model")
    assert caught.value.code == "model_not_found" and model_id in caught.value.message


@pytest.mark.parametrize("field, value", [("temperature", -1), ("top_p", 2), ("max_tokens", 0), ("n", 0)])
def test_a_field_out_of_range_is_400_and_named(client, model_id, field, value):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, model_id, **{field: value})
    assert caught.value.param == field
    assert caught.value.type == "invalid_request_error"


def test_a_field_it_cannot_honour_is_refused_by_name(client, model_id):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, model_id, response_format={"type": "json_object"})
    assert caught.value.param == "response_format"


def test_a_prompt_that_is_too_long_names_both_numbers(client, model_id):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, model_id, "word " * (CONTEXT_TOKENS + 100))
    assert caught.value.code == "context_length_exceeded"
    assert str(CONTEXT_TOKENS) in caught.value.message
    assert str(CONTEXT_TOKENS + 100) in caught.value.message.replace(",", "") or "prompt has" in caught.value.message


def test_a_long_prompt_works(client, model_id):
    words = " ".join(f"item {i} is number {i * 7 % 100}," for i in range(250))
    reply = complete(client, model_id, words)
    assert reply.usage.prompt_tokens > 1500 and reply.usage.completion_tokens == 12
