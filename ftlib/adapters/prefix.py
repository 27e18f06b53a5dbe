"""Prefix tuning: trained keys and values that every token attends to, in every layer, through the
KV cache.

Li & Liang 2021, arXiv 2101.00190. A query q attends to ``softmax(q·[Kᵖ; K]ᵀ/√D)·[Vᵖ; V]``, where Kᵖ and Vᵖ (P, D) are trained
for each layer and key-value head, Kᵖ as the cache keeps keys, after RoPE; the text starts at position P. A random prefix takes
attention away from the text at once. The paper's remedies: an MLP in front of it, thrown away after training, or better (section
7.4) the activations of real tokens: `init="tokens"` starts as the base model that has read P tokens.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from ftlib.adapters import hooked as baselines


class Prefix(baselines.Baseline):
    """`prompt_embeddings` (P, L·2·H·D), fp32 or wider: L layers, keys and values, H key-value heads
    of width D; PEFT's order.
    """

    kind, key = "PREFIX_TUNING", "{parameter}"

    def __init__(self, options: dict, like: Tensor):
        super().__init__(options)
        P, L, width = (options[k] for k in ("num_virtual_tokens", "num_layers", "token_dim"))
        self.prompt_embeddings = nn.Parameter(
            torch.randn(P, L * 2 * width, **baselines.master_like(like))
        )

    def before(self, decoder: nn.Module, args: tuple, kwargs: dict):
        """Put the prefix into an empty cache, and count it in the mask and the positions that the
        caller gives without it.
        """
        if not self.enabled:
            return None
        if decoder.training and any(
            getattr(m, "gradient_checkpointing", False) for m in decoder.modules()
        ):
            raise ValueError(
                "gradient checkpointing drops the KV cache and with it the prefix: train with "
                "checkpointing=False"
            )
        kwargs = {**dict(zip(inspect.signature(decoder.forward).parameters, args)), **kwargs}
        tokens = kwargs["inputs_embeds"] if kwargs.get("input_ids") is None else kwargs["input_ids"]
        (batch, length), P = tokens.shape[:2], len(self.prompt_embeddings)
        cache = kwargs["past_key_values"] = self._filled(decoder, kwargs, batch)
        mask, positions, seen = (
            kwargs.get("attention_mask"),
            kwargs.get("position_ids"),
            cache.get_seq_length() - P + length,
        )
        if mask is not None:
            if getattr(mask, "shape", None) != (batch, seen):
                raise ValueError(
                    f"attention_mask: with a prefix it must be {(batch, seen)}, for the tokens "
                    "since the cache was "
                    f"empty, not {getattr(mask, 'shape', type(mask))}; give generate a new cache"
                )
            kwargs["attention_mask"] = torch.cat([mask.new_ones(batch, P), mask], dim=1)
        elif (
            positions is not None
            and (positions != torch.arange(seen - length, seen, device=positions.device)).any()
        ):
            raise ValueError(
                "position_ids: with a prefix and no attention_mask they must count on from the "
                "cache; pad packed rows"
            )
        return (), kwargs | ({} if positions is None else {"position_ids": positions + P})

    def _filled(self, decoder: nn.Module, kwargs: dict, batch: int):
        """The caller's cache, or a new one, with the prefix at its front: (B, H, P, D) keys and
        values a layer.
        """
        cache, use_cache = kwargs.get("past_key_values"), kwargs.get("use_cache")
        if cache is None or getattr(
            cache, "unasked", False
        ):  # generate(use_cache=False) hands on whatever comes out of a forward
            cache = DynamicCache(config=decoder.config)
            cache.unasked = not (decoder.config.use_cache if use_cache is None else use_cache)
        if cache.is_compileable or (
            cache.get_seq_length() and not getattr(cache, "has_prefix", False)
        ):
            raise ValueError(
                "past_key_values: with a prefix pass an empty DynamicCache, or one from an "
                "earlier call with it"
            )
        if cache.get_seq_length() == 0:
            P, L, H = (
                self.options[k] for k in ("num_virtual_tokens", "num_layers", "num_attention_heads")
            )
            weight = self.prompt_embeddings.to(decoder.get_input_embeddings().weight.dtype)
            states = (
                weight.view(P, L, 2, 1, H, -1)
                .permute(1, 2, 3, 4, 0, 5)
                .expand(-1, -1, batch, -1, -1, -1)
            )
            for layer, (keys, values) in enumerate(states):
                cache.update(keys, values, layer)
            cache.has_prefix = True
        return cache


def _build(model: nn.Module, fields: dict) -> dict[str, Prefix]:
    """A prefix for this model's shape. ValueError where not every layer attends to everything
    before.
    """
    config, P = (
        model.config.get_text_config(decoder=True),
        baselines.whole("num_virtual_tokens", fields["num_virtual_tokens"]),
    )
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
    return {
        "prefix" if model.base_model is model else f"{model.base_model_prefix}.prefix": Prefix(
            options, model.get_input_embeddings().weight
        )
    }


@torch.no_grad()
def token_activations(model: nn.Module, ids: Tensor) -> Tensor:
    """The keys and values (P, L·2·H·D) that the model itself, in evaluation mode, computes for
    tokens (P,) at positions 0 … P−1.
    """
    layers = model.base_model(
        input_ids=ids[None].to(model.device), use_cache=True
    ).past_key_values.layers
    return (
        torch.stack([s[0] for layer in layers for s in (layer.keys, layer.values)])
        .permute(2, 0, 1, 3)
        .flatten(1)
    )


def add_prefix(model: nn.Module, num_virtual_tokens: int = 16, init="tokens") -> nn.Module:
    """Freeze the model and train keys and values for `num_virtual_tokens` in front of every text;
    returns the model.

    `init`: "tokens" (activations of random tokens), that many token ids (activations of those, say
    of an instruction), or "random" (standard normal, PEFT's start). Masks, positions and logits
    keep the text's length. ValueError for a bad value, an unsuitable model or one with an adapter;
    in use for gradient checkpointing, packed rows, static caches and others' caches.
    """
    baselines.refuse_second(model)
    parts, vocabulary = (
        _build(model, {"num_virtual_tokens": num_virtual_tokens}),
        model.get_input_embeddings().num_embeddings,
    )
    ids = (
        torch.randint(vocabulary, (num_virtual_tokens,))
        if isinstance(init, str) and init == "tokens"
        else init
    )
    if (
        not isinstance(ids, str)
        and len(ids) == num_virtual_tokens
        and all(0 <= i < vocabulary for i in ids)
    ):
        was_training, activations = (
            model.training,
            token_activations(model.eval(), torch.as_tensor(ids)),
        )
        next(iter(parts.values())).prompt_embeddings.data.copy_(activations)
        model.train(was_training)
    elif not isinstance(init, str) or init != "random":
        raise ValueError(
            f"init={init!r}: 'tokens', 'random', or {num_virtual_tokens} token ids below "
            f"{vocabulary}"
        )
    return baselines.attach(model, parts)


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
