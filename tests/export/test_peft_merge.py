"""Adapters of every kind that PEFT saves: the exported file holds the weights of PEFT's merged
model and gives the adapter's logits; what no weights can express is refused with that reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import needs_llama
from export_models import qwen_tokenizer, small_llama, small_qwen, world_tokenizer
from safetensors.torch import load_file, save_file

import ftlib as ft
from ftlib.adapters.peft_format import AdapterError
from ftlib.export.errors import ExportError
from ftlib.export.gguf_names import in_file_order
from ftlib.export.gguf_writer import export_gguf
from ftlib.export.peft_merge import merge_by_peft
from ftlib.export.run import export_run

peft = pytest.importorskip("peft")
gguf = pytest.importorskip("gguf", reason="needs the extra `export`")
ADDED = 6  # tokens of a resized vocabulary
IDS = torch.tensor([[3, 5, 9, 100, 200, 7, 8, 1023]])
SAID = "PEFT .* merges it into the whole base, .* GB in fp32"


@dataclasses.dataclass(frozen=True)
class Kind:
    """An adapter of PEFT's: its configuration, and the base that it is trained on."""

    config: Callable
    base: Callable = small_llama
    added: int = 0  # tokens
    untied: bool = False  # the merged model's head, where the base's is tied


def lora(**options):
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **options}
    return peft.LoraConfig(task_type="CAUSAL_LM", **chosen)


def other(name: str, **options):
    """The configuration of this class of PEFT's, on two modules. Older ones know fewer."""
    if not hasattr(peft, name):
        pytest.skip(f"PEFT {peft.__version__} has no {name}")
    chosen = {"target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM", **options}
    return getattr(peft, name)(**chosen)


def two_weights():
    return small_llama(tie_word_embeddings=False)


def qwen2():
    """Its q, k and v have biases."""
    return small_qwen("qwen2")


PATTERNS = {
    "rank_pattern": {"layers.0.self_attn.q_proj": 2, "v_proj": 8},
    "alpha_pattern": {"v_proj": 3},
}
KINDS = {
    "rank and alpha patterns": Kind(lambda: lora(**PATTERNS)),
    "layers_to_transform": Kind(lambda: lora(layers_to_transform=[1])),
    "exclude_modules": Kind(lambda: lora(exclude_modules=r".*layers\.0.*v_proj")),
    "bias=all": Kind(lambda: lora(bias="all"), qwen2),
    "bias=lora_only": Kind(lambda: lora(bias="lora_only"), qwen2),
    "lora_bias": Kind(lambda: lora(lora_bias=True), qwen2),
    "norms whole": Kind(lambda: lora(modules_to_save=["norm"])),
    "head whole": Kind(lambda: lora(modules_to_save=["lm_head"]), untied=True),
    "embedding whole": Kind(lambda: lora(modules_to_save=["embed_tokens"]), untied=True),
    "both whole": Kind(lambda: lora(modules_to_save=["embed_tokens", "lm_head"]), two_weights),
    "embedding whole, tied": Kind(
        lambda: lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    ),
    "LoRA on the head": Kind(lambda: lora(target_modules=["q_proj", "lm_head"]), two_weights),
    "LoRA on a tied head": Kind(lambda: lora(target_modules=["q_proj", "lm_head"]), untied=True),
    "LoRA on the embedding": Kind(
        lambda: lora(target_modules=["q_proj", "embed_tokens"]), two_weights
    ),
    "LoRA on a tied embedding": Kind(
        lambda: lora(target_modules=["q_proj", "embed_tokens"]), untied=True
    ),
    "trained tokens": Kind(lambda: lora(trainable_token_indices=[3, 9])),
    "trained tokens alone": Kind(
        lambda: peft.TrainableTokensConfig(token_indices=[3, 9], target_modules=["embed_tokens"])
    ),
    "resized": Kind(lambda: lora(modules_to_save=["embed_tokens", "lm_head"]), two_weights, ADDED),
    "resized, LoRA on both": Kind(
        lambda: lora(target_modules=["embed_tokens", "lm_head"]), two_weights, ADDED
    ),
    "resized, tokens": Kind(lambda: lora(trainable_token_indices=[1024, 1029]), added=ADDED),
    "more layers": Kind(lambda: lora(layer_replication=[[0, 2], [0, 2]])),
    "a parameter": Kind(lambda: lora(target_parameters=["down_proj.weight"])),
    "PiSSA": Kind(lambda: lora(init_lora_weights="pissa")),
    "OLoRA": Kind(lambda: lora(init_lora_weights="olora")),
    "AdaLoRA": Kind(lambda: other("AdaLoraConfig", total_step=10)),
    "LoHa": Kind(lambda: other("LoHaConfig")),
    "LoKr": Kind(lambda: other("LoKrConfig")),
    "VeRA": Kind(lambda: other("VeraConfig")),
    "(IA)³": Kind(lambda: other("IA3Config", feedforward_modules=["down_proj"])),
    "OFT": Kind(lambda: other("OFTConfig")),
    "BOFT": Kind(lambda: other("BOFTConfig")),
    "HRA": Kind(lambda: other("HRAConfig")),
    "norms tuned": Kind(lambda: other("LNTuningConfig", target_modules=None)),
    "Fourier": Kind(lambda: other("FourierFTConfig")),
    "VB-LoRA": Kind(lambda: other("VBLoRAConfig", vector_length=64)),
    "RandLora": Kind(lambda: other("RandLoraConfig")),
    "SHiRA": Kind(lambda: other("ShiraConfig")),
    "C³A": Kind(lambda: other("C3AConfig", block_size=64)),
    "RoAd": Kind(lambda: other("RoadConfig")),
    "MiSS": Kind(lambda: other("MissConfig")),
    "DeLoRA": Kind(lambda: other("DeloraConfig")),
    "GraLoRA": Kind(lambda: other("GraloraConfig")),
    "HiRA": Kind(lambda: other("HiraConfig")),
    "GLoRA": Kind(lambda: other("GloraConfig")),
    "FRoD": Kind(lambda: other("FrodConfig")),
    "OSF": Kind(lambda: other("OSFConfig")),
    "PSOFT": Kind(lambda: other("PsoftConfig")),
    "PVeRA": Kind(lambda: other("PveraConfig")),
    "TinyLoRA": Kind(lambda: other("TinyLoraConfig")),
    "Uni-LoRA": Kind(lambda: other("UniLoraConfig")),
    "WaveFT": Kind(lambda: other("WaveFTConfig")),
    "DEFT": Kind(lambda: other("DeftConfig")),
    "BEFT": Kind(lambda: other("BeftConfig", target_modules=["q_proj", "v_proj"]), qwen2),
}


# --- what PEFT leaves in a folder -----------------------------------------------------------------
def quiet(function, *arguments, **options):
    """Without PEFT's advice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def randomised(model):
    """Each parameter that trains moved by some noise, as if it had been trained."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad or "trainable_tokens_delta" in name:
                p.add_(0.05 * torch.randn_like(p))
    return model.eval()


def loaded(folder: Path, added: int = 0):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    if added:
        torch.manual_seed(2)
        rows = model.config.vocab_size + added
        model.resize_token_embeddings(rows, mean_resizing=False)
    return model


def saved(kind: Kind, folder: Path) -> tuple[Path, Path, torch.nn.Module]:
    """(the base's folder, the adapter's, the model with the adapter), made by PEFT alone."""
    base = folder / "base"
    kind.base().save_pretrained(base)
    of_qwen = kind.base is qwen2
    tokenizer = qwen_tokenizer() if of_qwen else world_tokenizer()
    tokenizer.save_pretrained(base)
    config = kind.config()
    model = randomised(quiet(peft.get_peft_model, loaded(base, kind.added), config))
    quiet(model.save_pretrained, folder / "adapter")
    if kind.added:
        tokenizer.add_tokens([f"<new-{i}>" for i in range(kind.added)])
        tokenizer.save_pretrained(folder / "adapter")
    return base, folder / "adapter", model


def parted(model):
    """With a weight for each layer: PEFT merges in place, into all that share a weight."""
    seen = set()
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            if id(p) in seen and name in ("weight", "bias"):
                setattr(module, name, torch.nn.Parameter(p.detach().clone(), requires_grad=False))
            seen.add(id(p))
    return model


def stored(path: Path) -> dict[str, np.ndarray]:
    return {t.name: t.data for t in gguf.GGUFReader(path).tensors}


def assert_holds(path: Path, merged) -> None:
    """The file's tensors are the merged model's parameters, bit for bit, and no others."""
    config = merged.config
    architecture = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}
    names = gguf.get_tensor_name_map(architecture[config.model_type], config.num_hidden_layers)
    there = stored(path)
    wanted = {}
    for name, p in merged.named_parameters():
        key = names.get_name(name, try_suffixes=(".weight", ".bias"))
        wanted[key] = in_file_order(name, p.detach(), config).numpy()
    if "output.weight" not in there:
        head = merged.get_output_embeddings().weight.detach()
        assert np.array_equal(head.numpy(), there["token_embd.weight"])
        wanted.pop("output.weight", None)
    assert there.keys() == wanted.keys()
    for key, values in wanted.items():
        assert np.array_equal(there[key], values), key


@dataclasses.dataclass(frozen=True)
class Exported:
    """What PEFT made of a kind, the f32 GGUF of it, and what the export said."""

    kind: Kind
    base: Path
    adapter: Path
    model: torch.nn.Module
    path: Path
    said: list[str]


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def listening():
    """The messages of ftlib meanwhile."""
    kept = Kept()
    logger = logging.getLogger("ftlib")
    logger.addHandler(kept)
    try:
        yield kept.lines
    finally:
        logger.removeHandler(kept)


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    kind = KINDS[request.param]
    folder = tmp_path_factory.mktemp("kind")
    base, adapter, model = saved(kind, folder)
    with listening() as said:
        path = export_gguf(base, None, folder / "m.gguf", "f32", adapter=adapter)
    return Exported(kind, base, adapter, model, path, said)


def test_the_file_holds_pefts_merged_weights(exported):
    """Bit for bit, of PEFT's own merge, where each layer has first got a weight of its own. A head
    is in the file where it differs from the embedding. One line says that PEFT merges.
    """
    kind = exported.kind
    lines = [line for line in exported.said if "PEFT" in line]
    assert len(lines) == 1 and str(exported.adapter) in lines[0] and re.search(SAID, lines[0])
    base = loaded(exported.base, kind.added)
    again = quiet(peft.PeftModel.from_pretrained, base, str(exported.adapter)).eval()
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, exported.model(IDS).logits)
    assert_holds(exported.path, quiet(parted(again).merge_and_unload))
    has_head = "output.weight" in stored(exported.path)
    assert has_head == (kind.untied or kind.base is two_weights)


def test_llama_cpp_gives_the_adapters_logits(exported):
    """From the f32 file, of the model with the adapter on it, not merged; the last token among
    them, which is an added one where the vocabulary was resized.
    """
    needs_llama()
    from ftlib.export.llamacpp import open_llama

    last = exported.model.get_base_model().config.vocab_size - 1
    tokens = [*IDS[0].tolist(), last]
    with torch.no_grad():
        wanted = exported.model(torch.tensor([tokens])).logits[0].numpy()
    with open_llama(exported.path, all_logits=True) as llama:
        llama.eval(tokens)
        given = np.array(llama.scores[: len(tokens)])
    assert np.abs(given - wanted).max() < 2e-3 * np.abs(wanted).max()


# --- runs -----------------------------------------------------------------------------------------
def test_a_run_takes_its_own_tokenizer_along(tmp_path):
    """Six tokens were added and trained: the file has them, the Modelfile is written."""
    base, adapter, _ = saved(KINDS["resized"], tmp_path)
    run = tmp_path / "run"
    shutil.copytree(adapter, run / "adapter")
    done = export_run(run, "w", quant="f32", base=str(base))
    reader = gguf.GGUFReader(done.files[0])
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == 1024 + ADDED and tokens[-1] == "<new-5>"
    assert reader.get_tensor(0).shape[-1] == 1024 + ADDED
    assert done.modelfile.is_file()


def test_ia3_that_ftlib_trained(tmp_path):
    """Its files are PEFT's, and PEFT merges them: the logits of the file's weights are those of the
    model with the vectors.
    """
    base = tmp_path / "base"
    small_llama().save_pretrained(base)
    world_tokenizer().save_pretrained(base)
    model = ft.add_ia3(loaded(base))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.2 * torch.randn_like(p))
    wanted = model.eval()(IDS).logits
    adapter = ft.save_ia3(model, tmp_path / "adapter")
    merged = merge_by_peft(base, Path(adapter), "peft_type is 'IA3'")
    torch.testing.assert_close(merged(IDS).logits, wanted, atol=1e-4, rtol=1e-4)


def test_not_as_two_files(tmp_path):
    """A GGUF adapter holds low-rank updates alone: said before anything is written."""
    base, adapter, _ = saved(KINDS["norms whole"], tmp_path)
    with pytest.raises(ExportError, match=r"modules_to_save.*leave adapter out, and PEFT merges"):
        export_run(adapter, "w", quant="f32", base=str(base), adapter=True)
    assert not (adapter / "export").exists()


def test_a_base_of_4_bits_is_dequantised(tmp_path):
    """As ftlib dequantises it; the warning of the rounding is said here too."""
    pytest.importorskip("bitsandbytes")
    base, adapter, _ = saved(KINDS["norms whole"], tmp_path)
    packed, tokenizer = ft.load_model(str(base), quantization="nf4")
    packed.save_pretrained(tmp_path / "packed" / "base")
    tokenizer.save_pretrained(tmp_path / "packed" / "base")
    small = tmp_path / "packed" / "base"
    plain = stored(export_gguf(small, None, tmp_path / "plain.gguf", "f32"))
    with listening() as said:
        path = export_gguf(small, None, tmp_path / "m.gguf", "f32", adapter=adapter)
    assert any("were dequantised from 4 bits" in line for line in said)
    merged = stored(path)
    assert np.array_equal(merged["blk.0.ffn_up.weight"], plain["blk.0.ffn_up.weight"])
    norm = load_file(adapter / "adapter_model.safetensors")["base_model.model.model.norm.weight"]
    assert np.array_equal(merged["output_norm.weight"], norm.numpy())
    assert not np.array_equal(merged["blk.0.attn_q.weight"], plain["blk.0.attn_q.weight"])


# --- what is refused ------------------------------------------------------------------------------
PROMPTS = {
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    "p-tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    "CPT": lambda: peft.CPTConfig(cpt_token_ids=[3, 5], task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_what_is_put_before_the_input_is_refused(tmp_path, name):
    base, adapter, _ = saved(Kind(PROMPTS[name]), tmp_path)
    with pytest.raises(ExportError, match="cannot be merged: what it trained is put before the in"):
        export_gguf(base, None, tmp_path / "m.gguf", adapter=adapter)
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda: lora(alora_invocation_tokens=[3, 5]), "aLoRA does not support safe merging"),
        (lambda: lora(lora_bias=True), "the base layer has no bias"),
        (lambda: other("LilyConfig"), "PEFT cannot merge .*Lily"),
    ],
    ids=["aLoRA", "a bias more", "Lily"],
)
def test_what_peft_does_not_merge_is_refused_in_its_words(tmp_path, make, reason):
    base, adapter, _ = saved(Kind(make), tmp_path)
    with pytest.raises(ExportError, match=reason):
        export_gguf(base, None, tmp_path / "m.gguf", adapter=adapter)


def written(folder: Path, tensors: dict | None = None, **fields) -> Path:
    """An adapter folder with these fields beside LoRA's."""
    folder.mkdir()
    chosen = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **fields}
    (folder / "adapter_config.json").write_text(json.dumps(chosen))
    save_file(tensors or {}, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def base(tmp_path):
    small_llama().save_pretrained(tmp_path / "base")
    world_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_kinds_that_no_weights_can_express(base, tmp_path):
    """By their names, before the base is read; ftlib's own, which PEFT does not know, too."""
    for kind, reason in (
        ("XLORA", "mixes its adapters anew"),
        ("POLY", "by the task's number"),
        ("REFT", "does not read this 'REFT'"),
        ("BOTTLENECK", "does not read this 'BOTTLENECK'"),
    ):
        adapter = written(tmp_path / kind, peft_type=kind)
        with pytest.raises(ExportError, match=reason):
            export_gguf(base, None, tmp_path / "m.gguf", adapter=adapter)


def test_no_module_that_a_file_names_is_imported(base, tmp_path):
    adapter = written(tmp_path / "m", megatron_config={"a": 1}, megatron_core="json.tool")
    with pytest.raises(ExportError, match="imports the module that the file names"):
        export_gguf(base, None, tmp_path / "m.gguf", adapter=adapter)


def test_a_pickle_is_not_read(base, tmp_path):
    adapter = written(tmp_path / "p", bias="all")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(AdapterError, match="pickled adapters"):
        export_gguf(base, None, tmp_path / "m.gguf", adapter=adapter)


def test_without_peft_it_says_what_to_install(base, tmp_path, monkeypatch):
    adapter = written(tmp_path / "a", bias="all")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ExportError, match=r"bias='all'.*pip install peft"):
        export_gguf(base, None, tmp_path / "m.gguf", adapter=adapter)


def test_too_little_memory_is_said_first(base, tmp_path, monkeypatch):
    from ftlib.export import peft_merge

    _, adapter, _ = saved(KINDS["norms whole"], tmp_path / "it")
    monkeypatch.setattr(peft_merge, "available_memory", lambda: 1000)
    with pytest.raises(ExportError, match=r"takes 0\.0 GB in fp32; 0\.0 GB of memory are free"):
        merge_by_peft(base, adapter, "why")


def test_a_merge_that_changes_what_the_adapter_says_is_refused(tmp_path, monkeypatch):
    """PEFT merges LoRA on a tied head into the embedding too, with a warning alone. Without the
    parting of the two the logits show it.
    """
    from ftlib.export import peft_merge

    base, adapter, _ = saved(KINDS["LoRA on a tied head"], tmp_path)
    monkeypatch.setattr(peft_merge, "_part_shared_weights", lambda model: None)
    with pytest.raises(ExportError, match="gives other logits than the adapter does"):
        export_gguf(base, None, tmp_path / "m.gguf", adapter=adapter)


# --- another base, a damaged file -----------------------------------------------------------------
QUESTION = "is this the base model that the adapter was trained on"


def changed(adapter: Path, folder: Path, change: Callable) -> Path:
    """A copy of the adapter with other tensors."""
    shutil.copytree(adapter, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_the_question_of_the_base_where_it_is_the_question(tmp_path):
    """Layers that this base has not, tensors that are missing, other shapes."""
    base, adapter, _ = saved(KINDS["norms whole"], tmp_path)
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

    def deeper(tensors):
        tensors[first.replace("layers.0", "layers.7")] = tensors[first] + 1

    def lacking(tensors):
        del tensors[first]

    def narrower(tensors):
        tensors[first] = tensors[first][:, :100].clone()

    for change in (deeper, lacking, narrower):
        other_one = changed(adapter, tmp_path / change.__name__, change)
        with pytest.raises(ExportError, match=QUESTION):
            export_gguf(base, None, tmp_path / "m.gguf", adapter=other_one)
    renamed = tmp_path / "elsewhere"
    shutil.copytree(base, renamed)
    with pytest.raises(ExportError, match=r"not on .*elsewhere: pass that base"):
        export_gguf(renamed, None, tmp_path / "m.gguf", adapter=adapter)


def test_damaged_values_are_named_and_not_taken_for_another_base(tmp_path):
    base, adapter, _ = saved(KINDS["norms whole"], tmp_path)

    def damaged(tensors):
        tensors["base_model.model.model.norm.weight"][3] = float("nan")

    other_one = changed(adapter, tmp_path / "damaged", damaged)
    with pytest.raises(ExportError, match=r"norm\.weight has NaN") as caught:
        export_gguf(base, None, tmp_path / "m.gguf", adapter=other_one)
    assert QUESTION not in str(caught.value)


def test_added_rows_that_the_adapter_does_not_hold(tmp_path):
    """The head was resized with the embedding, but is not in the file."""
    base, adapter, _ = saved(KINDS["resized"], tmp_path)

    def headless(tensors):
        for key in [key for key in tensors if "lm_head" in key]:
            del tensors[key]

    other_one = changed(adapter, tmp_path / "headless", headless)
    with pytest.raises(ExportError, match=r"resized to \[1030\] rows, but lm_head has others"):
        export_gguf(base, None, tmp_path / "m.gguf", adapter=other_one)


# --- into a GGUF ----------------------------------------------------------------------------------
PLAIN = ["rank and alpha patterns", "layers_to_transform", "exclude_modules"]


@pytest.mark.parametrize("name", PLAIN)
def test_ranks_scales_and_layers_go_into_a_gguf_too(tmp_path, name):
    """The file is, to fp32's rounding, the one that PEFT's merge gives."""
    base, adapter, _ = saved(KINDS[name], tmp_path)
    whole = stored(export_gguf(base, None, tmp_path / "whole.gguf", "f32", adapter=adapter))
    plain = export_gguf(base, None, tmp_path / "base.gguf", "f32")
    merged = stored(ft.merge_adapter_gguf(plain, adapter, tmp_path / "m.gguf", "f32"))
    differ = 0
    for key, values in whole.items():
        np.testing.assert_allclose(merged[key], values, atol=1e-6)
        differ += not np.array_equal(values, stored(plain)[key])
    assert differ == {"layers_to_transform": 2, "exclude_modules": 3}.get(name, 4)


def test_what_does_not_go_into_a_gguf_names_the_way(tmp_path):
    base, adapter, _ = saved(KINDS["LoRA on the head"], tmp_path)
    plain = export_gguf(base, None, tmp_path / "base.gguf", "f32")
    with pytest.raises(ExportError, match=r"lm_head\.base_layer.*merge the adapter into the check"):
        ft.merge_adapter_gguf(plain, adapter, tmp_path / "m.gguf")
    _, vera, _ = saved(KINDS["VeRA"], tmp_path / "vera")
    with pytest.raises(ExportError, match=r"peft_type is 'VERA'.*leave `into` out"):
        ft.merge_adapter_gguf(plain, vera, tmp_path / "m.gguf")
