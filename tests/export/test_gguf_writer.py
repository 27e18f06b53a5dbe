"""The GGUF writer, without llama.cpp: tensors, metadata, refusals. What llama.cpp makes of the
files: test_llamacpp.py.
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch
from conftest import EMBEDDED, ROOT, assert_untouched, randomize, snapshot
from export_models import LLAMA3_ROPE, qwen_tokenizer, small_llama, small_qwen, world_tokenizer

import ftlib as ft
from ftlib.adapters.lora_layer import lora_layers
from ftlib.export.errors import ExportError
from ftlib.export.gguf_adapter import export_adapter_gguf
from ftlib.export.gguf_names import rope_factors, rotary_pairs
from ftlib.export.gguf_writer import export_gguf
from ftlib.export.vocabulary import read_vocabulary

WORLD = world_tokenizer()


def tensors(path) -> dict:
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def values(path) -> dict[str, np.ndarray]:
    return {n: gguf.quants.dequantize(t.data, t.tensor_type) for n, t in tensors(path).items()}


def field(path, name):
    found = gguf.GGUFReader(path).get_field(name)
    return found and found.contents()


# --- tensors --------------------------------------------------------------------------------------
def test_rows_of_a_head_are_paired_with_their_rotary_partner():
    """Two heads of four rows. transformers rotates row i of a head against row i + 2, Llama's own
    code row 2i against 2i + 1: a head's rows 0 1 2 3 are written as 0 2 1 3, so the eight rows as 0
    2 1 3 4 6 5 7.
    """
    rows = torch.arange(8.0)[:, None].expand(8, 3)
    assert rotary_pairs(rows, heads=2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_rope_factors_by_hand():
    """theta = 10⁴, head_dim 4: frequencies 1 and 1/100, wavelengths 2π and 628. With an original
    context of 64, low 1 and high 4 the bounds are 64/4 = 16 and 64/1 = 64: the first is short and
    stays (1), the second is long and is stretched (8).
    """
    config = small_llama(head_dim=4, rope_parameters={**LLAMA3_ROPE, "rope_theta": 1e4}).config
    assert rope_factors(config).tolist() == [1.0, 8.0]


def test_rope_factors_are_those_of_transformers():
    config = small_llama(rope_parameters=LLAMA3_ROPE).config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / LLAMA3_ROPE["rope_theta"] ** (torch.arange(0, 64, 2) / 64)
    torch.testing.assert_close(plain / scaled, rope_factors(config), rtol=1e-5, atol=0)
    assert rope_factors(small_llama().config) is None


def test_file_holds_the_models_weights(tmp_path):
    model = small_llama(tie_word_embeddings=False)
    found = values(export_gguf(model, WORLD, tmp_path / "m.gguf", "f32"))
    state = model.state_dict()
    for theirs, ours in {
        "blk.1.attn_v": "model.layers.1.self_attn.v_proj",
        "token_embd": "model.embed_tokens",
        "output": "lm_head",
        "blk.0.ffn_down": "model.layers.0.mlp.down_proj",
        "output_norm": "model.norm",
    }.items():
        np.testing.assert_array_equal(found[f"{theirs}.weight"], state[f"{ours}.weight"].numpy())
    np.testing.assert_array_equal(
        found["blk.0.attn_k.weight"],
        rotary_pairs(state["model.layers.0.self_attn.k_proj.weight"], 2).numpy(),
    )
    assert len(found) == len(state)


@pytest.mark.parametrize("dtype, kind", [("f16", "F16"), ("bf16", "BF16"), ("q8_0", "Q8_0")])
def test_matrices_have_the_type_asked_for_and_norms_stay_f32(tmp_path, dtype, kind):
    """Values equal gguf's own rounding of the fp32 weight; torch and gguf round to nearest, ties to
    even.
    """
    model = small_llama()
    path = export_gguf(model, WORLD, tmp_path / "m.gguf", dtype)
    found = tensors(path)
    assert {t.tensor_type.name for t in found.values() if len(t.shape) > 1} == {kind}
    assert {t.tensor_type.name for t in found.values() if len(t.shape) == 1} == {"F32"}
    weight = model.model.layers[0].mlp.up_proj.weight.detach().numpy()
    np.testing.assert_array_equal(
        found["blk.0.ffn_up.weight"].data,
        gguf.quants.quantize(weight, gguf.GGMLQuantizationType[kind]),
    )
    assert "output.weight" not in found  # tied


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_adapter_is_merged_on_the_way_and_the_model_left_alone(tmp_path, options):
    model = randomize(ft.add_lora(small_llama(), r=4, **options))
    before = snapshot(model)
    found = values(export_gguf(model, WORLD, tmp_path / "m.gguf", "f32"))
    assert_untouched(model, before)
    ft.merge_adapter(model)
    weight = model.model.layers[1].mlp.gate_proj.base_layer.weight.detach().numpy()
    np.testing.assert_allclose(found["blk.1.ffn_gate.weight"], weight, rtol=0, atol=1e-6)
    merged = values(export_gguf(model, WORLD, tmp_path / "again.gguf", "f32"))
    np.testing.assert_array_equal(
        merged["blk.1.ffn_gate.weight"], weight
    )  # merged already: not twice


def test_disabled_adapter_is_not_exported(tmp_path):
    model = small_llama()
    plain = export_gguf(model, WORLD, tmp_path / "plain.gguf").read_bytes()
    randomize(ft.add_lora(model, r=4))
    with ft.disable_adapter(model):
        assert export_gguf(model, WORLD, tmp_path / "off.gguf").read_bytes() == plain
    assert export_gguf(model, WORLD, tmp_path / "on.gguf").read_bytes() != plain


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}])
@pytest.mark.parametrize("tied", [True, False])
def test_sharded_folder_and_adapter_folder_give_the_models_file(tmp_path, options, tied):
    model = small_llama(tie_word_embeddings=tied, rope_parameters=LLAMA3_ROPE)
    model.save_pretrained(tmp_path / "base", max_shard_size="1MB")
    WORLD.save_pretrained(tmp_path / "base")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    model.config._name_or_path = str(tmp_path / "base")
    randomize(ft.add_lora(model, r=4, **options))
    ft.save_adapter(model, tmp_path / "adapter")
    one = values(export_gguf(model, WORLD, tmp_path / "model.gguf", "f16"))
    two = values(
        export_gguf(
            tmp_path / "base", None, tmp_path / "folder.gguf", "f16", adapter=tmp_path / "adapter"
        )
    )
    assert one.keys() == two.keys()
    for (
        name
    ) in one:  # a product of the same numbers at another address may differ in the last bit of fp32
        np.testing.assert_allclose(one[name], two[name], rtol=2**-10, atol=1e-7)


def test_adapter_on_a_tied_head_gives_the_file_a_head_of_its_own(tmp_path):
    model = randomize(ft.add_lora(small_llama(), r=2, target_modules=["lm_head"]))
    found, head = (
        values(export_gguf(model, WORLD, tmp_path / "m.gguf", "f32")),
        lora_layers(model)["lm_head"],
    )
    want = head.weight + head.scaling * head.lora_B @ head.lora_A
    np.testing.assert_allclose(found["output.weight"], want.detach().numpy(), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(
        found["token_embd.weight"], model.model.embed_tokens.weight.detach().numpy()
    )
    with pytest.raises(ExportError, match="tied to the embeddings"):
        export_adapter_gguf(model, tmp_path / "a.gguf")


def test_a_tied_head_that_was_merged_is_exported_as_it_is(tmp_path):
    """In memory, and from the folder that save_pretrained wrote."""
    model = randomize(ft.add_lora(small_llama(), r=2, target_modules=["lm_head"]))
    want = values(export_gguf(model, WORLD, tmp_path / "m.gguf", "f32"))
    ft.merge_adapter(model)
    model.save_pretrained(tmp_path / "merged")
    WORLD.save_pretrained(tmp_path / "merged")
    for source in (model, tmp_path / "merged"):
        found = values(export_gguf(source, WORLD, tmp_path / "n.gguf", "f32"))
        assert found.keys() == want.keys()
        for name in want:
            np.testing.assert_allclose(found[name], want[name], rtol=0, atol=1e-6)


def test_a_compiled_model_is_exported_as_the_model_in_it(tmp_path):
    model = randomize(ft.add_lora(small_llama(), r=2))
    want = export_gguf(model, WORLD, tmp_path / "m.gguf", "f16").read_bytes()
    model.model.layers[1] = torch.compile(model.model.layers[1])
    wrapped = torch.compile(model)
    assert export_gguf(wrapped, WORLD, tmp_path / "n.gguf", "f16").read_bytes() == want
    adapters = [
        export_adapter_gguf(source, tmp_path / f"{i}.gguf").read_bytes()
        for i, source in enumerate((randomize(ft.add_lora(small_llama(), r=2)), wrapped))
    ]
    assert adapters[0] == adapters[1]


def test_a_model_without_values_is_refused(tmp_path):
    with torch.device("meta"):
        model = ft.add_lora(small_llama())
    refuse("on the meta device", tmp_path / "m.gguf", model)
    with pytest.raises(ExportError, match="on the meta device"):
        export_adapter_gguf(model, tmp_path / "a.gguf")


def test_biases_that_llama_cpp_does_not_know_are_refused(tmp_path):
    """llama.cpp reads biases of a llama's and a qwen2's attention, and none of a qwen3's: it
    refused the file.
    """
    biased = small_qwen("qwen3", attention_bias=True)
    refuse("attention_bias=True of a qwen3", tmp_path / "m.gguf", biased)
    with pytest.raises(ExportError, match="attention_bias=True of a qwen3"):
        export_adapter_gguf(ft.add_lora(biased), tmp_path / "a.gguf")
    names = values(export_gguf(small_llama(attention_bias=True), WORLD, tmp_path / "l.gguf", "f32"))
    assert {f"blk.0.attn_{x}.bias" for x in ("q", "k", "v", "output")} <= names.keys()


def test_four_bit_folder_is_dequantised_and_says_so(tmp_path, caplog, monkeypatch):
    from ftlib.models.random_checkpoint import write_random_checkpoint

    folder = write_random_checkpoint(small_llama().config, tmp_path / "nf4", "nf4")
    logging.getLogger("ftlib").propagate = True
    found = values(export_gguf(folder, None, tmp_path / "m.gguf", "f32"))
    assert "dequantised from 4 bits" in caplog.text
    model, tokenizer = ft.load_model(folder, dtype=torch.bfloat16)
    again = values(export_gguf(model, tokenizer, tmp_path / "again.gguf", "f32"))
    assert found.keys() == again.keys() and all(np.array_equal(found[n], again[n]) for n in found)
    assert len(np.unique(found["blk.0.ffn_up.weight"][0, :64])) <= 16  # one block of NF4


def test_adapter_file_by_hand(tmp_path):
    """rsLoRA with r = 4, alpha = 6: s = 6/√4 = 3. llama.cpp divides alpha by r, so alpha must read
    3·4 = 12.
    """
    model = randomize(
        ft.add_lora(
            small_llama(), r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "up_proj"]
        )
    )
    path = export_adapter_gguf(model, tmp_path / "a.gguf")
    assert (
        field(path, "general.type"),
        field(path, "adapter.type"),
        field(path, "adapter.lora.alpha"),
    ) == ("adapter", "lora", 12)
    found, layer = values(path), lora_layers(model)["model.layers.0.self_attn.q_proj"]
    np.testing.assert_array_equal(
        found["blk.0.attn_q.weight.lora_a"], layer.lora_A.detach().numpy()
    )
    np.testing.assert_array_equal(
        found["blk.0.attn_q.weight.lora_b"], rotary_pairs(layer.lora_B.detach(), 4).numpy()
    )
    assert len(found) == 2 * 2 * 2  # layers, modules, A and B


# --- tokenizer and metadata -----------------------------------------------------------------------
def test_metadata_of_the_embedded_model(tmp_path):
    path = export_gguf("world-llama-4m", None, tmp_path / "m.gguf")
    want = {
        "general.architecture": "llama",
        "general.name": "world-llama-4m",
        "llama.block_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.freq_base": 1e4,
        "llama.rope.dimension_count": 64,
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 6,
        "tokenizer.ggml.eot_token_id": 6,
        "tokenizer.ggml.eom_token_id": 1,
        "tokenizer.ggml.eos_token_ids": [6, 1],
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "general.file_type": int(gguf.LlamaFileType.MOSTLY_F16),
    }
    assert {k: field(path, k) for k in want} == want
    tokens, types = field(path, "tokenizer.ggml.tokens"), field(path, "tokenizer.ggml.token_type")
    assert (
        tokens[6] == "<|end|>"
        and types[6] == gguf.TokenType.CONTROL
        and types[500] == gguf.TokenType.NORMAL
    )
    assert "generation %" not in field(path, "tokenizer.chat_template")


def test_free_ids_are_marked_unused():
    found = read_vocabulary(WORLD, 1030, [])
    assert found.tokens[1024:] == [f"[PAD{i}]" for i in range(1024, 1030)]
    assert set(found.types[1024:]) == {gguf.TokenType.UNUSED}


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"pre_tokenizer__pretokenizers__0__pattern": {"Regex": r"\w+"}},
            r"pre-tokenizer '\\\\w\+'",
        ),
        (
            {
                "pre_tokenizer": {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "use_regex": True,
                    "trim_offsets": True,
                }
            },
            "ignore_merges=True, llama.cpp's gpt-2",
        ),
        ({"model__ignore_merges": False}, "ignore_merges=False"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer 'Lowercase'"),
        ({"added_tokens__3__lstrip": True}, "strips"),
    ],
)
def test_tokenizers_that_llama_cpp_would_read_otherwise_are_refused(changes, message):
    with pytest.raises(ExportError, match=message):
        read_vocabulary(world_tokenizer(**changes), 1024, [])


def test_other_refusals_of_the_tokenizer():
    with pytest.raises(ExportError, match="ids up to 1023, the model 1000"):
        read_vocabulary(WORLD, 1000, [])
    bare = world_tokenizer()
    bare.chat_template = None
    with pytest.raises(ExportError, match="no chat template"):
        read_vocabulary(bare, 1024, [])
    bare.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    with pytest.raises(
        ExportError, match=r"ends the assistant.s turn with .*not with a stop token"
    ):
        read_vocabulary(bare, 1024, [])
    bare.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(ExportError, match="refuses one question and answer"):
        read_vocabulary(bare, 1024, [])


def test_the_turn_end_is_eot_where_it_is_not_eos_and_a_template_may_be_one_of_several():
    """Gemma's and Phi's kind: <|eos|> (1) is the tokenizer's end, <|end|> (6) ends a turn."""
    tokenizer = world_tokenizer()
    tokenizer.eos_token = "<|eos|>"
    tokenizer.chat_template = {"default": tokenizer.chat_template}
    vocabulary = read_vocabulary(tokenizer, 1024, [1, 5])
    assert (vocabulary.special["eos"], vocabulary.special["eot"]) == (1, 6)
    assert vocabulary.special["eom"] == 5 and vocabulary.stops == [6, 1, 5]
    assert "generation" not in vocabulary.chat_template.replace("add_generation_prompt", "")


# --- refusals of models and files -----------------------------------------------------------------
def refuse(message, path, model, tokenizer=WORLD, **options):
    with pytest.raises(ExportError, match=message):
        export_gguf(model, tokenizer, path, **options)
    assert not path.exists() and not list(path.parent.glob(".*partial"))


def test_models_that_the_writer_would_get_wrong_are_refused(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    path = tmp_path / "m.gguf"
    refuse(
        "rope type 'linear'.*convert_hf_to_gguf.py",
        path,
        small_llama(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
    )
    refuse("hidden_act 'gelu'", path, small_llama(hidden_act="gelu"))
    refuse("dtype='q4'", path, small_llama(), dtype="q4")
    refuse("rows of 48", path, small_llama(intermediate_size=48), dtype="q8_0")
    refuse("goes with a checkpoint folder", path, small_llama(), adapter="x")
    config = GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=1024)
    config.rope_parameters = {}
    refuse("'gpt2'", path, GPT2LMHeadModel(config))


def test_modules_that_would_be_lost_are_refused(tmp_path):
    model = small_llama()
    model.model.layers[0].mlp.extra = torch.nn.Linear(2, 2)
    refuse("the model has 'model.layers.0.mlp.extra", tmp_path / "m.gguf", model)


def test_weights_that_do_not_fit_f16_are_refused_and_nothing_is_left(tmp_path):
    model = small_llama()
    model.model.layers[1].mlp.down_proj.weight.data[3, 5] = 1e5
    refuse("blk.1.ffn_down.weight exceeds the range of F16", tmp_path / "m.gguf", model)
    export_gguf(model, WORLD, tmp_path / "fits.gguf", "bf16")
    model.model.layers[1].mlp.down_proj.weight.data[3, 5] = math.nan
    refuse("has NaN", tmp_path / "m.gguf", model, dtype="q8_0")


def test_an_older_file_survives_a_failure(tmp_path):
    path, model = tmp_path / "m.gguf", small_llama()
    good = export_gguf(model, WORLD, path).read_bytes()
    model.model.norm.weight.data.fill_(math.inf)
    with pytest.raises(ExportError):
        export_gguf(model, WORLD, path)
    assert path.read_bytes() == good and [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_a_full_disk_is_noticed_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**6})())
    refuse("0.00 GB are free", tmp_path / "m.gguf", small_llama())


def test_bad_folders_and_adapters(tmp_path):
    from safetensors.torch import load_file, save_file

    model = small_llama()
    model.save_pretrained(tmp_path / "base")
    WORLD.save_pretrained(tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "norm" not in k},
        tmp_path / "base" / "model.safetensors",
        metadata={"format": "pt"},
    )
    path = tmp_path / "m.gguf"
    refuse("lacks 'model.layers.0.input_layernorm.weight'", path, tmp_path / "base")
    save_file(
        weights | {"model.norm.weight": torch.ones(8)},
        tmp_path / "base" / "model.safetensors",
        metadata={"format": "pt"},
    )
    refuse(r"shape \(8,\)", path, tmp_path / "base")
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    refuse(
        "trained on 'world-llama-4m'",
        path,
        tmp_path / "base",
        adapter=ROOT / "data" / "sft-adapter",
    )
    refuse("neither a folder nor a Hub model", path, "nobody/nothing")
    with pytest.raises(ExportError, match="has no adapter"):
        export_adapter_gguf(model, path)
    with pytest.raises(ExportError, match="DoRA"):
        export_adapter_gguf(ft.add_lora(small_llama(), use_dora=True), path)


def test_converter_is_run_in_its_stead(tmp_path):
    """A stand-in for convert_hf_to_gguf.py that writes what it was called with."""
    script = tmp_path / "convert.py"
    script.write_text(
        "import sys, pathlib\na = sys.argv\nassert (pathlib.Path(a[1]) / "
        "'model.safetensors').is_file()\n"
        "pathlib.Path(a[a.index('--outfile') + 1]).write_text(a[a.index('--outtype') + 1])"
    )
    model = randomize(ft.add_lora(small_llama(), r=2))
    assert (
        export_gguf(model, WORLD, tmp_path / "m.gguf", "bf16", converter=script).read_text()
        == "bf16"
    )
    script.write_text(
        "import sys, json, pathlib\na = sys.argv\nfolder = pathlib.Path(a[1])\n"
        "config = json.loads((folder / 'config.json').read_text())\n"
        "pathlib.Path(a[a.index('--outfile') + 1]).write_text(str(config['tie_word_embeddings']))"
    )
    tied_head = randomize(ft.add_lora(small_llama(), r=2, target_modules=["lm_head"]))
    path = export_gguf(tied_head, WORLD, tmp_path / "o.gguf", converter=script)
    assert path.read_text() == "False" and tied_head.config.tie_word_embeddings
    script.write_text("raise SystemExit('no such architecture')")
    refuse("no such architecture", tmp_path / "n.gguf", model, converter=script)
    refuse("does not exist", tmp_path / "n.gguf", model, converter=tmp_path / "nowhere.py")


# --- against llama.cpp's converter, where a copy of it is named -----------------------------------
CONVERT = """
import os, runpy, sys, types, transformers
pre, *arguments = sys.argv[1:]
converter = os.environ["FTLIB_CONVERTER"]
sys.modules["sentencepiece"] = types.SimpleNamespace(SentencePieceProcessor=object)
sys.path[:0] = [os.path.dirname(converter), os.path.join(os.path.dirname(converter), "gguf-py")]
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
sys.argv = [converter, *arguments]
runpy.run_path(converter, run_name="__main__")
"""


@pytest.mark.skipif(
    "FTLIB_CONVERTER" not in os.environ, reason="FTLIB_CONVERTER names no convert_hf_to_gguf.py"
)
@pytest.mark.parametrize(
    "name, dtype",
    [
        ("world", "f32"),
        ("world", "q8_0"),
        ("llama3", "bf16"),
        ("untied", "f16"),
        ("qwen2", "f16"),
        ("qwen3", "f16"),
    ],
)
def test_tensors_equal_the_converters(tmp_path, name, dtype):
    """Same names, shapes, types and bytes; and the same vocabulary. The hash check of its tokenizer
    is bypassed.
    """
    folder = tmp_path / "model"
    if name == "world":
        folder = EMBEDDED
    else:
        model = (
            small_qwen(name)
            if name.startswith("qwen")
            else small_llama(
                tie_word_embeddings=name == "llama3",
                rope_parameters=LLAMA3_ROPE if name == "llama3" else None,
            )
        )
        model.save_pretrained(folder)
        (qwen_tokenizer() if name.startswith("qwen") else WORLD).save_pretrained(folder)
    ours = export_gguf(folder, None, tmp_path / "ours.gguf", dtype)
    theirs = tmp_path / "theirs.gguf"
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            CONVERT,
            "qwen2" if name.startswith("qwen") else "llama-bpe",
            str(folder),
            "--outfile",
            str(theirs),
            "--outtype",
            dtype,
        ],
        capture_output=True,
        text=True,
    )
    assert theirs.is_file(), run.stderr[-2000:]
    one, two = tensors(ours), tensors(theirs)
    assert one.keys() == two.keys()
    for key in one:
        assert (one[key].tensor_type, one[key].shape.tolist()) == (
            two[key].tensor_type,
            two[key].shape.tolist(),
        ), key
        assert np.array_equal(one[key].data, two[key].data), key
    for key in (
        "tokens",
        "token_type",
        "merges",
        "bos_token_id",
        "eos_token_id",
        "padding_token_id",
    ):
        assert field(ours, f"tokenizer.ggml.{key}") == field(theirs, f"tokenizer.ggml.{key}"), key
