"""Second solutions of labs 3.1.1 to 3.1.5: adapters and supervised fine-tuning."""

import contextlib
import math
import re
import statistics
from fractions import Fraction

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
    A = A.clone().requires_grad_()
    B = B.clone().requires_grad_()
    return torch.autograd.grad(scaling * ((x @ A.T) @ B.T), (A, B), dy)


def first_adam_step(x, dy, A, B, scaling, lr):
    def road(A, B):
        return scaling * torch.einsum("ni,ri,or->no", x, A, B)

    factors = [A.clone().requires_grad_(), B.clone().requires_grad_()]
    gradients = torch.autograd.grad(road(*factors), factors, dy)
    moved = []
    for factor, gradient in zip(factors, gradients, strict=True):
        direction = torch.nan_to_num(gradient / gradient.square().sqrt())  # 0/0: it stays
        moved.append(factor.detach() - lr * direction)
    return road(*moved) - road(A, B)


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
    longer = []
    turned = []
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
    width = max(len(row["input_ids"]) for row in rows)
    batch = {}
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


def greedy_decode(next_logits, prompt, stop, most):
    ids = list(prompt)
    for _ in range(most):
        best = max(range(len(next_logits(ids)[-1])), key=next_logits(ids)[-1].tolist().__getitem__)
        if best == stop:
            break
        ids.append(best)
    return ids[len(prompt) :]


def learning_rate(step, steps, peak, warmup):
    """Half a cosine is a squared cosine of half the angle."""
    climbing = step / warmup if warmup else 1.0
    angle = math.pi * (step - warmup) / (steps - warmup)
    return peak * (climbing if climbing < 1 else math.cos(angle / 2) ** 2)


def train_loop(optimizer, batch_loss, batches, rates, max_norm):
    """One loss of the whole batch, and the gradient's norm by hand."""
    losses = []
    for i, micro_batches in enumerate(batches):
        whole = sum(n * batch_loss(rows) for rows, n in micro_batches)
        whole = whole / sum(n for _, n in micro_batches)
        optimizer.zero_grad()
        whole.backward()
        held = [q for group in optimizer.param_groups for q in group["params"]]
        norm = math.sqrt(sum(float((q.grad**2).sum()) for q in held))
        for q in held:
            q.grad *= min(1.0, max_norm / (norm + 1e-6))
        for group in optimizer.param_groups:
            group["lr"] = rates[i]
        optimizer.step()
        losses.append(whole.item())
    return losses


def golden_score(answers, examples):
    def plain(text):
        return re.sub(r"\s*\.*\s*$", "", re.sub(r"\s+", " ", text.strip()))

    right = {}
    asked = {}
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
    best = 0
    waited = 0
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
    codes = []
    scales = []
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


# --- E6 -------------------------------------------------------------------------------------------
def to_peft(settings):
    rank = settings["rank"]
    power = 0.5 if settings["rank_stabilized"] else 1
    targets = settings["layers"]
    if targets == "all":
        targets = "all-linear"
    return dict(
        r=rank,
        lora_alpha=rank**power * settings["scale"],
        use_rslora=settings["rank_stabilized"],
        target_modules=targets,
        lora_dropout=settings["dropout"],
    )


def first_apart(ours, theirs, tolerance):
    near = [abs(one - other) <= tolerance for one, other in zip(ours, theirs, strict=True)]
    return near.index(False) + 1 if False in near else None


def step_loss(nll, scored):
    weights = scored.to(nll.dtype)
    return (nll * weights).sum() / weights.sum()


def linear_factor(step, warmup_steps, steps):
    up = step / warmup_steps if warmup_steps else 1.0
    down = (
        (steps - step) / (steps - warmup_steps) if steps > warmup_steps else 1.0 - (step >= steps)
    )
    return max(0.0, min(up, 1.0) if step < warmup_steps else down)


def clip_factor(gradients, max_norm):
    norm = torch.cat([gradient.reshape(-1) for gradient in gradients]).norm()
    return torch.minimum(torch.ones_like(norm), max_norm / (norm + 1e-6))


def adamw_step(parameter, gradient, first, second, step, rate, weight_decay):
    twin = parameter.clone().requires_grad_()
    twin.grad = gradient.clone()
    optimizer = torch.optim.AdamW([twin], lr=rate, weight_decay=weight_decay)
    optimizer.state[twin] = {
        "step": torch.tensor(float(step - 1)),
        "exp_avg": first.clone(),
        "exp_avg_sq": second.clone(),
    }
    optimizer.step()
    state = optimizer.state[twin]
    return twin.detach(), state["exp_avg"], state["exp_avg_sq"]


def peft_keys(state):
    found = {}
    for name in state:
        if ".lora_A" in name or ".lora_B" in name:
            found["base_model.model." + name + ".weight"] = state[name]
        if "magnitude" in name:
            found["base_model.model." + name] = state[name]
    return found
