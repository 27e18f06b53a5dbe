"""Lab 3.1.3, NEFTune: the eight exercises, and the wrong answers that each must tell apart.

Random numbers are arguments, so that every answer has one right value. ftlib's own noise
(`ftlib.neftune`) draws its numbers itself; the lab shows that both are the same from the same
generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ftlib.course.exercise import Exercise, Wrong


# --- 1: the bound ---------------------------------------------------------------------------------
def noise_bound(alpha: float, shape: tuple[int, int, int]) -> float:
    """alpha/√(L·d), the largest value that the noise may take; `shape` is (B, L, d)."""
    _, L, d = shape
    return alpha / math.sqrt(L * d)


def _bound_cases(g):
    yield from [
        (5.0, (4, 16, 64)),
        (10.0, (2, 50, 256)),
        (15.0, (8, 7, 4096)),
        (5.0, (3, 512, 4096)),
        (1.0, (6, 9, 5)),
    ]


BOUND = Exercise(
    name="noise_bound",
    title="How far the noise may reach",
    minutes=3,
    difficulty=1,
    reference=noise_bound,
    cases=_bound_cases,
    points=1,
    praise="equal to alpha/√(L·d)",
    hints=(
        "Algorithm 1 of the paper: the noise is uniform in [−1, 1] and then scaled by one factor. "
        "That factor is the bound.",
        "The factor holds the sequence length L and the hidden size d, both under one root. The "
        "batch does not occur in it.",
        "_, L, d = shape; return alpha / math.sqrt(L * d)",
    ),
    wrong=(
        Wrong(
            "root forgotten",
            lambda a, s: a / (s[1] * s[2]),
            "You divided by L·d itself: the root is missing. Norms add in squares, so L·d "
            "independent numbers need 1/√(L·d).",
        ),
        Wrong(
            "d forgotten",
            lambda a, s: a / math.sqrt(s[1]),
            "The hidden size is missing: with d = 4096 the noise would be 64 times too large.",
        ),
        Wrong(
            "L forgotten",
            lambda a, s: a / math.sqrt(s[2]),
            "The length is missing: the noise of a whole sequence would then grow with √L.",
        ),
        Wrong(
            "batch included",
            lambda a, s: a / math.sqrt(s[0] * s[1] * s[2]),
            "You counted the batch as well: a row's noise must not depend on how many other rows "
            "keep it company.",
        ),
        Wrong(
            "alpha under the root",
            lambda a, s: math.sqrt(a / (s[1] * s[2])),
            "alpha went under the root: twice the alpha must give twice the noise.",
        ),
        Wrong(
            "standard deviation",
            lambda a, s: a / math.sqrt(3 * s[1] * s[2]),
            "That is the standard deviation of the noise: a uniform number in ±b has b/√3. The "
            "bound is asked for.",
        ),
    ),
)


# --- 2: the noise as the libraries draw it --------------------------------------------------------
def stock_noise(u: Tensor, alpha: float) -> Tensor:
    """Uniform noise in ±alpha/√(T·d) from numbers u (B, T, d) in [0, 1)."""
    return (2 * u - 1) * noise_bound(alpha, u.shape)


def _stock_cases(g):
    for alpha, shape in [
        (5.0, (2, 6, 8)),
        (10.0, (4, 3, 5)),
        (15.0, (3, 12, 16)),
        (2.0, (5, 4, 7)),
    ]:
        yield torch.rand(*shape, generator=g), alpha


STOCK = Exercise(
    name="stock_noise",
    title="From a die to the noise",
    minutes=4,
    difficulty=1,
    reference=stock_noise,
    cases=_stock_cases,
    points=1,
    hints=(
        "Two steps: bring u from [0, 1) to [−1, 1), then scale.",
        "2·u − 1 is uniform in [−1, 1).",
        "return (2 * u - 1) * noise_bound(alpha, u.shape)",
    ),
    wrong=(
        Wrong(
            "one-sided",
            lambda u, a: u * noise_bound(a, u.shape),
            "Your noise is never negative: it shifts every embedding by half the bound on "
            "average. Bring u to [−1, 1) first.",
        ),
        Wrong(
            "half width",
            lambda u, a: (u - 0.5) * noise_bound(a, u.shape),
            "u − 0.5 reaches ±½ only, so your noise is half as large as alpha says: use 2u − 1.",
        ),
        Wrong(
            "root forgotten",
            lambda u, a: (2 * u - 1) * a / (u.shape[1] * u.shape[2]),
            "The root is missing: the bound is alpha/√(T·d).",
        ),
        Wrong(
            "batch included",
            lambda u, a: (2 * u - 1) * a / math.sqrt(u.numel()),
            "You divided by the root of all B·T·d numbers: a row's noise must not depend on the "
            "batch size.",
        ),
        Wrong(
            "standard deviation as bound",
            lambda u, a: (2 * u - 1) * a / math.sqrt(3 * u.shape[1] * u.shape[2]),
            "Your noise is √3 too small: you scaled by its standard deviation, the factor is the "
            "bound.",
        ),
    ),
)


# --- 3: the sizes ---------------------------------------------------------------------------------
def noise_sizes(alpha: float, L: int, d: int) -> dict[str, float]:
    """Root-mean-square size of one element, of one token's vector and of a whole sequence's noise."""
    element = alpha / math.sqrt(3 * L * d)
    return {
        "element": element,
        "token": element * math.sqrt(d),
        "sequence": element * math.sqrt(L * d),
    }


def _sizes_cases(g):
    yield from [(5.0, 16, 64), (10.0, 50, 256), (15.0, 512, 4096), (1.0, 7, 5), (5.0, 100, 4096)]


def _sizes(
    element=lambda a, L, d: a / math.sqrt(3 * L * d),
    token=lambda e, L, d: e * math.sqrt(d),
    sequence=lambda e, L, d: e * math.sqrt(L * d),
):
    def sizes(alpha, L, d):
        e = element(alpha, L, d)
        return {"element": e, "token": token(e, L, d), "sequence": sequence(e, L, d)}

    return sizes


SIZES = Exercise(
    name="noise_sizes",
    title="What alpha holds still",
    minutes=8,
    difficulty=2,
    reference=noise_sizes,
    cases=_sizes_cases,
    hints=(
        "Begin with one element: a uniform number in ±b has variance b²/3. What is b here?",
        "The squares of independent numbers add up: "
        "n numbers of standard deviation s make a vector whose root-mean-square norm is s·√n.",
        "A token has d numbers, a sequence L·d of them.",
        "element = alpha / math.sqrt(3 * L * d), then element * math.sqrt(d) and element * "
        "math.sqrt(L * d)",
    ),
    wrong=(
        Wrong(
            "bound",
            _sizes(element=lambda a, L, d: a / math.sqrt(L * d)),
            "All three are √3 too large: you took the bound for the standard deviation.",
        ),
        Wrong(
            "variance",
            _sizes(element=lambda a, L, d: a**2 / (3 * L * d)),
            "Your element is a variance: take its root before you go on.",
        ),
        Wrong(
            "summed, not squared",
            _sizes(token=lambda e, L, d: e * d, sequence=lambda e, L, d: e * L * d),
            "You added sizes up: independent numbers add in squares, so n of them give √n, not n.",
        ),
        Wrong(
            "token over L",
            _sizes(token=lambda e, L, d: e * math.sqrt(L)),
            "A token's vector has d numbers: you took L of them.",
        ),
        Wrong(
            "sequence per token",
            _sizes(sequence=lambda e, L, d: e * math.sqrt(d)),
            "Your sequence is one token: a sequence has L·d numbers.",
        ),
    ),
)


# --- 4: real lengths ------------------------------------------------------------------------------
def masked_noise(u: Tensor, mask: Tensor, alpha: float) -> Tensor:
    """Noise in ±alpha/√(L·d) with L each row's own length, none on padding.
    u (B, T, d) in [0, 1), mask (B, T) of ones and zeros."""
    bound = alpha / (mask.sum(1) * u.shape[-1]).sqrt()
    return (2 * u - 1) * (bound[:, None] * mask)[..., None].to(u.dtype)


def _rows_mask(lengths, width):
    return (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()


def _masked_cases(g, draw=torch.rand):
    for alpha, lengths, width, d in [
        (5.0, (6, 3), 6, 8),
        (10.0, (1, 5, 4), 7, 5),
        (15.0, (9, 9, 2, 4), 9, 16),
        (2.0, (4, 4), 8, 3),
    ]:
        yield draw(len(lengths), width, d, generator=g), _rows_mask(lengths, width), alpha


def _masked(length, keep=lambda m: m, centre=lambda u: 2 * u - 1, factor=1.0):
    """Noise with another length, mask, range or scale."""

    def noise(u, mask, alpha):
        L = length(mask).to(u.dtype).expand(len(mask))
        return (
            centre(u)
            * factor
            * (alpha / (L * u.shape[-1]).sqrt())[:, None, None]
            * keep(mask)[..., None]
        )

    return noise


def _own(m):
    return m.sum(1)


def _width(m):
    return torch.tensor(m.shape[1])


MASKED = Exercise(
    name="masked_noise",
    title="Each row its own length",
    minutes=8,
    difficulty=2,
    reference=masked_noise,
    cases=_masked_cases,
    hints=(
        "Two things change against `stock_noise`: L is counted row by row, and padding gets "
        "nothing.",
        "`mask.sum(1)` is each row's own length, of shape (B,). So the bound is a vector of B "
        "numbers.",
        "To multiply (B, T, d) by a number for each row, give it the shape (B, 1, 1): `bound[:, "
        "None, None]`.",
        "The mask is (B, T): `mask[..., None]` makes it (B, T, 1), and a product with it silences "
        "the padding.",
        "bound = alpha / (mask.sum(1) * u.shape[-1]).sqrt(); return (2 * u - 1) * bound[:, None, "
        "None] * mask[..., None]",
    ),
    wrong=(
        Wrong(
            "padded length",
            _masked(_width),
            "You took the padded length T for every row: short rows get too little noise. Count "
            "each row's ones in the mask.",
        ),
        Wrong(
            "noise on padding",
            _masked(_own, keep=torch.ones_like),
            "The lengths are right, but padding is noised too: multiply by the mask.",
        ),
        Wrong(
            "stock",
            _masked(_width, keep=torch.ones_like),
            "That is `stock_noise`: the mask is not used at all.",
        ),
        Wrong(
            "mean length",
            _masked(lambda m: m.sum(1).float().mean()),
            "You took the mean length of the batch: a row's noise must not depend on the other "
            "rows.",
        ),
        Wrong(
            "tokens of the batch",
            _masked(lambda m: m.sum()),
            "You counted the real tokens of the whole batch: sum the mask along the row, "
            "`mask.sum(1)`.",
        ),
        Wrong(
            "one-sided",
            _masked(_own, centre=lambda u: u),
            "Your noise is never negative: bring u from [0, 1) to [−1, 1) first.",
        ),
    ),
)


# --- 5: only in training --------------------------------------------------------------------------
def noise_hook(module: nn.Module, inputs: tuple, output: Tensor, noise_of) -> Tensor:
    """What a forward hook on the embedding does: noise in training mode, nothing otherwise."""
    return output + noise_of(output) if module.training else output


def _some_noise(output):
    return 0.1 * torch.cos(torch.arange(output.numel(), dtype=output.dtype)).reshape(output.shape)


def _hook_cases(g):
    for training, shape in [(True, (2, 3)), (False, (2, 3)), (True, (4, 1)), (False, (1, 5))]:
        ids = torch.randint(0, 7, shape, generator=g)
        yield (
            nn.Embedding(7, 4).train(training),
            (ids,),
            torch.randn(*shape, 4, generator=g),
            _some_noise,
        )


def _hook_returns_nothing(module, inputs, output, noise_of):
    if module.training:
        output = output + noise_of(output)


def _hook_half_return(module, inputs, output, noise_of):
    if module.training:
        return output + noise_of(output)


HOOK = Exercise(
    name="noise_hook",
    title="Only in training",
    minutes=4,
    difficulty=1,
    reference=noise_hook,
    cases=_hook_cases,
    praise="noise in training mode, none in evaluation mode,",
    hints=(
        "A module knows its mode: `module.training` is True after `model.train()` and False after "
        "`model.eval()`.",
        "What a forward hook returns takes the place of the module's output. So return the sum, "
        "or the output as it came.",
        "return output + noise_of(output) if module.training else output",
    ),
    wrong=(
        Wrong(
            "noise at eval time",
            lambda m, i, o, n: o + n(o),
            "You add noise at evaluation time too: the model would be tested and used on blurred "
            "words. Ask `module.training`.",
        ),
        Wrong(
            "the wrong way round",
            lambda m, i, o, n: o if m.training else o + n(o),
            "It is the wrong way round: you noise in evaluation mode and train on clean "
            "embeddings.",
        ),
        Wrong(
            "noise alone",
            lambda m, i, o, n: n(o) if m.training else o,
            "In training you return the noise alone: the embedding itself is lost. Return the sum.",
        ),
        Wrong(
            "nothing returned",
            _hook_returns_nothing,
            "Your hook returns nothing, and PyTorch then keeps the clean output: no noise would "
            "ever reach the model.",
        ),
        Wrong(
            "nothing in evaluation",
            _hook_half_return,
            "In evaluation mode you return None. PyTorch would keep the output, so it works by "
            "luck; "
            "return `output` and mean it.",
        ),
    ),
)


# --- 6: nothing left behind -----------------------------------------------------------------------
def run_with_hook(module: nn.Module, hook, run):
    """`run()` with a forward hook on the module; the hook is gone afterwards, also after an
    exception.
    """
    handle = module.register_forward_hook(hook)
    try:
        return run()
    finally:
        handle.remove()


class _Double(nn.Module):
    def forward(self, x):
        return 2 * x


class _Call:
    """`run` for a case: calls the module; a copy of both keeps them together."""

    def __init__(self, module, x):
        self.module, self.x = module, x

    def __call__(self):
        return self.module(self.x)


def _plus_one(module, inputs, output):
    return output + 1


def _run_cases(g):
    for shape in [(3,), (2, 4), (1, 2, 5)]:
        module = _Double()
        yield module, _plus_one, _Call(module, torch.randn(*shape, generator=g))


LEFT = (
    "The values are right, but your hook is still there after the run: the next run would add its "
    "noise on top. "
    "Remove the handle."
)
LEFT_AFTER_ERROR = (
    "The hook stays behind when the run is interrupted: `remove()` after the call is then never "
    "reached. "
    "Put it in a `finally`."
)
CLEARED = "You removed hooks that were there before yours: remove your own handle, `handle.remove()`, and nothing else."
SWALLOWED = "An exception in the run no longer reaches the caller: use `finally`, not `except`, or Ctrl-C would look like success."


def _stop():
    raise KeyboardInterrupt


def _leaves_behind(function) -> str | None:
    module = _Double()
    function(module, _plus_one, lambda: module(torch.ones(1)))
    if module._forward_hooks:
        return LEFT
    module.register_forward_hook(_plus_one)
    function(module, _plus_one, lambda: module(torch.ones(1)))
    if len(module._forward_hooks) != 1:
        return CLEARED
    module = _Double()
    try:
        function(module, _plus_one, _stop)
    except KeyboardInterrupt:
        return LEFT_AFTER_ERROR if module._forward_hooks else None
    return SWALLOWED


def _run_left(module, hook, run):
    module.register_forward_hook(hook)
    return run()


def _run_no_finally(module, hook, run):
    handle = module.register_forward_hook(hook)
    result = run()
    handle.remove()
    return result


def _run_clears(module, hook, run):
    module.register_forward_hook(hook)
    try:
        return run()
    finally:
        module._forward_hooks.clear()


def _run_swallows(module, hook, run):
    handle, result = module.register_forward_hook(hook), None
    try:
        result = run()
    except BaseException:
        pass
    handle.remove()
    return result


def _run_returns_nothing(module, hook, run):
    handle = module.register_forward_hook(hook)
    try:
        run()
    finally:
        handle.remove()


def _run_pre_hook(module, hook, run):
    handle = module.register_forward_pre_hook(hook)
    try:
        return run()
    finally:
        handle.remove()


RUN = Exercise(
    name="run_with_hook",
    title="Leave nothing behind",
    minutes=8,
    difficulty=2,
    reference=run_with_hook,
    cases=_run_cases,
    property=_leaves_behind,
    praise="the hook acts during the run and is gone after it, also after an interruption,",
    hints=(
        "`handle = module.register_forward_hook(hook)` puts a hook there, `handle.remove()` takes "
        "it away. "
        "Between the two: `run()`.",
        "A run can end early: an error, or you press stop. What must happen in any case belongs "
        "into `finally`.",
        "handle = …; then `try: return run()` and `finally: handle.remove()`",
    ),
    wrong=(
        Wrong("left behind", _run_left, LEFT),
        Wrong("not after an exception", _run_no_finally, LEFT_AFTER_ERROR),
        Wrong("cleared all", _run_clears, CLEARED),
        Wrong("swallowed", _run_swallows, SWALLOWED),
        Wrong("result lost", _run_returns_nothing, "What `run()` returns is lost: return it."),
        Wrong(
            "no hook",
            lambda module, hook, run: run(),
            "The hook was never put on the module: the run saw clean outputs.",
        ),
        Wrong(
            "before the forward pass",
            _run_pre_hook,
            "That is a hook *before* the forward pass: it sees the inputs and no output. Use "
            "`register_forward_hook`.",
        ),
    ),
)


# --- 7: Gaussian ----------------------------------------------------------------------------------
def gaussian_noise(z: Tensor, mask: Tensor, alpha: float) -> Tensor:
    """Normal noise with the uniform form's standard deviation, alpha/√(3·L·d). z (B, T, d) standard
    normal, mask (B, T).
    """
    std = alpha / (3 * mask.sum(1) * z.shape[-1]).sqrt()
    return z * (std[:, None] * mask)[..., None].to(z.dtype)


def _as_is(z):
    return z


GAUSSIAN = Exercise(
    name="gaussian_noise",
    title="A bell instead of a box",
    minutes=5,
    difficulty=2,
    reference=gaussian_noise,
    cases=lambda g: _masked_cases(g, torch.randn),
    points=1,
    hints=(
        "A fair comparison holds the size still: the same standard deviation for every element, "
        "only another shape.",
        "A uniform number in ±b has the standard deviation b/√3, so here alpha/√(3·L·d).",
        "Lengths and padding as in `masked_noise`; z takes the place of 2u − 1.",
        "std = alpha / (3 * mask.sum(1) * z.shape[-1]).sqrt(); return z * std[:, None, None] * "
        "mask[..., None]",
    ),
    wrong=(
        Wrong(
            "bound as deviation",
            _masked(_own, centre=_as_is),
            "You took the bound for the standard deviation: your Gaussian is √3 larger than the "
            "uniform noise, "
            "so the two would not be comparable.",
        ),
        Wrong(
            "divided by three",
            _masked(_own, centre=_as_is, factor=1 / 3),
            "You divided by 3: the variance has b²/3, the standard deviation b/√3.",
        ),
        Wrong(
            "padded length",
            _masked(_width, centre=_as_is, factor=3**-0.5),
            "You took the padded length T for every row: count each row's ones in the mask.",
        ),
        Wrong(
            "noise on padding",
            _masked(_own, keep=torch.ones_like, centre=_as_is, factor=3**-0.5),
            "Padding is noised too: multiply by the mask.",
        ),
        Wrong(
            "treated as uniform",
            _masked(_own, centre=lambda z: 2 * z - 1, factor=3**-0.5),
            "You still compute 2·z − 1: that is for numbers in [0, 1). z has mean 0 already.",
        ),
    ),
)


# --- 8: the padded length -------------------------------------------------------------------------
def effective_alpha(alpha: float, lengths: list[int]) -> list[float]:
    """The alpha that each row of a padded batch really gets where the bound is computed from the
    padded length.
    """
    T = max(lengths)
    return [alpha * math.sqrt(L / T) for L in lengths]


def _effective_cases(g):
    yield from [(5.0, [10, 20, 40]), (10.0, [7, 7]), (15.0, [3, 100, 51, 9]), (5.0, [512, 64])]


EFFECTIVE = Exercise(
    name="effective_alpha",
    title="What padding does to alpha",
    minutes=5,
    difficulty=2,
    reference=effective_alpha,
    cases=_effective_cases,
    points=1,
    hints=(
        "The library's bound is alpha/√(T·d), with T the length of the longest row.",
        "Call the answer a. A row of length L is noised as if by a/√(L·d). Set the two equal and "
        "solve for a.",
        "return [alpha * math.sqrt(L / max(lengths)) for L in lengths]",
    ),
    wrong=(
        Wrong(
            "no root",
            lambda a, ls: [a * L / max(ls) for L in ls],
            "The root is missing: L and T stand under one in the bound.",
        ),
        Wrong(
            "upside down",
            lambda a, ls: [a * math.sqrt(max(ls) / L) for L in ls],
            "It is upside down: padding makes the noise weaker, so no row gets more than alpha.",
        ),
        Wrong(
            "mean",
            lambda a, ls: [a * math.sqrt(L / (sum(ls) / len(ls))) for L in ls],
            "You compare with the mean length: a batch is padded to its longest row.",
        ),
        Wrong(
            "packed",
            lambda a, ls: [a * math.sqrt(L / sum(ls)) for L in ls],
            "That is what *packing* does, where all rows are joined to one sequence. Here T is "
            "the longest row.",
        ),
        Wrong(
            "unchanged",
            lambda a, ls: [a for _ in ls],
            "You return alpha for every row: that holds only where L is each row's own length.",
        ),
    ),
)

EXERCISES = [BOUND, STOCK, SIZES, MASKED, HOOK, RUN, GAUSSIAN, EFFECTIVE]
