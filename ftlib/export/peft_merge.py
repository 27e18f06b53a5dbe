"""Adapters of kinds that ftlib does not implement, merged into their base by PEFT: LoRA on the
embedding or the head, modules and tokens trained whole, ranks by pattern, LoHa, LoKr, VeRA, (IA)³,
OFT and whatever else PEFT merges.

PEFT's merge is not believed: the merged model must give the logits that the adapter gives. Without
that a tied head is merged into the embedding too.
"""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftlib.adapters.peft_format import CONFIG, PREFIX, WEIGHTS, read_fields, read_tensors
from ftlib.core.machine import available_memory
from ftlib.export.errors import ExportError

log = logging.getLogger("ftlib")
# Kinds of PEFT's that no weights can express, beside those that add tokens to the input.
UNMERGEABLE = {
    "XLORA": "it mixes its adapters anew for every token",
    "POLY": "it mixes its adapters by the task's number, which is part of the input",
    "ADAPTION_PROMPT": "it adds prompts to the attention",
}
BASE_ASKED = "is this the base model that the adapter was trained on?"
# How the name of an embedding's or head's own weight goes on, whatever PEFT has put around it.
WHOLE = ("weight", "base_layer.weight", "token_adapter.base_layer.weight", "modules_to_save.weight")
TRIED = 16  # tokens on which the merged model is held against the adapter
CLOSE = 1e-4  # of the logits' norm; fp32 comes to about 1e-6


def merge_by_peft(folder: Path, adapter: Path, why: str) -> nn.Module:
    """The checkpoint in `folder` with PEFT's adapter folder merged into it, fp32, on the CPU.

    why: what ftlib's own reader says of the adapter; it is logged. Nothing is downloaded, only
    safetensors are read, no remote code is run. Base weights that the model shares (a tied head)
    are parted first where the adapter makes them differ. Memory: the whole model in fp32, 4 bytes a
    weight. ExportError (a ValueError) where PEFT is not installed, cannot load the adapter onto
    this base or cannot merge it, and where the merged model gives other logits than the adapter
    does; also for adapters that are no weights: prefix and prompt tuning.
    """
    peft = _peft(why)
    _check_kind(peft, adapter)
    tensors = read_tensors(adapter)
    model = _base(folder)
    _fit_rows(model, tensors, adapter)
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    log.info(
        "%s; PEFT %s merges it into the whole base, %.2f GB in fp32",
        why.removesuffix("; load it with PEFT").removesuffix(": load it with PEFT"),
        peft.__version__,
        size / 1e9,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of is checked here
        wrapped = _loaded(peft, model, adapter, tensors)
        return _merged(wrapped, adapter)


def _peft(why: str) -> Any:
    try:
        import peft
    except ImportError:
        raise ExportError(f"{why}; PEFT is not installed: `pip install peft`") from None
    return peft


def _check_kind(peft: Any, adapter: Path) -> None:
    """ExportError for an adapter that no weights can express, before the base is read."""
    fields = read_fields(adapter)
    kind = fields["peft_type"]
    reason = UNMERGEABLE.get(kind)
    if fields.get("megatron_config"):
        raise ExportError(
            f"{adapter / CONFIG}: with megatron_config PEFT imports the module that the file "
            "names, which is not done here: merge it with PEFT, and export the merged model"
        )
    try:
        config = peft.PeftConfig.from_pretrained(str(adapter))
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"{adapter / CONFIG}: PEFT {peft.__version__} does not read this {kind!r} "
            f"({type(error).__name__}: {error}), and ftlib does not merge it into the weights"
        ) from None
    if config.is_prompt_learning:
        reason = "what it trained is put before the input, and is no change of the weights"
    if reason:
        raise ExportError(
            f"{adapter}: an adapter of the kind {kind!r} cannot be merged: {reason}. GGUF has no "
            "place for it; serve the model with PEFT"
        )


# --- the base -------------------------------------------------------------------------------------
def _base(folder: Path) -> nn.Module:
    """The checkpoint in fp32, on the CPU; 4-bit weights dequantised."""
    from transformers import AutoModelForCausalLM

    _check_memory(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    if getattr(model, "quantization_method", None):
        model = model.dequantize()
    return model.float().eval()


def _check_memory(folder: Path) -> None:
    from transformers import AutoConfig

    from ftlib.models.skeleton import empty_model, shapes_of

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    need = 4 * sum(shape.numel() for shape in shapes_of(empty_model(config)).values())
    free = available_memory()
    if free is not None and need > free:
        raise ExportError(
            f"PEFT merges into the whole model, which takes {need / 1e9:.1f} GB in fp32; "
            f"{free / 1e9:.1f} GB of memory are free: take a machine with more"
        )


def _fit_rows(model: Any, tensors: dict[str, Tensor], adapter: Path) -> None:
    """Give the embedding and head as many rows as the adapter has for them: training began with a
    resized vocabulary. ExportError where the rows that were added are not in the adapter.
    """
    ends = {}
    for name, module in model.named_modules():
        if module is model.get_input_embeddings() or module is model.get_output_embeddings():
            ends[name] = len(module.weight)
    rows = {}
    for name in ends:
        for key in WHOLE:
            if f"{PREFIX}{name}.{key}" in tensors:
                rows[name] = len(tensors[f"{PREFIX}{name}.{key}"])
    wanted = {count for name, count in rows.items() if count != ends[name]}
    if not wanted:
        return
    lacking = sorted(set(ends) - set(rows))
    tied = bool(model.config.tie_word_embeddings)
    if len(set(rows.values())) > 1 or (lacking and not tied):
        raise ExportError(
            f"{adapter / WEIGHTS}: the vocabulary was resized to {sorted(set(rows.values()))} rows"
            f", but {', '.join(lacking) or 'one of embedding and head'} has others: save the "
            "adapter with save_embedding_layers=True"
        )
    model.resize_token_embeddings(wanted.pop(), mean_resizing=False)


# --- the adapter ----------------------------------------------------------------------------------
def _loaded(peft: Any, model: nn.Module, adapter: Path, tensors: dict[str, Tensor]) -> Any:
    """The model with the adapter on it, all of the file's tensors in it."""
    try:
        wrapped = peft.PeftModel.from_pretrained(model, str(adapter))
    except (ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        of_another_base = re.search("size mismatch|not found in the base model", str(error))
        asks = f": {BASE_ASKED}" if of_another_base else ""
        raise ExportError(f"PEFT cannot load {adapter} ({_first_line(error)}){asks}") from None
    _check_whole(peft, wrapped, adapter / WEIGHTS, tensors)
    return wrapped.eval()


def _check_whole(peft: Any, wrapped: Any, file: Path, tensors: dict[str, Tensor]) -> None:
    """ExportError unless the model has each of the file's tensors, and all of the adapter's come
    from there. PEFT itself passes over what it does not know.
    """
    there = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    missing = sorted(there.keys() - tensors.keys())
    for key, values in wrapped.state_dict().items():  # the embedding's own, and copies of it
        there.setdefault(key.replace(".default.", "."), values)
    known = {key: tensor for key, tensor in tensors.items() if key in there}
    # PEFT writes what a tied head shares a second time, under the head's name.
    unknown = []
    for key in sorted(tensors.keys() - known.keys()):
        if not any(torch.equal(tensors[key], tensor) for tensor in known.values()):
            unknown.append(key)
    for problem, keys in (("lacks", missing), ("has, not known to this base,", unknown)):
        if keys:
            raise ExportError(
                f"{file} {problem} {len(keys)} tensors, the first {keys[0]!r}: {BASE_ASKED}"
            )
    for key, tensor in known.items():
        if not torch.isfinite(tensor).all():
            raise ExportError(f"{file}: {key} has NaN or infinite values")
        if not torch.equal(tensor.to(there[key].dtype), there[key]):
            raise ExportError(f"{file}: PEFT read other values of {key}")


def _first_line(error: Exception) -> str:
    """The first lines of a message that say something, cut to what fits into one."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "…"


@torch.no_grad()
def _merged(wrapped: Any, adapter: Path) -> nn.Module:
    """PEFT's merge, with the logits of the adapter."""
    tuner = wrapped.base_model
    if not callable(getattr(tuner, "merge_and_unload", None)):
        kind = read_fields(adapter)["peft_type"]
        raise ExportError(f"{adapter}: PEFT cannot merge an adapter of the kind {kind!r}")
    model = wrapped.get_base_model()
    tied = model.config.tie_word_embeddings
    tokens = _tokens(model.config.vocab_size)
    wanted = wrapped(tokens, use_cache=False).logits
    _part_shared_weights(wrapped)
    try:
        merged = wrapped.merge_and_unload(safe_merge=True)
    except (NotImplementedError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ExportError(f"PEFT cannot merge {adapter}: {_first_line(error)}") from None
    if tied:
        _tie_equal_weights(merged)
    given = merged(tokens, use_cache=False).logits
    gap = torch.linalg.vector_norm(given - wanted) / torch.linalg.vector_norm(wanted)
    if not gap < CLOSE:
        raise ExportError(
            f"{adapter}: the model that PEFT merges gives other logits than the adapter does "
            f"({gap.item():.2g} of their norm): it cannot be merged"
        )
    return merged


def _tokens(rows: int) -> Tensor:
    """Tokens of the whole vocabulary, (1, T), the last of it among them, where added ones are."""
    drawn = torch.randint(rows, (TRIED,), generator=torch.Generator().manual_seed(0))
    last = torch.arange(max(0, rows - TRIED // 2), rows)
    return torch.cat([drawn, last])[None]


def _part_shared_weights(model: nn.Module) -> None:
    """Give each layer a weight of its own. PEFT merges in place: of a weight that two layers share,
    as a tied head does, it would change both.
    """
    seen = set()
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if name in ("weight", "bias") and id(parameter) in seen:
                own = nn.Parameter(parameter.detach().clone(), requires_grad=False)
                setattr(module, name, own)
                parameter = own
            seen.add(id(parameter))


def _tie_equal_weights(model: Any) -> None:
    """Tie head and embedding again where they have stayed equal, else say that they are two."""
    embedding = model.get_input_embeddings()
    head = model.get_output_embeddings()
    tied = torch.equal(head.weight, embedding.weight)
    if tied:
        head.weight = embedding.weight
    model.config.tie_word_embeddings = tied
