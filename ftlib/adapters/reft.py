"""ReFT: a low-rank edit of the residual stream at a few positions of the prompt; the weights stay
as they are.

Wu et al. 2024, arXiv 2404.03592. After each chosen layer, h (d,) of a chosen position becomes
LoReFT (eq. 2) ``h + Rᵀ(W h + b − R h)``, R (r, d) of orthonormal rows: within the r directions that
R spans, h is replaced by W h + b, and outside of them it stays. DiReFT (eq. 3): ``h + W₂ᵀ(W₁ h +
b)``, without the constraint and without the difference. Both have r·(2d + 1) parameters per layer.
One edit serves the first and the last positions alike (the paper's tied weights). What pyreft
calls DiReFT keeps R orthonormal; the paper's formula, and this one, is its NodiReFT.

R is the Q factor of a free matrix X (r, d), ``Xᵀ = QS``, its columns' signs such that S has a
positive diagonal, and is made anew in every forward pass: its rows are orthonormal whatever an
optimizer does to X. (`torch.nn.utils.parametrizations.orthogonal` keeps a d×d buffer for this:
67 MB per layer in fp32 at d = 4,096.)

The positions. They are those of the prompt, and the prompt ends where the first scored token is:

- labels are there, in the model's own call or in `ftlib.losses.logps`, which all training and
  scoring goes through: the real tokens before the first label other than -100. A text of which
  every token is scored has one token of prompt, its first;
- without labels, and with nothing in the KV cache, as in the first pass of `generate`: all real
  tokens of the pass;
- without labels, and with tokens in the cache, as in the later passes of `generate`: none.

What is real the attention mask says, so padding on either side does not matter. A prompt shorter
than the positions named is changed at each of its tokens once.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftlib.adapters import hooked as baselines
from ftlib.batches.template import IGNORE
from ftlib.core.checks import check_positive_integer
from ftlib.core.dtypes import master_like
from ftlib.models.wrapped import unwrapped

VARIANTS = ("loreft", "direft")
PLACES = ("first", "last")


def orthonormal_rows(X: Tensor) -> Tensor:
    """R (r, d) of orthonormal rows that span those of X (r, d), r ≤ d; the same X gives the same R,
    and an R gives itself. Differentiable where X has full rank.
    """
    Q, S = torch.linalg.qr(X.T)  # (d, r), (r, r)
    signs = torch.where(S.diagonal() < 0, -1.0, 1.0).to(X.dtype)
    return (Q * signs).T


def loreft(h: Tensor, R: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """``h + Rᵀ(W h + b − R h)``: h (..., d), R and W (r, d), b (r,) -> (..., d)."""
    difference = F.linear(h, W - R, b)  # (..., r)
    return h + difference @ R


def direft(h: Tensor, up: Tensor, down: Tensor, b: Tensor) -> Tensor:
    """``h + W₂ᵀ(W₁ h + b)``: h (..., d), `up` W₂ and `down` W₁ (r, d), b (r,) -> (..., d)."""
    return h + F.linear(h, down, b) @ up


def prompt_of(real: Tensor, labels: Tensor | None) -> Tensor:
    """(B, T) bool, true at the tokens of the prompt: `real` ones, (B, T) bool, before the first
    that `labels` (B, T) score; all real ones where there are no labels.

    A row's first token is predicted by nothing, so its label is no score.
    """
    if labels is None:
        return real
    scored = torch.zeros_like(real)
    scored[:, 1:] = (labels[:, 1:] != IGNORE) & real[:, :-1]
    return real & (scored.cumsum(1) == 0)


def first_and_last(prompt: Tensor, first: int, last: int) -> Tensor:
    """(B, T) bool, true at the first and the last so many tokens of each row's `prompt` (B, T)
    bool.
    """
    place = prompt.cumsum(1)  # (B, T): 1 at a prompt's first token
    count = prompt.sum(1, keepdim=True)  # (B, 1)
    return prompt & ((place <= first) | (place > count - last))


class Positions:
    """What the parts of one model share: the labels of the running call and of the running scoring,
    and from them the positions to change in the running pass, (B, T) bool, None for none.
    """

    def __init__(self) -> None:
        self.labels_of_call: Tensor | None = None
        self.labels_of_scoring: Tensor | None = None
        self.chosen: Tensor | None = None

    def labels(self) -> Tensor | None:
        if self.labels_of_call is not None:
            return self.labels_of_call
        return self.labels_of_scoring


class Reft(baselines.Baseline):
    """A part of ReFT: an edit after a layer, or what finds the positions."""

    kind = "REFT"

    def __init__(self, options: dict, positions: Positions):
        super().__init__(options)
        self.positions = positions


class Intervention(Reft):
    """The edit after one layer, in fp32 or wider whatever dtype h has: `weight` (r, d), `bias` (r,)
    and `directions` (r, d), LoReFT's X, DiReFT's W₂.

    It starts as the base model. LoReFT: W = R, b = 0. DiReFT: W₁ ~ kaiming_uniform(a=√5), b = 0,
    W₂ = 0, as LoRA's A and B. (The authors' pyreft has LoReFT's start as
    `LoreftIntervention_IdentityInit`; its `LoreftIntervention` draws W and b at random, so that it
    begins with R's directions overwritten.)
    """

    def __init__(self, options: dict, positions: Positions, width: int, like: Tensor):
        super().__init__(options, positions)
        r = options["r"]
        new = master_like(like)
        self.is_loreft = options["variant"] == "loreft"
        self.directions = nn.Parameter(torch.zeros(r, width, **new))  # (r, d)
        self.weight = nn.Parameter(torch.empty(r, width, **new))  # (r, d)
        self.bias = nn.Parameter(torch.zeros(r, **new))
        if self.is_loreft:
            drawn = torch.randn(r, width, **new)
            self.directions.data.copy_(orthonormal_rows(drawn))
            self.weight.data.copy_(self.rotation.detach())
        else:
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    @property
    def rotation(self) -> Tensor:
        """R (r, d), LoReFT's; its rows are orthonormal."""
        return orthonormal_rows(self.directions)

    def forward(self, h: Tensor) -> Tensor:
        """The edit of every h: (..., d) -> (..., d), in h's dtype."""
        with torch.autocast(h.device.type, enabled=False):
            wide = h.to(self.weight.dtype)
            if self.is_loreft:
                changed = loreft(wide, self.rotation, self.weight, self.bias)
            else:
                changed = direft(wide, self.directions, self.weight, self.bias)
        return changed.to(h.dtype)

    def after(self, layer: nn.Module, args: tuple, output):
        """The layer's output, changed at the chosen positions; some layers return more beside."""
        chosen = self.positions.chosen
        if not self.enabled or chosen is None:
            return output
        hidden = output[0] if isinstance(output, tuple) else output  # (B, T, d)
        changed = hidden.clone()
        changed[chosen] = self(hidden[chosen])
        if isinstance(output, tuple):
            return (changed, *output[1:])
        return changed


class Prompt(Reft):
    """Finds the positions of a pass: at the model's own call its labels, at its decoder, the module
    that holds the layers, the mask and the cache.
    """

    def __init__(self, options: dict, positions: Positions, decoder: str):
        super().__init__(options, positions)
        self.decoder = decoder  # its path

    def register(self, owner: nn.Module) -> list:
        decoder = owner.get_submodule(self.decoder)
        return [
            owner.register_forward_pre_hook(self.take_labels, with_kwargs=True),
            owner.register_forward_hook(self.drop_labels, always_call=True),
            decoder.register_forward_pre_hook(self.choose, with_kwargs=True),
        ]

    def take_labels(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        self.positions.labels_of_call = _by_name(model, args, kwargs).get("labels")

    def drop_labels(self, model: nn.Module, args: tuple, output) -> None:
        self.positions.labels_of_call = None

    def choose(self, decoder: nn.Module, args: tuple, kwargs: dict) -> None:
        """Set the positions of the pass that begins."""
        self.positions.chosen = None
        if not self.enabled:
            return
        _refuse_replica(decoder)
        given = _by_name(decoder, args, kwargs)
        tokens = given.get("input_ids")
        if tokens is None:
            tokens = given["inputs_embeds"]
        labels = self.positions.labels()
        cache = given.get("past_key_values")
        if cache is not None and int(cache.get_seq_length()) > 0:
            return
        if labels is None and given.get("use_cache") is False:
            raise ValueError(
                "use_cache=False: ReFT acts on the prompt, and without labels and without the "
                "cache a generated token is not told from it; pass labels, or leave use_cache out"
            )
        real = _real_tokens(tokens, given.get("attention_mask"), given.get("position_ids"))
        if labels is not None and labels.shape != real.shape:
            raise ValueError(
                f"labels {tuple(labels.shape)}: with ReFT one label per token is needed, "
                f"{tuple(real.shape)}"
            )
        self.positions.chosen = self.pick(real, labels)

    def pick(self, real: Tensor, labels: Tensor | None) -> Tensor:
        """(B, T) bool, true at the tokens to change; arguments as of `prompt_of`."""
        first, last = counts_of(self.options["positions"])
        return first_and_last(prompt_of(real, labels), first, last)


def _by_name(module: nn.Module, args: tuple, kwargs: dict) -> dict:
    """The arguments of a forward pass by name."""
    names = list(inspect.signature(module.forward).parameters)[: len(args)]
    return {**dict(zip(names, args, strict=True)), **kwargs}


def _refuse_replica(decoder: nn.Module) -> None:
    """`nn.DataParallel` runs replicas in threads, which share the positions."""
    if getattr(decoder, "_is_replica", False):
        raise ValueError("ReFT in nn.DataParallel: use one GPU, or start the run with torchrun")


def _real_tokens(tokens: Tensor, mask: Tensor | None, positions: Tensor | None) -> Tensor:
    """(B, T) bool, true where a token is no padding. ValueError for rows of several conversations,
    whose prompts are not told apart.
    """
    shape = tokens.shape[:2]
    if mask is not None and mask.shape != shape:
        raise ValueError(
            f"attention_mask {tuple(mask.shape)}: with ReFT it must be {tuple(shape)}, one row a "
            "prompt with its answer; use packing=False and share_prefix=False"
        )
    if mask is not None:
        return mask.bool()
    if positions is not None and (positions[:, 1:] - positions[:, :-1] != 1).any():
        raise ValueError(
            "position_ids begin again and there is no attention_mask: ReFT needs one row a "
            "conversation; use packing=False"
        )
    return torch.ones(shape, dtype=torch.bool, device=tokens.device)


@contextlib.contextmanager
def answers_marked(model: nn.Module, labels: Tensor) -> Iterator[None]:
    """Within the block a model with ReFT knows by `labels` (B, T), -100 where nothing is scored,
    where the prompts end, for callers that do not hand labels to the model itself. Nothing for
    other models.
    """
    parts = baselines.parts_of(model, Reft)
    if not parts:
        yield
        return
    positions = next(iter(parts.values())).positions
    before = positions.labels_of_scoring
    positions.labels_of_scoring = labels
    try:
        yield
    finally:
        positions.labels_of_scoring = before


# --- adding, saving, loading ----------------------------------------------------------------------
def counts_of(positions) -> tuple[int, int]:
    """How many first and how many last positions ("first-4", "last-4") name. ValueError for
    anything else.
    """
    advice = "give 'first-n', 'last-n' or both, such as ('first-4', 'last-4')"
    if isinstance(positions, str) or not positions:
        raise ValueError(f"positions={positions!r}: {advice}")
    counts = {}
    for entry in positions:
        place, _, number = str(entry).partition("-")
        known = place in PLACES and number.isdecimal() and int(number) > 0
        if not known or place in counts:
            raise ValueError(f"positions={positions!r}: {advice}")
        counts[place] = int(number)
    return counts.get("first", 0), counts.get("last", 0)


def _layers_path(model: nn.Module, count: int) -> str:
    """Module path of the decoder's layers: the list of as many as the configuration says, in a
    module with a KV cache. ValueError without one.
    """
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) != count:
            continue
        decoder = model.get_submodule(name.rpartition(".")[0])
        if "past_key_values" in inspect.signature(decoder.forward).parameters:
            return name
    raise ValueError(
        f"{type(model).__name__} has no list of {count} layers with a KV cache: ReFT edits what "
        "such layers return for the prompt, and tells the prompt by the cache"
    )


def _chosen_layers(layers, count: int) -> list[int]:
    """The layers' numbers, from 0, in order. ValueError for what names none."""
    advice = f"give 'all', or numbers from 0 to {count - 1}, each once"
    if isinstance(layers, str) and layers == "all":
        return list(range(count))
    if isinstance(layers, str) or not isinstance(layers, (list, tuple, range)) or not layers:
        raise ValueError(f"layers={layers!r}: {advice}")
    numbers = set()
    for layer in layers:
        is_number = isinstance(layer, int) and not isinstance(layer, bool)
        if not is_number or not 0 <= layer < count or layer in numbers:
            raise ValueError(f"layers={layers!r}: {advice}")
        numbers.add(layer)
    return sorted(numbers)


def _build(model: nn.Module, fields: dict) -> dict[str, Reft]:
    """An edit for each chosen layer, and what finds the positions. ValueError names the value that
    does not fit.
    """
    config = model.config.get_text_config(decoder=True)
    width = config.hidden_size
    r = check_positive_integer("r", fields["r"], hint="r is the number of directions edited")
    if r > width:
        raise ValueError(f"r={r}: at most {width}, the hidden size, rows can be orthonormal")
    variant = fields.get("variant", "loreft")
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: use one of {', '.join(VARIANTS)}")
    counts_of(fields["positions"])
    if config.is_encoder_decoder:
        raise ValueError(f"{config.model_type}: ReFT needs a decoder-only model")
    path = _layers_path(model, config.num_hidden_layers)
    chosen = _chosen_layers(fields["layers"], config.num_hidden_layers)
    options = {
        "r": r,
        "layers": fields["layers"] if fields["layers"] == "all" else chosen,
        "positions": list(fields["positions"]),
        "variant": variant,
    }
    positions = Positions()
    parts: dict[str, Reft] = {}
    for i in chosen:
        like = next(model.get_submodule(f"{path}.{i}").parameters())
        parts[f"{path}.{i}.reft"] = Intervention(options, positions, width, like)
    parts["reft"] = Prompt(options, positions, path.rpartition(".")[0])
    return parts


def add_reft(
    model: nn.Module,
    r: int = 4,
    layers: str | Sequence[int] = "all",
    positions: Sequence[str] = ("first-4", "last-4"),
    variant: str = "loreft",
) -> nn.Module:
    """Freeze the model and train an edit of rank `r` on the residual stream after each of these
    layers, at the prompt's first and last positions; returns the model.

    `layers`: "all", or numbers from 0. `positions`: "first-n", "last-n" or both; the module's text
    says where a prompt ends. `variant`: "loreft" or "direft". r·(2d + 1) parameters a layer, d the
    hidden size; the start is the base model. Generated tokens are not changed, only read what the
    prompt's were changed to, so decoding costs what it costs without. ValueError for a bad value
    and a model that has an adapter or no KV cache; in use for packed rows, shared prompts, and a
    pass without labels and without a cache, in which prompt and answer look alike.
    """
    baselines.refuse_second(model)
    fields = {"r": r, "layers": layers, "positions": positions, "variant": variant}
    return baselines.attach(model, _build(unwrapped(model), fields))


def remove_reft(model: nn.Module) -> nn.Module:
    """Take the edits away: the base model, bit for bit, still frozen. AdapterError if there are
    none.
    """
    return baselines.remove(model, Reft)


def save_reft(model: nn.Module, path: str | os.PathLike) -> Path:
    """Write `adapter_config.json` (peft_type "REFT": PEFT has no such method) and
    `adapter_model.safetensors`, atomically; returns the folder. AdapterError if there is none.
    """
    return baselines.save(model, path, Reft)


def load_reft(model: nn.Module, path: str | os.PathLike, trainable: bool = True) -> nn.Module:
    """Put saved edits onto the model, or into the equal ones that it has; returns the model.

    AdapterError (a ValueError) for another base, a damaged file or anything that does not fit; the
    model is then untouched.
    """
    return baselines.load(model, path, Reft, _build, trainable)
