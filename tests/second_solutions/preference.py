"""Second solutions of labs 3.1.6 to 3.1.10: data, preference training and export."""

import math
import re
import statistics
import unicodedata

import numpy as np
import torch
import torch.nn.functional as F

IGNORED = -100


# --- 3.1.6 ----------------------------------------------------------------------------------------
def to_messages(row):
    match row:
        case {"messages": messages}:
            return messages
        case {"conversations": turns}:
            return [
                {
                    "role": {"human": "user", "gpt": "assistant"}.get(t["from"], t["from"]),
                    "content": t["value"],
                }
                for t in turns
            ]
    question = "\n\n".join(part for part in (row["instruction"], row.get("input")) if part)
    return [
        dict(role=role, content=text)
        for role, text in (("user", question), ("assistant", row["output"]))
    ]


def clean_lines(text):
    text = unicodedata.normalize("NFC", text).translate({0xA0: " ", 0x200B: None, 0xFEFF: None})
    return "\n".join(line.rstrip(" \t") for line in re.split(r"\r\n|\r|\n", text))


def luhn_sum(digits):
    doubled = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
    return sum(map(int, digits[-1::-2])) + sum(doubled[int(d)] for d in digits[-2::-2])


def _runs(tokens, size):
    if len(tokens) <= size:
        return {" ".join(tokens)}
    return {" ".join(run) for run in zip(*(tokens[i:] for i in range(size)), strict=False)}


def shingle_jaccard(a, b, size):
    one = _runs(a, size)
    two = _runs(b, size)
    shared = len([run for run in one if run in two])
    return shared / (len(one) + len(two) - shared)


def minhash_signature(hashes, a, b):
    prime = 2**31 - 1
    return torch.tensor(
        [min((int(m) * int(h) + int(c)) % prime for h in hashes) for m, c in zip(a, b, strict=True)]
    )


def golden_overlap(prompt, text, n):
    wanted = _runs(prompt, n)
    haystack = f" {' '.join(text)} "
    return sum(f" {run} " in haystack for run in wanted) / len(wanted)


def group_of(count, pairs):
    """Walk from every row, the least first, over its links."""
    group = [None] * count
    for start in range(count):
        waiting = [start] if group[start] is None else []
        while waiting:
            row = waiting.pop()
            if group[row] is None:
                group[row] = start
                waiting += [other for pair in pairs if row in pair for other in pair]
    return group


def defuse(messages, tokens):
    """Character by character: where a token begins, its first one and a space."""

    def parted(text):
        pieces = []
        for i, character in enumerate(text):
            begins = any(text.startswith(token, i) for token in tokens)
            pieces.append(character + " " if begins else character)
        return "".join(pieces)

    return [dict(message, content=parted(message["content"])) for message in messages]


def pack_rows(lengths, capacity):
    left = list(range(len(lengths)))
    bins = []
    while left:
        row = max(left, key=lambda i: (lengths[i], -i))
        left.remove(row)
        for rows in bins:
            if sum(lengths[i] for i in rows) + lengths[row] <= capacity:
                rows.append(row)
                break
        else:
            bins.append([row])
    return bins


def longer_share(chosen, rejected):
    signs = np.sign(np.array(chosen) - np.array(rejected))
    return float((1 + signs.mean()) / 2)


# --- 3.1.7 ----------------------------------------------------------------------------------------
def completion_logp(logits, labels):
    sums = []
    for row, marks in zip(logits, labels.tolist(), strict=True):
        terms = [
            scores[token] - scores.logsumexp(0)
            for scores, token in zip(row[:-1], marks[1:], strict=True)
            if token != IGNORED
        ]
        sums.append(sum(terms, torch.zeros(())))
    return torch.stack(sums)


def implicit_reward(policy_logps, ref_logps, beta):
    return torch.stack(
        [beta * p - beta * r for p, r in zip(policy_logps, ref_logps.tolist(), strict=True)]
    )


def preference_loss(chosen_rewards, rejected_rewards, label_smoothing=0.0):
    """The cross-entropy of a classifier of two answers, with a soft label."""
    logits = torch.stack([chosen_rewards, rejected_rewards], 1)
    target = torch.tensor([1 - label_smoothing, label_smoothing]).expand_as(logits)
    return F.cross_entropy(logits, target, reduction="none")


def gradient_weight(chosen_rewards, rejected_rewards):
    chosen = chosen_rewards.clone().requires_grad_()
    return -torch.autograd.grad(preference_loss(chosen, rejected_rewards).sum(), chosen)[0]


def optimal_policy(ref_logps, rewards, beta):
    """Answer by answer, against the best one."""
    scores = [p + r / beta for p, r in zip(ref_logps.tolist(), rewards.tolist(), strict=True)]
    highest = max(scores)
    normaliser = highest + math.log(sum(math.exp(score - highest) for score in scores))
    return torch.tensor([score - normaliser for score in scores], dtype=ref_logps.dtype)


def kl_estimate(policy_logps, ref_logps):
    return statistics.fmean(policy_logps.tolist()) - statistics.fmean(ref_logps.tolist())


def swapped_win_rate(forward, backward):
    won = sum(forward.tolist()) + len(backward) - sum(backward.tolist())
    return won / (len(forward) + len(backward))


# --- 3.1.8 ----------------------------------------------------------------------------------------
def mean_logps(token_logps, mask):
    return torch.stack([row[real].mean() for row, real in zip(token_logps, mask, strict=True)])


def simpo_loss(chosen, rejected, beta, gamma):
    return torch.logaddexp(torch.zeros_like(chosen), gamma - beta * chosen + beta * rejected)


def log1mexp(x):
    """One formula, in fp64: at -1e-8 it still has eight digits of 1 - e^x."""
    return torch.log1p(-x.double().exp()).to(x.dtype)


def log_odds_ratio(chosen, rejected):
    return (torch.logit(chosen.double().exp()) - torch.logit(rejected.double().exp())).to(
        chosen.dtype
    )


def orpo_loss(chosen, rejected, lam):
    """The ratio's sigmoid is odds_c/(odds_c + odds_r)."""
    p = chosen.double().exp()
    q = rejected.double().exp()
    better = p / (1 - p)
    worse = q / (1 - q)
    return (-chosen.double() - lam * (better / (better + worse)).log()).to(chosen.dtype)


def token_push(chosen_sum, rejected_sum, lengths, beta, gamma, average):
    sums = torch.stack([chosen_sum, rejected_sum], 1).requires_grad_()
    scores = sums / lengths if average else sums
    return torch.autograd.grad(simpo_loss(*scores.unbind(1), beta, gamma).sum(), sums)[0].abs()


# --- 3.1.9 ----------------------------------------------------------------------------------------
def prospect_value(z, alpha, lam):
    return torch.tensor([v**alpha if v >= 0 else -lam * (-v) ** alpha for v in z.tolist()])


def kto_value(ratio, z0, desirable, beta):
    signs = 2 * desirable.to(ratio.dtype) - 1
    return 1 / (1 + torch.exp(-signs * beta * (ratio - z0)))


def rotate_completions(prompts, completions):
    if len(prompts) == prompts.count(prompts[0]):
        raise ValueError("all rows ask the same: no mismatch in this batch")
    joined = []
    rows = list(zip(prompts, completions, strict=True))
    for i, prompt in enumerate(prompts):
        before = rows[i + 1 :] + rows[:i]
        others = [answer for asked, answer in before if asked != prompt]
        joined.append((prompt, others[-1]))
    return joined


def reference_point(policy_kl_logps, ref_kl_logps):
    with torch.no_grad():
        return F.relu(policy_kl_logps.mean() - ref_kl_logps.mean())


def binary_loss(policy_logps, ref_logps, z0, desirable, beta, desirable_weight, undesirable_weight):
    losses = []
    for policy, reference, good in zip(policy_logps, ref_logps, desirable.tolist(), strict=True):
        gain = beta * (policy - reference - z0)
        losses.append(
            desirable_weight * torch.sigmoid(-gain)
            if good
            else undesirable_weight * torch.sigmoid(gain)
        )
    return torch.stack(losses)


def loss_slope(ratio, z0, desirable, beta):
    ratio = ratio.clone().requires_grad_()
    return torch.autograd.grad(
        binary_loss(ratio, torch.zeros_like(ratio), z0, desirable, beta, 1, 1).sum(), ratio
    )[0]


def balanced_weights(n_desirable, n_undesirable, target):
    # They are in this proportion; then the smaller becomes 1.
    up = target * n_undesirable
    down = float(n_desirable)
    return up / min(up, down), down / min(up, down)


# --- 3.1.10 ---------------------------------------------------------------------------------------
def merge_weight(W, A, B, alpha):
    return torch.addmm(W.float(), B.float(), A.float(), alpha=alpha / len(A))


def permute_rows(weight, heads):
    d = len(weight) // heads
    order = [
        head * d + i // 2 + (d // 2 if i % 2 else 0) for head in range(heads) for i in range(d)
    ]
    return weight[order]


def q8_0_blocks(w):
    codes = []
    scales = []
    for block in w.double().numpy().reshape(-1, 32):
        scale = np.abs(block).max() / 127
        scales.append(scale)
        codes.append(
            [math.copysign(math.floor(abs(v) / scale + 0.5), v) if scale else 0 for v in block]
        )
    return torch.tensor(codes).to(torch.int8), torch.tensor(scales).half()


def kl_per_token(reference, logits):
    """Cross-entropy less entropy."""
    p = reference.double().softmax(-1)
    cross = torch.stack(
        [
            F.cross_entropy(row[None], target[None])
            for row, target in zip(logits.double(), p, strict=True)
        ]
    )
    return (cross - torch.special.entr(p).sum(-1)).float()


def speeds(counters):
    return tuple(
        counters[f"{part}_count"] / (counters[f"{part}_duration"] / 10**9)
        for part in ("prompt_eval", "eval")
    )


def ollama_prompt(render, messages):
    """One template for one message, rendered message by message."""
    turn = "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}"
    return "".join(render(turn, [message]) for message in messages) + "<|assistant|>"


def q4_k_weights(d, dmin, scales, mins, nibbles):
    """Weight by weight."""
    weights = torch.empty(len(d), 256)
    for block in range(len(d)):
        for i in range(256):
            run, place = divmod(i, 64)
            byte = int(nibbles[block, 32 * run + place % 32])
            code = byte % 16 if place < 32 else byte // 16
            sub = i // 32
            step = d[block] * scales[block, sub]
            weights[block, i] = step * code - dmin[block] * mins[block, sub]
    return weights


def stream_until_stop(pieces, stops):
    """Letter by letter; what is shown is the part of the whole text that is safe, less what was."""
    text = ""
    shown = []
    given = 0
    for piece in pieces:
        for letter in piece:
            text += letter
            for stop in stops:
                if text.endswith(stop):
                    shown.append(text.removesuffix(stop)[given:])
                    return shown, True
        ends = [i for i in range(given, len(text)) if any(s.startswith(text[i:]) for s in stops)]
        safe = min(ends, default=len(text))
        shown.append(text[given:safe])
        given = safe
    return [*shown, text[given:]], False
