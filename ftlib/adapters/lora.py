"""LoRA and DoRA layers, put into a model in place: add, merge, disable.

LoRA (Hu et al. 2021, arXiv 2106.09685, eq. 3): ``y = Wx + b + s·B(Ax)`` with ``s = alpha/r``.
rsLoRA (Kalajdzievski 2023, arXiv 2312.03732): ``s = alpha/sqrt(r)``. DoRA (Liu et al. 2024, arXiv
2402.09353, eq. 5): ``y = m/‖W + sBA‖ · (W + sBA)x + b``, one norm per output row.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ftlib.adapters.functional import (
    FusedLoRA,
    dense_weight,
    dora_norm,
    dora_scale,
    lora_delta,
    row_squares,
)
from ftlib.adapters.targets import output_head, target_names
from ftlib.adapters.whole import (
    guard_saving,
    has_tied_head,
    say_tied,
    shared_weights,
    unguard_saving,
)
from ftlib.core.checks import check_above_zero, check_number, check_positive_integer
from ftlib.core.dtypes import master_like
from ftlib.models.matrices import describe_others, elements
from ftlib.models.nf4 import dequantize_packed, fix_4bit_layers
from ftlib.models.skeleton import check_has_values, without_values
from ftlib.models.wrapped import takes_new_parameters, unwrapped

log = logging.getLogger("ftlib")
# Share of an update's norm that rounding may move the weights by when it is merged; above, it is
# said with a warning.
ROUNDING = 0.1


@dataclass(frozen=True)
class AdapterConfig:
    """What `add_lora` was asked for; `target_modules` holds the names as given."""

    r: int = 8
    lora_alpha: float = 16
    target_modules: str | tuple[str, ...] = "all-linear"
    lora_dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False

    def __post_init__(self):
        r = check_positive_integer("r", self.r, hint="r is the rank of the update")
        object.__setattr__(self, "r", r)  # frozen; NumPy's integers are not JSON
        check_above_zero("lora_alpha", self.lora_alpha)
        check_number("lora_dropout", self.lora_dropout, 0, 1)
        if not self.target_modules:
            raise ValueError(
                "target_modules is empty: name at least one linear layer, or pass 'all-linear'"
            )

    @property
    def scaling(self) -> float:
        """s in ``W + s·BA``: alpha/r, or alpha/sqrt(r) for rsLoRA."""
        divisor = math.sqrt(self.r) if self.use_rslora else self.r
        return self.lora_alpha / divisor


class StepCounter:
    """Counts the steps of every optimizer in this process, from the first question on: PyTorch's
    hook for that is global, so it is installed only where a DoRA layer asks.
    """

    def __init__(self):
        self._steps = 0
        self._installed = False

    def steps(self) -> int:
        if not self._installed:
            register_optimizer_step_post_hook(self._count)
            self._installed = True
        return self._steps

    def _count(self, optimizer, args, kwargs) -> None:
        self._steps += 1


_step_counter = StepCounter()


@dataclass(frozen=True)
class Drift:
    """Squared norms of a merge: the update itself, what rounding to the weight's dtype changed, and
    what 4 bits would.
    """

    update: float
    rounding: float
    requantising: float

    def __add__(self, other: Drift) -> Drift:
        return Drift(
            self.update + other.update,
            self.rounding + other.rounding,
            self.requantising + other.requantising,
        )

    def __str__(self) -> str:
        size = math.sqrt(self.update) or 1.0
        return (
            f"rounding moved the weights by {math.sqrt(self.rounding) / size:.2g} of the update's "
            f"norm; in 4 bits again it would be {math.sqrt(self.requantising) / size:.2g}"
        )


def _dense_linear(layer: nn.Module, n_in: int, n_out: int) -> nn.Linear:
    """An uninitialised `nn.Linear` in the place of a 4-bit layer, with its bias, in the dtype that
    the weight had before: the model's own, which is what its other layers hand over (a 4-bit layer
    casts its input, a dense one does not).
    """
    dtype = layer.weight.quant_state.dtype
    dense = nn.utils.skip_init(
        nn.Linear, n_in, n_out, bias=layer.bias is not None, dtype=dtype, device=layer.weight.device
    )
    if layer.bias is not None:
        dense.bias.data.copy_(layer.bias)
    return dense.requires_grad_(False).train(layer.training)


def _version(t: Tensor) -> tuple[int, int]:
    """What changes when the tensor's values do: its place in memory, and PyTorch's counter of
    in-place operations.
    """
    return t.data_ptr(), t._version  # noqa: SLF001 (PyTorch has no public name for it)


class LoRALinear(nn.Module):
    """A linear layer with a low-rank update beside it; `base_layer` stays as it was.

    Parameters: `lora_A` (r, in) ~ kaiming_uniform(a=√5), `lora_B` (out, r) = 0, and for DoRA
    `lora_magnitude_vector` (out,) = ‖W‖ per output row; all in fp32 or wider. The update is
    computed in the input's dtype. Dropout acts on the low-rank branch only (PEFT's DoRA also drops
    the input of W; equal in expectation and in evaluation).
    """

    def __init__(self, base_layer: nn.Linear, config: AdapterConfig):
        super().__init__()
        weight = base_layer.weight
        new = master_like(weight)
        self.base_layer = base_layer
        self.scaling = config.scaling
        self.use_dora = config.use_dora
        self.in_features = base_layer.in_features
        self.out_features = base_layer.out_features
        self.dropout = nn.Dropout(config.lora_dropout)
        self.lora_A = nn.Parameter(torch.empty(config.r, self.in_features, **new))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, config.r, **new))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        if config.use_dora:
            wide = self.dense_weight().to(new["dtype"])  # (out, in)
            self.lora_magnitude_vector = nn.Parameter(wide.norm(dim=1))
        self.enabled = True
        self.merged = False
        self.was_4bit = False  # merged into a dequantised weight
        self._packed: tuple | None = None  # the 4-bit layer that merging set aside
        self._shared: tuple | None = None  # the weight that the layer shares, set aside likewise
        self._norm: Tensor | None = None
        self._norm_state: tuple | None = None  # what the kept norm was computed of
        self._squares_of: tuple | None = None
        # from_pretrained gives evaluation mode: dropout must not act in it
        self.train(base_layer.training)

    @property
    def weight(self) -> Tensor:
        """The base layer's weight: transformers reads dtype and device from it."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base_layer.bias

    @property
    def quant_state(self):
        """bitsandbytes' record of a 4-bit weight, or None. FSDP2 makes new parameters, which lack
        it: the layer has it too.
        """
        of_weight = getattr(self.base_layer.weight, "quant_state", None)
        return of_weight or getattr(self.base_layer, "quant_state", None)

    def dense_weight(self) -> Tensor:
        """W (out, in), dequantised where the base layer is a bitsandbytes 4-bit layer."""
        weight = self.base_layer.weight
        if self.quant_state is None:
            return weight.detach()
        return dense_weight(weight.data, self.quant_state, self.quant_state.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``Wx + b + s·B(Ax)``, or DoRA's ``g⊙(Wx + s·B(Ax)) + b``: x (..., in) -> (..., out)."""
        if not self.enabled or self.merged:
            return self.base_layer(x)
        if self._fusible():
            return self._fused(x)
        y = self.base_layer(x)
        A = self.lora_A.to(x.dtype)
        B = self.lora_B.to(x.dtype)
        low = F.linear(self.dropout(x), A)  # (..., r)
        y = y + F.linear(low, B) * self.scaling
        if not self.use_dora:
            return y
        g = self.row_scale().to(y.dtype)  # (out,)
        if self.bias is None:
            return y * g
        return (y - self.bias) * g + self.bias

    def _fusible(self) -> bool:
        """Whether the base is frozen, and an `nn.Linear` or in training a 4-bit one.

        Without gradients bitsandbytes has its own kernels for 4-bit products, which read the packed
        weight directly.
        """
        frozen_bias = self.bias is None or not self.bias.requires_grad
        frozen = frozen_bias and not self.weight.requires_grad
        trained_4bit = self.quant_state is not None and torch.is_grad_enabled()
        return frozen and (trained_4bit or type(self.base_layer) is nn.Linear)

    def _fused(self, x: Tensor) -> Tensor:
        kind = x.device.type
        out_dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        dtype = out_dtype
        # As Linear4bit does: its compute dtype inside, the input's outside.
        if self.quant_state is not None:
            dtype = self.base_layer.compute_dtype or dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        # Casting A and B outside the function leaves their gradients in the master weights' dtype.
        g = self.row_scale().to(dtype) if self.use_dora else None
        y = FusedLoRA.apply(
            x.to(dtype),
            self.weight,
            self.quant_state,
            bias,
            self.lora_A.to(dtype),
            self.lora_B.to(dtype),
            g,
            self.scaling,
            self.dropout.p if self.training else 0.0,
        )
        return y.to(out_dtype)

    def row_scale(self) -> Tensor:
        """DoRA's g = m/‖W + sBA‖ (out,); the norm is detached as in section 4.3 of the paper. A row
        of zeros has no direction: its g is 0, and it gets no gradient.
        """
        return dora_scale(self.lora_magnitude_vector, self._row_norm())

    # Its key changes with every step: torch.compile would compile it again each time.
    @torch.compiler.disable
    @torch.no_grad()
    def _row_norm(self) -> Tensor:
        """‖W + sBA‖ (out,), computed once for each state of A, B and W: micro-batches and
        recomputation share it.

        The state is told by PyTorch's version counters, which in-place operations advance, and by
        the number of optimizer steps: fused optimizers, Trainer's default, advance no counter. Nor
        does writing through `.data`: call `forget_norm()` after it.
        """
        state_of_weight = _version(self.base_layer.weight)
        state = (
            _step_counter.steps(),
            _version(self.lora_A),
            _version(self.lora_B),
            state_of_weight,
        )
        if self._norm is not None and self._norm_state == state:
            return self._norm
        weight = self.dense_weight()
        if self._squares_of != state_of_weight:
            self._squares = row_squares(weight)
            self._squares_of = state_of_weight
        # autocast would round the products to 16 bits
        with torch.autocast(weight.device.type, enabled=False):
            norm = dora_norm(weight, self.lora_A, self.lora_B, self.scaling, self._squares)
        self._norm = norm
        self._norm_state = state
        return self._norm

    def forget_norm(self) -> None:
        """Drop the kept norm, after A or B were written through `.data`."""
        self._norm_state = None

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """W + sBA (out, in), with DoRA its rows rescaled, in fp32 or wider."""
        W = self.dense_weight().to(self.lora_A.dtype)
        merged = W + lora_delta(self.lora_A, self.lora_B, self.scaling)
        if self.use_dora:
            merged *= self.row_scale()[:, None]
        return merged

    @torch.no_grad()
    def merge(self, untie: bool = False) -> Drift:
        """Put the update into the base weight, computed in fp32 or wider; returns what rounding
        took of it.

        A 4-bit base layer is set aside, and a dequantised one, in the dtype that it was quantised
        from, takes its place. `untie`: into a copy of the weight, which other modules hold as well.
        """
        W = self.dense_weight().to(self.lora_A.dtype)
        merged = self.merged_weight()
        if self.use_dora:
            self._merge_scale = self.row_scale()[:, None]
            self._lost_rows = W[self._merge_scale[:, 0] == 0]
        if self.quant_state is not None:
            self._packed = (self.base_layer,)  # in a tuple: not a submodule
            self.base_layer = _dense_linear(self.base_layer, self.in_features, self.out_features)
            self.was_4bit = True
        elif untie:
            shared = self.base_layer.weight
            self._shared = (shared,)
            own = nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad)
            self.base_layer.weight = own
        self.base_layer.weight.copy_(merged)
        self.merged = True
        kept = self.base_layer.weight.to(W.dtype)
        return Drift(
            update=(merged - W).square().sum().item(),
            rounding=(kept - merged).square().sum().item(),
            requantising=self._requantising(merged),
        )

    def _requantising(self, merged: Tensor) -> float:
        """What storing `merged` in 4 bits again would take of it, squared; 0 for a base that is not
        in 4 bits.
        """
        if not self._packed:
            return 0.0
        from bitsandbytes.functional import quantize_4bit

        state = self._packed[0].weight.quant_state
        packed, new_state = quantize_4bit(
            merged.to(state.dtype), blocksize=state.blocksize, quant_type=state.quant_type
        )
        again = dequantize_packed(packed, new_state).to(merged.dtype)
        return (again - merged).square().sum().item()

    @property
    def holds_original(self) -> bool:
        """Whether merging has set the base weight aside, as it was."""
        return bool(self._packed or self._shared)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out again: to rounding, or exactly where a 4-bit layer or a shared weight
        was set aside.
        """
        if self._packed:
            self.base_layer = self._packed[0]
            self._packed = None
            self.was_4bit = False
        elif self._shared:
            self.base_layer.weight = self._shared[0]
            self._shared = None
        else:
            self._subtract()
        self.merged = False

    def _subtract(self) -> None:
        """W from the merged weight; rows that DoRA had scaled to 0 come back from their copy."""
        weight = self.base_layer.weight
        W = weight.to(self.lora_A.dtype)
        if self.use_dora:
            W = W / self._merge_scale.masked_fill(self._merge_scale == 0, 1.0)
        W = W - lora_delta(self.lora_A, self.lora_B, self.scaling)
        if self.use_dora:
            W[self._merge_scale[:, 0] == 0] = self._lost_rows
        weight.copy_(W)

    def extra_repr(self) -> str:
        return (
            f"r={self.lora_A.shape[0]}, scaling={self.scaling:g}, dora={self.use_dora}, "
            f"merged={self.merged}"
        )


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """All adapted layers of a model by module path, as it is without wrappers around it."""
    inner = unwrapped(model)
    return {name: m for name, m in inner.named_modules() if isinstance(m, LoRALinear)}


def add_lora(
    model: nn.Module,
    r: int = 8,
    lora_alpha: float = 16,
    target_modules: str | Sequence[str] = "all-linear",
    lora_dropout: float = 0.0,
    use_rslora: bool = False,
    use_dora: bool = False,
) -> nn.Module:
    """Freeze the model and put a LoRA or DoRA adapter on its linear layers, in place; returns the
    model.

    `target_modules`: "all-linear" (without the output head; a warning names the matrices that are
    no linear layers and stay as they are), module names or suffixes such as ("q_proj", "v_proj"),
    or a regular expression (`ftlib.adapters.targets`). B starts at zero, so the adapted model
    starts as the base model. A model inside `torch.compile` is adapted where it is. Raises
    ValueError for an unknown target, a bad value, or a model that has an adapter already.
    """
    inner = unwrapped(model)
    _check_can_adapt(model)
    targets = target_modules if isinstance(target_modules, str) else tuple(target_modules)
    config = AdapterConfig(r, lora_alpha, targets, lora_dropout, use_rslora, use_dora)
    names = target_names(inner, targets)
    if targets == "all-linear":
        _say_others(inner)
    if has_tied_head(inner, output_head(inner)) and output_head(inner) in _modules(inner, names):
        log.warning(
            "the head is tied to the input embeddings: it is adapted alone, and merging gives it a "
            "weight of its own"
        )
    fix_4bit_layers(inner)
    new = {name: LoRALinear(inner.get_submodule(name), config) for name in names}
    inner.requires_grad_(False)
    for name, layer in new.items():
        parent, _, child = name.rpartition(".")
        setattr(inner.get_submodule(parent), child, layer)
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(True)
    inner.adapter_config = config
    guard_saving(inner)
    log.info("%s", describe_trainable(inner))
    return model


def _modules(model: nn.Module, names: list[str]) -> list[nn.Module]:
    return [model.get_submodule(name) for name in names]


def _check_can_adapt(model: nn.Module) -> None:
    """ValueError for a model on which an adapter would not train, or not with what it has."""
    if any(isinstance(m, LoRALinear) or getattr(m, "is_adapter", False) for m in model.modules()):
        raise ValueError("model already has an adapter: merge or remove it, or load the base again")
    if not takes_new_parameters(model):
        raise ValueError(
            f"model is a {type(model).__name__}, which synchronises only the parameters that it "
            "was made with: add the adapter first, then wrap"
        )
    # A model that is on the meta device as a whole is there to be counted.
    if 0 < len(without_values(model)) < len(list(model.parameters())):
        check_has_values(model, "add_lora")


def _say_others(model: nn.Module) -> None:
    """Name the matrices that "all-linear" passes over."""
    others = describe_others(model)
    if others:
        log.warning(
            "all-linear adapts linear layers (torch.nn.Linear); it leaves out %s: they stay frozen",
            others,
        )


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters. bitsandbytes' 4-bit weights count by element, not by stored
    byte.
    """
    trainable = 0
    total = 0
    for parameter in model.parameters():
        count = elements(parameter)
        total += count
        if parameter.requires_grad:
            trainable += count
    return trainable, total


def describe_trainable(model: nn.Module) -> str:
    """One line: how many parameters train, of how many, in how many adapted layers."""
    trainable, total = count_parameters(model)
    return (
        f"{trainable:,} of {total:,} parameters train ({100 * trainable / total:.2f}%), "
        f"{len(lora_layers(model))} layers adapted"
    )


def adapted_names(model: nn.Module) -> dict[str, LoRALinear]:
    layers = lora_layers(model)
    if not layers:
        raise ValueError("model has no adapter: call add_lora or load_adapter first")
    return layers


def merge_adapter(model: nn.Module) -> nn.Module:
    """Put the update into the base weights, ``W ← W + sBA`` (DoRA: rows rescaled); returns the
    model.

    Reversible by `unmerge_adapter` to rounding of the weight's dtype. 4-bit layers are dequantised
    first, to the dtype that they were quantised from, and a warning says so with the drift;
    unmerging brings the 4-bit layers back. A weight that another module holds as well, such as a
    head that is tied to the embeddings, is untied: the layer gets one of its own, and the model's
    config says so (`tie_word_embeddings`), so that saving and loading keep it. `save_pretrained`
    then writes the merged weights under the base's names. A warning says where rounding to 16 bits
    takes much of the update. ValueError if merged already, on the meta device, and for values that
    the weight's dtype cannot hold; the model is then as it was.
    """
    layers = adapted_names(model)
    inner = unwrapped(model)
    if any(layer.merged for layer in layers.values()):
        raise ValueError("the adapter is merged already: unmerge_adapter first")
    check_has_values(inner, "merge_adapter")
    for name, layer in layers.items():
        _check_range(name, layer)
    tied_head = has_tied_head(inner, output_head(inner))
    shared = shared_weights(inner)
    dense = Drift(0.0, 0.0, 0.0)
    packed = Drift(0.0, 0.0, 0.0)
    try:
        for layer in layers.values():
            untie = {"untie": True} if id(layer.weight) in shared else {}
            drift = layer.merge(**untie)
            if layer.was_4bit:
                packed += drift
            else:
                dense += drift
    except BaseException:  # out of memory, an interrupt: all layers or none
        for layer in layers.values():
            if layer.merged or layer.holds_original:
                layer.unmerge()
        raise
    if tied_head and not has_tied_head(inner, output_head(inner)):
        say_tied(inner, False)
        inner.head_untied_by_merging = True
    _say_rounding([layer for layer in layers.values() if not layer.was_4bit], dense)
    _say_dequantised([layer for layer in layers.values() if layer.was_4bit], packed)
    return model


def _check_range(name: str, layer: LoRALinear) -> None:
    """ValueError where the merged weight would not be finite in the dtype that it is kept in."""
    merged = layer.merged_weight()
    dtype = layer.weight.dtype if layer.quant_state is None else layer.quant_state.dtype
    if torch.isfinite(merged.to(dtype)).all():
        return
    if torch.isfinite(merged).all():
        raise ValueError(
            f"{name}: the merged weight reaches {merged.abs().max().item():.3g}, "
            f"{dtype} holds {torch.finfo(dtype).max:.3g}: load the base with dtype=torch.bfloat16 "
            "or torch.float32, load_adapter and merge there"
        )
    raise ValueError(
        f"{name}: the merged weight has NaN or infinite values: the training diverged, or the base "
        "is damaged; load an earlier checkpoint of the adapter"
    )


def _say_rounding(layers: list[LoRALinear], drift: Drift) -> None:
    """Say how much of the update the weights' dtype rounds away, where it has 16 bits."""
    narrow = [layer.weight.dtype for layer in layers if layer.weight.dtype != layer.lora_A.dtype]
    if not narrow or not drift.update:
        return
    share = math.sqrt(drift.rounding / drift.update)
    said = f"merged: rounding to {narrow[0]} moved the weights by {share:.2g} of the update's norm"
    if share <= ROUNDING:
        log.info("%s", said)
        return
    log.warning(
        "%s: for less merge into the base in fp32 (load_model with dtype=torch.float32), or keep "
        "the adapter unmerged",
        said,
    )


def _say_dequantised(layers: list[LoRALinear], drift: Drift) -> None:
    """Say what merging 4-bit layers has cost."""
    if not layers:
        return
    held = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
    log.warning(
        "merged: %d 4-bit layers were dequantised to %s (%.2f GB); %s. For export merge into "
        "the 16-bit base: this one carries the 4-bit rounding of the base as well",
        len(layers),
        layers[0].weight.dtype,
        held / 1e9,
        drift,
    )


def unmerge_adapter(model: nn.Module) -> nn.Module:
    """Take a merged update out of the base weights again; returns the model. A head that merging
    untied is tied again. ValueError if it is not merged.
    """
    layers = adapted_names(model)
    inner = unwrapped(model)
    if not all(layer.merged for layer in layers.values()):
        raise ValueError("the adapter is not merged: nothing to unmerge")
    for layer in layers.values():
        layer.unmerge()
    if vars(inner).pop("head_untied_by_merging", False):
        say_tied(inner, True)
    return model


def merge_and_unload(model: nn.Module) -> nn.Module:
    """`merge_adapter`, then plain layers in place of the adapted ones, so that another adapter can
    be added; returns the model.

    With that one disabled the model is the one merged here: an SFT adapter taken in this way is
    DPO's reference. The model's name says what was done, since an adapter trained from here on does
    not fit the base as it was.
    """
    layers = lora_layers(merge_adapter(model))
    inner = unwrapped(model)
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(inner.get_submodule(parent), child, layer.base_layer)
    vars(inner).pop("head_untied_by_merging", None)
    del inner.adapter_config
    if not any(layer.was_4bit for layer in layers.values()):  # else config.json would say 4 bits
        unguard_saving(inner)
    inner.config.name_or_path = f"{inner.config.name_or_path}, with an adapter merged"
    return model


@contextlib.contextmanager
def disable_adapter(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block the model is the base model, bit for bit and without a copy of it, whichever
    adapter of ftlib it has. ValueError if it has none, or one that is merged.
    """
    beside = [m for m in unwrapped(model).modules() if getattr(m, "is_adapter", False)]
    parts: list = beside or list(adapted_names(model).values())
    if any(getattr(part, "merged", False) for part in parts):
        raise ValueError(
            "the adapter is merged into the weights: unmerge_adapter before disabling it"
        )
    before = [part.enabled for part in parts]
    try:
        for part in parts:
            part.enabled = False
        yield model
    finally:
        for part, enabled in zip(parts, before, strict=True):
            part.enabled = enabled


def adapter_config_dict(model: nn.Module) -> dict:
    """The options that `add_lora` was called with."""
    adapted_names(model)
    return asdict(unwrapped(model).adapter_config)
