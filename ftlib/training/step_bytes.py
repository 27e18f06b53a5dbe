"""The bytes of a training run, part by part: what stays from step to step, and what a step holds at
its peak. `plan_memory` adds them up. Bytes; N = tokens of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from ftlib.core.tiles import tile_rows
from ftlib.training.model_sizes import ATTENTION, MLP, PlanError, count_config, linear_shapes

METHODS = ("full", "lora", "dora", "qlora", "qdora")
LOSSES = ("sft", "dpo", "orpo", "simpo", "kto")
# Of a trained parameter: AdamW's two means, in fp32 or in 8 bits.
OPTIMIZER_BYTES = {
    "adamw": 8,
    "paged_adamw": 8,
    "adamw_8bit": 2,
    "paged_adamw_8bit": 2,
    "sgd": 0,
}
FP32 = 4  # bytes
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
# What a plan can be asked for, by the argument of `plan_memory`.
CHOICES = {
    "method": METHODS,
    "loss": LOSSES,
    "optimizer": OPTIMIZER_BYTES,
    "dtype": DTYPE_BYTES,
    "attention": ("sdpa", "eager"),
    "device": ("cuda", "cpu"),
}
# An estimate: CUDA's context and libraries, and what PyTorch's allocator keeps in reserve.
CUDA_CONTEXT = 1_000_000_000


def targets_of(config: dict, s: dict) -> tuple[str, ...]:
    """Names of the layers to adapt, none where all weights train; PlanError for one that a block
    does not have.
    """
    if s["method"] == "full":
        return ()
    shapes = linear_shapes(config)
    wanted = s["target_modules"]
    if wanted == "all-linear":
        names = tuple(shapes)
    elif isinstance(wanted, str):
        names = (wanted,)
    else:
        names = tuple(wanted)
    unknown = [n for n in names if n not in shapes]
    if unknown or not names:
        raise PlanError(
            f"target_modules={wanted!r}: {unknown} unknown, use 'all-linear' or some of "
            f"{', '.join(shapes)}"
        )
    return names


def trained_parameters(config: dict, s: dict) -> int:
    """Parameters that train: all, or A and B of each adapted layer, and DoRA's m."""
    if s["method"] == "full":
        return sum(count_config(config).values())
    shapes = linear_shapes(config)
    of_a_block = 0
    for name in targets_of(config, s):
        n_in, n_out = shapes[name]
        of_a_block += s["r"] * (n_in + n_out)  # A (r, in) and B (out, r)
        if s["method"].endswith("dora"):
            of_a_block += n_out  # m
    return config["num_hidden_layers"] * of_a_block


def resident_bytes(config: dict, s: dict) -> dict[str, int]:
    """Bytes, by part, of what stays from step to step, on one process."""
    trained = trained_parameters(config, s)
    parts = _weight_bytes(config, s)
    if s["method"] != "full":
        parts["adapter"] = FP32 * trained
    parts["gradients"] = FP32 * trained
    parts["optimizer"] = OPTIMIZER_BYTES[s["optimizer"]] * trained
    return parts


def plan_parts(config: dict, s: dict, resident: dict[str, int], gathered: int = 0) -> dict:
    """Bytes by part: `resident`, what a step holds besides, and what of it all is not there at the
    same moment. gathered: bytes that are there from the forward pass to the end of backward.
    """
    step = step_bytes(config, s)
    parts = dict(resident)
    parts["activations"] = step.kept
    parts["logits"] = step.head
    parts["working space"] = step.work
    if gathered:
        parts["gathered from the others"] = gathered
    together = step.kept + step.head + step.work + gathered + parts["gradients"]
    peak = _step_peak(config, s, step, parts["gradients"], gathered)
    parts["not held at the same moment"] = peak - together
    if s["device"] == "cuda":
        parts["CUDA context (estimate)"] = CUDA_CONTEXT
    return parts


def _weight_bytes(config: dict, s: dict) -> dict[str, int]:
    """Bytes of the base's weights, of what their quantisation adds, and of a second model where the
    loss needs one as its reference.
    """
    count = count_config(config)
    total = sum(count.values())
    width = DTYPE_BYTES[s["dtype"]]
    if s["method"] == "full":
        parts = {"weights": FP32 * total}
        if s["loss"] in ("dpo", "kto"):
            parts["reference model"] = total * width
        return parts
    if not s["method"].startswith("q"):
        return {"weights": total * width}
    in_4_bits = count["linear"] / 2
    others = (total - count["linear"]) * width
    constants = count["linear"] * (NF4_BITS - 4) / 8
    return {"weights": round(in_4_bits + others), "quantisation constants": round(constants)}


@dataclass(frozen=True)
class StepBytes:
    """What one step holds beside weights, gradients and optimizer: `kept`, the activations that
    backward needs; `head`, the logits with their gradients; `work`, the working space of one
    block's backward pass.
    """

    kept: int
    head: int
    work: int


def _step_peak(config: dict, s: dict, step: StepBytes, gradients: int, gathered: int) -> int:
    """The most that a step holds beside weights and optimizer: at one of three moments."""
    at_the_loss = step.kept + step.head + gathered
    if s["method"] == "full":
        at_the_loss += FP32 * count_config(config)["head"]
    in_a_block = step.kept + step.work + gathered
    at_the_optimizer = gradients
    if s["gradient_checkpointing"]:
        at_the_optimizer += step.work
    return max(at_the_loss, in_a_block, at_the_optimizer)


def step_bytes(config: dict, s: dict) -> StepBytes:
    """What a step of these settings holds on one process."""
    targets = targets_of(config, s)
    H = config["hidden_size"]
    L = config["num_hidden_layers"]
    width = DTYPE_BYTES[s["dtype"]]
    rows_of_an_example = 1 if s["loss"] in ("sft", "kto") else 2  # chosen and rejected
    tokens = s["batch_size"] * s["seq_len"] * rows_of_an_example
    block = _block_bytes(config, s, targets) * tokens
    # Gradients that are alive at once while they flow through a block's MLP: of its two inner
    # activations, (tokens, I) each, and of its input and output, (tokens, H) each; and where
    # `down_proj` is adapted, the activation and the product, which backward makes again.
    inner = 4 if "down_proj" in targets else 2
    gradients = (inner * config["intermediate_size"] + 2 * H) * width * tokens
    dequantised = 0
    if s["method"].startswith("q"):
        largest = max(n_in * n_out for n_in, n_out in linear_shapes(config).values())
        dequantised = largest * width
    casts = 0
    if width < FP32 and targets:
        casts = trained_parameters(config, s) * width  # 16-bit copies of A and B
    if s["gradient_checkpointing"]:
        kept = L * H * width * tokens  # each block's input
        work = block + gradients + dequantised + casts // L
    else:
        kept = L * block + casts
        work = gradients + dequantised
    kept += FP32 * H * tokens  # what the last norm keeps
    return StepBytes(kept, _head_bytes(config, s, tokens, width), work)


def _head_bytes(config: dict, s: dict, tokens: int, width: int) -> int:
    """Logits and what comes with them: all at once, or a tile of them at a time."""
    vocabulary = config["vocab_size"]
    if s["full_logits"]:
        return 3 * FP32 * vocabulary * tokens  # log-softmax, and two gradients of its size
    hidden = 2 * config["hidden_size"] * width * tokens  # hidden states and their gradients
    rows = min(tokens, tile_rows(vocabulary))
    a_logit = FP32 if width == FP32 else width + FP32  # as it comes, and in fp32
    return hidden + a_logit * vocabulary * rows


def _block_bytes(config: dict, s: dict, targets: tuple) -> float:
    """Bytes a token that one block keeps for its backward pass. Norms keep fp32, the rest is in the
    compute dtype.
    """
    H = config["hidden_size"]
    wide = config["intermediate_size"]
    heads = config["num_attention_heads"]
    q = heads * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    width = DTYPE_BYTES[s["dtype"]]
    full = not targets
    kept = 2 * wide  # gate and up
    if "down_proj" not in targets:
        kept += wide  # SiLU(gate), which an adapted down_proj makes again (`adapters.gated`)
    kept += 4 * q  # queries, keys and values of every head, and their mixture
    # An adapted layer keeps its input for the gradient of A: layers with the same input keep it
    # once. (o_proj's is the heads' mixture, which is kept already.)
    if any(name in targets for name in ATTENTION[:3]):
        kept += H
    if any(name in targets for name in MLP[:2]):
        kept += H
    kept += s["r"] * len(targets)  # Ax
    if full:
        inputs = 2 * H + wide  # of every linear layer
        norms = 2 * H  # before their weights
        kept += inputs + norms
    if s["method"].endswith("dora"):
        # Outputs that nothing else keeps; gate's and up's are kept already.
        outputs = {"q_proj": q, "k_proj": kv, "v_proj": kv, "o_proj": H, "down_proj": H}
        kept += sum(size for name, size in outputs.items() if name in targets)
    if config.get("model_type") == "qwen3":
        kept += 2 * (q + kv) * FP32 // width  # the norms of queries and keys, in fp32
    scores = 0
    if s["attention"] == "eager":
        a_score = FP32 if width == FP32 else width + FP32
        scores = heads * s["seq_len"] * a_score
    norms = 2 * FP32 * H
    softmax = FP32 * heads
    return kept * width + norms + softmax + scores
