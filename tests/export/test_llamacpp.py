"""What llama.cpp makes of exported files: the same logits, tokens and answers as transformers;
quantisation; the report's honesty.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import needs_llama, randomize
from export_models import LLAMA3_ROPE, qwen_tokenizer, small_llama, small_qwen, world_tokenizer
from gguf.quants import dequantize

import ftlib as ft
from ftlib.export import gguf_file
from ftlib.export.errors import ExportError
from ftlib.export.gguf_adapter import export_adapter_gguf
from ftlib.export.gguf_file import read_gguf, tensor_types
from ftlib.export.gguf_merge import merge_adapter_gguf
from ftlib.export.gguf_writer import export_gguf
from ftlib.export.importance import importance_matrix
from ftlib.export.llama_outputs import llama_answer, llama_logits
from ftlib.export.llamacpp import QuantizedFile, llama_counters, open_llama, quantize_gguf
from ftlib.export.parity import check_export

needs_llama()

IDS = [
    0,
    4,
    500,
    17,
    900,
    33,
    6,
    5,
    410,
    411,
    700,
    99,
    100,
    101,
    102,
    103,
] * 8  # past llama3's original context of 64
QUESTIONS = [row["messages"][:-1] for row in ft.load_rows("golden")[:6]]


@torch.no_grad()
def logits(model, ids=IDS):
    return model(input_ids=torch.tensor([ids])).logits[0].float()


def gap(model, path, **options) -> float:
    with open_llama(path, n_ctx=len(IDS) + 1, all_logits=True, **options) as llama:
        return (llama_logits(llama, IDS) - logits(model)).abs().max().item()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(model with the shipped adapter, tokenizer, f16 file)."""
    model, tokenizer = ft.load_model("world-llama-4m")
    ft.load_adapter(model, ft.core.paths.DATA / "sft-adapter")
    return (
        model,
        tokenizer,
        export_gguf(model, tokenizer, tmp_path_factory.mktemp("world") / "world.gguf"),
    )


# --- the same model -------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [None, {}, {"use_rslora": True}, {"use_dora": True}])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"tie_word_embeddings": False, "rope_parameters": LLAMA3_ROPE},
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
    ],
)
def test_logits_of_llama(tmp_path, options, shape):
    model = small_llama(**shape)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(p, std=0.3)
    if options is not None:
        randomize(ft.add_lora(model, r=4, **options))
    assert gap(model, export_gguf(model, world_tokenizer(), tmp_path / "m.gguf", "f32")) < 1e-3


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_logits_of_qwen(tmp_path, kind):
    model = randomize(ft.add_lora(small_qwen(kind), r=4))
    assert gap(model, export_gguf(model, qwen_tokenizer(), tmp_path / "m.gguf", "f32")) < 1e-3


def test_the_tests_would_see_an_unpermuted_head_or_a_forgotten_rope(tmp_path, monkeypatch):
    """The negative control: each of the two steps left out moves the logits by far more than the
    tolerance.
    """
    model = small_llama(rope_parameters=LLAMA3_ROPE)
    monkeypatch.setattr("ftlib.export.gguf_writer.rope_factors", lambda config: None)
    assert gap(model, export_gguf(model, world_tokenizer(), tmp_path / "m.gguf", "f32")) > 0.02
    monkeypatch.undo()
    monkeypatch.setattr("ftlib.export.gguf_names.rotary_pairs", lambda weight, heads: weight)
    assert gap(model, export_gguf(model, world_tokenizer(), tmp_path / "m.gguf", "f32")) > 0.1


@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "lora_alpha": 5}])
def test_adapter_beside_the_base_is_the_merged_model(tmp_path, options):
    model = small_llama()
    base = export_gguf(model, world_tokenizer(), tmp_path / "base.gguf", "f32")
    randomize(ft.add_lora(model, r=4, **options))
    assert gap(model, base) > 0.1
    assert gap(model, base, adapter=export_adapter_gguf(model, tmp_path / "a.gguf")) < 1e-3


def test_generation_ends_at_the_end_of_the_turn(world):
    """Also at the other stop of generation_config, which llama.cpp does not know by its text."""
    from llama_cpp import llama_model_get_vocab, llama_vocab_is_eog

    model, tokenizer, path = world
    with open_llama(path) as llama:
        ids = tokenizer.apply_chat_template(
            QUESTIONS[0], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert llama_answer(llama, ids, 100)[-1] == tokenizer.convert_tokens_to_ids("<|end|>")
        vocab = llama_model_get_vocab(llama.model)
        assert {i for i in range(1024) if llama_vocab_is_eog(vocab, i)} == set(
            model.generation_config.eos_token_id
        )


# --- quantisation ---------------------------------------------------------------------------------
@pytest.mark.parametrize("kind, main", [("Q8_0", "Q8_0"), ("Q4_K_M", "Q4_K"), ("Q2_K", "Q2_K")])
def test_quantised_files_hold_the_types_asked_for(world, tmp_path, kind, main):
    made = quantize_gguf(world[2], tmp_path / "q.gguf", kind, threads=1)
    assert made.types[main] >= 12 and not made.fell_back and made.nbytes == made.path.stat().st_size
    assert sum(made.types.values()) == 29  # 4 layers of 7, and the embedding


def test_what_fell_back_is_summed_up_over_blocks():
    fell_back = {f"blk.{block}.attn_q.weight": "Q5_0" for block in range(30)}
    fell_back |= {"blk.3.attn_v.weight": "Q8_0", "token_embd.weight": "Q8_0"}
    made = QuantizedFile(Path("m.gguf"), 2_000_000, {"Q5_0": 30, "Q8_0": 2}, fell_back)
    assert str(made) == (
        "m.gguf: 2.0 MB, 30 Q5_0, 2 Q8_0; fell back: 30 times blk.*.attn_q.weight to Q5_0, "
        "blk.3.attn_v.weight to Q8_0, token_embd.weight to Q8_0"
    )


def test_rows_that_are_no_multiple_of_256(tmp_path, caplog):
    """Intermediate size 288: down_proj alone has rows that k-quants cannot hold. Hidden size 32: no
    matrix has others.
    """
    import logging

    logging.getLogger("ftlib").propagate = True
    source = export_gguf(small_llama(intermediate_size=288), world_tokenizer(), tmp_path / "m.gguf")
    made = quantize_gguf(source, tmp_path / "q.gguf", "Q4_K_M", threads=1)
    assert (
        set(made.fell_back) == {"blk.0.ffn_down.weight", "blk.1.ffn_down.weight"}
        and "fell back: blk.0.ffn_down.weight to " in caplog.text
    )
    source = export_gguf(
        small_llama(hidden_size=32, intermediate_size=64, head_dim=8),
        world_tokenizer(),
        tmp_path / "n.gguf",
    )
    with pytest.raises(ExportError, match=r"no matrix could be stored as Q4_K: rows of \[32, 64\]"):
        quantize_gguf(source, tmp_path / "r.gguf", threads=1)
    assert not (tmp_path / "r.gguf").exists() and not list(tmp_path.glob(".*partial"))


def test_types_by_name(world, tmp_path):
    """The first pattern that fits counts; what no pattern fits is as the file's name says."""
    types = {"attn_v": "Q2_K", r"ffn|attn|embd": "F16"}
    made = quantize_gguf(world[2], tmp_path / "q.gguf", "Q4_K_M", threads=1, types=types)
    assert made.types == {"Q2_K": 4, "F16": 25} and not made.fell_back
    stored = {t.name: t.tensor_type.name for t in read_gguf(made.path).tensors}
    assert stored["blk.2.attn_v.weight"] == "Q2_K" and stored["token_embd.weight"] == "F16"
    for wrong, said in (
        ({"attn_v": "Q9"}, "'attn_v'.='Q9'"),
        ({"attn_w": "Q4_K"}, "'attn_w', which fits no matrix"),
        ({"attn_(": "Q4_K"}, "no regular expression"),
    ):
        with pytest.raises(ExportError, match=said):
            quantize_gguf(world[2], tmp_path / "r.gguf", types=wrong)
    assert not (tmp_path / "r.gguf").exists()


def test_an_importance_matrix_moves_the_rounding_to_where_it_costs_less(world, tmp_path):
    """It is the mean square of each layer's inputs, and with it llama.cpp's rounding weighed by it
    is smaller.
    """
    model, _, source = world
    texts = [IDS[:20], IDS[3:40]]
    importance = importance_matrix(model, texts)
    seen = []
    layer = model.get_submodule("model.layers.1.mlp.down_proj")
    hook = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
    for ids in texts:
        logits(model, ids)
    hook.remove()
    name = "blk.1.ffn_down.weight"
    assert len(importance) == 28 and "token_embd.weight" not in importance
    torch.testing.assert_close(
        torch.from_numpy(importance[name]), torch.cat(seen).square().mean(0), rtol=1e-4, atol=1e-6
    )

    def rounding(path) -> float:
        kept, plain = (
            next(t for t in read_gguf(file).tensors if t.name == name) for file in (path, source)
        )
        error = dequantize(kept.data, kept.tensor_type) - dequantize(plain.data, plain.tensor_type)
        return (error**2 @ importance[name]).sum()

    with_it = quantize_gguf(
        source, tmp_path / "a.gguf", "Q4_K_M", threads=1, importance={name: importance[name]}
    )
    without = quantize_gguf(source, tmp_path / "b.gguf", "Q4_K_M", threads=1)
    assert rounding(with_it.path) < 0.95 * rounding(without.path)


def test_bad_importance(world, tmp_path):
    target = tmp_path / "q.gguf"
    name = "blk.0.attn_q.weight"
    for wrong, said in (
        ({"blk.0.attn_w.weight": np.ones(256)}, "no matrix of the file"),
        ({name: np.ones(255)}, r"shape \(255,\): \(256,\) is wanted"),
        ({name: -np.ones(256)}, "negative or not finite"),
        ({name: np.full(256, np.nan)}, "negative or not finite"),
    ):
        with pytest.raises(ExportError, match=said):
            quantize_gguf(world[2], target, importance=wrong)
    with pytest.raises(ExportError, match="no token"):
        importance_matrix(world[0], [])
    assert not target.exists()


def test_bad_sources(world, tmp_path):
    content = world[2].read_bytes()
    target = tmp_path / "q.gguf"
    for size in (0, 3, 40, 20_000, len(content) - 1000):
        (tmp_path / "cut.gguf").write_bytes(content[:size])
        with pytest.raises(ExportError, match="damaged or truncated"):
            quantize_gguf(tmp_path / "cut.gguf", target)
        with (
            pytest.raises(ExportError, match="damaged or truncated"),
            open_llama(tmp_path / "cut.gguf"),
        ):
            pass
    with pytest.raises(ExportError, match="quantization='Q9'"):
        quantize_gguf(world[2], target, "Q9")
    with pytest.raises(ExportError, match="does not exist"):
        quantize_gguf(tmp_path / "none.gguf", target)
    with pytest.raises(ExportError, match="is the source itself"):
        quantize_gguf(world[2], world[2])
    quantize_gguf(world[2], target, "Q8_0", threads=1)
    with pytest.raises(ExportError, match="quantised already"):
        quantize_gguf(target, tmp_path / "r.gguf")
    assert not list(tmp_path.glob(".*partial"))


def test_a_file_found_sound_is_read_again_only_once_it_has_changed(world, tmp_path, monkeypatch):
    reads = []

    def reading(path):
        reads.append(path)
        return read_gguf(path)

    monkeypatch.setattr(gguf_file, "read_gguf", reading)
    copy = tmp_path / "copy.gguf"
    shutil.copy(world[2], copy)
    with open_llama(copy):
        pass
    os.utime(copy, (0, 0))  # long ago: of a file written just now nothing is kept
    for _ in range(2):
        with open_llama(copy):
            pass
    assert reads == [copy, copy]
    with open(copy, "r+b") as file:  # cut, under the same name
        file.truncate(copy.stat().st_size - 1000)
    with pytest.raises(ExportError, match="damaged or truncated"), open_llama(copy):
        pass
    assert len(reads) == 3


@pytest.mark.parametrize("given", [None, 2])
def test_llama_cpp_takes_pytorchs_threads_and_gives_the_same_with_more(world, given):
    with open_llama(world[2], threads=given) as llama:
        assert llama.n_threads == llama.n_threads_batch == (given or torch.get_num_threads())
    assert gap(world[0], world[2], threads=given) == gap(world[0], world[2], threads=1)


def test_a_file_that_llama_cpp_refuses_is_named(tmp_path):
    """A whole GGUF file without a model in it: GGUFReader is content, llama.cpp is not."""
    adapter = export_adapter_gguf(ft.add_lora(small_llama(), r=2), tmp_path / "a.gguf")
    read_gguf(adapter)
    with pytest.raises(ExportError, match=r"llama\.cpp refuses"), open_llama(adapter):
        pass
    with pytest.raises(ExportError, match=r"llama\.cpp could not quantise"):
        quantize_gguf(adapter, tmp_path / "q.gguf", "Q8_0", threads=1)


# --- the report -----------------------------------------------------------------------------------
def test_report_of_a_good_export(world, tmp_path):
    model, tokenizer, path = world
    small = quantize_gguf(path, tmp_path / "q.gguf", "Q4_K_M", threads=1)
    report = check_export(model, tokenizer, [path, small], QUESTIONS).check()
    first, second = report.files
    assert report.passed and (first.same_prompt, first.same_answer, second.same_prompt) == (6, 6, 6)
    assert (
        first.max_logit_diff < 0.05 < second.max_logit_diff
        and 0 < second.kl < 0.1
        and first.kl == 0
    )
    assert first.perplexity == pytest.approx(report.perplexity, rel=1e-3)
    assert (
        report.perplexity == pytest.approx(second.perplexity, rel=0.3)
        and "Q4_K_M" in str(report)
        and "passed" in str(report)
    )


def test_perplexity_is_that_of_evaluate(world):
    model, tokenizer, path = world
    texts = [row["messages"][0]["content"] for row in ft.load_rows("golden")[:8]]
    report = check_export(model, tokenizer, path, QUESTIONS[:1], texts=texts)
    assert report.perplexity == pytest.approx(ft.perplexity(model, tokenizer, texts), rel=1e-4)


def test_report_names_another_model_and_another_template(world, tmp_path):
    model, tokenizer, _ = world
    with ft.disable_adapter(model):
        base = export_gguf(model, tokenizer, tmp_path / "base.gguf")
    report = check_export(model, tokenizer, base, QUESTIONS)
    assert (
        not report.passed
        and any("logits differ by up to" in p for p in report.problems)
        and "FAILED" in str(report)
    )
    assert any("the answer to prompt" in p for p in report.problems)
    with pytest.raises(ExportError, match="differs from the model"):
        report.check()
    other = world_tokenizer()
    other.chat_template = tokenizer.chat_template.replace("<|assistant|>", "<|system|>")
    path = export_gguf(model, other, tmp_path / "other.gguf")
    assert any(
        "becomes other tokens" in p
        for p in check_export(model, tokenizer, path, QUESTIONS[:1]).problems
    )


def test_a_third_runtime_is_compared_by_its_answers(world):
    model, tokenizer, path = world
    right = dict(
        zip(
            map(str, QUESTIONS),
            ft.evaluation.generate.generate_answers(model, tokenizer, QUESTIONS),
            strict=True,
        )
    )
    assert check_export(
        model, tokenizer, path, QUESTIONS[:2], generate=lambda prompt: right[str(prompt)]
    ).passed
    found = check_export(model, tokenizer, path, QUESTIONS[:2], generate=lambda prompt: "no idea")
    assert len(found.problems) == 2 and "'no idea'" in found.problems[0]


def test_limits_are_applied(world, tmp_path):
    model, tokenizer, path = world
    small = quantize_gguf(path, tmp_path / "q.gguf", "Q2_K", threads=1)
    report = check_export(
        model, tokenizer, [path, small], QUESTIONS[:2], tolerance=1e-6, max_kl=1e-6
    )
    assert (
        len([p for p in report.problems if "more than 1e-06" in p or "above max_kl=1e-06" in p])
        == 2
    )
    assert (
        "put an f32, f16 or bf16 export first"
        in check_export(model, tokenizer, small, QUESTIONS[:1]).problems[-1]
    )
    with pytest.raises(ExportError, match="0 prompts"):
        check_export(model, tokenizer, path, [])


def test_counters_under_ollamas_names(world, capfd):
    """A prompt of 12 tokens in one batch, then 5 generated one by one: the first comes with the
    prompt, so 4 are fed alone.

    The adapter loads without llama.cpp's line on each of its matrices.
    """
    from llama_cpp import llama_perf_context_reset

    model, _, file = world
    adapter = export_adapter_gguf(model, file.with_name("adapter.gguf"))
    with open_llama(file, adapter=adapter, gpu=True) as llama:
        assert capfd.readouterr().err == ""
        for _ in range(2):  # after a reset they count from zero
            llama.reset()
            llama_perf_context_reset(llama.ctx)
            tokens = llama.generate(IDS[:12], temp=0.0)
            assert len([next(tokens) for _ in range(5)]) == 5
            found = llama_counters(llama)
            assert (found["prompt_eval_count"], found["eval_count"]) == (12, 4)
            assert 0 < found["eval_duration"] < 60e9 and 0 < found["prompt_eval_duration"] < 60e9


def test_a_repeat_penalty_counts_the_prompt(world):
    """By hand: the first token is the one with the highest logit after the penalty, of which the
    tokens of the prompt are divided by 1.5 where positive, else multiplied.
    """
    model, tokenizer, f16 = world
    ids = tokenizer.apply_chat_template(QUESTIONS[0], add_generation_prompt=True, return_dict=True)
    ids = ids["input_ids"]
    scores = logits(model, ids)[-1]
    for token in set(ids):
        scores[token] = scores[token] / 1.5 if scores[token] > 0 else scores[token] * 1.5
    with open_llama(f16) as llama:
        [first] = llama_answer(llama, ids, 1, repeat_penalty=1.5)
        assert first == int(scores.argmax())
        plain = llama_answer(llama, ids, 40)
        harsh = llama_answer(llama, ids, 40, repeat_penalty=1e6)
    assert not set(harsh) & set(ids[-64:])  # nothing of the prompt can be said again
    assert plain != harsh


# --- an adapter merged into a quantised file ------------------------------------------------------
@pytest.fixture(scope="module")
def quantised_base(tmp_path_factory):
    """(the model with a random adapter on it, Q4_K_M of its base, the adapter's folder)."""
    folder = tmp_path_factory.mktemp("into")
    model = small_llama(rope_parameters=LLAMA3_ROPE)
    plain = export_gguf(model, world_tokenizer(), folder / "plain.gguf", "f16")
    base = quantize_gguf(plain, folder / "base.gguf", "Q4_K_M").path
    randomize(ft.add_lora(model, r=4, target_modules=["q_proj", "k_proj", "down_proj"]))
    return model, base, ft.save_adapter(model, folder / "adapter")


def test_llama_cpp_reads_a_file_with_an_adapter_merged_into_4_bits(quantised_base, tmp_path):
    """Against the same adapter over the same base as llama.cpp applies it, which is in fp32."""
    model, base, adapter = quantised_base
    merged = merge_adapter_gguf(base, adapter, tmp_path / "merged.gguf", "f32")
    beside = export_adapter_gguf(model, tmp_path / "adapter.gguf")
    with open_llama(merged, n_ctx=len(IDS) + 1, all_logits=True) as llama:
        ours = llama_logits(llama, IDS)
    with open_llama(base, n_ctx=len(IDS) + 1, all_logits=True, adapter=beside) as llama:
        theirs = llama_logits(llama, IDS)
    with open_llama(base, n_ctx=len(IDS) + 1, all_logits=True) as llama:
        without = llama_logits(llama, IDS)
    moved = (theirs - without).abs().mean()
    # llama.cpp rounds what a 4-bit matrix is multiplied with to 8 bits; an fp32 matrix's it leaves.
    assert (ours - theirs).abs().mean() < 0.1 * moved


def test_merged_and_quantised_again(quantised_base, tmp_path):
    """Every matrix has the type that it had, and those that the adapter left are the same bytes."""
    _, base, adapter = quantised_base
    merged = merge_adapter_gguf(base, adapter, tmp_path / "merged.gguf", "f16", quant="Q4_K_M")
    before = read_gguf(base)
    after = read_gguf(merged)
    assert tensor_types(after) == tensor_types(before)
    bytes_before = {t.name: t.data.tobytes() for t in before.tensors}
    changed = {t.name for t in after.tensors if t.data.tobytes() != bytes_before[t.name]}
    touched = ("attn_q", "attn_k", "ffn_down")
    assert changed == {name for name in bytes_before if any(part in name for part in touched)}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["merged.gguf"]
