"""What one should know before lab 1: short tasks to answer in a terminal, and the same tasks for
PREREQUISITES.md.

Answers are read as numbers or letters, never run. Where many answers are right, PyTorch tries the
one that was typed.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

LETTERS = "abcdefgh"  # of choices
NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
# More, or beyond, is no answer to any task.
MOST_NUMBERS = 8
LARGEST = 10**6


class UnreadableAnswerError(ValueError):
    """Typed text that cannot be read as an answer; the message says what is wanted."""


@dataclass(frozen=True)
class Task:
    """A question; `judge(text)` says whether the typed answer is right (UnreadableAnswerError: ask
    again). `read_up`: name and address.
    """

    topic: str
    question: str
    answer: str
    judge: Callable[[str], bool]
    read_up: str
    url: str
    choices: tuple[str, ...] = ()


# --- reading what was typed -----------------------------------------------------------------------
def numbers(text: str) -> list[float]:
    """The numbers in "(4, 10)", "4 x 10" or "4 10"; UnreadableAnswerError where there are none, or
    far too many.
    """
    found = [float(n) for n in NUMBER.findall(text)]
    if not 1 <= len(found) <= MOST_NUMBERS or not all(abs(n) <= LARGEST for n in found):
        raise UnreadableAnswerError(f"type one to {MOST_NUMBERS} numbers, none beyond {LARGEST:,}")
    return found


def one_number(low: float, high: float) -> Callable[[str], bool]:
    """Right from `low` to `high`; a comma inside a number is one of thousands."""

    def judge(text: str) -> bool:
        found = NUMBER.findall(re.sub(r"(?<=\d),(?=\d{3}\b)", "", text))
        if len(found) != 1:
            raise UnreadableAnswerError("type one number")
        return low <= float(found[0]) <= high

    return judge


def letter(want: str, count: int) -> Callable[[str], bool]:
    """Right where the letter of the wanted choice, out of `count`, was typed."""
    letters = list(LETTERS[:count])

    def judge(text: str) -> bool:
        typed = text.strip().strip("()").lower()
        if typed not in letters:
            raise UnreadableAnswerError(f"type one letter, a to {letters[-1]}")
        return typed == want

    return judge


def _weight_fits(text: str) -> bool:
    """Does x @ W.T have the wanted shape? Asked of PyTorch's meta device, which makes shapes and no
    numbers.
    """
    import torch

    shape = numbers(text)
    if len(shape) != 2 or any(n < 1 or n != int(n) for n in shape):
        raise UnreadableAnswerError("type two whole numbers above 0")
    x = torch.empty(4, 10, 256, device="meta")
    rows, columns = shape
    weight = torch.empty(int(rows), int(columns), device="meta")
    try:
        product = x @ weight.T
    except RuntimeError:
        return False
    return product.shape == (4, 10, 1024)


def _slope_is_twelve(text: str) -> bool:
    """Is the gradient of x³ at the typed x equal to 12? Asked of autograd."""
    import torch

    found = numbers(text)
    if len(found) != 1:
        raise UnreadableAnswerError("type one number")
    x = torch.tensor(found[0], dtype=torch.float64, requires_grad=True)
    (x**3).backward()
    return math.isclose(x.grad.item(), 12, rel_tol=1e-3)


def _energy_is_kept(text: str) -> bool:
    """Is the typed share what the best rank-2 approximation keeps of ‖W‖², where W's singular
    values are 4, 2, 2 and 1? As 0.8 or as 80 (percent); asked of PyTorch's SVD.
    """
    import torch

    found = numbers(text)
    if len(found) != 1:
        raise UnreadableAnswerError("type one number, such as 0.5 or 50%")
    W = torch.diag(torch.tensor([4.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    U, S, Vh = torch.linalg.svd(W)
    best = (U[:, :2] * S[:2]) @ Vh[:2]
    share = (best.norm() ** 2 / W.norm() ** 2).item()
    typed = found[0] if found[0] <= 1 else found[0] / 100
    return math.isclose(typed, share, abs_tol=0.005)


TASKS = (
    Task(
        "PyTorch: shapes",
        "x has the shape (4, 10, 256), and x @ W.T must have (4, 10, 1024). What is "
        "the shape of W?",
        "(1024, 256): a linear layer stores its weight as (out, in).",
        _weight_fits,
        "PyTorch, Linear",
        "https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html",
    ),
    Task(
        "PyTorch: cost",
        "How many multiplications is x @ W.T with the shapes (4, 10, 256) and (1024, 256)?",
        "4 · 10 · 256 · 1024 = 10,485,760: for each of 40 rows and 1024 outputs a sum of 256 "
        "products.",
        one_number(10_485_760, 10_485_760),
        "PyTorch, tensors",
        "https://docs.pytorch.org/tutorials/beginner/basics/tensorqs_tutorial.html",
    ),
    Task(
        "PyTorch: autograd",
        "y = x³. Name an x at which y.backward() leaves 12 in x.grad.",
        "2 (or −2): dy/dx = 3x², and 3 · 4 = 12.",
        _slope_is_twelve,
        "PyTorch, autograd mechanics",
        "https://docs.pytorch.org/docs/stable/notes/autograd.html",
    ),
    Task(
        "Transformers: attention",
        "A layer has 32 query heads and 8 key and value heads, each of 128 numbers. "
        "By what factor is its cache of keys and values smaller than with 32 of each?",
        "4: the cache holds keys and values only, and there are 8 heads of them in place of 32.",
        one_number(4, 4),
        "Ainslie et al. 2023, GQA",
        "https://arxiv.org/abs/2305.13245",
    ),
    Task(
        "Transformers: next token",
        "A causal model reads tokens 0 to 4. The logits at position 2 are scored against the "
        "token at which position?",
        "3: each position predicts the token after it, so the last logits have nothing to be "
        "scored against.",
        one_number(3, 3),
        "Hugging Face's course, training a causal model",
        "https://huggingface.co/learn/llm-course/chapter7/6",
    ),
    Task(
        "Tokenization: chat template",
        "A model was fine-tuned on answers whose end-of-turn token was left out of the loss. What "
        "does it do?",
        "b: it never learnt to end its turn, so it goes on after the answer.",
        letter("b", 3),
        "transformers, chat templates",
        "https://huggingface.co/docs/transformers/chat_templating",
        (
            "it answers with an empty text",
            "it does not stop after its answer",
            "it forgets the user's question",
        ),
    ),
    Task(
        "Loss: perplexity",
        "The mean loss of a model is ln 8 ≈ 2.08 nats per token. What is its perplexity?",
        "8: perplexity is e to the mean loss, as if it chose among 8 equally likely tokens.",
        one_number(7.95, 8.05),
        "transformers, perplexity",
        "https://huggingface.co/docs/transformers/perplexity",
    ),
    Task(
        "Loss: cross-entropy",
        "A model gives the right token the probability 1/4. What is the loss at this token, in "
        "nats, to two decimals?",
        "1.39: −ln(1/4) = ln 4.",
        one_number(1.38, 1.39),
        "PyTorch, cross-entropy",
        "https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html",
    ),
    Task(
        "Memory",
        "Full fine-tuning with AdamW, everything in fp32: how many bytes does each parameter "
        "take, activations left out?",
        "16: 4 for the weight, 4 for the gradient, 4 each for Adam's two running means. Mixed "
        "precision comes to 16 as well.",
        one_number(16, 16),
        "Rajbhandari et al. 2019, ZeRO, section 3",
        "https://arxiv.org/abs/1910.02054",
    ),
    Task(
        "PEFT",
        "LoRA of rank 8 on one layer of 4096 inputs and 4096 outputs. How many numbers does it "
        "train?",
        "65,536: A is (8, 4096) and B is (4096, 8), together 8 · (4096 + 4096).",
        one_number(65_536, 65_536),
        "PEFT, LoRA",
        "https://huggingface.co/docs/peft/conceptual_guides/lora",
    ),
    Task(
        "Linear algebra: rank",
        "B has the shape (1024, 2) and A (2, 256), both of random numbers. What is the rank of "
        "B @ A, a matrix of shape (1024, 256)?",
        "2: every column of B @ A is a mixture of B's two columns, so the rank is at most 2, and "
        "random numbers do not make it less.",
        one_number(2, 2),
        "Dive into Deep Learning, linear dependence and rank",
        "https://d2l.ai/chapter_appendix-mathematics-for-deep-learning/"
        "geometry-linear-algebraic-ops.html",
    ),
    Task(
        "Linear algebra: SVD",
        "A matrix has the singular values 4, 2, 2 and 1. What share of its squared Frobenius norm "
        "is left in its best approximation of rank 2?",
        "0.8: the best approximation of rank 2 keeps the two largest singular values, and the "
        "squared norm is the sum of their squares: (16 + 4) of (16 + 4 + 4 + 1).",
        _energy_is_kept,
        "PyTorch, torch.linalg.svd",
        "https://docs.pytorch.org/docs/stable/generated/torch.linalg.svd.html",
    ),
    Task(
        "Linear algebra: norm",
        "A weight has the rows (1, 2) and (2, 4). What is its Frobenius norm?",
        "5: √(1 + 4 + 4 + 16). Its rank is 1, so 5 is also its only singular value above 0.",
        one_number(5, 5),
        "Dive into Deep Learning, norms",
        "https://d2l.ai/chapter_preliminaries/linear-algebra.html",
    ),
)


# --- for a page, and for a terminal ---------------------------------------------------------------
def _choices(task: Task) -> list[str]:
    letters = LETTERS[: len(task.choices)]
    return [f"{name}) {choice}" for name, choice in zip(letters, task.choices, strict=True)]


def tasks_markdown() -> str:
    """The tasks as PREREQUISITES.md shows them, each with its answer folded away."""
    parts = []
    for i, task in enumerate(TASKS, 1):
        question = " ".join([task.question, *_choices(task)])
        parts.append(
            f"**{i}. {task.topic}.** {question}\n\n"
            f"<details><summary>Answer</summary>\n\n"
            f"{task.answer} Read up: [{task.read_up}]({task.url}).\n\n"
            f"</details>"
        )
    return "\n\n".join(parts)


def tasks_text() -> str:
    """The tasks with their answers, for a terminal."""
    parts = []
    for i, task in enumerate(TASKS, 1):
        lines = [f"{i}. {task.topic}", f"   {task.question}"]
        lines += [f"   {choice}" for choice in _choices(task)]
        lines.append(f"   Answer: {task.answer}")
        lines.append(f"   Read up: {task.read_up}, {task.url}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def ask(task: Task) -> bool | None:
    """Ask until the answer can be read. True where it is right, else the answer is shown; None to
    stop (q, or the end of input).
    """
    while True:
        try:
            typed = input("> ").strip()
        except EOFError:
            return None
        if typed.lower() == "q":
            return None
        if typed in ("", "?"):
            print(f"  The answer: {task.answer}")
            return False
        try:
            right = task.judge(typed)
        except UnreadableAnswerError as error:
            print(f"  {error}, ? for the answer, or q to stop")
            continue
        print(f"  {'Right' if right else 'Not right'}. {task.answer}")
        return right


def run_check(answers: bool = False) -> int:
    """Ask all tasks, then say the score and what to read up; `answers` prints them instead. Exit
    code 2 without a terminal.
    """
    if answers:
        print(tasks_text())
        return 0
    if not sys.stdin.isatty():
        print(
            "ftlib: this self-check asks questions, and standard input is no terminal: run it in "
            "a terminal, or print the tasks with their answers by `ftlib prerequisites --answers`",
            file=sys.stderr,
        )
        return 2
    results: list[bool] = []
    print(f"{len(TASKS)} short tasks. Type an answer; Enter or ? shows it, q stops.")
    for i, task in enumerate(TASKS, 1):
        print(f"\n{i} of {len(TASKS)} · {task.topic}", task.question, *_choices(task), sep="\n")
        result = ask(task)
        if result is None:
            break
        results.append(result)
    print(verdict(results))
    return 0


def verdict(results: list[bool]) -> str:
    """The score, and what to read up for the tasks that were not right."""
    asked = TASKS[: len(results)]
    missed = [task for task, right in zip(asked, results, strict=True) if not right]
    not_asked = len(TASKS) - len(asked)
    score = f"\n{sum(results)} of {len(results)} right"
    lines = [f"{score}; {not_asked} not asked." if not_asked else f"{score}."]
    if missed:
        lines.append("Read up before lab 1:")
        lines += [f"  {task.topic}: {task.read_up}, {task.url}" for task in missed]
    elif not not_asked:
        lines.append("You are ready for lab 1.")
    return "\n".join(lines)
