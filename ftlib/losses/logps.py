"""Log-probabilities of tokens and sequences, without holding the logits of a batch.

Logits of 1,024 tokens over Llama-3's vocabulary are 525 MB in fp32, with log-softmax and two
gradients three times that. Here they are made a tile at a time, and only for the positions that are
scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ftlib.adapters.lora_layer import LoRALinear
from ftlib.adapters.reft import answers_marked
from ftlib.batches.template import IGNORE
from ftlib.core.dtypes import fp32_or_wider
from ftlib.core.tiles import tile_rows


class LogpError(ValueError):
    """Arguments whose log-probabilities cannot be computed: the name, the value and the fix."""


class Head(NamedTuple):
    """What makes logits of hidden states."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None


def _tiles(count: int, vocabulary: int) -> Iterator[slice]:
    """Slices of `count` rows, as many rows each as `tile_rows` allows."""
    rows = tile_rows(vocabulary)
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def _transformed_(products: Tensor, head: Head) -> Tensor:
    """``c·tanh(scale·products / c)``, c the softcap, or without it ``scale·products``; in place."""
    if head.scale != 1:
        products *= head.scale
    if head.softcap is not None:
        products.div_(head.softcap).tanh_().mul_(head.softcap)
    return products


def _logits(h: Tensor, head: Head, out: Tensor) -> Tensor:
    """The logits of h (n, H), in the first n rows of `out`: a new tensor for each tile would be
    paged in again.
    """
    out = out[: len(h)]
    if out.dtype == h.dtype:
        torch.mm(h, head.weight.T, out=out)
    else:
        out.copy_(h @ head.weight.T)
    if head.bias is not None:
        out.add_(head.bias)
    return _transformed_(out, head)


def _slope(logits: Tensor, softcap: float) -> Tensor:
    """The softcap's derivative ``1 - (l/c)²`` where it gave l."""
    return (logits / softcap).square_().neg_().add_(1)


def _score(
    h: Tensor, y: Tensor, head: Head, out: Tensor, with_rows: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(log p of y, logsumexp, ∂ log p/∂h if asked for) of a tile's rows. All in place: logsumexp
    would hold a second tile.
    """
    logits = _logits(h, head, out)  # (n, V)
    of_y = logits.gather(-1, y[:, None])  # (n, 1)
    slopes = None
    if with_rows and head.softcap:
        slopes = _slope(logits, head.softcap)
        slope_of_y = _slope(of_y, head.softcap)
    top = logits.amax(-1, keepdim=True)
    p = logits.sub_(top).exp_()  # (n, V), not yet divided by its sum
    total = p.sum(-1, keepdim=True)
    sums = top + total.log()  # (n, 1)
    logps = (of_y - sums).squeeze(-1)
    if not with_rows:
        return logps, sums.squeeze(-1), None
    p.div_(total)
    row = head.weight[y]  # (n, H)
    if slopes is not None:
        p *= slopes
        row *= slope_of_y.to(row.dtype)
    row.sub_(p.to(row.dtype) @ head.weight)
    row.mul_(head.scale)
    return logps, sums.squeeze(-1), row


class _TokenLogps(torch.autograd.Function):
    """``log p(y_n | h_n) = l[y_n] - logsumexp(l)`` with l the `_logits` of h_n; h (N, H), W (V, H),
    y (N,) -> (N,), fp32 or wider.

    Frozen head: ``∂/∂h_n = scale·((onehot(y_n) - p)⊙s)ᵀW``, s the softcap's slope, is computed in
    the forward pass, where the tile's p is at hand, and kept: N x H in place of N x V, and a third
    of the products less than computing the logits again. Trained head: only h and the logsumexp are
    kept, and backward makes each tile again.
    """

    @staticmethod
    def forward(
        ctx,
        h: Tensor,
        W: Tensor,
        y: Tensor,
        bias: Tensor | None,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        head_trains = ctx.needs_input_grad[1] or ctx.needs_input_grad[3]
        keep_rows = ctx.needs_input_grad[0] and not head_trains
        head = Head(W, bias, scale, softcap)
        wide = fp32_or_wider(h.dtype)
        logps = torch.empty(len(h), dtype=wide, device=h.device)  # (N,)
        sums = torch.empty_like(logps)  # (N,)
        rows = torch.empty_like(h) if keep_rows else None  # (N, H)
        out = torch.empty(min(tile_rows(len(W)), len(h)), len(W), dtype=wide, device=h.device)
        for tile in _tiles(len(h), len(W)):
            logps[tile], sums[tile], row = _score(h[tile], y[tile], head, out, keep_rows)
            if rows is not None:
                rows[tile] = row
        ctx.scale = scale
        ctx.softcap = softcap
        if keep_rows:
            ctx.save_for_backward(rows)
        else:
            ctx.save_for_backward(h, W, y, sums, bias)
        return logps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor):
        if len(ctx.saved_tensors) == 1:
            (rows,) = ctx.saved_tensors
            return rows * g[:, None].to(rows.dtype), None, None, None, None, None
        h, W, y, sums, bias = ctx.saved_tensors
        head = Head(W, bias, ctx.scale, ctx.softcap)
        dh = torch.empty_like(h) if ctx.needs_input_grad[0] else None
        dW = torch.zeros_like(W, dtype=g.dtype) if ctx.needs_input_grad[1] else None
        db = torch.zeros_like(bias, dtype=g.dtype) if ctx.needs_input_grad[3] else None
        out = torch.empty(min(tile_rows(len(W)), len(h)), len(W), dtype=g.dtype, device=h.device)
        for tile in _tiles(len(h), len(W)):
            d = _logits_gradient(h[tile], y[tile], sums[tile, None], g[tile, None], head, out)
            if db is not None:
                db += d.sum(0)
            d = d.to(W.dtype)
            if dh is not None:
                dh[tile] = d @ W
            # Summed over tiles in fp32; without a second (V, H) where the dtypes are equal.
            if dW is not None and d.dtype == dW.dtype:
                dW.addmm_(d.T, h[tile])
            elif dW is not None:
                dW.add_(d.T @ h[tile])
        dW = None if dW is None else dW.to(W.dtype)
        db = None if db is None else db.to(bias.dtype)
        return dh, dW, None, db, None, None


def _logits_gradient(
    h: Tensor, y: Tensor, sums: Tensor, g: Tensor, head: Head, out: Tensor
) -> Tensor:
    """``scale·g·(onehot(y) - p)⊙s`` of a tile, its logits made again: the gradient at h Wᵀ + b."""
    logits = _logits(h, head, out)
    slopes = _slope(logits, head.softcap) if head.softcap else 1
    d = logits.sub_(sums).exp_().mul_(-g)
    return d.scatter_add_(1, y[:, None], g).mul_(slopes).mul_(head.scale)


def _check(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    scale: float,
    softcap: float | None,
) -> None:
    if hidden.ndim != 3 or weight.ndim != 2 or hidden.shape[-1] != weight.shape[-1]:
        raise LogpError(
            f"hidden {tuple(hidden.shape)} and lm_head_weight {tuple(weight.shape)} do not fit: "
            "(B, T, H) and (V, H) are needed"
        )
    if labels.shape != hidden.shape[:2] or labels.dtype != torch.long:
        raise LogpError(
            f"labels is {labels.dtype} {tuple(labels.shape)}: "
            f"torch.long {tuple(hidden.shape[:2])} is needed, {IGNORE} where nothing is scored"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise LogpError(
            f"bias {tuple(bias.shape)} does not fit lm_head_weight {tuple(weight.shape)}: "
            f"({len(weight)},) is needed"
        )
    if not (math.isfinite(scale) and scale):
        raise LogpError(f"scale={scale!r}: a finite factor other than 0 is needed")
    if softcap is not None and not (math.isfinite(softcap) and softcap > 0):
        raise LogpError(f"softcap={softcap!r}: must be finite and above 0, or None")


def token_logps(
    hidden: Tensor,
    lm_head_weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Log-probabilities (nats) of the next tokens: position t scores ``labels[:, t + 1]``, the last
    position nothing.

    hidden (B, T, H), the decoder's last hidden states; lm_head_weight (V, H); labels (B, T), -100
    where nothing is scored -> (B, T), 0 there, fp32 or wider. The logits are ``scale·(W h +
    bias)``, bias (V,), and with a `softcap` c ``c·tanh(logits / c)`` (Gemma 2, arXiv 2408.00118,
    section 2). Products are in lm_head_weight's dtype (under autocast: autocast's), the rest in
    fp32. The logits of at most `tile_rows(V)` positions exist at a time (with a softcap and
    gradients twice that). LogpError (a ValueError) for shapes that do not fit, a label outside the
    vocabulary, or a scale or softcap that no head has.
    """
    _check(hidden, lm_head_weight, labels, bias, scale, softcap)
    kind = hidden.device.type
    dtype = lm_head_weight.dtype
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    next_labels = labels[:, 1:]
    scored = next_labels != IGNORE  # (B, T-1)
    y = next_labels[scored]  # (N,)
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(lm_head_weight):
        raise LogpError(
            f"labels hold {int(y.min())} to {int(y.max())}: "
            f"a token id lies in 0 to {len(lm_head_weight) - 1}, {IGNORE} is not scored"
        )
    with torch.autocast(kind, enabled=False):
        logps = _TokenLogps.apply(
            hidden[:, :-1][scored].to(dtype),  # (N, H)
            lm_head_weight.to(dtype),
            y,
            None if bias is None else bias.to(dtype),
            scale,
            softcap,
        )
    out = logps.new_zeros(labels.shape)
    positions = torch.nn.functional.pad(scored, (0, 1))  # (B, T)
    return out.masked_scatter(positions, logps)


def _runs_whole(head) -> bool:
    """Whether the head is a linear layer whose product is not plainly W h: with ftlib's LoRA on it,
    or quantised by bitsandbytes."""
    return isinstance(head, LoRALinear) or type(head).__module__.startswith("bitsandbytes.")


def _head_of(model, linear: torch.nn.Linear) -> Head:
    """What transformers' decoders do with their head: Cohere multiplies its logits by
    `logit_scale`, Granite divides them by `logits_scaling`, Gemma caps them at
    `final_logit_softcapping`, RecurrentGemma at `logits_soft_cap`, xLSTM at
    `output_logit_soft_cap`.
    """
    config = model.config.get_text_config(decoder=True)
    factor = float(getattr(config, "logit_scale", None) or 1)
    divisor = float(getattr(config, "logits_scaling", None) or 1)
    softcap = None
    for name in ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"):
        softcap = softcap or getattr(config, name, None)
    return Head(linear.weight, linear.bias, factor / divisor, softcap)


def _check_logits(model, head: Head, products: Tensor, logits: Tensor) -> None:
    """A model that does more to its head's products than is done here is refused."""
    want = _transformed_(products.to(logits.dtype, copy=True), head)
    largest = logits.abs().max().clamp_min(torch.finfo(logits.dtype).tiny)
    gap = (want - logits).abs().max() / largest
    # Rounding stays below: a softcap that is not known moves small logits by less than a percent.
    rounding = 0.03 if min(products.dtype.itemsize, logits.dtype.itemsize) < 4 else 1e-4
    if gap > rounding:
        raise LogpError(
            f"{type(model).__name__} ({model.config.model_type}) does something to its logits "
            f"that ftlib does not know: they are off by {100 * float(gap):.2g}% with "
            f"scale={head.scale:g} and softcap={head.softcap}; "
            "take log-probabilities from its full logits"
        )


def completion_logps(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor, **more: Any
) -> Tensor:
    """`token_logps` of what `model` computes for the rows: (B, T), 0 where nothing is scored;
    position t scores ``labels[:, t + 1]``.

    input_ids, attention_mask, labels: (B, T); `more` goes to the model (position_ids of packed
    rows). The model runs as ever (adapters and hooks act), but its head on one position, to compare
    what becomes of its products with what is done here; the tiles are made within the forward pass,
    where sharded weights are whole. A head that carries ftlib's LoRA or is quantised by
    bitsandbytes runs whole: full logits. LogpError for any other head but a linear layer, and for
    logits that are more than a scale and a softcap away from its products.
    """
    inner = getattr(model, "module", model)  # of DistributedDataParallel
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False, **more}
    if labels.shape != input_ids.shape:
        raise LogpError(
            f"labels {tuple(labels.shape)} and input_ids {tuple(input_ids.shape)} differ: "
            "one label per token is needed"
        )
    linear = inner.get_output_embeddings()
    if _runs_whole(linear):
        with answers_marked(model, labels):
            return _whole_logps(model(**inputs).logits, labels)
    if type(linear) is not torch.nn.Linear:
        raise LogpError(
            f"the head of {type(inner).__name__} is a {type(linear).__name__}: "
            "a torch.nn.Linear is needed, or one with ftlib's LoRA"
        )
    with answers_marked(model, labels):
        return _tiled_logps(model, inner, inputs, labels)


def _tiled_logps(model, inner, inputs: dict, labels: Tensor) -> Tensor:
    """`token_logps` within the forward pass of `model`, which is `inner` or wraps it."""
    linear = inner.get_output_embeddings()
    head = _head_of(inner, linear)
    seen = {}

    def score(module, args):
        (hidden,) = args  # (B, T, H)
        if hidden.ndim != 3:
            raise LogpError(
                f"{type(inner).__name__} ({inner.config.model_type}) gives its head hidden states "
                f"of shape {tuple(hidden.shape)}: (B, T, H) is needed; take log-probabilities from "
                "its full logits"
            )
        seen["logps"] = token_logps(
            hidden, module.weight, labels, bias=module.bias, scale=head.scale, softcap=head.softcap
        )
        # Not detached: DistributedDataParallel looks in the output for the parameters that took
        # part.
        return hidden[:1, -1:]

    def keep_products(module, args, out):
        seen["products"] = out.detach()  # (1, 1, V)

    hooks = [
        linear.register_forward_pre_hook(score),
        linear.register_forward_hook(keep_products),
    ]
    try:
        logits = model(**inputs).logits
    finally:
        for hook in hooks:
            hook.remove()
    _check_logits(inner, head, seen["products"], logits.detach())
    return seen["logps"]


def _whole_logps(logits: Tensor, labels: Tensor) -> Tensor:
    """`token_logps` from a model's full logits (B, T, V)."""
    next_labels = labels[:, 1:]
    scored = next_labels != IGNORE  # (B, T-1)
    # Only these: what a model says elsewhere may be NaN, and 0 times NaN is no 0.
    chosen = logits[:, :-1][scored].to(fp32_or_wider(logits.dtype))  # (N, V)
    of_label = chosen.gather(-1, next_labels[scored][:, None]).squeeze(-1)  # (N,)
    logps = of_label.new_zeros(next_labels.shape)
    logps = logps.masked_scatter(scored, of_label - chosen.logsumexp(-1))
    return torch.nn.functional.pad(logps, (0, 1))


def sequence_logps(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    average: bool = False,
) -> Tensor:
    """log π(completion | prompt) of every row (nats): the sum over the tokens that `labels` score,
    or their mean -> (B,).

    input_ids, attention_mask, labels: (B, T), labels -100 on prompt and padding; see
    `completion_logps`. LogpError for a row that scores no token.
    """
    counts = (labels[:, 1:] != IGNORE).sum(1)
    if labels.shape == input_ids.shape and not counts.all():
        raise LogpError(
            f"row {int((counts == 0).nonzero()[0])} of labels scores no token: "
            "it is all prompt or cut off before the answer; drop it"
        )
    sums = completion_logps(model, input_ids, attention_mask, labels).sum(1)  # (B,)
    return sums / counts if average else sums
