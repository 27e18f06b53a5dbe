"""Lab 3.1.10, export and Ollama: the seven exercises, and the wrong answers that each must tell
apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.export.go_template import WORLD, render_go


# --- 1: merging -----------------------------------------------------------------------------------
def merge_weight(W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """W + (alpha/r)·BA in fp32. W (out, in) in any float dtype, A (r, in), B (out, r) -> (out, in),
    fp32.
    """
    return W.float() + (alpha / A.shape[0]) * (B.float() @ A.float())


def _merge_cases(g):
    for out, inside, r, alpha, dtype in (
        (6, 4, 2, 4.0, torch.float32),
        (8, 8, 4, 8.0, torch.bfloat16),
        (5, 7, 3, 16.0, torch.bfloat16),
    ):
        W = torch.randn(out, inside, generator=g).to(dtype)
        yield (
            W,
            0.1 * torch.randn(r, inside, generator=g),
            0.1 * torch.randn(out, r, generator=g),
            alpha,
        )


MERGE = Exercise(
    name="merge_weight",
    title="One matrix instead of three",
    minutes=6,
    difficulty=1,
    reference=merge_weight,
    cases=_merge_cases,
    points=1,
    hints=(
        "The adapter adds (alpha/r)·B(Ax) to Wx. Which one matrix does the same to every x?",
        "r is the number of rows of A. The product of shape (out, in) is B @ A.",
        "Make all three fp32 first, add, and leave the sum in fp32: the exporter rounds once, at "
        "the end.",
        "return W.float() + alpha / A.shape[0] * (B.float() @ A.float())",
    ),
    wrong=(
        Wrong(
            "alpha without r",
            lambda W, A, B, alpha: W.float() + alpha * (B @ A),
            "You scaled by alpha: it is alpha/r, r being the rows of A. Your update is r times "
            "too large.",
        ),
        Wrong(
            "not scaled",
            lambda W, A, B, alpha: W.float() + B @ A,
            "The scale alpha/r is missing: the adapter was trained with it.",
        ),
        Wrong(
            "update alone",
            lambda W, A, B, alpha: alpha / A.shape[0] * (B @ A),
            "That is the update alone: the frozen W must be added.",
        ),
        Wrong(
            "added in the base's dtype",
            lambda W, A, B, alpha: (W + (alpha / A.shape[0] * (B @ A)).to(W.dtype)).float(),
            "You added in W's dtype: in bf16 an update below 1/256 of the weight is rounded away. "
            "Add in fp32.",
        ),
        Wrong(
            "subtracted",
            lambda W, A, B, alpha: W.float() - alpha / A.shape[0] * (B @ A),
            "You subtracted the update: that is how a merged adapter is taken out again.",
        ),
        Wrong(
            "left in bf16",
            lambda W, A, B, alpha: (W.float() + alpha / A.shape[0] * (B @ A)).to(torch.bfloat16),
            "The sum is rounded to bf16: return fp32, so that the file's type is the only "
            "rounding.",
        ),
    ),
)


# --- 2: the rows of q and k -----------------------------------------------------------------------
def permute_rows(weight: Tensor, heads: int) -> Tensor:
    """Rows of q or k, (heads·d, in), from transformers' order to Llama's.

    transformers rotates row i of a head against row i + d/2; llama.cpp rotates row 2i against row
    2i + 1.
    """
    rows, inside = weight.shape
    return (
        weight.reshape(heads, 2, rows // heads // 2, inside).transpose(1, 2).reshape(rows, inside)
    )


def _rows_cases(g):
    for heads, d, inside in ((1, 8, 3), (2, 8, 4), (4, 16, 6), (3, 4, 5)):
        yield torch.randn(heads * d, inside, generator=g), heads


def _inverse(w, heads):
    return w.reshape(heads, -1, 2, w.shape[1]).transpose(1, 2).reshape(w.shape)


PERMUTE = Exercise(
    name="permute_rows",
    title="Neighbours or halves",
    minutes=12,
    difficulty=3,
    reference=permute_rows,
    cases=_rows_cases,
    hints=(
        "Write the rows of one head of d = 6 down: 0 1 2 | 3 4 5. Row 0 belongs with 3, 1 with 4, "
        "2 with 5.",
        "llama.cpp wants partners side by side: 0 3 1 4 2 5. Every head for itself.",
        "Shape the rows to (heads, 2, d/2, in): the axis of length 2 says which half. Then swap "
        "it with the one after it.",
        "return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, "
        "2).reshape(weight.shape)",
    ),
    wrong=(
        Wrong(
            "the way back",
            _inverse,
            "That is the way back, from neighbours to halves. The axis of length 2 is the first "
            "one within a head: "
            "(heads, 2, d/2, in).",
        ),
        Wrong(
            "heads forgotten",
            lambda w, heads: w.reshape(2, -1, w.shape[1]).transpose(0, 1).reshape(w.shape),
            "You split all rows into two halves: partners are within one head, so split every "
            "head.",
        ),
        Wrong(
            "not swapped",
            lambda w, heads: w.reshape(heads, 2, -1, w.shape[1]).reshape(w.shape),
            "The rows come back in the old order: reshape alone moves nothing. Swap the two axes "
            "in between.",
        ),
        Wrong(
            "swapped halves",
            lambda w, heads: w.reshape(heads, 2, -1, w.shape[1]).flip(1).reshape(w.shape),
            "You put the second half of a head before the first: the halves must be interleaved.",
        ),
        Wrong(
            "heads innermost",
            lambda w, heads: (
                w.reshape(2, -1, heads, w.shape[1]).permute(2, 1, 0, 3).reshape(w.shape)
            ),
            "You read the rows as if the heads alternated: the rows of one head follow each other, "
            "so `heads` is the first axis.",
        ),
        Wrong(
            "columns",
            lambda w, heads: (
                w.reshape(w.shape[0], 2, -1).transpose(1, 2).reshape(w.shape)
                if w.shape[1] % 2 == 0
                else w.clone()
            ),
            "You permuted the columns, which belong to the input: the rotation acts on the "
            "outputs, that is on the rows.",
        ),
    ),
)


# --- 3: q8_0 --------------------------------------------------------------------------------------
def q8_0_blocks(w: Tensor) -> tuple[Tensor, Tensor]:
    """(codes (n/32, 32), integers from -127 to 127; scales (n/32,), fp16) of weights w (n,): code ·
    scale is nearly the weight.
    """
    blocks = w.float().reshape(-1, 32)
    d = blocks.abs().amax(1) / 127
    scaled = torch.where(d[:, None] > 0, blocks * (1 / d[:, None]), 0.0)
    return (scaled.sign() * (scaled.abs() + 0.5).floor()).to(torch.int8), d.half()


def _q8_cases(g):
    yield (torch.randn(64, generator=g),)
    yield (0.02 * torch.randn(96, generator=g) ** 3,)
    yield (torch.cat([torch.zeros(32), -torch.rand(32, generator=g)]),)


def _q8(
    scale=lambda b: b.abs().amax(1) / 127,
    code=lambda s: s.round(),
    cut=lambda w: w.float().reshape(-1, 32),
    safe=True,
):
    def blocks(w):
        b = cut(w)
        d = scale(b)
        s = torch.where(d[:, None] > 0, b / d[:, None], torch.zeros(())) if safe else b / d[:, None]
        return code(s), d.half()

    return blocks


Q8 = Exercise(
    name="q8_0_blocks",
    title="A block of Q8_0",
    minutes=10,
    difficulty=2,
    reference=q8_0_blocks,
    cases=_q8_cases,
    hints=(
        "32 weights share one scale d. The largest absolute value of the block becomes ±127.",
        "d = max|w| / 127; code = w / d, rounded to the nearest integer. A block of zeros has d = "
        "0: its codes are 0.",
        "Divide by the fp32 scale, and convert the scale to fp16 only for storing: `d.half()`.",
        "blocks = w.float().reshape(-1, 32); d = blocks.abs().amax(1) / 127; "
        "codes = torch.where(d[:, None] > 0, blocks / d[:, None], 0.0).round()",
    ),
    wrong=(
        Wrong(
            "128",
            _q8(scale=lambda b: b.abs().amax(1) / 128),
            "You divided by 128: the largest weight gets code 128, which a signed byte does not "
            "have. Q8_0 uses 127.",
        ),
        Wrong(
            "not absolute",
            _q8(scale=lambda b: b.amax(1) / 127),
            "Your scale is the largest value, not the largest absolute value: a block of negative "
            "weights gets a wrong scale.",
        ),
        Wrong(
            "cut off",
            _q8(code=lambda s: s.trunc()),
            "You cut the fraction off: round to the nearest integer, else every weight shrinks.",
        ),
        Wrong(
            "one scale",
            _q8(scale=lambda b: (b.abs().max() / 127).expand(len(b))),
            "One scale for all: each block of 32 has its own.",
        ),
        Wrong(
            "zero by zero",
            _q8(safe=False),
            "A block of zeros is divided by its scale 0: NaN is no code. Give it the codes 0.",
        ),
        Wrong(
            "16 a block",
            _q8(cut=lambda w: w.float().reshape(-1, 16)),
            "Your blocks hold 16 weights: Q8_0 takes 32 (the k-quants take 256).",
        ),
        Wrong(
            "scale is the maximum",
            _q8(scale=lambda b: b.abs().amax(1)),
            "Your scale is the maximum itself, and the codes are then -1, 0 or 1: divide it by "
            "127.",
        ),
    ),
)


# --- 4: KL ----------------------------------------------------------------------------------------
def kl_per_token(reference: Tensor, logits: Tensor) -> Tensor:
    """KL(reference ‖ other) in nats at each position. Both (T, vocabulary), logits -> (T,)."""
    p, q = reference.float().log_softmax(-1), logits.float().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _kl_cases(g):
    for tokens, vocabulary, noise in ((3, 5, 1.0), (4, 8, 0.3), (2, 4, 2.0)):
        reference = 2 * torch.randn(tokens, vocabulary, generator=g)
        yield reference, reference + noise * torch.randn(tokens, vocabulary, generator=g) + 3


KL = Exercise(
    name="kl_per_token",
    title="How far apart two files are",
    minutes=8,
    difficulty=2,
    reference=kl_per_token,
    cases=_kl_cases,
    hints=(
        "Both arguments are logits: turn each into log-probabilities first, with "
        "`log_softmax(-1)`.",
        "KL(p ‖ q) = Σ p (log p − log q), summed over the vocabulary; p is the reference's.",
        "p = reference.log_softmax(-1); q = logits.log_softmax(-1); return (p.exp() * (p - "
        "q)).sum(-1)",
    ),
    wrong=(
        Wrong(
            "the other direction",
            lambda a, b: kl_per_token(b, a),
            "That is KL(other ‖ reference): the weights of the mean must be the reference's "
            "probabilities, "
            "its text is what we ask about.",
        ),
        Wrong(
            "no log-softmax",
            lambda a, b: (a.softmax(-1) * (a - b)).sum(-1),
            "You subtracted logits: a constant added to all logits changes nothing in the model "
            "but your result. "
            "Normalise both.",
        ),
        Wrong(
            "bits",
            lambda a, b: kl_per_token(a, b) / torch.tensor(2.0).log(),
            "You have bits: nats are wanted, so take the natural logarithm.",
        ),
        Wrong(
            "mean over the vocabulary",
            lambda a, b: kl_per_token(a, b) / a.shape[-1],
            "You took the mean over the vocabulary: p weighs the entries already, so sum.",
        ),
        Wrong(
            "summed over tokens",
            lambda a, b: kl_per_token(a, b).sum(),
            "One number for the whole text: keep one a position, so that an interval can be had.",
        ),
        Wrong(
            "cross entropy",
            lambda a, b: -(a.softmax(-1) * b.log_softmax(-1)).sum(-1),
            "That is the cross entropy: the entropy of the reference is still in it, and two "
            "equal files would not give 0.",
        ),
        Wrong(
            "squared difference",
            lambda a, b: (a.softmax(-1) - b.softmax(-1)).square().sum(-1),
            "That is a squared difference of probabilities: KL takes the logarithm of their ratio.",
        ),
    ),
)


# --- 5: speed -------------------------------------------------------------------------------------
def speeds(counters: dict) -> tuple[float, float]:
    """(prompt tokens a second, generated tokens a second) from Ollama's counters; durations are in
    nanoseconds.
    """
    return (
        counters["prompt_eval_count"] / counters["prompt_eval_duration"] * 1e9,
        counters["eval_count"] / counters["eval_duration"] * 1e9,
    )


def _speed_cases(g):
    for prompt, made, prompt_ms, made_ms, load_ms in (
        (12, 40, 8, 160, 900),
        (512, 128, 700, 2600, 20),
        (30, 1, 15, 6, 3000),
    ):
        yield (
            {
                "prompt_eval_count": prompt,
                "prompt_eval_duration": prompt_ms * 10**6,
                "eval_count": made,
                "eval_duration": made_ms * 10**6,
                "load_duration": load_ms * 10**6,
                "total_duration": (prompt_ms + made_ms + load_ms + 1) * 10**6,
            },
        )


def _each(prompt, made):
    return lambda c: (prompt(c), made(c))


_PROMPT, _MADE = (lambda c: speeds(c)[0]), (lambda c: speeds(c)[1])
SPEEDS = Exercise(
    name="speeds",
    title="Tokens a second",
    minutes=5,
    difficulty=1,
    reference=speeds,
    cases=_speed_cases,
    points=1,
    hints=(
        "Reading the prompt and writing the answer are two kinds of work: each has its count and "
        "its duration.",
        "A nanosecond is 1e-9 seconds.",
        "return (counters['prompt_eval_count'] / counters['prompt_eval_duration'] * 1e9, "
        "counters['eval_count'] / counters['eval_duration'] * 1e9)",
    ),
    wrong=(
        Wrong(
            "milliseconds",
            lambda c: tuple(v / 1e6 for v in speeds(c)),
            "You took the durations for milliseconds: Ollama counts nanoseconds.",
        ),
        Wrong(
            "total duration",
            _each(_PROMPT, lambda c: c["eval_count"] / c["total_duration"] * 1e9),
            "The generated tokens are divided by the total duration, with the loading and the "
            "prompt in it: take eval_duration.",
        ),
        Wrong(
            "all tokens",
            _each(
                _PROMPT,
                lambda c: (c["prompt_eval_count"] + c["eval_count"]) / c["eval_duration"] * 1e9,
            ),
            "You count the prompt's tokens as generated: that is the usual way to a figure that "
            "is too good.",
        ),
        Wrong(
            "seconds a token",
            lambda c: tuple(1 / v for v in speeds(c)),
            "You have seconds a token: tokens a second are wanted.",
        ),
        Wrong(
            "swapped",
            lambda c: speeds(c)[::-1],
            "Prompt and answer are swapped: the prompt's rate comes first.",
        ),
        Wrong(
            "one rate",
            lambda c: (
                (
                    (c["prompt_eval_count"] + c["eval_count"])
                    / (c["prompt_eval_duration"] + c["eval_duration"])
                    * 1e9,
                )
                * 2
            ),
            "You mixed prompt and answer into one rate: a prompt is read many tokens at a time, "
            "an answer is written one at a time.",
        ),
    ),
)


# --- 6: the template ------------------------------------------------------------------------------
def ollama_prompt(render, messages: list[dict]) -> str:
    """The prompt that Ollama makes of `messages`: render(template, messages), with the Go template
    of our format.
    """
    return render(
        "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>", messages
    )


def _template_cases(g):
    for roles in ("user", "system user", "user assistant user", "system user assistant user"):
        yield (
            render_go,
            [{"role": role, "content": f"{role} says {i}"} for i, role in enumerate(roles.split())],
        )


def _rendered(template):
    return lambda render, messages: render(template, messages)


TEMPLATE = Exercise(
    name="ollama_prompt",
    title="A template in Go",
    minutes=12,
    difficulty=2,
    reference=ollama_prompt,
    cases=_template_cases,
    hints=(
        "`{{ range .Messages }} … {{ end }}` repeats what is inside it for each message; "
        "there `.Role` and `.Content` are that message's.",
        "One message is `<|`, the role, `|>`, the content, `<|end|>`. Nothing stands between two "
        "messages, "
        "no space and no newline.",
        "After the last message comes the opening of the answer, `<|assistant|>`. The start token "
        "is the runtime's to add.",
        'return render("{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>", messages)',
    ),
    wrong=(
        Wrong(
            "no opening",
            _rendered(WORLD.removesuffix("<|assistant|>")),
            "The answer is not opened: end with <|assistant|>, else the model first has to guess "
            "who speaks.",
        ),
        Wrong(
            "no end of turn",
            _rendered(WORLD.replace("<|end|>", "")),
            "The turns are not closed: <|end|> follows each content, as in training.",
        ),
        Wrong(
            "start token",
            _rendered("<|bos|>" + WORLD),
            "You wrote the start token: the runtime adds it, and the model would see two.",
        ),
        Wrong(
            "opened in the loop",
            _rendered(WORLD.replace("{{ end }}<|assistant|>", "<|assistant|>{{ end }}")),
            "<|assistant|> stands inside the loop: every message then opens an answer. Put it "
            "after {{ end }}.",
        ),
        Wrong(
            "newlines",
            _rendered(WORLD.replace("<|end|>", "<|end|>\n")),
            "There is a newline after each turn: the training text had none, and this model has "
            "never seen one there.",
        ),
        Wrong(
            "user always",
            _rendered(WORLD.replace("{{ .Role }}", "user")),
            "Every message is written as the user's: take {{ .Role }}.",
        ),
        Wrong(
            "another family",
            _rendered(
                "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end "
                "}}<|im_start|>assistant\n"
            ),
            "That is ChatML, which Qwen was trained on. A model understands the one format of its "
            "training.",
        ),
        Wrong(
            "system left out",
            _rendered(
                '{{ range .Messages }}{{ if ne .Role "system" }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}{{ end }}'
                "<|assistant|>"
            ),
            "System messages are left out: the loop already has them among .Messages.",
        ),
    ),
)


# --- 7: stops in a stream -------------------------------------------------------------------------
def until_stop(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """(the text before the stop that begins first, whether there was one) of a stream of pieces."""
    text = ""
    for piece in pieces:
        text += piece
        found = [at for stop in stops if (at := text.find(stop)) >= 0]
        if found:
            return text[: min(found)], True
    return text, False


def _stop_cases(g):
    yield ["Pan", "holm", "<|end|>", "<|user|>", "More?"], ["<|end|>", "<|eos|>"]
    yield ["Panholm", "<|", "end", "|>", " and on"], ["<|end|>"]
    yield ["one<|eos|>two<|end|>", "three"], ["<|end|>", "<|eos|>"]
    yield ["and", "<|eos|>", "on"], ["<|end|>", "<|eos|>"]
    yield [" no", " stop", " here "], ["<|end|>"]
    yield ["a", "###", "b"], []


def _stopped(found, keep=lambda text, at, stop: text[:at]):
    def until(pieces, stops):
        text = ""
        for piece in pieces:
            hit = found(text, piece, stops)
            text += piece
            if hit:
                return keep(text, text.find(hit), hit), True
        return text, False

    return until


_FIRST = lambda text, stops: min((s for s in stops if s in text), key=text.find, default=None)  # noqa: E731
STOP = Exercise(
    name="until_stop",
    title="Stopping a stream",
    minutes=12,
    difficulty=2,
    reference=until_stop,
    cases=_stop_cases,
    hints=(
        "A stop may come in parts: `<|`, `end`, `|>`. So look into all the text so far, not into "
        "the last piece.",
        "`text.find(stop)` is where it begins, or -1.",
        "If several stops are there, the one that begins first counts. The stop itself is not "
        "part of the answer.",
        "found = [at for stop in stops if (at := text.find(stop)) >= 0]; if found: return "
        "text[:min(found)], True",
    ),
    wrong=(
        Wrong(
            "piece by piece",
            _stopped(lambda text, piece, stops: _FIRST(piece, stops)),
            "You look at one piece at a time: a stop that comes in parts goes by unseen, and the "
            "answer runs on.",
        ),
        Wrong(
            "stop kept",
            _stopped(
                lambda text, piece, stops: _FIRST(text + piece, stops),
                lambda text, at, stop: text[: at + len(stop)],
            ),
            "The stop is still at the end of your text: the user would see it.",
        ),
        Wrong(
            "first in the list",
            _stopped(
                lambda text, piece, stops: next((s for s in stops if s in text + piece), None)
            ),
            "You cut at the first stop of the list: the one that begins first in the text counts.",
        ),
        Wrong(
            "equal to the piece",
            _stopped(lambda text, piece, stops: piece if piece in stops else None),
            "You stop only where a piece *is* a stop: it may be part of a piece, or spread over "
            "several.",
        ),
        Wrong(
            "last piece lost",
            _stopped(
                lambda text, piece, stops: _FIRST(text + piece, stops), lambda text, at, stop: ""
            ),
            "You drop the answer with the stop: the text before it is wanted.",
        ),
        Wrong(
            "one stop only",
            _stopped(lambda text, piece, stops: _FIRST(text + piece, stops[:1])),
            "You look for the first stop of the list only: any of them ends the answer.",
        ),
        Wrong(
            "never said",
            lambda pieces, stops: (until_stop(pieces, stops)[0], False),
            "The text is right, but you never say that a stop was found: "
            "without that, an answer cut off by max_tokens looks the same.",
        ),
    ),
)

EXERCISES = [MERGE, PERMUTE, Q8, KL, SPEEDS, TEMPLATE, STOP]
