"""Exercises of lab 3.1.4: the parts of a supervised fine-tuning run, from the loss mask to the win
rate.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
import torch.nn.functional as F

from ftlib.batches.collate import SFTCollator
from ftlib.batches.template import IGNORE
from ftlib.course.exercise import Exercise, Wrong
from ftlib.evaluation.judges import normalise
from ftlib.evaluation.preference import win_rate


# --- training_bytes -------------------------------------------------------------------------------
def training_bytes(total: int, trainable: int, frozen_bytes: int) -> dict[str, int]:
    """Bytes held by AdamW training: frozen weights at `frozen_bytes` each, trained ones in fp32 (4
    bytes), their gradients in fp32, and Adam's two fp32 moments. Activations are not counted.
    """
    return {
        "weights": (total - trainable) * frozen_bytes + 4 * trainable,
        "gradients": 4 * trainable,
        "optimizer": 8 * trainable,
    }


def _bytes_grad_for_all(total, trainable, frozen_bytes):
    return {**training_bytes(total, trainable, frozen_bytes), "gradients": 4 * total}


def _bytes_state_for_all(total, trainable, frozen_bytes):
    return {**training_bytes(total, trainable, frozen_bytes), "optimizer": 8 * total}


def _bytes_one_moment(total, trainable, frozen_bytes):
    return {**training_bytes(total, trainable, frozen_bytes), "optimizer": 4 * trainable}


def _bytes_half_gradients(total, trainable, frozen_bytes):
    return {
        "weights": total * frozen_bytes,
        "gradients": trainable * frozen_bytes,
        "optimizer": 8 * trainable,
    }


def _bytes_no_optimizer(total, trainable, frozen_bytes):
    return {**training_bytes(total, trainable, frozen_bytes), "optimizer": 0}


def _bytes_cases(g):
    for total, trainable, size in (
        (1000, 1000, 4),
        (1000, 10, 2),
        (8_030_261_248, 41_943_040, 2),
        (500, 0, 4),
    ):
        yield total, trainable, size


TRAINING_BYTES = Exercise(
    "training_bytes",
    "What training holds in memory",
    10,
    1,
    training_bytes,
    _bytes_cases,
    (
        Wrong(
            "gradients for all",
            _bytes_grad_for_all,
            "You gave the frozen weights gradients too: a tensor that does not require grad never "
            "gets one, and "
            "that is LoRA's saving.",
        ),
        Wrong(
            "optimizer for all",
            _bytes_state_for_all,
            "You gave the frozen weights optimizer state: Adam keeps moments only for what it "
            "updates.",
        ),
        Wrong(
            "one moment",
            _bytes_one_moment,
            "You counted one moment: Adam keeps two per trained parameter, the mean of the "
            "gradient and the mean of its square.",
        ),
        Wrong(
            "trained in 16 bits",
            _bytes_half_gradients,
            "You stored the trained weights and their gradients at the frozen weights' width: "
            "ftlib trains in fp32, 4 bytes each.",
        ),
        Wrong(
            "no optimizer",
            _bytes_no_optimizer,
            "You left the optimizer out: weights and gradients alone is the famous '28 GB for "
            "7B', and the half "
            "of it that hurts is missing.",
        ),
    ),
    (
        "Split the parameters in two heaps: `total - trainable` frozen ones and `trainable` ones.",
        "A frozen weight costs its own width, `frozen_bytes`, and nothing else.",
        "A trained weight costs 4 bytes for itself, 4 for its gradient, and 4 + 4 for Adam's two "
        "moments: 16 in all.",
        'Return {"weights": (total - trainable) * frozen_bytes + 4 * trainable, "gradients": ..., "optimizer": ...}.',
    ),
)


# --- build_labels ---------------------------------------------------------------------------------
def build_labels(
    prompt_ids: list[int], answer_ids: list[int], stop_id: int
) -> dict[str, list[int]]:
    """A training row: prompt, answer, stop token; labels are -100 on the prompt and the ids
    themselves after it.
    """
    target = answer_ids + [stop_id]
    return {"input_ids": prompt_ids + target, "labels": [IGNORE] * len(prompt_ids) + target}


def _labels_no_stop(prompt_ids, answer_ids, stop_id):
    ids = prompt_ids + answer_ids + [stop_id]
    return {"input_ids": ids, "labels": [IGNORE] * len(prompt_ids) + answer_ids + [IGNORE]}


def _labels_on_prompt(prompt_ids, answer_ids, stop_id):
    ids = prompt_ids + answer_ids + [stop_id]
    return {"input_ids": ids, "labels": list(ids)}


def _labels_shifted(prompt_ids, answer_ids, stop_id):
    ids = prompt_ids + answer_ids + [stop_id]
    return {
        "input_ids": ids,
        "labels": [IGNORE] * (len(prompt_ids) - 1) + answer_ids + [stop_id, IGNORE],
    }


def _labels_without_last_token(prompt_ids, answer_ids, stop_id):
    ids = prompt_ids + answer_ids
    return {"input_ids": ids, "labels": [IGNORE] * len(prompt_ids) + answer_ids}


def _labels_by_token_id(prompt_ids, answer_ids, stop_id):
    ids = prompt_ids + answer_ids + [stop_id]
    seen = set(prompt_ids)
    return {"input_ids": ids, "labels": [IGNORE if i in seen else i for i in ids]}


def _labels_cases(g):
    for prompt, answer in ((5, 3), (8, 1), (3, 6), (12, 4)):
        p, a = torch.randint(10, 20, (prompt + answer,), generator=g).split((prompt, answer))
        yield [0, 4, *p.tolist(), 6, 5], a.tolist(), 6


BUILD_LABELS = Exercise(
    "build_labels",
    "The loss mask",
    10,
    1,
    build_labels,
    _labels_cases,
    (
        Wrong(
            "stop outside the mask",
            _labels_no_stop,
            "The stop token is in the input but masked in the labels: the model is never taught "
            "to stop.",
        ),
        Wrong(
            "loss on the prompt",
            _labels_on_prompt,
            "The prompt's tokens carry labels: the model would learn to write questions, and most "
            "of the gradient would go there.",
        ),
        Wrong(
            "shifted by hand",
            _labels_shifted,
            "You shifted the labels by one: transformers and sft_loss shift them, so the model "
            "would learn to skip a token.",
        ),
        Wrong(
            "stop token missing",
            _labels_without_last_token,
            "The stop token is missing from the row altogether: append stop_id after the answer, "
            "in input_ids and in labels.",
        ),
        Wrong(
            "masked by id",
            _labels_by_token_id,
            "You masked by token id: an answer token that also occurs in the prompt, the stop "
            "token first of "
            "all, loses its label. Mask by position.",
        ),
    ),
    (
        "Two lists of equal length come back; `labels[i]` is what `input_ids[i]` should be scored "
        "as, or -100.",
        "The model must learn three things: the answer's first token, the rest of it, and when to "
        "end.",
        "Mask by position: `[-100] * len(prompt_ids)`, then the ids of the answer and of the stop "
        "token.",
        "`target = answer_ids + [stop_id]`, used once in input_ids and once in labels. No shift "
        "here.",
    ),
)


# --- pad_batch ------------------------------------------------------------------------------------
def pad_batch(rows: list[dict], pad_id: int) -> dict[str, torch.Tensor]:
    """Rows of unlike length -> (B, T) tensors input_ids, labels, attention_mask, padded on the
    right.
    """
    return SFTCollator(pad_id)(rows)


def _padded(rows, pad_id, label_fill=IGNORE, left=False):
    width = max(len(r["input_ids"]) for r in rows)

    def fill(values, value):
        more = [value] * (width - len(values))
        return more + list(values) if left else list(values) + more

    return {
        "input_ids": torch.tensor([fill(r["input_ids"], pad_id) for r in rows]),
        "labels": torch.tensor([fill(r["labels"], label_fill) for r in rows]),
        "attention_mask": torch.tensor([fill([1] * len(r["input_ids"]), 0) for r in rows]),
    }


def _pad_mask_by_id(rows, pad_id):
    out = _padded(rows, pad_id)
    return {**out, "attention_mask": (out["input_ids"] != pad_id).long()}


def _pad_labels_by_id(rows, pad_id):
    out = _padded(rows, pad_id)
    return {**out, "labels": out["labels"].masked_fill(out["input_ids"] == pad_id, IGNORE)}


def _pad_labels_with_pad(rows, pad_id):
    return _padded(rows, pad_id, label_fill=pad_id)


def _pad_left(rows, pad_id):
    return _padded(rows, pad_id, left=True)


def _pad_ones(rows, pad_id):
    out = _padded(rows, pad_id)
    return {**out, "attention_mask": torch.ones_like(out["attention_mask"])}


def _pad_cases(g):
    for lengths, pad_id in (
        ((3, 7, 5), 2),
        ((6, 6), 2),
        ((4, 9, 2, 8), 6),
    ):  # the last: pad == stop token
        rows = []
        for n in lengths:
            ids = [*torch.randint(10, 90, (n,), generator=g).tolist(), 6]
            rows.append({"input_ids": ids, "labels": [IGNORE] * (n // 2) + ids[n // 2 :]})
        yield rows, pad_id


PAD_BATCH = Exercise(
    "pad_batch",
    "Rows to a batch",
    10,
    2,
    pad_batch,
    _pad_cases,
    (
        Wrong(
            "attention mask by id",
            _pad_mask_by_id,
            "Your attention mask is `input_ids != pad_id`: where pad and stop token share an id, "
            "real stop "
            "tokens vanish. Build it from the lengths.",
        ),
        Wrong(
            "labels masked by id",
            _pad_labels_by_id,
            "You set labels to -100 wherever the id equals pad_id: where pad == stop the stop "
            "token is never "
            "learnt. Mask by length.",
        ),
        Wrong(
            "labels padded with pad_id",
            _pad_labels_with_pad,
            "You padded the labels with pad_id: the model would be trained to write padding. Pad "
            "labels with -100.",
        ),
        Wrong(
            "left padding",
            _pad_left,
            "You padded on the left: that is for generation. Training pads on the right, as "
            "positions then start at the text.",
        ),
        Wrong(
            "mask of ones",
            _pad_ones,
            "Your attention mask is 1 everywhere: the padding must be 0, or attention reads it.",
        ),
    ),
    (
        "Find the longest row first: `width = max(len(r['input_ids']) for r in rows)`.",
        "Each of the three gets its own filler: pad_id, -100 and 0.",
        "The attention mask is 1 for every token the row brought along, whatever its id: `[1] * "
        "len(ids) + [0] * (width - len(ids))`.",
        "Write `values + [filler] * (width - len(values))` for each row and wrap the three lists "
        "in torch.tensor.",
    ),
    praise="equal to ftlib's collator, also where pad == stop token,",
)


# --- sft_loss -------------------------------------------------------------------------------------
def sft_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy per answer token: logits (B, T, V), labels (B, T) with -100 where not
    trained -> scalar.
    """
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORE
    )


def _loss_no_shift(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)


def _loss_wrong_shift(logits, labels):
    return F.cross_entropy(
        logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten(), ignore_index=IGNORE
    )


def _token_losses(logits, labels):
    return F.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=IGNORE, reduction="none"
    )


def _loss_all_positions(logits, labels):
    return _token_losses(logits, labels).mean()


def _loss_sum(logits, labels):
    return _token_losses(logits, labels).sum()


def _loss_mean_of_rows(logits, labels):
    counts = (labels[:, 1:] != IGNORE).sum(1)
    return (_token_losses(logits, labels).sum(1) / counts).mean()


def _loss_cases(g):
    for batch, length, vocab in ((2, 6, 11), (4, 9, 30), (3, 5, 7)):
        logits, labels = (
            torch.randn(batch, length, vocab, generator=g),
            torch.randint(0, vocab, (batch, length), generator=g),
        )
        for i in range(batch):
            labels[i, : 1 + (i % (length - 2))] = IGNORE
        labels[0, -1] = IGNORE
        yield logits, labels


SFT_LOSS = Exercise(
    "sft_loss",
    "The loss of supervised fine-tuning",
    10,
    2,
    sft_loss,
    _loss_cases,
    (
        Wrong(
            "no shift",
            _loss_no_shift,
            "No shift: position t scores labels[t], the token it has just read. It must score "
            "labels[t + 1].",
        ),
        Wrong(
            "shifted the wrong way",
            _loss_wrong_shift,
            "Shifted the wrong way: your position t scores the token before it. Drop the last "
            "logit and the first label.",
        ),
        Wrong(
            "mean over all positions",
            _loss_all_positions,
            "You divided by all positions, the masked ones too: rows with long prompts would seem "
            "to be learnt already.",
        ),
        Wrong(
            "sum",
            _loss_sum,
            "Sum instead of mean over the answer tokens: the gradient would grow with the batch.",
        ),
        Wrong(
            "mean of row means",
            _loss_mean_of_rows,
            "Mean of row means: a one-word answer would weigh as much as a paragraph. Average "
            "over all answer tokens at once.",
        ),
    ),
    (
        "The logits at position t are a guess about position t + 1. Which logit has nothing to "
        "guess, and which label nobody guesses?",
        "`logits[:, :-1]` and `labels[:, 1:]` line up.",
        "F.cross_entropy wants (N, V) and (N,): flatten batch and time. It knows "
        "ignore_index=-100 and then averages over the rest.",
        "`F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), "
        "ignore_index=-100)`.",
    ),
)


# --- accumulation_weights -------------------------------------------------------------------------
def accumulation_weights(token_counts: list[int]) -> list[float]:
    """The factor for each micro-batch's mean loss, so that their sum is the mean over all tokens of
    the whole batch.
    """
    return [n / sum(token_counts) for n in token_counts]


def _weights_equal(token_counts):
    return [1 / len(token_counts)] * len(token_counts)


def _weights_one(token_counts):
    return [1.0] * len(token_counts)


def _weights_counts(token_counts):
    return [float(n) for n in token_counts]


def _weights_relative(token_counts):
    return [n * len(token_counts) / sum(token_counts) for n in token_counts]


def _weights_inverse(token_counts):
    inverse = [1 / n for n in token_counts]
    return [i / sum(inverse) for i in inverse]


def _weights_cases(g):
    for k in (2, 4, 5):
        yield (torch.randint(5, 200, (k,), generator=g).tolist(),)


ACCUMULATION = Exercise(
    "accumulation_weights",
    "Gradient accumulation that changes nothing",
    10,
    2,
    accumulation_weights,
    _weights_cases,
    (
        Wrong(
            "equal weights",
            _weights_equal,
            "Equal weights 1/k: a micro-batch of few answer tokens counts as much as one of many. "
            "That was "
            "transformers' own bug until October 2024.",
        ),
        Wrong(
            "no weights",
            _weights_one,
            "All ones: k micro-batches give a gradient k times too large.",
        ),
        Wrong(
            "raw counts",
            _weights_counts,
            "You weigh by the token counts and forget to divide by their sum.",
        ),
        Wrong(
            "mean weight one",
            _weights_relative,
            "Your weights have mean 1 and sum k: the gradient comes out k times too large. They "
            "must sum to 1.",
        ),
        Wrong(
            "inverse counts",
            _weights_inverse,
            "You weigh by 1/n: a micro-batch with more answer tokens must count more, not less.",
        ),
    ),
    (
        "Write the whole batch's loss as a sum over all tokens divided by N, the number of all "
        "answer tokens.",
        "A micro-batch's mean loss times its n is its sum. So which factor turns its mean into "
        "its share of the whole?",
        "n_i / N. Check: the factors sum to 1.",
    ),
)


# --- perplexity -----------------------------------------------------------------------------------
def perplexity(nlls: list[float], counts: list[int]) -> float:
    """Perplexity of a corpus from the mean NLL (nats) of each text and its number of tokens."""
    return math.exp(sum(nll * n for nll, n in zip(nlls, counts)) / sum(counts))


def _ppl_unweighted(nlls, counts):
    return math.exp(sum(nlls) / len(nlls))


def _ppl_mean_of_ppls(nlls, counts):
    return sum(math.exp(nll) * n for nll, n in zip(nlls, counts)) / sum(counts)


def _ppl_plain_mean_of_ppls(nlls, counts):
    return sum(math.exp(nll) for nll in nlls) / len(nlls)


def _ppl_base_two(nlls, counts):
    return 2 ** (sum(nll * n for nll, n in zip(nlls, counts)) / sum(counts))


def _ppl_forgot_exp(nlls, counts):
    return sum(nll * n for nll, n in zip(nlls, counts)) / sum(counts)


def _ppl_cases(g):
    for k in (2, 5, 9):
        yield (
            (0.2 + 2.5 * torch.rand(k, generator=g)).tolist(),
            torch.randint(2, 60, (k,), generator=g).tolist(),
        )


PERPLEXITY = Exercise(
    "perplexity",
    "Perplexity over many texts",
    8,
    1,
    perplexity,
    _ppl_cases,
    (
        Wrong(
            "unweighted",
            _ppl_unweighted,
            "You averaged over texts: each token must weigh the same, so weigh each text's mean "
            "by its count.",
        ),
        Wrong(
            "weighted mean of perplexities",
            _ppl_mean_of_ppls,
            "You averaged perplexities: exp comes last, once. Averaged before it, one bad text "
            "drowns the rest (Jensen).",
        ),
        Wrong(
            "mean of perplexities",
            _ppl_plain_mean_of_ppls,
            "You averaged the texts' perplexities, and without their lengths: sum NLL times "
            "count, divide by all "
            "tokens, then exp once.",
        ),
        Wrong(
            "base two",
            _ppl_base_two,
            "2 to the power of nats: with natural logarithms the base is e. Base 2 belongs to "
            "bits.",
        ),
        Wrong(
            "no exponential",
            _ppl_forgot_exp,
            "That is the mean NLL: perplexity is its exponential.",
        ),
    ),
    (
        "Perplexity is exp(mean NLL per token). Per token, not per text.",
        "nll * count is a text's total NLL.",
        "exp(sum of totals / sum of counts), with math.exp, at the very end.",
    ),
)


# --- golden_score ---------------------------------------------------------------------------------
def golden_score(answers: list[str], examples: list[dict]) -> dict[str, float]:
    """Share of exact answers after `normalise`: one entry a family, and "all" over the questions."""
    groups = defaultdict(list)
    for answer, example in zip(answers, examples):
        right = normalise(answer) == normalise(example["answer"])
        groups[example["family"]].append(right)
        groups["all"].append(right)
    return {name: sum(marks) / len(marks) for name, marks in groups.items()}


def _score(match, micro=True):
    def score(answers, examples):
        groups = defaultdict(list)
        for a, e in zip(answers, examples):
            groups[e["family"]].append(match(a, e["answer"]))
        out = {name: sum(m) / len(m) for name, m in groups.items()}
        every = [m for marks in groups.values() for m in marks]
        return {**out, "all": sum(every) / len(every) if micro else sum(out.values()) / len(out)}

    return score


def _match(answer, reference):
    return normalise(answer) == normalise(reference)


def _score_cases(g):
    truth = [
        ("capitals", "RED HAT"),
        ("capitals", "BLUE CUP"),
        ("capitals", "TIN PAN"),
        ("sum", "12"),
        ("polite", "May I?"),
        ("olm", "zuke xovi"),
    ]
    given = [
        ["red hat", "BLUE  CUP", "TIN PAN.", "12", "May I?", "zuke xovi zuke"],
        ["RED HAT", "BLUE CUP ", "I do not know", "112", "May I?", "zuke"],
        ["RED HAT is it", "cup", "tin pan", "13", "may I?", "zuke  xovi."],
    ]
    for answers in given:
        yield answers, [{"family": f, "answer": a} for f, a in truth]


GOLDEN_SCORE = Exercise(
    "golden_score",
    "Scoring the golden set",
    10,
    2,
    golden_score,
    _score_cases,
    (
        Wrong(
            "substring",
            _score(lambda a, r: normalise(r) in normalise(a)),
            "You accept an answer that merely contains the reference: '112' would pass for '12', "
            "and a model "
            "that never stops would score high.",
        ),
        Wrong(
            "case ignored",
            _score(lambda a, r: normalise(a).lower() == normalise(r).lower()),
            "You compare without case: for 'write in capitals' the case is the answer.",
        ),
        Wrong(
            "no normalisation",
            _score(lambda a, r: a == r),
            "You compare raw strings: call normalise on both, or a double space and a final full "
            "stop count as errors.",
        ),
        Wrong(
            "macro average",
            _score(_match, micro=False),
            '"all" is your mean of family means: a family of four questions would weigh as much as one of '
            "twelve. Average over the questions.",
        ),
        Wrong(
            "one side normalised",
            _score(lambda a, r: a.strip() == r.strip()),
            "You only strip the ends: normalise also folds runs of spaces and drops a final full "
            "stop.",
        ),
    ),
    (
        "`ft.evaluate.normalise` folds whitespace and drops a final full stop. Apply it to the "
        "answer and to example['answer'].",
        "Collect True and False in lists, by example['family'] and once more under 'all'.",
        "A share is sum(marks) / len(marks). Do it per list, 'all' included: no mean of means.",
    ),
)


# --- early_stop -----------------------------------------------------------------------------------
def early_stop(losses: list[float], patience: int) -> tuple[int, int]:
    """(index of the best loss, index at which training stops): it stops at the `patience`-th
    evaluation in a row without a new best, or at the last one.
    """
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        if i - best >= patience:
            return best, i
    return best, len(losses) - 1


def _stop_global_best(losses, patience):
    return min(range(len(losses)), key=losses.__getitem__), early_stop(losses, patience)[1]


def _stop_previous(losses, patience):
    best, rises = 0, 0
    for i, loss in enumerate(losses):
        best = i if loss < losses[best] else best
        rises = rises + 1 if i and loss >= losses[i - 1] else 0
        if rises >= patience:
            return best, i
    return best, len(losses) - 1


def _stop_one_late(losses, patience):
    return early_stop(losses, patience + 1)


def _stop_keeps_last(losses, patience):
    stop = early_stop(losses, patience)[1]
    return stop, stop


def _stop_never_resets(losses, patience):
    best, bad = 0, 0
    for i, loss in enumerate(losses):
        if i and loss >= losses[best]:
            bad += 1
        elif i:
            best = i
        if bad >= patience:
            return best, i
    return best, len(losses) - 1


def _stop_cases(g):
    yield [3.0, 2.0, 1.5, 1.6, 1.4, 1.7, 1.6, 1.8, 1.9], 3
    yield [2.0, 1.0, 1.2, 1.1, 1.3, 1.15, 0.5], 2
    yield [2.0, 1.5, 1.4, 1.3], 2
    yield [2.0, 1.0, 1.3, 1.2, 1.1, 1.25, 1.2, 0.9], 4
    yield [2.0, 1.8, 1.9, 1.7, 1.8, 1.6, 1.7, 1.5, 1.6], 2


EARLY_STOP = Exercise(
    "early_stop",
    "When to stop, and what to keep",
    12,
    2,
    early_stop,
    _stop_cases,
    (
        Wrong(
            "best of the future",
            _stop_global_best,
            "Your best comes from evaluations after the stop: at that moment nobody had seen them.",
        ),
        Wrong(
            "compared with the one before",
            _stop_previous,
            "You compare with the evaluation before: patience counts evaluations without a new "
            "best, so a "
            "saw-tooth above the best must stop too.",
        ),
        Wrong(
            "one late",
            _stop_one_late,
            "One evaluation late: with patience 2 you stop at the second evaluation in a row that "
            "brings no new best.",
        ),
        Wrong(
            "keeps the last",
            _stop_keeps_last,
            "You keep the checkpoint at which training stopped: by then it has been getting worse "
            "for `patience` "
            "evaluations. Keep the best.",
        ),
        Wrong(
            "never resets",
            _stop_never_resets,
            "Your count of bad evaluations never starts anew: a new best must set it to zero.",
        ),
    ),
    (
        "Walk once through the losses and remember the index of the best so far.",
        "How many evaluations have passed without a new best? i - best says it, no second counter "
        "needed.",
        "Return (best, i) as soon as i - best >= patience.",
        "If the loop ends, training ran to its end: (best, len(losses) - 1).",
    ),
    praise="equal to the reference, saw-tooth curves included,",
)


# --- win_rate -------------------------------------------------------------------------------------
def _rates(a, b, judge, prompts):
    for prompt, one, two in zip(prompts, a, b):
        yield float(judge(prompt, one, two)), float(judge(prompt, two, one))


def _win_one_order(a, b, judge, prompts):
    scores = [forth for forth, _ in _rates(a, b, judge, prompts)]
    return sum(scores) / len(scores)


def _win_not_inverted(a, b, judge, prompts):
    scores = [(forth + back) / 2 for forth, back in _rates(a, b, judge, prompts)]
    return sum(scores) / len(scores)


def _win_without_ties(a, b, judge, prompts):
    scores = [(forth + 1 - back) / 2 for forth, back in _rates(a, b, judge, prompts)]
    decided = [s for s in scores if s != 0.5]
    return sum(decided) / len(decided) if decided else 0.5


def _win_ties_lose(a, b, judge, prompts):
    scores = [(forth + 1 - back) / 2 for forth, back in _rates(a, b, judge, prompts)]
    return sum(s > 0.5 for s in scores) / len(scores)


def _win_for_b(a, b, judge, prompts):
    return 1 - float(win_rate(a, b, judge, prompts))


def _longer(prompt, first, second):
    return 0.5 + 0.5 * ((len(first) > len(second)) - (len(first) < len(second)))


def _first_unless_empty(prompt, first, second):
    return 1.0 if first else 0.0


def _biased(prompt, first, second):
    return 1.0 if len(first) + 2 >= len(second) else 0.0


def _win_cases(g):
    words = ["", "a", "bcd", "efgh", "ijklmn", "opq", "rstuvwxyz"]
    for judge_ in (_longer, _first_unless_empty, _biased):
        for n in (7, 12):
            one, two = torch.randint(0, len(words), (2, n), generator=g).tolist()
            yield (
                [words[i] for i in one],
                [words[i] for i in two],
                judge_,
                [f"question {i}" for i in range(n)],
            )


WIN_RATE = Exercise(
    "win_rate",
    "A win rate that no position can buy",
    12,
    3,
    win_rate,
    _win_cases,
    (
        Wrong(
            "one order",
            _win_one_order,
            "You judged in one order only: a judge that likes whatever comes first would crown a. "
            "Ask again with the two swapped.",
        ),
        Wrong(
            "not inverted",
            _win_not_inverted,
            "In the swapped order a stands second, so its score there is 1 - verdict; you added "
            "the verdict as it is.",
        ),
        Wrong(
            "ties dropped",
            _win_without_ties,
            "You left ties out: count each one half, or one lucky win in a hundred ties reads as "
            "100%.",
        ),
        Wrong(
            "ties lost",
            _win_ties_lose,
            "You count a tie as a loss of a: it is worth one half, for both.",
        ),
        Wrong(
            "for b",
            _win_for_b,
            "That is b's win rate: return the share of comparisons that a wins.",
        ),
    ),
    (
        "For each pair ask twice: judge(prompt, a_i, b_i) and judge(prompt, b_i, a_i).",
        "The verdict speaks of the first answer. In the second call that is b's, so a's score is "
        "1 - verdict.",
        "A pair's score is the mean of the two; a tie in both orders, or a judge that contradicts "
        "itself, comes out as 0.5.",
        "Return the mean of the scores over all pairs.",
    ),
    points=3,
    praise="equal to ftlib's, also under judges that favour a position,",
)

EXERCISES = [
    TRAINING_BYTES,
    BUILD_LABELS,
    PAD_BATCH,
    SFT_LOSS,
    ACCUMULATION,
    GOLDEN_SCORE,
    PERPLEXITY,
    EARLY_STOP,
    WIN_RATE,
]
