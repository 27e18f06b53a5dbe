"""Lab E3, ReFT and its relatives, exercise 5: attention with a prefix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e3.tensors import randn


def prefix_attention(
    q: Tensor, K: Tensor, V: Tensor, prefix_keys: Tensor, prefix_values: Tensor
) -> tuple[Tensor, Tensor]:
    """(output (n, D), share (n,) of the attention that the prefix gets) of queries q (n, D) over
    the text's K, V (T, D) and the prefix's (P, D), without a mask.
    """
    keys = torch.cat([prefix_keys, K])  # (P + T, D)
    values = torch.cat([prefix_values, V])
    weights = (q @ keys.T / math.sqrt(q.shape[1])).softmax(-1)  # (n, P + T)
    share = weights[:, : len(prefix_keys)].sum(1)
    return weights @ values, share


def _cases(g):
    for n, T, P, D in [(3, 5, 2, 4), (2, 4, 4, 8), (1, 6, 1, 3), (4, 3, 5, 5)]:
        q, K, V = randn(g, n, D), randn(g, T, D), randn(g, T, D)
        yield q, K, V, randn(g, P, D), randn(g, P, D)


def _attention(q, K, V, scale=True):
    scores = q @ K.T
    if scale:
        scores = scores / math.sqrt(q.shape[1])
    return scores.softmax(-1) @ V


def _two_softmaxes(q, K, V, prefix_keys, prefix_values):
    _, share = prefix_attention(q, K, V, prefix_keys, prefix_values)
    return _attention(q, K, V) + _attention(q, prefix_keys, prefix_values), share


def _averaged(q, K, V, prefix_keys, prefix_values):
    _, share = prefix_attention(q, K, V, prefix_keys, prefix_values)
    return (_attention(q, K, V) + _attention(q, prefix_keys, prefix_values)) / 2, share


def _unscaled(q, K, V, prefix_keys, prefix_values):
    return prefix_attention(q * math.sqrt(q.shape[1]), K, V, prefix_keys, prefix_values)


def _share_of_text(q, K, V, prefix_keys, prefix_values):
    out, share = prefix_attention(q, K, V, prefix_keys, prefix_values)
    return out, 1 - share


def _share_by_count(q, K, V, prefix_keys, prefix_values):
    out, share = prefix_attention(q, K, V, prefix_keys, prefix_values)
    return out, torch.full_like(share, len(prefix_keys) / (len(prefix_keys) + len(K)))


def _mean_share(q, K, V, prefix_keys, prefix_values):
    out, share = prefix_attention(q, K, V, prefix_keys, prefix_values)
    return out, share / len(prefix_keys)


def _without(q, K, V, prefix_keys, prefix_values):
    _, share = prefix_attention(q, K, V, prefix_keys, prefix_values)
    return _attention(q, K, V), share


PREFIX = Exercise(
    name="prefix_attention",
    title="Attention with a prefix",
    minutes=10,
    difficulty=2,
    reference=prefix_attention,
    cases=_cases,
    tolerance=1e-4,
    hints=(
        "The prefix's keys and values come before the text's, with one softmax over all of them: "
        "`torch.cat`.",
        "Scores q·k/√D, softmax over the last dimension, (n, P + T) weights that sum to 1.",
        "The prefix's share is the sum of its P weights, for each query.",
        "weights = (q @ keys.T / math.sqrt(q.shape[1])).softmax(-1); "
        "return weights @ values, weights[:, :len(prefix_keys)].sum(1)",
    ),
    wrong=(
        Wrong(
            "two softmaxes",
            _two_softmaxes,
            "Two attentions are added, each with weights that sum to 1: a prefix competes with "
            "the text for *one* softmax.",
        ),
        Wrong(
            "averaged",
            _averaged,
            "You average the text's attention and the prefix's: the softmax decides how much each "
            "counts, and it depends on the query.",
        ),
        Wrong("unscaled", _unscaled, "The scores are not divided by √D."),
        Wrong(
            "the text's share",
            _share_of_text,
            "That is what the *text* keeps: the prefix's share is 1 minus that.",
        ),
        Wrong(
            "share by count",
            _share_by_count,
            "P/(P + T) would be its share if all scores were equal: sum the weights instead.",
        ),
        Wrong(
            "mean of the weights",
            _mean_share,
            "You took the mean of the prefix's weights: its share is their sum.",
        ),
        Wrong("no prefix", _without, "The output is the text's alone: the prefix is left out."),
    ),
)
