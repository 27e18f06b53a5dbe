"""A second solution of every exercise, written another way than ftlib's and without it.

A check must accept any right answer, not only one that looks like the reference. So these use loops
where the reference has tensors, autograd where it has a formula, counting where it has arithmetic.
Nothing of ftlib is imported.
"""

import contextlib
import math
import re
import statistics
import unicodedata
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F

IGNORED = -100


# --- 3.1.1 ----------------------------------------------------------------------------------------
def lora_forward(x, weight, bias, A, B, scaling):
    low = torch.einsum("...i,ri->...r", x, A)
    y = torch.einsum("...i,oi->...o", x, weight) + torch.einsum("...r,or->...o", scaling * low, B)
    return y if bias is None else y + bias


def lora_init(uniform, out_features):
    r, inside = uniform.shape
    A = torch.stack([row * inside**-0.5 for row in uniform])
    return A, torch.tensor([[0.0] * r] * out_features)


def lora_gradients(x, dy, A, B, scaling):
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
    return torch.autograd.grad(scaling * ((x @ A.T) @ B.T), (A, B), dy)


def lora_scaling(alpha, r, use_rslora=False):
    return alpha * r ** (-0.5 if use_rslora else -1)


def layer_sizes(config, name):
    """(out, in) of a linear layer of a Llama block, from its name alone."""
    wide = {
        "q": config["num_attention_heads"] * config["head_dim"],
        "k": config["num_key_value_heads"] * config["head_dim"],
    }
    sizes = {
        "hidden": config["hidden_size"],
        "ffn": config["intermediate_size"],
        **wide,
        "v": wide["k"],
    }
    ends = {
        "o_proj": ("hidden", "q"),
        "gate_proj": ("ffn", "hidden"),
        "up_proj": ("ffn", "hidden"),
        "down_proj": ("hidden", "ffn"),
    }
    return tuple(sizes[end] for end in ends.get(name, (name[0], "hidden")))


def count_lora_parameters(config, r, targets):
    count = 0
    for _ in range(config["num_hidden_layers"]):
        for name in targets:
            out, inside = layer_sizes(config, name)
            count += (
                torch.empty(r, inside, device="meta").numel()
                + torch.empty(out, r, device="meta").numel()
            )
    return count


def merge_weights(weight, A, B, scaling):
    merged = weight.to(A.dtype).clone()
    for row, column in zip(A, B.T, strict=True):
        merged += scaling * torch.outer(column, row)
    return merged.to(weight.dtype)


def find_leaks(model):
    leaks = []
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and not name.startswith("lora_"):
                leaks.append(f"{path}.{name}" if path else name)
    return leaks


def effective_rank(singular_values, share=0.9):
    squares = sorted((float(s) ** 2 for s in singular_values), reverse=True)
    return next(k for k in range(1, len(squares) + 1) if sum(squares[:k]) >= share * sum(squares))


# --- 3.1.2 ----------------------------------------------------------------------------------------
def decompose(weight):
    m = torch.stack([(row @ row).sqrt() for row in weight])
    return m, torch.stack([row / length for row, length in zip(weight, m, strict=True)])


def dora_norm(weight, A, B, scaling):
    return torch.stack(
        [torch.linalg.vector_norm(w + scaling * (b @ A)) for w, b in zip(weight, B, strict=True)]
    )


def dora_forward(x, weight, bias, A, B, m, scaling):
    norm = dora_norm(weight.detach(), A.detach(), B.detach(), scaling)
    y = (F.linear(x, weight) + scaling * F.linear(F.linear(x, A), B)) / norm * m
    return y if bias is None else bias + y


def magnitude_gradient(y, dy, bias, m):
    direction = (y if bias is None else y - bias) / m
    m = m.clone().requires_grad_()
    return torch.autograd.grad(m * direction, m, dy)[0]


def direction_gradient(grad_w, V, m, detach):
    V = V.clone().requires_grad_()
    norm = V.square().sum(1, keepdim=True).sqrt()
    return torch.autograd.grad(m[:, None] * V / (norm.detach() if detach else norm), V, grad_w)[0]


def count_dora_parameters(config, r, targets):
    magnitudes = config["num_hidden_layers"] * sum(layer_sizes(config, name)[0] for name in targets)
    return count_lora_parameters(config, r, targets) + magnitudes


def weight_change(before, after):
    longer, turned = [], []
    for one, two in zip(before.double().numpy(), after.double().numpy(), strict=True):
        lengths = math.dist(one, 0 * one), math.dist(two, 0 * two)
        longer.append(abs(lengths[1] - lengths[0]))
        turned.append(
            1 - sum(a * b for a, b in zip(one, two, strict=True)) / (lengths[0] * lengths[1])
        )
    return statistics.fmean(longer), statistics.fmean(turned)


def merge_dora(weight, A, B, m, scaling):
    rows = [w + scaling * (b @ A) for w, b in zip(weight.to(A.dtype), B, strict=True)]
    return torch.stack(
        [F.normalize(row, dim=0) * size for row, size in zip(rows, m, strict=True)]
    ).to(weight.dtype)


# --- 3.1.3 ----------------------------------------------------------------------------------------
def noise_bound(alpha, shape):
    return (alpha**2 / math.prod(shape[1:])) ** 0.5


def stock_noise(u, alpha):
    reach = alpha / u[0].numel() ** 0.5
    return torch.lerp(torch.tensor(-reach), torch.tensor(reach), u)


def noise_sizes(alpha, L, d):
    """Downwards from the sequence, whose norm is alpha/√3 whatever its size."""
    sequence = alpha / 3**0.5
    return {"element": sequence / (L * d) ** 0.5, "token": sequence / L**0.5, "sequence": sequence}


def _by_rows(draws, mask, scale_of_length):
    noise = torch.zeros_like(draws)
    for row, numbers, real in zip(noise, draws, mask, strict=True):
        for t in real.nonzero().flatten().tolist():
            row[t] = numbers[t] * scale_of_length(int(real.sum()))
    return noise


def masked_noise(u, mask, alpha):
    return _by_rows(2 * u - 1, mask, lambda length: alpha / math.sqrt(length * u.shape[2]))


def noise_hook(module, inputs, output, noise_of):
    if not module.training:
        return output
    return torch.stack([output, noise_of(output)]).sum(0)


def run_with_hook(module, hook, run):
    with contextlib.ExitStack() as stack:
        stack.callback(module.register_forward_hook(hook).remove)
        return run()


def gaussian_noise(z, mask, alpha):
    return _by_rows(z, mask, lambda length: alpha * (3 * length * z.shape[2]) ** -0.5)


def effective_alpha(alpha, lengths):
    """What alpha would give, at a row's own length, the bound that the padded length gives."""
    padded = alpha / math.sqrt(sorted(lengths)[-1])
    return [padded * math.sqrt(length) for length in lengths]


# --- 3.1.4 ----------------------------------------------------------------------------------------
def training_bytes(total, trainable, frozen_bytes):
    """16 bytes for each trained parameter, told apart."""
    parts = {"weights": frozen_bytes * (total - trainable), "gradients": 0, "optimizer": 0}
    for name, numbers in (("weights", 1), ("gradients", 1), ("optimizer", 2)):
        parts[name] += numbers * trainable * torch.float32.itemsize
    return parts


def build_labels(prompt_ids, answer_ids, stop_id):
    row = {"input_ids": [], "labels": []}
    for ids, trained in ((prompt_ids, False), (answer_ids, True), ([stop_id], True)):
        for token in ids:
            row["input_ids"].append(token)
            row["labels"].append(token if trained else IGNORED)
    return row


def pad_batch(rows, pad_id):
    width, batch = max(len(row["input_ids"]) for row in rows), {}
    for name, filler in (("input_ids", pad_id), ("labels", IGNORED), ("attention_mask", 0)):
        values = [row.get(name, [1] * len(row["input_ids"])) for row in rows]
        batch[name] = torch.tensor([v + [filler] * (width - len(v)) for v in values])
    return batch


def sft_loss(logits, labels):
    losses = []
    for row, marks in zip(logits, labels.tolist(), strict=True):
        for scores, token in zip(row[:-1], marks[1:], strict=True):
            if token != IGNORED:
                losses.append(scores.logsumexp(0) - scores[token])
    return torch.stack(losses).mean()


def accumulation_weights(token_counts):
    whole = sum(token_counts)
    return [float(Fraction(n, whole)) for n in token_counts]


def golden_score(answers, examples):
    def plain(text):
        return re.sub(r"\s*\.*\s*$", "", re.sub(r"\s+", " ", text.strip()))

    right, asked = {}, {}
    for answer, example in zip(answers, examples, strict=True):
        for group in (example["family"], "all"):
            asked[group] = asked.get(group, 0) + 1
            right[group] = right.get(group, 0) + int(plain(answer) == plain(example["answer"]))
    return {group: right[group] / asked[group] for group in asked}


def perplexity(nlls, counts):
    """The weighted geometric mean of the texts' perplexities."""
    return math.prod(
        math.exp(nll) ** (n / sum(counts)) for nll, n in zip(nlls, counts, strict=True)
    )


def early_stop(losses, patience):
    best, waited = 0, 0
    for i in range(1, len(losses)):
        best, waited = (i, 0) if losses[i] < losses[best] else (best, waited + 1)
        if waited == patience:
            return best, i
    return best, len(losses) - 1


def win_rate(a, b, judge, prompts):
    points = 0.0
    for prompt, one, two in zip(prompts, a, b, strict=True):
        points += judge(prompt, one, two)
        points += 1 - judge(prompt, two, one)
    return points / (2 * len(a))


# --- 3.1.5 ----------------------------------------------------------------------------------------
def normal_levels(above, below, edge):
    quantile = statistics.NormalDist().inv_cdf
    positive = [quantile(edge + (0.5 - edge) * i / above) for i in range(above)]
    negative = [-quantile(edge + (0.5 - edge) * i / below) for i in range(below)]
    return torch.tensor([level / max(positive) for level in sorted([*positive, *negative, 0.0])])


def quantize_blocks(w, block_size, levels):
    codes, scales = [], []
    for block in w.split(block_size):
        scales.append(max(abs(float(v)) for v in block))
        shares = block / scales[-1] if scales[-1] else block
        codes += [
            min(range(len(levels)), key=lambda k: abs(float(levels[k]) - float(v))) for v in shares
        ]
    return torch.tensor(codes), torch.tensor(scales)


def pack_codes(codes):
    return torch.tensor(
        [16 * int(high) + int(low) for high, low in codes.reshape(-1, 2)], dtype=torch.uint8
    )


def dequantize_packed(packed, scales, levels, block_size):
    weights = []
    for byte in packed.tolist():
        for code in divmod(byte, 16):
            weights.append(float(levels[code]) * float(scales[len(weights) // block_size]))
    return torch.tensor(weights)


def bits_per_weight(block_size, scale_block):
    """Count the bits of a stretch of weights that fills every block, and share them out."""
    weights = block_size * (scale_block or 1)
    blocks = weights // block_size
    return (4 * weights + (8 * blocks + 32 if scale_block else 32 * blocks)) / weights


def qlora_forward(x, q, A, B, scaling):
    low = torch.einsum("...i,ri->...r", x, A.to(x.dtype))
    return (
        torch.einsum("...i,oi->...o", x, q.dequantize(x.dtype))
        + torch.einsum("...r,or->...o", low, B.to(x.dtype)) * scaling
    )


def qlora_backward(dy, x, q, A, B, scaling):
    leaves = [t.clone().requires_grad_() for t in (x, A, B)]
    return torch.autograd.grad(qlora_forward(leaves[0], q, *leaves[1:], scaling), leaves, dy)


def qlora_bytes(linear, others, trained):
    nf4 = (
        linear / 2 + linear / 64 + 4 * linear / (64 * 256)
    )  # half a byte, a byte for 64 weights, four bytes for 64 · 256
    return {
        "linear": nf4,
        "others": others + others,
        "adapter": trained * 4,
        "gradients": trained * 4,
        "optimizer": trained * 8,
    }


def activation_bytes(layers, tokens, kept, entry, checkpointing):
    """Walk through the passes and note the most that is held."""
    held = sum((entry if checkpointing else kept) * tokens for _ in range(layers))
    return held + kept * tokens if checkpointing else held


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
    one, two = _runs(a, size), _runs(b, size)
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


def pack_rows(lengths, capacity):
    left, bins = list(range(len(lengths))), []
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
    return torch.tensor(
        [
            beta * p - beta * r
            for p, r in zip(policy_logps.tolist(), ref_logps.tolist(), strict=True)
        ]
    )


def preference_loss(chosen_rewards, rejected_rewards, label_smoothing=0.0):
    """The cross-entropy of a classifier of two answers, with a soft label."""
    logits = torch.stack([chosen_rewards, rejected_rewards], 1)
    target = torch.tensor([1 - label_smoothing, label_smoothing]).expand_as(logits)
    return F.cross_entropy(logits, target, reduction="none")


def gradient_weight(chosen_rewards, rejected_rewards):
    chosen = chosen_rewards.clone().requires_grad_()
    return -torch.autograd.grad(preference_loss(chosen, rejected_rewards).sum(), chosen)[0]


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
    p, q = chosen.double().exp(), rejected.double().exp()
    better, worse = p / (1 - p), q / (1 - q)
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
    if len(prompts) in (0, 1):
        raise ValueError("a batch of one has no mismatch: use two rows or more")
    return [(prompt, completions[i - 1]) for i, prompt in enumerate(prompts)]


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
    up, down = (
        target * n_undesirable,
        float(n_desirable),
    )  # in this proportion; then the smaller becomes 1
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
    codes, scales = [], []
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


def until_stop(pieces, stops):
    text = ""
    for letter in "".join(pieces):
        text += letter
        for stop in stops:
            if text.endswith(stop):
                return text.removesuffix(stop), True
    return text, False
