"""What a training run will hold in memory, from a model's configuration alone: before anything is
downloaded or loaded.

`plan_memory` adds up, byte by byte, what ftlib's own training keeps: weights, the constants of
quantisation, adapter, gradients, optimizer, activations, logits. It knows decoders of Llama's form:
Llama, Mistral, Qwen2 and Qwen3, and what transformers builds from the same seven linear layers a
block (Gemma, OLMo, SmolLM3, …), whose parameters are then counted from the architecture itself.
Others are refused by name. Bytes; N = tokens of a batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftlib.core.checks import check_positive_integer
from ftlib.core.machine import available_bytes
from ftlib.core.tiles import tile_rows

# As published in each model's config.json on the Hub.
_LLAMA3 = {
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": False,
}
_LLAMA2 = {"vocab_size": 32000, "head_dim": 128, "tie_word_embeddings": False}
MODELS: dict[str, dict] = {
    "llama-3.2-1b": {
        **_LLAMA3,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "llama-3.1-8b": {
        **_LLAMA3,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "llama-3.1-70b": {
        **_LLAMA3,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
    "llama-2-7b": {
        **_LLAMA2,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "llama-2-13b": {
        **_LLAMA2,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
    },
    "mistral-7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "qwen3-8b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
}
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
NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
# Model types whose parameters are counted by formula; the rest are built without storage.
LLAMAS = ("llama", "mistral", "qwen2", "qwen3")
# What a configuration may leave out, since its type has a default for it.
DEFAULTED = ("num_key_value_heads", "head_dim", "tie_word_embeddings")
OTHERS = "parameters_of_norms_and_biases"  # where the count from the architecture is kept
MIXTURES = ("num_local_experts", "num_experts", "n_routed_experts")


class PlanError(ValueError):
    """A plan that cannot be made: what is unknown or missing, and the fix."""


class NotEnoughMemoryError(MemoryError):
    """What a run needs, what there is, and what would make it fit."""


def read_config(config) -> dict:
    """The fields of a configuration: from a dict, a transformers config, a folder or file, or a
    name in `MODELS`. PlanError.
    """
    if isinstance(config, (str, Path)):
        known = MODELS.get(str(config).lower())
        if known:
            return _complete(dict(known), str(config))
        path = Path(config).expanduser()
        file = path / "config.json" if path.is_dir() else path
        if not file.is_file():
            raise PlanError(
                f"model {str(config)!r} is neither a file or folder nor one of {', '.join(MODELS)}"
            )
        try:
            return _complete(json.loads(file.read_text(encoding="utf-8")), str(file))
        except json.JSONDecodeError as error:
            raise PlanError(f"{file} is not valid JSON ({error}): download it again") from None
    if isinstance(config, dict):
        return _complete(dict(config), "the configuration")
    if hasattr(config, "to_dict"):
        return _complete(config.to_dict(), "the configuration")
    raise PlanError(
        f"config is a {type(config).__name__}: pass a dict, a path, or one of {', '.join(MODELS)}"
    )


def _complete(config: dict, source: str) -> dict:
    """The configuration with what a Llama's may leave out; PlanError for one that is no Llama's."""
    kind = config.get("model_type")
    for name in MIXTURES:
        if config.get(name):
            of_kind = f" ({kind})" if kind else ""
            raise PlanError(
                f"{source}{of_kind} has {name}={config[name]}: mixtures of experts are not planned "
                "for"
            )
    described = None
    if kind is not None and (kind not in LLAMAS or any(config.get(n) is None for n in DEFAULTED)):
        described = _described(config, source)
    if described is not None and kind not in LLAMAS and OTHERS not in config:
        config.update(_counted(described, source))
    for name in NEEDED:
        check_positive_integer(f"{source} has {name}", config.get(name), PlanError)
    for name in DEFAULTED:
        if config.get(name) is None:
            config[name] = getattr(described, name, None)
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = config.get("num_key_value_heads") or heads
    config["head_dim"] = config.get("head_dim") or config["hidden_size"] // heads
    config["tie_word_embeddings"] = bool(config["tie_word_embeddings"])
    return config


def _described(config: dict, source: str):
    """transformers' configuration of these fields, with the defaults of its model type."""
    from ftlib.models.architecture import UNBUILDABLE, describe_type  # imports torch, which is slow

    left_out = ("model_type", "quantization_config", OTHERS)
    fields = {name: value for name, value in config.items() if name not in left_out}
    kind = config["model_type"]
    try:
        return describe_type(kind, fields)
    except UNBUILDABLE as error:
        raise _unbuildable(source, kind, error) from None


def _unbuildable(source: str, kind: str, error: Exception) -> PlanError:
    reason = " ".join(str(error).split())[:120]
    return PlanError(
        f"{source} has model_type={kind!r}, of which transformers builds no causal language model "
        f"({type(error).__name__}: {reason}): check its fields, or name one of {', '.join(MODELS)}"
    )


def _not_llamas(source: str, kind: str, why: str) -> PlanError:
    return PlanError(
        f"{source} has model_type={kind!r}, which is not of Llama's form ({why}): plans are made "
        f"for decoders whose blocks are {', '.join((*ATTENTION, *MLP))}, such as "
        f"{', '.join(LLAMAS)}"
    )


def _counted(described, source: str) -> dict:
    """Sizes of another architecture than `LLAMAS`, from the model itself without its storage.
    PlanError where its blocks have other matrices than a Llama's.
    """
    from ftlib.models.architecture import UNBUILDABLE, architecture_of

    kind = described.model_type
    try:
        real = architecture_of(described)
    except UNBUILDABLE as error:
        raise _unbuildable(source, kind, error) from None
    if set(real.linear) != {*ATTENTION, *MLP} or real.others:
        found = [*sorted(real.linear), *real.others[:1]]
        raise _not_llamas(source, kind, f"it has {', '.join(found)}")
    sizes: dict = {}
    for name in (*NEEDED, *DEFAULTED):
        try:
            sizes[name] = getattr(described, name, None)
        except RuntimeError:  # transformers refuses to give one number for layers that differ
            raise _not_llamas(source, kind, f"its layers differ in {name}") from None
    heads = sizes["num_attention_heads"]
    sizes["num_key_value_heads"] = sizes["num_key_value_heads"] or heads
    sizes["head_dim"] = sizes["head_dim"] or sizes["hidden_size"] // heads
    linear = 0
    for name, shape in linear_shapes(sizes).items():
        layers = real.linear[name]
        if layers != [shape] * sizes["num_hidden_layers"]:
            raise _not_llamas(source, kind, f"its {name} are not all {shape}")
        linear += sum(n_in * n_out for n_in, n_out in layers)
    return {**sizes, OTHERS: real.total - real.tables - linear}


def linear_shapes(config: dict) -> dict[str, tuple[int, int]]:
    """(in, out) of the linear layers of one block, by name."""
    H = config["hidden_size"]
    wide = config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    return {
        "q_proj": (H, q),
        "k_proj": (H, kv),
        "v_proj": (H, kv),
        "o_proj": (q, H),
        "gate_proj": (H, wide),
        "up_proj": (H, wide),
        "down_proj": (wide, H),
    }


def count_config(config: dict) -> dict[str, int]:
    """Parameters by kind: the linear layers of all blocks, the embedding (with an untied head), the
    rest (norms and biases).
    """
    H = config["hidden_size"]
    L = config["num_hidden_layers"]
    shapes = linear_shapes(config)
    linear = L * sum(n_in * n_out for n_in, n_out in shapes.values())
    table = config["vocab_size"] * H
    rest = H + L * 2 * H  # the last norm, and two in each block
    if config.get("model_type") == "qwen3":
        rest += L * 2 * config["head_dim"]  # norms of queries and keys
    rest += L * sum(shapes[name][1] for name in _biased(config))
    rest = config.get(OTHERS, rest)
    return {
        "linear": linear,
        "embedding": table,
        "head": 0 if config["tie_word_embeddings"] else table,
        "rest": rest,
    }


def _biased(config: dict) -> tuple[str, ...]:
    """The linear layers of a block that have a bias."""
    if config.get("model_type") == "qwen2":
        return ATTENTION[:3]
    attention = ATTENTION if config.get("attention_bias") else ()
    mlp = MLP if config.get("mlp_bias") else ()
    return attention + mlp


def _targets(target_modules, shapes: dict) -> tuple[str, ...]:
    """Names of the layers to adapt; PlanError for one that a block does not have."""
    if target_modules == "all-linear":
        names = tuple(shapes)
    elif isinstance(target_modules, str):
        names = (target_modules,)
    else:
        names = tuple(target_modules)
    unknown = [n for n in names if n not in shapes]
    if unknown or not names:
        raise PlanError(
            f"target_modules={target_modules!r}: {unknown} unknown, use 'all-linear' or some of "
            f"{', '.join(shapes)}"
        )
    return names


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part; `total` is their sum, the peak of a training step.

    Gradients and activations are not at their largest together: the part "not held at the same
    moment" is negative, and takes what the peak does not hold.
    """

    name: str
    parts: dict[str, int]
    settings: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict, repr=False)

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def fits(self, capacity: float) -> bool:
        """Whether the peak is at most `capacity` bytes."""
        return self.total <= capacity

    def rows(self) -> list[dict[str, str]]:
        """A table's rows, GB with two digits, the sum last."""
        shown = {**{k: v for k, v in self.parts.items() if v}, "peak": self.total}
        return [{"part": k, "GB": f"{v / 1e9:.2f}"} for k, v in shown.items()]

    def __str__(self) -> str:
        lines = [f"{self.name}: " + ", ".join(f"{k} {v}" for k, v in self.settings.items())]
        return "\n".join(lines + [f"  {row['part']:32}{row['GB']:>9} GB" for row in self.rows()])

    def __rich__(self):
        from rich.console import Group
        from rich.table import Table

        table = Table()
        table.add_column("part")
        table.add_column("GB", justify="right")
        for row in self.rows():
            table.add_row(*row.values(), style="bold" if row["part"] == "peak" else None)
        return Group(str(self).splitlines()[0], table)

    def check(self, available: float | None = None) -> MemoryPlan:
        """Returns the plan where it fits into `available` bytes (default: what this machine has
        now); else NotEnoughMemoryError, with the changes that would make it fit.
        """
        have = available_bytes() if available is None else available
        if have is None or self.fits(have):
            return self
        ways = self.ways(have)
        fix = f"it would fit with {'; or with '.join(ways)}"
        if not ways:
            fix = (
                "nothing tried here makes it fit: take a smaller model, or shard it over several "
                "GPUs (accelerate, configs/fsdp2.yaml)"
            )
        raise NotEnoughMemoryError(
            f"{self.name} with {self.settings['method']} needs {self.total / 1e9:.1f} GB, "
            f"{have / 1e9:.1f} GB are available: {fix}"
        )

    def ways(self, available: float) -> list[str]:
        """Changes of the settings, one or several, after which the plan fits."""
        changes = self._changes()
        ways = []
        for change in changes:
            if self._with(change).fits(available):
                ways.append(_in_words(change))
        if ways:
            return ways
        together: dict = {}
        for change in changes:
            together |= change
        return [_in_words(together)] if self._with(together).fits(available) else []

    def _with(self, change: dict) -> MemoryPlan:
        return plan_memory(self.config, **{**self.settings, **change})

    def _changes(self) -> list[dict]:
        """What can be asked for less of, each alone."""
        now = self.settings
        changes: list[dict] = [
            {"gradient_checkpointing": True},
            {"batch_size": 1},
            {"full_logits": False},
            {"optimizer": "paged_adamw_8bit"},
        ]
        leaner = {"full": "lora", "lora": "qlora", "dora": "qdora"}.get(now["method"])
        if leaner:
            changes.append({"method": leaner})
        if now["method"] == "full":
            changes.append({"method": "qlora"})
        changes.append({"seq_len": max(1, now["seq_len"] // 2)})
        return [change for change in changes if not change.items() <= now.items()]


def plan_memory(
    config: Any,
    method: str = "qlora",
    r: int = 16,
    target_modules: str | Sequence[str] = "all-linear",
    batch_size: int = 1,
    seq_len: int = 1024,
    gradient_checkpointing: bool = True,
    optimizer: str = "adamw",
    *,
    loss: str = "sft",
    full_logits: bool = False,
    dtype: str = "bfloat16",
    attention: str = "sdpa",
    device: str = "cuda",
) -> MemoryPlan:
    """The peak memory of training, by part, in bytes.

    config: a dict, transformers config, folder, file, or a name in `MODELS`. method: "full" (fp32
    weights), "lora", "dora" (frozen weights in `dtype`), "qlora", "qdora" (linear layers but the
    head in NF4, double quantisation). What trains is fp32. batch_size × seq_len: tokens of a
    micro-batch, padding included; pairs count as two rows. loss: "sft" or a preference loss; its
    log-probabilities are made of tiles (all tokens taken as scored) unless `full_logits`. Computes
    in bf16 where `dtype` has 16 bits, else in fp32. Raises PlanError (a ValueError).
    """
    settings = {
        "method": method,
        "r": r,
        "target_modules": target_modules,
        "batch_size": batch_size,
        "seq_len": seq_len,
        "gradient_checkpointing": gradient_checkpointing,
        "optimizer": optimizer,
        "loss": loss,
        "full_logits": full_logits,
        "dtype": dtype,
        "attention": attention,
        "device": device,
    }
    _check_settings(settings)
    shape = read_config(config)
    name = shape.get("_name_or_path") or "the model"
    if isinstance(config, (str, Path)):
        name = str(config)
    return MemoryPlan(name, _parts(shape, settings), settings, shape)


def _check_settings(settings: dict) -> None:
    """PlanError for a value that is not planned for."""
    for name, known in CHOICES.items():
        if settings[name] not in known:
            raise PlanError(f"{name}={settings[name]!r}: use one of {', '.join(known)}")
    for name in ("r", "batch_size", "seq_len"):
        check_positive_integer(name, settings[name], PlanError)


def _in_words(change: dict) -> str:
    return ", ".join(f"{name}={value}" for name, value in change.items())


def _trained(config: dict, s: dict, targets: tuple[str, ...]) -> int:
    """Parameters that train: all, or A and B of each adapted layer, and DoRA's m."""
    if s["method"] == "full":
        return sum(count_config(config).values())
    shapes = linear_shapes(config)
    of_a_block = 0
    for name in targets:
        n_in, n_out = shapes[name]
        of_a_block += s["r"] * (n_in + n_out)  # A (r, in) and B (out, r)
        if s["method"].endswith("dora"):
            of_a_block += n_out  # m
    return config["num_hidden_layers"] * of_a_block


def _parts(config: dict, s: dict) -> dict[str, int]:
    """Bytes by part."""
    full = s["method"] == "full"
    targets = () if full else _targets(s["target_modules"], linear_shapes(config))
    trained = _trained(config, s, targets)
    parts = _weight_bytes(config, s)
    if not full:
        parts["adapter"] = FP32 * trained
    parts["gradients"] = FP32 * trained
    parts["optimizer"] = OPTIMIZER_BYTES[s["optimizer"]] * trained
    kept, head, work = _step_bytes(config, s, targets, trained)
    parts["activations"] = kept
    parts["logits"] = head
    parts["working space"] = work
    together = kept + head + work + parts["gradients"]
    peak = _step_peak(config, s, kept, head, work, parts["gradients"])
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


def _step_peak(config: dict, s: dict, kept: int, head: int, work: int, gradients: int) -> int:
    """The most that a step holds beside weights and optimizer: at one of three moments."""
    at_the_loss = kept + head
    if s["method"] == "full":
        at_the_loss += FP32 * count_config(config)["head"]
    in_a_block = kept + work
    at_the_optimizer = gradients
    if s["gradient_checkpointing"]:
        at_the_optimizer += work
    return max(at_the_loss, in_a_block, at_the_optimizer)


def _step_bytes(config: dict, s: dict, targets: tuple, trained: int) -> tuple[int, int, int]:
    """(activations kept for backward, logits with their gradients, working space of one block's
    backward pass).
    """
    H = config["hidden_size"]
    L = config["num_hidden_layers"]
    width = DTYPE_BYTES[s["dtype"]]
    rows_of_an_example = 1 if s["loss"] in ("sft", "kto") else 2  # chosen and rejected
    tokens = s["batch_size"] * s["seq_len"] * rows_of_an_example
    block = _block_bytes(config, s, targets) * tokens
    # Gradients that are alive at once while they flow through a block's MLP: of its two inner
    # activations, (tokens, I) each, and of its input and output, (tokens, H) each.
    gradients = (2 * config["intermediate_size"] + 2 * H) * width * tokens
    dequantised = 0
    if s["method"].startswith("q"):
        largest = max(n_in * n_out for n_in, n_out in linear_shapes(config).values())
        dequantised = largest * width
    casts = 0
    if width < FP32 and targets:
        casts = trained * width  # 16-bit copies of A and B
    if s["gradient_checkpointing"]:
        kept = L * H * width * tokens  # each block's input
        work = block + gradients + dequantised + casts // L
    else:
        kept = L * block + casts
        work = gradients + dequantised
    kept += FP32 * H * tokens  # what the last norm keeps
    return kept, _head_bytes(config, s, tokens, width), work


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
    kept = 3 * wide  # gate, its SiLU, up
    kept += 4 * q  # queries, keys and values of every head, and their mixture
    # An adapted layer keeps its input for the gradient of A: layers with the same input keep it
    # once. (o_proj's is the heads' mixture, which is kept already.)
    if any(name in targets for name in ATTENTION[:3]):
        kept += H
    if any(name in targets for name in MLP[:2]):
        kept += H
    if "down_proj" in targets:
        kept += wide
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
