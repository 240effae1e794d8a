"""The C++ readers of GGUF files and Hugging Face folders against what Python reads from the same bytes."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

import model_source
import tiny_model
from tools.launcher import build

BLOCK_TYPES = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(6)


def run(model, tmp_path):
    """(exit code, output, floats)."""
    binary = pathlib.Path(os.environ.get("LONGHAUL_DUMP_MODEL", build.binary("dump_model")))
    assert binary.exists(), f"{binary} is not built; ./longhaul test builds it"
    floats = tmp_path / "floats.bin"
    result = subprocess.run([binary, model, floats], capture_output=True, text=True, timeout=60, check=False)
    return result.returncode, result.stdout, floats


def dump(model, tmp_path):
    code, output, floats = run(model, tmp_path)
    assert code == 0, output
    dumped = json.loads(output)
    values = np.fromfile(floats, dtype=np.float32)
    dumped["arrays"] = {}
    for weight in dumped["weights"]:
        count = weight["rows"] * weight["cols"]
        dumped["arrays"][weight["name"]] = values[:count].reshape(weight["rows"], weight["cols"])
        values = values[count:]
    assert len(values) == 0
    return dumped


def refusal(model, tmp_path):
    code, output, _ = run(model, tmp_path)
    assert code == 1, output
    return output


def expect_same_model(dumped, path):
    """Configuration and every weight as model_source.py reads them, bit by bit."""
    config, weights = model_source.load_source(path)
    for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "rope_interleaved", "eos_tokens"):
        assert dumped["config"][name] == getattr(config, name), name
    assert np.float32(dumped["config"]["rms_epsilon"]) == np.float32(config.rms_epsilon)
    assert dumped["config"]["rope_theta"] == config.rope_theta
    expected = {"embedding": weights["embedding"], "final_norm": weights["final_norm"]}
    expected["head"] = weights.get("head", weights["embedding"])
    for i, layer in enumerate(weights["layers"]):
        expected.update({f"{i}.{name}": array for name, array in layer.items()})
    assert set(dumped["arrays"]) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(dumped["arrays"][name], np.atleast_2d(array), err_msg=name)


@pytest.mark.parametrize("dtype", ("F32", "F16", "BF16") + BLOCK_TYPES)
def test_every_type_of_gguf_is_read_to_the_bit(dtype, tmp_path):
    path = tmp_path / "tiny.gguf"
    tiny_model.write_gguf(path, tiny_model.Spec(layers=1).widen_for_blocks(), dtype)
    dumped = dump(path, tmp_path)
    expect_same_model(dumped, path)
    assert {w["dtype"] for w in dumped["weights"] if w["rows"] > 1} == {dtype.lower()}


@pytest.mark.parametrize("architecture", ("llama", "qwen2", "qwen3"))
@pytest.mark.parametrize("tied", (True, False))
def test_gguf_architectures(architecture, tied, tmp_path):
    path = tmp_path / "tiny.gguf"
    tiny_model.write_gguf(path, tiny_model.Spec(architecture=architecture, tied=tied))
    dumped = dump(path, tmp_path)
    expect_same_model(dumped, path)
    assert dumped["config"]["architecture"] == architecture
    assert dumped["config"]["name"] == "tiny"
    assert dumped["config"]["tied_head"] == tied
    assert dumped["config"]["qkv_bias"] == (architecture == "qwen2")
    assert dumped["config"]["qk_norm"] == (architecture == "qwen3")
    assert dumped["config"]["vocab"] == 384
    assert dumped["config"]["context_tokens_max"] == 512


@pytest.mark.parametrize("architecture", ("llama", "qwen2", "qwen3"))
@pytest.mark.parametrize("dtype", ("F32", "F16", "BF16"))
@pytest.mark.parametrize("shards, pad", ((1, True), (3, True), (1, False)))
def test_hugging_face_folders(architecture, dtype, shards, pad, tmp_path):
    folder = tmp_path / "model"
    spec = tiny_model.Spec(architecture=architecture, tied=shards == 1)
    tiny_model.write_hugging_face(folder, spec, dtype, shards, pad)
    dumped = dump(folder, tmp_path)
    expect_same_model(dumped, folder)
    assert dumped["config"]["name"] == "model"
    assert dumped["config"]["qkv_bias"] == (architecture == "qwen2")
    assert dumped["config"]["qk_norm"] == (architecture == "qwen3")


@pytest.mark.parametrize("tied", (True, False))
def test_rows_that_no_token_names_are_left_out(tied, tmp_path):
    for name, padding in (("plain", 0), ("padded", 37)):
        tiny_model.write_hugging_face(tmp_path / name, tiny_model.Spec(tied=tied, padding=padding))
    edit_json(tmp_path / "padded" / "config.json", eos_token_id=[2, 390])
    plain, padded = dump(tmp_path / "plain", tmp_path), dump(tmp_path / "padded", tmp_path)
    assert padded["config"] == {**plain["config"], "name": "padded"}
    assert padded["weights"] == plain["weights"]
    for name, array in plain["arrays"].items():
        np.testing.assert_array_equal(padded["arrays"][name], array, err_msg=name)


def test_rope_scaling(tmp_path):
    spec = tiny_model.Spec(rope_scaling=LLAMA3, rope_theta=500000.0)
    tiny_model.write_hugging_face(tmp_path / "hf", spec)
    config = dump(tmp_path / "hf", tmp_path)["config"]
    assert (config["rope_scaling"], config["rope_factor"]) == ("llama3", 8.0)
    assert (config["rope_low"], config["rope_high"], config["rope_original_context"]) == (1.0, 4.0, 64)
    tiny_model.write_gguf(tmp_path / "a.gguf", spec)
    config = dump(tmp_path / "a.gguf", tmp_path)["config"]
    assert config["rope_scaling"] == "none"
    np.testing.assert_array_equal(np.float32(config["rope_divisors"]), tiny_model.llama3_divisors(spec))

    spec = tiny_model.Spec(rope_scaling={"rope_type": "linear", "factor": 4.0})
    tiny_model.write_hugging_face(tmp_path / "linear", spec)
    tiny_model.write_gguf(tmp_path / "linear.gguf", spec)
    for path in ("linear", "linear.gguf"):
        config = dump(tmp_path / path, tmp_path)["config"]
        assert (config["rope_scaling"], config["rope_factor"]) == ("linear", 4.0)


def test_byte_level_tokenizer_is_the_same_from_both_formats(tmp_path):
    for architecture in ("llama", "qwen2"):
        spec = tiny_model.Spec(architecture=architecture, layers=1)
        tiny_model.write_hugging_face(tmp_path / architecture, spec)
        tiny_model.write_gguf(tmp_path / f"{architecture}.gguf", spec)
        folder = dump(tmp_path / architecture, tmp_path)["tokenizer"]
        file = dump(tmp_path / f"{architecture}.gguf", tmp_path)["tokenizer"]
        assert not folder["sentence_piece"]
        for name in ("tokens", "kinds", "merges", "chat_template", "eos_token", "unknown_token", "add_bos"):
            assert folder[name] == file[name], name
        assert folder["kinds"][:4] == [CONTROL] * 3 + [NORMAL]
        assert folder["eos_token"] == 2 and folder["bos_token"] == -1
        assert folder["nfc"] == (architecture == "qwen2")
        assert folder["digits"] == (architecture == "llama")
        assert folder["pre_tokenizer"] == ("gpt2" if architecture == "llama" else "")
        assert len(folder["patterns"]) == (1 if architecture == "qwen2" else 0)
        assert file["pre_tokenizer"] == ("smollm" if architecture == "llama" else "qwen2")


def test_sentencepiece_tokenizer_from_both_formats(tmp_path):
    spec = tiny_model.Spec(tokenizer="sentencepiece", layers=1)
    tiny_model.write_hugging_face(tmp_path / "hf", spec)
    tiny_model.write_gguf(tmp_path / "a.gguf", spec)
    folder, file = (dump(tmp_path / name, tmp_path)["tokenizer"] for name in ("hf", "a.gguf"))
    assert folder["sentence_piece"] and file["sentence_piece"]
    for name in ("tokens", "chat_template", "bos_token", "eos_token", "unknown_token", "add_bos", "add_eos"):
        assert folder[name] == file[name], name
    assert folder["add_bos"] and folder["bos_token"] == 1
    assert folder["add_space_prefix"] and file["add_space_prefix"]
    assert folder["kinds"][3:259] == file["kinds"][3:259] == [BYTE] * 256
    assert folder["merges"] and not folder["scores"]
    assert file["scores"] and not file["merges"]


def edit_json(path, **changes):
    document = json.loads(path.read_text())
    document.update(changes)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "changes, words",
    (
        ({"architectures": ["MixtralForCausalLM"]}, "MixtralForCausalLM is not supported"),
        ({"architectures": []}, "does not name one class"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised Hugging Face models"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "RoPE type yarn"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "RoPE type dynamic"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "RoPE type longrope"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_hidden_layers": 3}, "layer 2"),
        ({"num_hidden_layers": 1}, "has no place"),
        ({"vocab_size": 400}, "384"),
        ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
        ({"rms_norm_eps": 0}, "epsilon"),
        ({"hidden_size": "64"}, "hidden_size is not an integer"),
    ),
)
def test_refusals_of_a_configuration(changes, words, tmp_path):
    folder = tmp_path / "model"
    tiny_model.write_hugging_face(folder, tiny_model.Spec())
    edit_json(folder / "config.json", **changes)
    assert words in refusal(folder, tmp_path)


def test_mistral_is_read_when_its_window_is_none(tmp_path):
    folder = tmp_path / "model"
    tiny_model.write_hugging_face(folder, tiny_model.Spec())
    edit_json(folder / "config.json", architectures=["MistralForCausalLM"], sliding_window=512)
    assert dump(folder, tmp_path)["config"]["architecture"] == "mistral"
    edit_json(folder / "config.json", sliding_window=None)
    assert dump(folder, tmp_path)["config"]["architecture"] == "mistral"
    edit_json(folder / "config.json", sliding_window=128)
    assert "sliding window of 128" in refusal(folder, tmp_path)


def test_missing_files_are_named(tmp_path):
    folder = tmp_path / "model"
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        tiny_model.write_hugging_face(folder, tiny_model.Spec(layers=1))
        (folder / name).unlink()
        assert name in refusal(folder, tmp_path)
    assert "nowhere" in refusal(tmp_path / "nowhere", tmp_path)


def test_shards_stay_within_the_folder(tmp_path):
    folder = tmp_path / "model"
    tiny_model.write_hugging_face(folder, tiny_model.Spec(layers=1))
    index = {"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "in this folder" in refusal(folder, tmp_path)


def test_a_chat_template_of_its_own_wins(tmp_path):
    folder = tmp_path / "model"
    tiny_model.write_hugging_face(folder, tiny_model.Spec(layers=1))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert dump(folder, tmp_path)["tokenizer"]["chat_template"] == "{{ messages }}"


def test_digest_tells_models_apart(tmp_path):
    digests = set()
    for name, spec in (
        ("a", tiny_model.Spec(layers=1)),
        ("b", tiny_model.Spec(layers=1, seed=2)),
        ("c", tiny_model.Spec(layers=1, rope_theta=20000.0)),
        ("d", tiny_model.Spec(layers=1, tied=False)),
    ):
        tiny_model.write_gguf(tmp_path / name, spec)
        digests.add(dump(tmp_path / name, tmp_path)["digest"])
    assert len(digests) == 4
    tiny_model.write_gguf(tmp_path / "again", tiny_model.Spec(layers=1))
    assert dump(tmp_path / "again", tmp_path)["digest"] in digests
