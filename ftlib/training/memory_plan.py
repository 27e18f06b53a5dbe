"""What a training run will hold in memory, from a model's configuration alone: before anything is
downloaded or loaded.

`plan_memory` adds up, byte by byte, what ftlib's own training keeps: weights, the constants of
quantisation, adapter, gradients, optimizer, activations, logits. It knows decoders of Llama's form
(Llama, Mistral, Qwen). Bytes; N = tokens of a batch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

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
MODELS = {
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
OPTIMIZER_BYTES = {
    "adamw": 8,
    "paged_adamw": 8,
    "adamw_8bit": 2,
    "paged_adamw_8bit": 2,
    "sgd": 0,
}  # a trained parameter
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
CUDA_CONTEXT = 1_000_000_000  # an estimate: CUDA's context and libraries, and what PyTorch's allocator keeps in reserve
NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


class PlanError(ValueError):
    """A plan that cannot be made: what is unknown or missing, and the mend."""


class NotEnoughMemory(MemoryError):
    """What a run needs, what there is, and what would make it fit."""


def read_config(config) -> dict:
    """The fields of a configuration: from a dict, a transformers config, a folder or file, or a
    name in `MODELS`. PlanError.
    """
    if isinstance(config, (str, Path)):
        known, path = MODELS.get(str(config).lower()), Path(config).expanduser()
        if known:
            return _complete(dict(known), str(config))
        file = path / "config.json" if path.is_dir() else path
        if not file.is_file():
            raise PlanError(
                f"model {str(config)!r} is neither a file or folder nor one of {', '.join(MODELS)}"
            )
        try:
            return _complete(json.loads(file.read_text(encoding="utf-8")), str(file))
        except json.JSONDecodeError as error:
            raise PlanError(f"{file} is not valid JSON ({error}): download it again") from None
    given = (
        config
        if isinstance(config, dict)
        else config.to_dict()
        if hasattr(config, "to_dict")
        else None
    )
    if given is None:
        raise PlanError(
            f"config is a {type(config).__name__}: pass a dict, a path, or one of "
            f"{', '.join(MODELS)}"
        )
    return _complete(dict(given), "the configuration")


def _complete(config: dict, source: str) -> dict:
    experts = next(
        (k for k in ("num_local_experts", "num_experts", "n_routed_experts") if config.get(k)), None
    )
    if experts:
        raise PlanError(
            f"{source} has {experts}={config[experts]}: mixtures of experts are not planned for"
        )
    for name in NEEDED:
        value = config.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise PlanError(f"{source} has {name}={value!r}: a whole number above 0 is needed")
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = config.get("num_key_value_heads") or heads
    config["head_dim"] = config.get("head_dim") or config["hidden_size"] // heads
    config["tie_word_embeddings"] = bool(config.get("tie_word_embeddings", False))
    return config


def linear_shapes(config: dict) -> dict[str, tuple[int, int]]:
    """(in, out) of the linear layers of one block, by name."""
    H, wide, d = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * d, config["num_key_value_heads"] * d
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
    H, L = config["hidden_size"], config["num_hidden_layers"]
    shapes = linear_shapes(config)
    linear = L * sum(n_in * n_out for n_in, n_out in shapes.values())
    table = config["vocab_size"] * H
    rest = H + L * 2 * H
    if config.get("model_type") == "qwen3":
        rest += L * 2 * config["head_dim"]  # norms of queries and keys
    biased = (
        ATTENTION[:3]
        if config.get("model_type") == "qwen2"
        else (ATTENTION if config.get("attention_bias") else ())
        + (MLP if config.get("mlp_bias") else ())
    )
    rest += L * sum(shapes[name][1] for name in biased)
    return {
        "linear": linear,
        "embedding": table,
        "head": 0 if config["tie_word_embeddings"] else table,
        "rest": rest,
    }


def _targets(target_modules, shapes: dict) -> tuple[str, ...]:
    names = (
        tuple(shapes)
        if target_modules == "all-linear"
        else (target_modules,)
        if isinstance(target_modules, str)
        else tuple(target_modules)
    )
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
        now); else NotEnoughMemory, with the changes that would make it fit.
        """
        have = available_bytes() if available is None else available
        if have is None or self.fits(have):
            return self
        ways = self.ways(have)
        mend = (
            f"it would fit with {'; or with '.join(ways)}"
            if ways
            else (
                "nothing tried here makes it fit: take a smaller model, or shard it over several "
                "GPUs (accelerate, configs/fsdp2.yaml)"
            )
        )
        raise NotEnoughMemory(
            f"{self.name} with {self.settings['method']} needs {self.total / 1e9:.1f} GB, "
            f"{have / 1e9:.1f} GB are available: {mend}"
        )

    def ways(self, available: float) -> list[str]:
        """Changes of the settings, one or several, after which the plan fits."""
        now, out, method = self.settings, [], self.settings["method"]
        leaner = {"full": "lora", "lora": "qlora", "dora": "qdora"}.get(method)
        steps = [
            {"gradient_checkpointing": True},
            {"batch_size": 1},
            {"full_logits": False},
            {"optimizer": "paged_adamw_8bit"},
            {"method": leaner} if leaner else {},
            {"method": "qlora"} if method == "full" else {},
            {"seq_len": max(1, now["seq_len"] // 2)},
        ]
        steps = [s for s in steps if s and any(now[k] != v for k, v in s.items())]
        together = {k: v for s in steps for k, v in s.items()}
        for change in [*steps, together]:
            if plan_memory(self.config, **{**now, **change}).fits(available):
                out.append(", ".join(f"{k}={v}" for k, v in change.items()))
        return (
            out
            if len(out) < 2
            else [w for w in out if w != ", ".join(f"{k}={v}" for k, v in together.items())]
        )


def plan_memory(
    config,
    method: str = "qlora",
    r: int = 16,
    target_modules="all-linear",
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
    for name, value, known in (
        ("method", method, METHODS),
        ("loss", loss, LOSSES),
        ("optimizer", optimizer, OPTIMIZER_BYTES),
        ("dtype", dtype, DTYPE_BYTES),
        ("attention", attention, ("sdpa", "eager")),
        ("device", device, ("cuda", "cpu")),
    ):
        if value not in known:
            raise PlanError(f"{name}={value!r}: use one of {', '.join(known)}")
    for name, value in (("r", r), ("batch_size", batch_size), ("seq_len", seq_len)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise PlanError(f"{name}={value!r}: must be a whole number above 0")
    shape = read_config(config)
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
    name = (
        str(config)
        if isinstance(config, (str, Path))
        else shape.get("_name_or_path") or "the model"
    )
    return MemoryPlan(name, _parts(shape, settings), settings, shape)


def _parts(config: dict, s: dict) -> dict[str, int]:
    count, shapes = count_config(config), linear_shapes(config)
    full, quantised, width = (
        s["method"] == "full",
        s["method"].startswith("q"),
        DTYPE_BYTES[s["dtype"]],
    )
    targets = () if full else _targets(s["target_modules"], shapes)
    total = sum(count.values())
    trained = (
        total
        if full
        else config["num_hidden_layers"]
        * sum(
            s["r"] * sum(shapes[t]) + (shapes[t][1] if s["method"].endswith("dora") else 0)
            for t in targets
        )
    )
    linear = count["linear"] / 2 if quantised else count["linear"] * width
    parts = {"weights": 4 * total if full else round(linear + (total - count["linear"]) * width)}
    if quantised:
        parts["quantisation constants"] = round(count["linear"] * (NF4_BITS - 4) / 8)
    if full and s["loss"] in ("dpo", "kto"):
        parts["reference model"] = total * width
    if not full:
        parts["adapter"] = 4 * trained
    parts |= {"gradients": 4 * trained, "optimizer": OPTIMIZER_BYTES[s["optimizer"]] * trained}
    kept, head, work = _step_bytes(config, s, targets, trained)
    parts |= {"activations": kept, "logits": head, "working space": work}
    # The three moments at which a step can hold most: the loss, a block's backward pass, the
    # optimizer's step.
    moments = (
        kept + head + (4 * count["head"] if full else 0),
        kept + work,
        parts["gradients"] + (work if s["gradient_checkpointing"] else 0),
    )
    parts["not held at the same moment"] = max(moments) - kept - head - work - parts["gradients"]
    if s["device"] == "cuda":
        parts["CUDA context (estimate)"] = CUDA_CONTEXT
    return parts


def _step_bytes(config: dict, s: dict, targets: tuple, trained: int) -> tuple[int, int, int]:
    """(activations kept for backward, logits with their gradients, working space of one block's
    backward pass).
    """
    H, L, width = config["hidden_size"], config["num_hidden_layers"], DTYPE_BYTES[s["dtype"]]
    tokens = s["batch_size"] * s["seq_len"] * (1 if s["loss"] in ("sft", "kto") else 2)
    block = _block_bytes(config, s, targets) * tokens
    grads = (
        (2 * config["intermediate_size"] + 2 * H) * width * tokens
    )  # alive at once while they flow through its MLP
    dense = (
        max(a * b for a, b in linear_shapes(config).values()) * width
        if s["method"].startswith("q")
        else 0
    )
    casts = trained * width if width < 4 and targets else 0  # 16-bit copies of A and B
    if s["gradient_checkpointing"]:
        kept, work = L * H * width * tokens, block + grads + dense + casts // L
    else:
        kept, work = L * block + casts, grads + dense
    kept += 4 * H * tokens  # what the last norm keeps
    if s["full_logits"]:
        head = (
            12 * config["vocab_size"] * tokens
        )  # log-softmax in fp32, and two gradients of its size
    else:
        rows = min(tokens, tile_rows(config["vocab_size"]))
        # Hidden states, their gradients, a tile.
        head = 2 * H * width * tokens + (4 if width == 4 else 6) * config["vocab_size"] * rows
    return kept, head, work


def _block_bytes(config: dict, s: dict, targets: tuple) -> float:
    """Bytes a token that one block keeps for its backward pass. Norms keep fp32, the rest is in the
    compute dtype.
    """
    H, wide, d = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv, width, full = (
        config["num_attention_heads"] * d,
        config["num_key_value_heads"] * d,
        DTYPE_BYTES[s["dtype"]],
        not targets,
    )
    kept = 3 * wide  # gate, its SiLU, up
    kept += 4 * q  # queries, keys and values of every head, and their mixture
    kept += (
        H * any(t in targets for t in ATTENTION[:3])
        + H * any(t in targets for t in MLP[:2])
        + wide * ("down_proj" in targets)
    )
    kept += s["r"] * len(targets)
    if full:  # every linear layer's input, and every norm's before its weight
        kept += 2 * H + wide + 2 * H
    if s["method"].endswith("dora"):  # outputs that nothing else keeps
        kept += sum(
            n
            for name, n in (
                ("q_proj", q),
                ("k_proj", kv),
                ("v_proj", kv),
                ("o_proj", H),
                ("down_proj", H),
            )
            if name in targets
        )
    scores = (
        config["num_attention_heads"] * s["seq_len"] * (4 if width == 4 else 6)
        if s["attention"] == "eager"
        else 0
    )
    if config.get("model_type") == "qwen3":
        kept += 2 * (q + kv) * 4 // width  # the norms of queries and keys
    return kept * width + 2 * 4 * H + 4 * config["num_attention_heads"] + scores
