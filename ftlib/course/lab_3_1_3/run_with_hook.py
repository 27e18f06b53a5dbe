"""Lab 3.1.3, NEFTune, exercise 6: nothing left behind."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from ftlib.course.calls import observer
from ftlib.course.exercise import Exercise, Wrong


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
        self.module = module
        self.x = x

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
CLEARED = (
    "You removed hooks that were there before yours: "
    "remove your own handle, `handle.remove()`, and nothing else."
)
SWALLOWED = (
    "An exception in the run no longer reaches the caller: "
    "use `finally`, not `except`, or Ctrl-C would look like success."
)


def _hooks(module) -> dict:
    return module._forward_hooks  # noqa: SLF001  PyTorch has no public list of them


def _stop():
    raise KeyboardInterrupt


@observer
def _behaviour(function) -> str:
    """What it does with hooks: "clean", or the first fault in a word, a key of `FAULTS`."""
    module = _Double()
    function(module, _plus_one, lambda: module(torch.ones(1)))
    if _hooks(module):
        return "left"
    module.register_forward_hook(_plus_one)
    function(module, _plus_one, lambda: module(torch.ones(1)))
    if len(_hooks(module)) != 1:
        return "cleared"
    module = _Double()
    try:
        function(module, _plus_one, _stop)
    except KeyboardInterrupt:
        return "left after error" if _hooks(module) else "clean"
    return "swallowed"


FAULTS = {
    "left": LEFT,
    "left after error": LEFT_AFTER_ERROR,
    "cleared": CLEARED,
    "swallowed": SWALLOWED,
}


def _leaves_behind(function) -> str | None:
    return FAULTS.get(_behaviour(function))


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
        _hooks(module).clear()


def _run_swallows(module, hook, run):
    handle = module.register_forward_hook(hook)
    result = None
    with contextlib.suppress(BaseException):
        result = run()
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
