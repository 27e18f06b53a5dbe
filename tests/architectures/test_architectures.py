"""The same numbers on every causal language model of transformers that can be built tiny: whole
logits, adapters, packed rows, shared prompts and padded batches agree, or a refusal names the
model.

The known ones run always. `FTLIB_SWEEP=1` adds the others: decoders of encoder-decoders, encoders
with a language model's head, and what is rare.
"""

import copy
import os

import pytest
import torch
from tiny import MORE, PAD, VOCABULARY, tiny_model
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import ftlib as ft
from ftlib.batches.collate import PackedCollator, PairCollator, SFTCollator
from ftlib.batches.packing import pack
from ftlib.losses.isolation import later_shift, packing_shift
from ftlib.losses.logps import LogpError, completion_logps
from ftlib.training.memory_plan import PlanError, plan_memory
from ftlib.training.preference_trainer import pair_logps, why_unshared
from ftlib.training.row_checks import why_inexact
from ftlib.training.sampling import left_padding_shift

# fmt: off
USUAL = [
    "apertus", "bamba", "bitnet", "bloom", "codegen", "cohere", "cohere2", "deepseek_v2",
    "deepseek_v3", "ernie4_5", "exaone4", "falcon", "falcon_h1", "falcon_mamba", "gemma",
    "gemma2", "gemma3_text", "glm", "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neo",
    "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "granitemoehybrid", "helium",
    "hunyuan_v1_dense", "jamba", "lfm2", "llama", "llama4_text", "mamba", "mamba2", "minicpm3",
    "minimax", "ministral", "mistral", "mixtral", "mpt", "nemotron", "nemotron_h", "olmo",
    "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "qwen3_next", "recurrent_gemma", "rwkv", "seed_oss", "smollm3", "stablelm",
    "starcoder2", "zamba",
]
# fmt: on
# What the recipe does not build, and why.
LEFT_OUT = {
    "blt": "a byte model of four networks, whose sizes lie in four configs",
    "cohere_compass_text": "an embedder whose default config has no rope_parameters for its layers",
    "dots3_note_text": "per-layer sizes that no small number changes: 38 million parameters",
    "git": "a vision tower of 85 million parameters within its config",
    "phi4_multimodal": "vision and speech towers within its config: 870 million parameters",
    "zamba2": "its shared blocks lie at fixed places of 54 layers",
}
# Whose log-probabilities ftlib refuses to take from tiles, by name.
REFUSED_LOGPS = {
    "minicpm3": "does something to its logits",  # its hidden states are scaled before the head
    "prophetnet": "of shape",  # predicts several tokens at a time
}
# Whose own `generate` fails on two rows or on one.
NO_GENERATION = {"xlstm"}


def is_text_model(model_type: str) -> bool:
    """Not one of several towers: those have their text model in the mapping beside them."""
    inside = CONFIG_MAPPING[model_type].sub_configs
    return "text_config" not in inside and "decoder" not in inside


def model_types() -> list[str]:
    if not os.environ.get("FTLIB_SWEEP"):
        return USUAL
    every = [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if is_text_model(name)]
    return [name for name in every if name not in LEFT_OUT]


@pytest.fixture(scope="module", params=model_types())
def model(request):
    return tiny_model(request.param)


@pytest.fixture
def kind(model) -> str:
    return model.config.model_type


def conversation(length: int, seed: int) -> dict[str, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
    return {"input_ids": ids, "labels": ids}


ROWS = [conversation(23, 1), conversation(17, 2)]
TOKENS = [row["input_ids"] for row in ROWS]


@torch.no_grad()
def whole_logps(model, row: dict, **more) -> torch.Tensor:
    """(T - 1,) of one row alone, from its full logits."""
    ids = torch.tensor([row["input_ids"]])
    logits = model(input_ids=ids, use_cache=False, **more).logits[0, :-1].double()
    return logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]


def test_every_text_model_of_the_mapping_is_built_or_left_out_for_a_reason():
    every = {name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if is_text_model(name)}
    assert LEFT_OUT.keys() < every
    assert MORE.keys() <= every
    assert len(set(USUAL)) >= 60 and set(USUAL) <= every - LEFT_OUT.keys()


def test_log_probabilities_are_those_of_the_full_logits(model, kind):
    """In tiles, with padding, summed: `completion_logps` and `sequence_logps`, which go through
    `token_logps`.
    """
    batch = SFTCollator(PAD)(ROWS)
    if kind in REFUSED_LOGPS:
        with pytest.raises(LogpError, match=REFUSED_LOGPS[kind]) as error, torch.no_grad():
            ft.sequence_logps(model, **batch)
        assert kind in str(error.value)
        return
    with torch.no_grad():
        logits = model(**batch | {"labels": None}, use_cache=False).logits
        tiled = completion_logps(model, **batch)
        sums = ft.sequence_logps(model, **batch)
    full = logits[:, :-1].log_softmax(-1)
    for row, logps in enumerate(full):
        count = len(TOKENS[row]) - 1
        want = logps[:count].gather(-1, batch["labels"][row, 1 : count + 1, None])[:, 0]
        torch.testing.assert_close(tiled[row, :count], want, rtol=1e-4, atol=1e-4)
        assert float(sums[row]) == pytest.approx(float(want.sum()), rel=1e-4)


def test_the_verdict_on_later_tokens_is_the_truth(model, kind):
    """A causal model scores the first tokens of a row alike whatever follows; an encoder does not,
    and training refuses it.
    """
    if kind in REFUSED_LOGPS:
        pytest.skip("its log-probabilities are refused")
    first = TOKENS[0][:9]
    alone = whole_logps(model, {"input_ids": first})
    followed = whole_logps(model, {"input_ids": first + TOKENS[1]})[: len(first) - 1]
    gap = float((alone - followed).abs().max())
    assert later_shift(model, TOKENS, PAD).is_fault == (gap > 1e-3)
    assert gap > 1e-3 or gap < 1e-4


def test_the_verdict_on_packing_is_the_truth(model, kind):
    """Two conversations alone and packed, longer ones than the check has, by the model's own
    logits: equal where the check passes, apart where it does not.
    """
    if kind in REFUSED_LOGPS:
        pytest.skip("its log-probabilities are refused")
    packed = pack(ROWS, 64)
    batch = PackedCollator(PAD)(packed.rows)
    with torch.no_grad():
        found = completion_logps(model, **{"attention_mask": None, **batch})[0].double()
    gap = 0.0
    start = 0
    for index in packed.blocks[0]:
        alone = whole_logps(model, ROWS[index])
        gap = max(gap, float((found[start : start + len(alone)] - alone).abs().max()))
        start += len(TOKENS[index])
    assert len(packed.rows) == 1
    assert packing_shift(model, TOKENS, PAD).is_fault == (gap > 1e-3)
    assert gap > 1e-3 or gap < 1e-4


def test_a_shared_prompt_is_exact_where_it_is_shared(model, kind):
    """Log-probabilities of pairs with the prompt run once and twice."""
    if kind in REFUSED_LOGPS:
        pytest.skip("its log-probabilities are refused")
    if why_unshared(model) or why_inexact(model, TOKENS, PAD):
        return
    pairs = []
    for size in (5, 9):
        pair = {"prompt_ids": TOKENS[0][:size], "chosen_ids": TOKENS[1][:size]}
        pairs.append({**pair, "rejected_ids": TOKENS[0][-7:]})
    with torch.no_grad():
        shared, _ = pair_logps(model, PairCollator(PAD)(pairs))
        apart, _ = pair_logps(model, PairCollator(PAD, share_prefix=False)(pairs))
    torch.testing.assert_close(shared, apart, rtol=1e-5, atol=1e-3)


def greedy(model, rows: list[list[int]], width: int) -> list[list[int]]:
    """Three tokens after each row, padded on the left to the width."""
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    options = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": PAD, "eos_token_id": None}
    out = model.generate(input_ids=ids, attention_mask=mask, **options)
    return out[:, width:].tolist()


def test_answers_do_not_depend_on_padding_where_the_check_passes(model, kind):
    if kind in NO_GENERATION:
        pytest.skip("its generate fails on one of two lengths")
    if left_padding_shift(model, TOKENS, PAD).is_fault:
        return
    alone = [greedy(model, [row], len(row))[0] for row in TOKENS]
    assert greedy(model, TOKENS, len(TOKENS[0])) == alone


def test_an_adapter_merges_and_is_loaded_by_ftlib_and_by_peft(model, kind, tmp_path, caplog):
    """The adapted model, the merged one, and those loaded from the saved folder give the same
    logits, which are not the base's. Where PEFT reads the folder otherwise, saving has said so.
    """
    peft = pytest.importorskip("peft")
    ids = torch.tensor([TOKENS[0]])

    @torch.no_grad()
    def logits_of(some) -> torch.Tensor:
        return some.eval()(input_ids=ids, use_cache=False).logits

    base = logits_of(model)
    try:
        adapted = ft.add_lora(copy.deepcopy(model), r=2)
    except ValueError as error:
        assert "this model has no linear layer (torch.nn.Linear) but its head" in str(error)
        return  # refused by name, as GPT-2's Conv1D layers are
    generator = torch.Generator().manual_seed(3)
    for layer in ft.lora_layers(adapted).values():
        layer.lora_B.data.normal_(0, 0.5, generator=generator)
    want = logits_of(adapted)
    assert (want - base).abs().max() > 1e-3
    ft.save_adapter(adapted, tmp_path)
    loaded = ft.load_adapter(copy.deepcopy(model), tmp_path)
    assert torch.equal(logits_of(loaded), want)
    by_peft = logits_of(peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path))
    is_equal = torch.allclose(by_peft, want, rtol=1e-4, atol=1e-4)
    assert is_equal or "PEFT may take these names for the fused experts" in caplog.text
    merged = logits_of(ft.merge_adapter(adapted))
    torch.testing.assert_close(merged, want, rtol=1e-3, atol=1e-3)


def test_the_memory_plan_counts_the_models_parameters_or_refuses_by_name(model, kind):
    try:
        plan = plan_memory(model.config, method="full", dtype="float32", device="cpu")
    except (PlanError, NotImplementedError) as error:
        assert kind in str(error)
        return
    assert plan.parts["weights"] == 4 * model.num_parameters()
