"""Log-probabilities of tokens and sequences, without holding the logits of a batch.

Logits of 1,024 tokens over Llama-3's vocabulary are 525 MB in fp32, with log-softmax and two gradients three times that. Here
they are made a tile at a time, and only for the positions that are scored.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from ftlib.datasets import IGNORE
from ftlib.memory import TILE_BYTES


class LogpError(ValueError):
    """Arguments whose log-probabilities cannot be computed: the name, the value and the mend."""


def _tiles(count: int, vocabulary: int) -> Iterator[slice]:
    rows = max(1, TILE_BYTES // (4 * vocabulary))
    return (slice(i, i + rows) for i in range(0, count, rows))


def _wide(t: Tensor) -> Tensor:
    return t.to(torch.promote_types(t.dtype, torch.float32))


class _TokenLogps(torch.autograd.Function):
    """``log p(y_n | h_n) = W[y_n]·h_n - logsumexp(W h_n)`` for h (N, H), W (V, H), y (N,) -> (N,), fp32 or wider.

    Frozen W: ``∂/∂h_n = W[y_n] - pᵀW`` is computed in the forward pass, where the tile's p is at hand, and kept: N x H in place of
    N x V, and a third of the products less than computing the logits anew. Trained W: only h and the logsumexp are kept, and
    backward makes each tile again.
    """

    @staticmethod
    def forward(ctx, h: Tensor, W: Tensor, y: Tensor) -> Tensor:
        need_h, need_W, _ = ctx.needs_input_grad
        keep_rows = need_h and not need_W
        logps = torch.empty(len(h), dtype=torch.promote_types(h.dtype, torch.float32), device=h.device)
        sums, rows = torch.empty_like(logps), torch.empty_like(h) if keep_rows else None
        for tile in _tiles(len(h), len(W)):
            logits = _wide(h[tile] @ W.T)
            sums[tile] = logits.logsumexp(-1)
            logps[tile] = logits.gather(-1, y[tile, None]).squeeze(-1) - sums[tile]
            if keep_rows:
                p = logits.sub_(sums[tile, None]).exp_().to(W.dtype)
                rows[tile] = W[y[tile]] - p @ W
        ctx.save_for_backward(*((rows,) if keep_rows else (h, W, y, sums)))
        return logps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor):
        if len(ctx.saved_tensors) == 1:
            rows, = ctx.saved_tensors
            return rows * g[:, None].to(rows.dtype), None, None
        h, W, y, sums = ctx.saved_tensors
        dh = torch.empty_like(h) if ctx.needs_input_grad[0] else None
        dW = torch.zeros_like(W, dtype=g.dtype)
        for tile in _tiles(len(h), len(W)):
            d = _wide(h[tile] @ W.T).sub_(sums[tile, None]).exp_().mul_(-g[tile, None])
            d.scatter_add_(1, y[tile, None], g[tile, None])
            d = d.to(W.dtype)
            if dh is not None:
                dh[tile] = d @ W
            dW += d.T @ h[tile]
        return dh, dW.to(W.dtype), None


def _check(hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    if hidden.ndim != 3 or weight.ndim != 2 or hidden.shape[-1] != weight.shape[-1]:
        raise LogpError(f"hidden {tuple(hidden.shape)} and lm_head_weight {tuple(weight.shape)} do not fit: (B, T, H) and (V, H) are needed")
    if labels.shape != hidden.shape[:2] or labels.dtype != torch.long:
        raise LogpError(f"labels is {labels.dtype} {tuple(labels.shape)}: torch.long {tuple(hidden.shape[:2])} is needed, {IGNORE} where nothing is scored")


def token_logps(hidden: Tensor, lm_head_weight: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities (nats) of the next tokens: position t scores ``labels[:, t + 1]``, the last position nothing.

    hidden (B, T, H), the decoder's last hidden states; lm_head_weight (V, H); labels (B, T), -100 where nothing is scored ->
    (B, T), 0 there, fp32 or wider. Products are in lm_head_weight's dtype (under autocast: autocast's). At most `TILE_BYTES` of
    logits exist at a time. LogpError (a ValueError) for shapes that do not fit or a label outside the vocabulary.
    """
    _check(hidden, lm_head_weight, labels)
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else lm_head_weight.dtype
    scored = labels[:, 1:] != IGNORE
    y = labels[:, 1:][scored]
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(lm_head_weight):
        raise LogpError(f"labels hold {int(y.min())} to {int(y.max())}: a token id lies in 0 to {len(lm_head_weight) - 1}, {IGNORE} is not scored")
    with torch.autocast(kind, enabled=False):
        logps = _TokenLogps.apply(hidden[:, :-1][scored].to(dtype), lm_head_weight.to(dtype), y)
    out = logps.new_zeros(labels.shape)
    positions = torch.nn.functional.pad(scored, (0, 1))
    return out.masked_scatter(positions, logps)


@contextlib.contextmanager
def _last_hidden(body) -> Iterator[list[Tensor]]:
    """What the decoder returns within the block."""
    seen: list[Tensor] = []
    hook = body.register_forward_hook(lambda module, args, output: seen.append(output[0]))
    try:
        yield seen
    finally:
        hook.remove()


def _tiled_head(model):
    """The head's weight, where log-probabilities are those of its plain product with the hidden states; else None."""
    head = model.get_output_embeddings()
    changed = [k for k in ("final_logit_softcapping", "logit_scale", "logits_scaling") if getattr(model.config, k, None) not in (None, 1, 1.0)]
    return head.weight if type(head) is torch.nn.Linear and head.bias is None and not changed else None


def sequence_logps(model, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, average: bool = False) -> Tensor:
    """log π(completion | prompt) of every row (nats): the sum over the tokens that `labels` score, or their mean -> (B,).

    input_ids, attention_mask, labels: (B, T), labels -100 on prompt and padding. The model runs as ever (adapters and hooks act),
    but its head on no position; a head that is no plain linear layer is run whole. LogpError for a row that scores no token.
    """
    inner = getattr(model, "module", model)  # of DistributedDataParallel
    if labels.shape != input_ids.shape:
        raise LogpError(f"labels {tuple(labels.shape)} and input_ids {tuple(input_ids.shape)} differ: one label a token is needed")
    counts = (labels[:, 1:] != IGNORE).sum(1)
    if not counts.all():
        raise LogpError(f"row {int((counts == 0).nonzero()[0])} of labels scores no token: it is all prompt or cut off before the answer; drop it")
    weight = _tiled_head(inner)
    if weight is None:
        logits = _wide(model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[:, :-1])
        targets = labels[:, 1:].clamp(min=0)[..., None]
        logps = (logits.gather(-1, targets).squeeze(-1) - logits.logsumexp(-1)) * (labels[:, 1:] != IGNORE)
    else:
        none = torch.empty(0, dtype=torch.long, device=input_ids.device)
        with _last_hidden(inner.base_model) as seen:
            model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, logits_to_keep=none)
        logps = token_logps(seen[0], weight, labels)
    return logps.sum(1) / (counts if average else 1)
