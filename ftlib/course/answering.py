"""The two ends of the line between a submission's code and its judge.

`Answering` is in the process that runs the submission's cells: it calls the answers, and keeps what
a backward pass needs. `Line` and `DistantAnswer` are in the judging process, where `judge` takes an
answer from afar as it takes a function. What goes to the submission's process is pickled; what
comes from it is not trusted, and is plain values (`ftlib.course.plain`).

Beyond a submission's reach, whatever its code changes in its own process: the cases, the reference,
the comparison of values, arguments and gradients, the sentences, the points. It can only give
results, and right ones earn the points. Within its reach, since it is seen in its own process: what
an `observer` of `ftlib.course.calls` reports (whether a product was held in memory, whether a hook
was left behind), and what it changed in ftlib (`ftlib.course.patches`). Before each check ftlib is
put back as it was, so that the plain ways to change such a report do nothing.
"""

from __future__ import annotations

import functools
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftlib.course.calls import Distant, Fault, error_of, fault_of
from ftlib.course.patches import Snapshot
from ftlib.course.plain import PlainError, decode, encode

LONGEST = 100_000_000  # bytes of a message
TOO_LONG = f"the result has more than {LONGEST // 1_000_000} MB"
MOST_KINDS = 20  # classes of an error that are read
LONGEST_TEXT = 500  # characters


# --- in the submission's process ------------------------------------------------------------------
@dataclass
class _Graph:
    """What a call leaves for the backward pass."""

    inputs: list[Tensor]
    results: list[Tensor]


class Answering:
    """Does what the judging process asks, until that has ended. Its public methods are the
    requests; what they return is sent as plain values, what is raised as a fault.
    """

    def __init__(self, connection, shell, setup: str):
        self.connection = connection
        self.shell = shell
        self.wrong_at_setup = self.run(setup)
        self.answer: Any = None
        self.graphs: dict[int, _Graph] = {}
        self.trained: list[Tensor] | None = None
        self.check = shell.user_ns.get("check")
        self.snapshot = Snapshot()
        self.changed: list[str] = []

    def serve(self) -> None:
        while True:
            try:
                request, *arguments = pickle.loads(self.connection.recv_bytes())
            except EOFError:
                return
            self.connection.send_bytes(self._reply(request, arguments))

    def _reply(self, request: str, arguments: list) -> bytes:
        self.trained = None
        try:
            message = encode({"value": getattr(self, request)(*arguments)}, self.trained)
        except (
            BaseException
        ) as error:  # SystemExit and KeyboardInterrupt are an answer's errors too
            return encode({"fault": vars(fault_of(error))})
        if len(message) > LONGEST:
            return encode({"fault": vars(Fault(("MemoryError", "Exception"), TOO_LONG))})
        return message

    def setup_error(self) -> str:
        """What went wrong in the set-up cell; empty if nothing."""
        return self.wrong_at_setup

    def run(self, source: str) -> str:
        """Run a cell; what went wrong."""
        return _error_line(self.shell.run_cell(source))

    def take(self, name: str) -> dict[str, Any]:
        """Take what the notebook has under this name as the answer."""
        self.graphs.clear()
        names = self.shell.user_ns
        self.answer = names.get(name)
        is_function = callable(self.answer)
        return {
            "missing": name not in names,
            "callable": is_function,
            "value": None if is_function else self.answer,
        }

    def go_on_with_the_reference(self, name: str) -> None:
        """As in the notebook, where a check has failed."""
        self.shell.user_ns[name] = self.check.__self__.find(name).reference

    def changes(self) -> list[str]:
        """What the submission has changed in ftlib since this was asked last, and `check` if it has
        changed that. All of it is put back.
        """
        self._put_back()
        changed = list(dict.fromkeys(self.changed))
        self.changed.clear()
        return changed

    def _put_back(self) -> None:
        names = self.shell.user_ns
        if names.get("check") is not self.check:
            names["check"] = self.check
            self.changed.append("check")
        self.changed += self.snapshot.put_back()

    def call(self, number: int, args: list, named: dict, tracked: list, gradients: bool) -> dict:
        """Call the answer; the number is that of the call. `tracked`: positions and names of the
        arguments that require grad.
        """
        given = dict(enumerate(args)) | named
        inputs = [given[key].requires_grad_() for key in tracked]
        with (
            torch.inference_mode(False),
            torch.set_grad_enabled(gradients),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            result = self.answer(*args, **named)
        self.graphs[number] = _Graph(inputs, [])
        self.trained = self.graphs[number].results
        return {"result": result, "after": [_untracked(value) for value in args]}

    def backward(self, number: int, i: int, gradient: Tensor) -> list[Tensor | None]:
        """The gradients that reach a call's inputs from its i-th result that trains."""
        graph = self.graphs[number]
        with torch.inference_mode(False), torch.enable_grad():
            found = torch.autograd.grad(
                graph.results[i], graph.inputs, gradient, retain_graph=True, allow_unused=True
            )
        return list(found)

    def observe(self, observe: Callable, args: tuple, named: dict) -> Any:
        self._put_back()
        with torch.inference_mode(False), torch.enable_grad():
            return observe(self.answer, *args, **named)


def _untracked(value):
    return value.detach() if isinstance(value, Tensor) else value


def _error_line(result) -> str:
    """What a cell raised, in one line; empty if nothing."""
    error = result.error_before_exec or result.error_in_exec
    if error is None:
        return ""
    try:
        text = str(error).strip()
    except Exception:  # the class may be the student's
        text = ""
    return f"{type(error).__name__}: {text}"[:LONGEST_TEXT]


# --- in the judging process -----------------------------------------------------------------------
class LineLost(BaseException):
    """The submission's process has gone; or sends what is no message of ours, as the text says."""


class Line:
    """The judge's end."""

    def __init__(self, connection):
        self.connection = connection

    def ask(self, request: str, *arguments, connect: Callable | None = None) -> Any:
        """The value of a request; raises what was raised there."""
        try:
            self.connection.send_bytes(pickle.dumps((request, *arguments)))
            message = self.connection.recv_bytes(LONGEST)
        except (EOFError, OSError):  # OSError: a broken pipe, or a message that is too long
            raise LineLost from None
        try:
            reply = decode(message, connect)
            if "value" in reply:
                return reply["value"]
            fault = _read_fault(reply["fault"])
        except (PlainError, LookupError, TypeError, AttributeError):
            raise LineLost("its process sends what is no answer (after an os.fork?)") from None
        raise error_of(fault)

    def answer(self, name: str) -> Any:
        """What the notebook has under this name: from afar if it can be called, else its value.
        NameError if it has nothing.
        """
        found = self.ask("take", name)
        if found["missing"]:
            raise NameError(f"name {name!r} is not defined")
        return DistantAnswer(self) if found["callable"] else found["value"]


def _read_fault(found: dict) -> Fault:
    kinds = tuple(str(kind)[:LONGEST_TEXT] for kind in found["kinds"])[:MOST_KINDS]
    text = str(found["text"])[:LONGEST_TEXT]
    place = str(found["place"])[:LONGEST_TEXT]
    return Fault(kinds or ("Exception",), text, place, found["stub"] is True)


class DistantAnswer(Distant):
    """A submission's answer, called as the function would be: results that require grad do so here,
    and the backward pass goes on there.
    """

    def __init__(self, line: Line):
        self.line = line
        self.calls = 0

    def watched(self, args: tuple, named: dict[str, Any]) -> tuple[Any, list, list]:
        given = dict(enumerate(args)) | named
        tracked = [k for k, v in given.items() if isinstance(v, Tensor) and v.requires_grad]
        inputs = [given[key] for key in tracked]
        self.calls += 1
        number = self.calls

        def connect(result: Tensor, i: int) -> Tensor:
            ask = functools.partial(self.line.ask, "backward", number, i)
            return _FromThere.apply(result, ask, *inputs)

        before = [_untracked(value) for value in args]
        by_name = {name: _untracked(value) for name, value in named.items()}
        there = self.line.ask(
            "call", number, before, by_name, tracked, torch.is_grad_enabled(), connect=connect
        )
        return there["result"], decode(encode(before)), there["after"]

    def observed(self, observe: Callable, args: tuple, named: dict[str, Any]) -> Any:
        return self.line.ask("observe", observe, args, named)


class _FromThere(torch.autograd.Function):
    """The identity on a result that came; `backward` asks for the gradients of the inputs."""

    @staticmethod
    def forward(ctx, result: Tensor, ask: Callable, *inputs: Tensor) -> Tensor:
        ctx.ask = ask
        return result.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return (None, None, *ctx.ask(gradient))
