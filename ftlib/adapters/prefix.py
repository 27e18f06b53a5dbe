"""Prefix tuning: trained keys and values that every token attends to, in every layer, through the
KV cache.

Li & Liang 2021, arXiv 2101.00190. A query q attends to ``softmax(q·[Kᵖ; K]ᵀ/√D)·[Vᵖ; V]``, where
Kᵖ and Vᵖ (P, D) are trained for each layer and key-value head, Kᵖ as the cache keeps keys, after
RoPE; the text starts at position P. A random prefix takes attention away from the text at once. The
paper's remedies: an MLP in front of it, thrown away after training, or better (section 7.4) the
activations of real tokens: `init="tokens"` starts as the base model that has read P tokens.
"""

from __future__ import annotations

import inspect
from numbers import Integral

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from ftlib.adapters import hooked as baselines
from ftlib.core.checks import check_positive_integer
from ftlib.core.dtypes import master_like
from ftlib.core.modes import evaluation_mode
from ftlib.models.wrapped import unwrapped


class Prefix(baselines.Baseline):
    """`prompt_embeddings` (P, L·2·H·D), fp32 or wider: L layers, keys and values, H key-value heads
    of width D; PEFT's order.
    """

    kind = "PREFIX_TUNING"
    key = "{parameter}"

    def __init__(self, options: dict, like: Tensor):
        super().__init__(options)
        P = options["num_virtual_tokens"]
        L = options["num_layers"]
        width = options["token_dim"]  # H·D
        start = torch.randn(P, L * 2 * width, **master_like(like))
        self.prompt_embeddings = nn.Parameter(start)

    def before(self, decoder: nn.Module, args: tuple, kwargs: dict):
        """Put the prefix into an empty cache, and count it in the mask and the positions that the
        caller gives without it.
        """
        if not self.enabled:
            return None
        _refuse_checkpointing(decoder)
        names = list(inspect.signature(decoder.forward).parameters)[: len(args)]
        kwargs = {**dict(zip(names, args, strict=True)), **kwargs}
        tokens = kwargs["inputs_embeds"] if kwargs.get("input_ids") is None else kwargs["input_ids"]
        batch, length = tokens.shape[:2]
        P = len(self.prompt_embeddings)
        cache = self._filled(decoder, kwargs, batch)
        seen = cache.get_seq_length() - P + length  # tokens of the text, those in the cache too
        mask = kwargs.get("attention_mask")
        positions = kwargs.get("position_ids")
        if mask is not None:
            _check_mask(mask, batch, seen)
            kwargs["attention_mask"] = torch.cat([mask.new_ones(batch, P), mask], dim=1)
        elif positions is not None:
            _check_positions(positions, seen - length, seen)
        kwargs["past_key_values"] = cache
        if positions is not None:
            kwargs["position_ids"] = positions + P
        return (), kwargs

    def _filled(self, decoder: nn.Module, kwargs: dict, batch: int):
        """The caller's cache, or a new one, with the prefix at its front: (B, H, P, D) keys and
        values a layer.
        """
        cache = kwargs.get("past_key_values")
        use_cache = kwargs.get("use_cache")
        # generate(use_cache=False) hands on whatever comes out of a forward
        if cache is None or getattr(cache, "unasked", False):
            cache = DynamicCache(config=decoder.config)
            cache.unasked = not (decoder.config.use_cache if use_cache is None else use_cache)
        if cache.is_compileable or _holds_other_text(cache):
            raise ValueError(
                "past_key_values: "
                "with a prefix pass an empty DynamicCache, or one from an earlier call with it"
            )
        if cache.get_seq_length() == 0:
            P = self.options["num_virtual_tokens"]
            L = self.options["num_layers"]
            H = self.options["num_attention_heads"]
            dtype = decoder.get_input_embeddings().weight.dtype
            states = self.prompt_embeddings.to(dtype).view(P, L, 2, 1, H, -1)
            states = states.permute(1, 2, 3, 4, 0, 5)  # (L, 2, 1, H, P, D)
            states = states.expand(-1, -1, batch, -1, -1, -1)  # (L, 2, B, H, P, D)
            for layer, (keys, values) in enumerate(states):
                cache.update(keys, values, layer)
            cache.has_prefix = True
        return cache


def _refuse_checkpointing(decoder: nn.Module) -> None:
    if not decoder.training:
        return
    if any(getattr(m, "gradient_checkpointing", False) for m in decoder.modules()):
        raise ValueError(
            "gradient checkpointing drops the KV cache and with it the prefix: "
            "train with checkpointing=False"
        )


def _holds_other_text(cache) -> bool:
    """Whether the cache was filled without the prefix."""
    return cache.get_seq_length() > 0 and not getattr(cache, "has_prefix", False)


def _check_mask(mask, batch: int, seen: int) -> None:
    """ValueError unless the mask is (B, tokens since the cache was empty)."""
    if getattr(mask, "shape", None) != (batch, seen):
        raise ValueError(
            f"attention_mask: with a prefix it must be {(batch, seen)}, for the tokens since the "
            f"cache was empty, not {getattr(mask, 'shape', type(mask))}; give generate a new cache"
        )


def _check_positions(positions: Tensor, start: int, end: int) -> None:
    """ValueError unless the positions are start … end − 1."""
    if (positions != torch.arange(start, end, device=positions.device)).any():
        raise ValueError(
            "position_ids: with a prefix and no attention_mask they must count on from the cache; "
            "pad packed rows"
        )


def _build(model: nn.Module, fields: dict) -> dict[str, Prefix]:
    """A prefix for this model's shape. ValueError where not every layer attends to everything
    before.
    """
    config = model.config.get_text_config(decoder=True)
    P = check_positive_integer("num_virtual_tokens", fields["num_virtual_tokens"])
    layers = DynamicCache(config=config).layers
    if config.is_encoder_decoder or any(type(layer) is not DynamicLayer for layer in layers):
        raise ValueError(
            f"{config.model_type}: prefix tuning needs a decoder with full attention in every layer"
        )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    options = {
        "num_virtual_tokens": P,
        "num_layers": len(layers),
        "num_attention_heads": heads,
        "token_dim": heads * width,
    }
    path = "prefix" if model.base_model is model else f"{model.base_model_prefix}.prefix"
    return {path: Prefix(options, model.get_input_embeddings().weight)}


@torch.no_grad()
def token_activations(model: nn.Module, ids: Tensor) -> Tensor:
    """The keys and values (P, L·2·H·D) that the model itself, in evaluation mode, computes for
    tokens (P,) at positions 0 … P−1.
    """
    out = model.base_model(input_ids=ids[None].to(model.device), use_cache=True)
    states = []  # (H, P, D) each
    for layer in out.past_key_values.layers:
        states.append(layer.keys[0])
        states.append(layer.values[0])
    together = torch.stack(states)  # (2L, H, P, D)
    return together.permute(2, 0, 1, 3).flatten(1)


def _are_ids(ids, count: int, vocabulary: int) -> bool:
    """Whether `ids` are that many ids of tokens."""
    if isinstance(ids, str) or not hasattr(ids, "__len__") or len(ids) != count:
        return False
    values = ids.tolist() if hasattr(ids, "tolist") else ids
    return all(isinstance(i, Integral) and 0 <= int(i) < vocabulary for i in values)


def add_prefix(model: nn.Module, num_virtual_tokens: int = 16, init="tokens") -> nn.Module:
    """Freeze the model and train keys and values for `num_virtual_tokens` in front of every text;
    returns the model.

    `init`: "tokens" (activations of random tokens), that many token ids (activations of those, say
    of an instruction), or "random" (standard normal, PEFT's start). Masks, positions and logits
    keep the text's length. ValueError for a bad value, an unsuitable model or one with an adapter;
    in use for gradient checkpointing, packed rows, static caches and others' caches.
    """
    baselines.refuse_second(model)
    whole = model
    model = unwrapped(model)
    parts = _build(model, {"num_virtual_tokens": num_virtual_tokens})
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = init
    if isinstance(init, str) and init == "tokens":
        ids = torch.randint(vocabulary, (num_virtual_tokens,))
    if _are_ids(ids, num_virtual_tokens, vocabulary):
        with evaluation_mode(model):
            activations = token_activations(model, torch.as_tensor(ids))
        (prefix,) = parts.values()
        prefix.prompt_embeddings.data.copy_(activations)
    elif not isinstance(init, str) or init != "random":
        raise ValueError(
            f"init={init!r}: "
            f"'tokens', 'random', or {num_virtual_tokens} token ids below {vocabulary}"
        )
    return baselines.attach(whole, parts)


def remove_prefix(model: nn.Module) -> nn.Module:
    """Take the prefix away: the base model, bit for bit, still frozen. AdapterError if there is
    none.
    """
    return baselines.remove(model, Prefix)


def save_prefix(model: nn.Module, path):
    """Write the prefix as PEFT's two files, atomically; returns the folder. AdapterError if there
    is none.
    """
    return baselines.save(
        model,
        path,
        Prefix,
        num_transformer_submodules=1,
        prefix_projection=False,
        inference_mode=True,
    )


def load_prefix(model: nn.Module, path, trainable: bool = True) -> nn.Module:
    """Put a saved prefix, ftlib's or PEFT's, onto the model or into the equal prefix that it has;
    returns the model.

    AdapterError (a ValueError) for another base, a damaged file or anything that does not fit; the
    model is then untouched.
    """
    return baselines.load(model, path, Prefix, _build, trainable)
