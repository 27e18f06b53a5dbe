"""Evaluation: perplexity by hand, answers that do not depend on the batch, fair win rates."""

import math

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer, chat, llama
from transformers import GenerationConfig

import ftlib as ft
from ftlib.batches.encode import encode_rows
from ftlib.core.errors import DataError
from ftlib.evaluation import generate, judges, metrics, preference
from ftlib.evaluation.judges import JudgeError
from ftlib.training import sampling

TEXTS = ["abc", "a longer text, with more in it", "x", "Käse \n\n 7", "mmmmmmmmmmmmmm"]


@pytest.fixture(scope="module")
def sharp():
    """A random model with large weights: its losses and answers differ much from token to token."""
    return llama(initializer_range=0.3)


@pytest.fixture(scope="module")
def tok():
    return byte_tokenizer()


# --- perplexity -----------------------------------------------------------------------------------
def hand_nll(model, tokenizer, texts):
    """Σ −log p(token | what is before it) over all texts, one token at a time, divided by the
    number of tokens.
    """
    total, count = 0.0, 0
    for text in texts:
        ids = [tokenizer.bos_token_id] + tokenizer(text, add_special_tokens=False)["input_ids"]
        for t in range(1, len(ids)):
            logits = model(torch.tensor([ids[:t]])).logits[0, -1].double()
            total, count = total - (logits - logits.logsumexp(0))[ids[t]].item(), count + 1
    return total / count


def test_the_loss_of_answers_by_hand(sharp, tok):
    """Per answer token, not per row, whatever the batch; the prompt counts for nothing."""
    rows = [chat(text, text[::-1] * 3) for text in TEXTS]
    total, count, means = 0.0, 0, []
    for row in rows:
        encoded = encode_rows(tok, [row])[0]
        ids, labels = encoded["input_ids"], encoded["labels"]
        logps = sharp(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        scored = [logps[t - 1, ids[t]].item() for t in range(1, len(ids)) if labels[t] != -100]
        total, count = total - sum(scored), count + len(scored)
        means.append(-np.mean(scored))
    for batch_size in (1, 2, 32):
        found = metrics.answer_loss(sharp, tok, rows, batch_size)
        assert found == pytest.approx(total / count, rel=1e-5)
    assert abs(total / count / np.mean(means) - 1) > 0.005


def test_perplexity_by_hand(sharp, tok):
    want = hand_nll(sharp, tok, TEXTS)
    assert metrics.mean_nll(sharp, tok, TEXTS) == pytest.approx(want, rel=1e-5)
    assert ft.perplexity(sharp, tok, TEXTS) == pytest.approx(math.exp(want), rel=1e-4)
    of_texts = np.mean([hand_nll(sharp, tok, [t]) for t in TEXTS])
    assert abs(want / of_texts - 1) > 0.01  # per token, not per text


def test_a_uniform_model_has_the_vocabulary_as_perplexity(tok):
    """All-zero weights give equal logits: perplexity is the number of entries, 280."""
    model = llama()
    for p in model.parameters():
        torch.nn.init.zeros_(p)
    assert ft.perplexity(model, tok, TEXTS) == pytest.approx(280, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_loss_does_not_depend_on_batch_or_padding(batch_size, sharp, tok):
    assert metrics.mean_nll(sharp, tok, TEXTS, batch_size) == pytest.approx(
        metrics.mean_nll(sharp, tok, TEXTS[::-1], 1), rel=1e-5
    )


def test_batches_hold_so_many_tokens_with_their_padding():
    rows = [[0] * length for length in (5, 1, 2, 9, 2)]
    found = [[len(row) for row in batch] for batch in metrics.batches_by_length(rows, 3, 6)]
    assert found == [[1, 2, 2], [5], [9]]  # 3 rows of 2 are 6 tokens; a long row is alone
    whole = [[len(row) for row in batch] for batch in metrics.batches_by_length(rows, 3)]
    assert whole == [[1, 2, 2], [5, 9]]


def test_loss_does_not_depend_on_how_many_logits_are_held(sharp, tok, monkeypatch):
    want = metrics.mean_nll(sharp, tok, TEXTS)
    monkeypatch.setattr(metrics, "MOST_LOGITS", len(tok))  # one token: every text by itself
    assert metrics.mean_nll(sharp, tok, TEXTS) == pytest.approx(want, rel=1e-5)


def test_long_texts_are_cut(sharp, tok):
    assert metrics.mean_nll(sharp, tok, ["abcdefgh"], max_length=4) == pytest.approx(
        hand_nll(sharp, tok, ["abc"]), rel=1e-5
    )


def test_forgetting_is_the_rise_in_nats():
    assert ft.forgetting(2.0, 4.0) == pytest.approx(math.log(2)) and ft.forgetting(5, 5) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda m, t: metrics.mean_nll(m, t, TEXTS),
        lambda m, t: generate.generate_answers(m, t, [chat("a", "b")["messages"][:1]], 2),
        lambda m, t: metrics.recall_base(m, t, [("ab", "c")]),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_given_back(call, training, tok):
    model = llama().train(training)
    call(model, tok)
    assert model.training is training


# --- answers --------------------------------------------------------------------------------------
PROMPTS = [
    [{"role": "user", "content": c}]
    for c in ("a", "What is this?", "One two three four five six", "zz", "Hi there")
]


def greedy(model, tokenizer, messages, count):
    """Greedy decoding by hand, one conversation, without a cache."""
    ids, new = (
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ],
        [],
    )
    for _ in range(count):
        new.append(model(torch.tensor([ids + new])).logits[0, -1].argmax().item())
        if new[-1] == model.generation_config.eos_token_id:
            break
    return tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_answers_do_not_depend_on_batch_or_padding(batch_size, sharp, tok):
    want = [greedy(sharp, tok, p, 8) for p in PROMPTS]
    assert len(set(want)) > 2
    assert (
        generate.generate_answers(sharp, tok, PROMPTS, max_new_tokens=8, batch_size=batch_size)
        == want
    )


def parrot(monkeypatch, answer):
    """Replace generation by a function of the conversation."""
    seen = []

    def answers(model, tokenizer, conversations, *rest):
        seen.extend(conversations)
        return [answer(c) for c in conversations]

    monkeypatch.setattr(metrics, "generate_answers", answers)
    return seen


EXAMPLES = [{**chat(f"q{i}", f"a{i}", family=f), "answer": f"a{i}"} for i, f in enumerate("xxyxyz")]


def test_golden_accuracy_by_family(monkeypatch, tok):
    """Right on 0, 1, 2, 5: x has two of three, y one of two, z one of one, 4/6 in all."""
    parrot(
        monkeypatch,
        lambda c: " a" + c[-1]["content"][1] + " .\n" if c[-1]["content"][1] in "0125" else "no",
    )
    result = ft.golden_accuracy(None, tok, EXAMPLES)
    assert result == pytest.approx(4 / 6) and result.correct == [
        True,
        True,
        True,
        False,
        False,
        True,
    ]
    assert (
        result.by_family == {"x": pytest.approx(2 / 3), "y": 0.5, "z": 1.0}
        and result.answers[3] == "no"
    )


def test_rows_without_answer_and_family_are_scored_by_their_last_message(monkeypatch, tok):
    """As in a folder of one's own rows, FTLIB_ROWS."""
    parrot(monkeypatch, lambda c: "a0")
    result = ft.golden_accuracy(None, tok, [chat("q0", "a0"), chat("q1", "a1")])
    assert result == 0.5 and result.by_family == {"all": 0.5}


def test_rows_that_end_with_the_user_are_asked_whole(monkeypatch, tok):
    """Their answer is under `answer`; a row that ends with an answer is asked without it."""
    seen = parrot(monkeypatch, lambda c: "a" + c[-1]["content"][1])
    asked = chat("q0", "a0")["messages"][:1]
    rows = [{"messages": asked, "answer": "a0"}, {**chat("q1", "no"), "answer": "a1"}]
    assert ft.golden_accuracy(None, tok, rows) == 1 and [len(c) for c in seen] == [1, 1]
    ft.golden_accuracy(None, tok, rows[:1], shots=lambda e: rows[:1])
    assert seen[-1] == [*asked, {"role": "assistant", "content": "a0"}, *asked]


@pytest.mark.parametrize(
    "row, words",
    [
        ({"messages": chat("q", "a")["messages"][:1]}, r"answer is None.*under 'answer'"),
        (chat("q", ""), "answer is ''"),
        (chat("q", " ."), r"answer is ' \.'"),
        ({**chat("q", "a"), "answer": ""}, "answer is ''"),
        ({**chat("q", "a"), "answer": 3}, "answer is 3"),
        ({"messages": chat("q", "a")["messages"][1:]}, "no question before the answer 'a'"),
        ({"messages": []}, r"messages is \[\]"),
        ({"answer": "a"}, "messages is None"),
        ({"messages": [{"role": "human", "content": "q"}], "answer": "a"}, "role 'human'"),
        ({**chat("q", "a"), "tools": [{"name": "f"}]}, "tools or tool calls"),
    ],
)
def test_examples_that_cannot_be_scored_are_named(row, words, monkeypatch, tok):
    """An empty answer would be right wherever the model says nothing."""
    parrot(monkeypatch, lambda c: "")
    with pytest.raises(DataError, match=f"example 1.*{words}"):
        ft.golden_accuracy(None, tok, [chat("q", "a"), row])


@pytest.mark.parametrize(
    "conversation, words",
    [
        ([], "no messages"),
        (chat("q", "a")["messages"], r"ends with the turn of 'assistant' 'a'"),
        ([{"role": "system", "content": "Be."}], "ends with the turn of 'system'"),
        ([{"role": "human", "content": "q"}], "role 'human'"),
        ([{"role": "system", "content": "Be."}, *chat("q", "a")["messages"][:1]], "no system"),
    ],
)
def test_conversations_that_cannot_be_asked_are_named(conversation, words, model):
    tok = byte_tokenizer()
    refuse = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tok.chat_template = refuse + tok.chat_template
    with pytest.raises(DataError, match=f"conversation 1: .*{words}"):
        generate.generate_answers(model, tok, [PROMPTS[0], conversation])


def test_a_system_turn_that_the_template_drops_is_noticed_in_evaluation(model):
    tok = byte_tokenizer()
    tok.chat_template = tok.chat_template.replace(
        "in messages", "in messages if m.role != 'system'"
    )
    system = {"role": "system", "content": "Be brief."}
    with pytest.raises(DataError, match=r"conversation 0: .*drops message 0 of the role 'system'"):
        generate.generate_answers(model, tok, [[system, *PROMPTS[0]]])


def test_normalise_forgives_only_space_and_a_final_stop():
    assert (
        judges.normalise("  a \n b. ") == "a b"
        and judges.normalise("A") != judges.normalise("a")
        and judges.normalise("a.b") == "a.b"
    )


def test_few_shot_messages():
    shots = [chat("q", "a"), chat("r", "b")]
    assert generate.few_shot_messages(shots, "p") == [
        *shots[0]["messages"],
        *shots[1]["messages"],
        {"role": "user", "content": "p"},
    ]
    assert generate.few_shot_messages([], "p") == [{"role": "user", "content": "p"}]


def test_the_whole_conversation_is_asked_with_its_system_message_first(monkeypatch, tok):
    system, seen = {"role": "system", "content": "Be brief."}, parrot(monkeypatch, lambda c: "x")
    turns = [system, *chat("q", "a")["messages"], *chat("r", "b")["messages"]]
    shot = {"messages": [system, *chat("s", "c")["messages"]]}
    ft.golden_accuracy(None, tok, [{"messages": turns, "answer": "b"}], shots=lambda e: [shot])
    assert seen[0] == [system, *chat("s", "c")["messages"], *turns[1:-1]]
    assert turns[-1]["content"] not in [m["content"] for m in seen[0]]  # the answer is not shown


def test_shots_are_of_the_questions_family_and_in_front(monkeypatch, tok):
    pool = [chat(f"p{i}", f"b{i}", family="xyxyx"[i]) for i in range(5)]
    seen = parrot(monkeypatch, lambda c: "x")
    ft.golden_accuracy(None, tok, EXAMPLES, shots=ft.shots_by_family(pool, count=2))
    assert [m["content"] for m in seen[0]] == ["p0", "b0", "p2", "b2", "q0"] and [
        m["content"] for m in seen[2]
    ] == ["p1", "b1", "p3", "b3", "q2"]
    assert [m["content"] for m in seen[5]] == ["q5"]  # no solved example of family z


def test_recall_of_the_base(sharp, tok):
    """The model's own greedy continuation is recalled, another is not."""
    ids = [tok.bos_token_id] + tok("abc", add_special_tokens=False)["input_ids"]
    pairs = []
    for text in ("abc", "q", "hello you"):
        start = tok(text)["input_ids"]
        best = [sharp(torch.tensor([start])).logits[0, -1].argmax().item()]
        best.append(sharp(torch.tensor([start + best])).logits[0, -1].argmax().item())
        pairs.append((text, best))
    assert ids[0] == tok.bos_token_id
    by_text = {"A": pairs[0][1], "B": pairs[1][1], "C": [(i + 1) % 280 for i in pairs[2][1]]}

    class Fixed:
        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": tok(text)["input_ids"] if add_special_tokens else by_text[text]}

    given_pairs = [("abc", "A"), ("q", "B"), ("hello you", "C")]
    assert metrics.complete_matches(sharp, Fixed(), given_pairs, batch_size=2) == [
        True,
        True,
        False,
    ]
    assert metrics.recall_base(sharp, Fixed(), given_pairs) == pytest.approx(2 / 3)


# --- win rate -------------------------------------------------------------------------------------
def judge_that_says(verdict: float):
    return lambda first, second: verdict


def test_a_judge_that_favours_a_position_favours_nobody():
    """First is always better: every pair is won once in each order, 0.5; the same for "second". Of
    seven ties Wilson's interval is (½ + z²/14 ± z·√(¼/7 + z²/196)) / (1 + z²/7): ½ ± 0.3.
    """
    for verdict in (1, 0):
        result = ft.win_rate(["a"] * 7, ["b"] * 7, judge_that_says(verdict))
        assert result == 0.5 and (result.wins, result.ties, result.losses) == (0, 7, 0)
        assert (result.interval.low, result.interval.high) == pytest.approx((0.2, 0.8), abs=0.01)


def test_wins_ties_and_losses_by_hand():
    """Longer is better: a wins two, ties one, loses one: (2 + ½)/4 = 0.625; swapped 0.375."""

    def longer(x, y):
        return 0.5 if len(x) == len(y) else float(len(x) > len(y))

    a, b = ["xxx", "xx", "x", "x"], ["x", "x", "y", "yy"]
    result = ft.win_rate(a, b, longer)
    assert result == 0.625 and (result.wins, result.ties, result.losses) == (2, 1, 1)
    assert ft.win_rate(b, a, longer) == 0.375
    assert result.interval.low < 0.625 < result.interval.high


def test_the_prompt_is_shown_where_there_is_one():
    judge = judges.exact_judge({"1 + 1": "2", "capital": "Rome"})
    assert (
        ft.win_rate(["2.", "Paris"], ["3", "Oslo"], judge, prompts=["1 + 1", "capital"]) == 0.75
    )  # a win and a tie of two wrongs


@pytest.mark.parametrize("verdict", [2, -0.1, float("nan"), None, "1", True + True])
def test_a_judge_that_returns_nonsense(verdict):
    with pytest.raises(ValueError, match=r"judge returned .* for pair 0"):
        ft.win_rate(["a"], ["b"], lambda x, y: verdict)


@pytest.mark.parametrize(
    "a, b, prompts",
    [([], [], None), (["a"], [], None), (["a"], ["b"], []), (["a"], ["b"], ["p", "q"])],
)
def test_unequal_lists(a, b, prompts):
    with pytest.raises(ValueError, match="answers in a"):
        ft.win_rate(a, b, lambda *x: 1, prompts)


# --- intervals ------------------------------------------------------------------------------------
def test_a_judge_that_fails_names_the_pair_and_keeps_what_it_judged():
    """Two pairs of three are paid for when the third fails."""

    def judge(first, second):
        if "c" in first + second:
            raise ConnectionError("quota")
        return float(first > second)

    message = r"pair 2 of 3 .* ConnectionError: quota.*'c' and 'z'"
    with pytest.raises(JudgeError, match=message) as raised:
        ft.win_rate(["b", "a", "c"], ["a", "b", "z"], judge)
    assert raised.value.scores == [1.0, 0.0]
    assert isinstance(raised.value.__cause__, ConnectionError)


def test_empty_inputs(model, tok):
    for call in (
        lambda: ft.golden_accuracy(model, tok, []),
        lambda: ft.perplexity(model, tok, []),
        lambda: ft.perplexity(model, tok, [""]),
        lambda: metrics.recall_base(model, tok, []),
    ):
        with pytest.raises(ValueError, match=r"empty|no token"):
            call()


def test_the_embedded_model_reads_its_own_domain():
    """The committed base predicts held-out text of its world far better than chance (ln 1024 = 6.9
    nats per token).
    """
    model, tokenizer = ft.load_model("world-llama-4m")
    assert ft.perplexity(model, tokenizer, ft.load_base_text(count=20)) < 8


# --- sampling, consistency, KL --------------------------------------------------------------------
def test_sampled_answers_are_the_seeds_and_leave_the_global_generator_alone(sharp, tok):
    before = torch.get_rng_state()

    def ask(**o):
        return generate.generate_answers(sharp, tok, PROMPTS, max_new_tokens=8, **o)

    a, b, c = (ask(temperature=2.0, seed=s) for s in (1, 1, 2))
    assert (
        a == b != c
        and torch.equal(before, torch.get_rng_state())
        and ask(temperature=1e-4) == ask()
    )
    with pytest.raises(ValueError, match="temperature=-1"):
        ask(temperature=-1)


def test_sampling_draws_from_the_whole_distribution(tok):
    """All-zero weights: all 280 tokens alike. Of 400 draws about 280·(1 - e^(-400/280)) = 213 are
    different; top-k of 50 would show 50.
    """
    model = llama()
    for p in model.parameters():
        torch.nn.init.zeros_(p)
    _, answers = sampling.generate_ids(model, tok, PROMPTS[:1] * 400, 1, 400, 1.0, 0)
    assert 180 < len({a[0] for a in answers}) < 245


# What a checkpoint's generation_config.json may hold, each enough to change an answer by itself.
GENERATION_CONFIGS = {
    "repetition": {"repetition_penalty": 3.0},
    "ngrams": {"no_repeat_ngram_size": 1},
    "suppressed": {"suppress_tokens": list(range(100, 200))},
    "suppressed at the start": {"begin_suppress_tokens": list(range(200, 250))},
    "bad words": {"bad_words_ids": [[token] for token in range(100, 200)]},
    "bias": {"sequence_bias": [[[65], 100.0]]},
    "length": {"min_new_tokens": 8, "eos_token_id": list(range(8, 280))},
    "forced end": {"forced_eos_token_id": 6},
    "beams": {"num_beams": 4, "length_penalty": -2.0},
    "guidance": {"guidance_scale": 4.0},
    "sampling": {"do_sample": True, "temperature": 8.0, "top_k": 5, "top_p": 0.5},
    "several": {"num_beams": 2, "num_return_sequences": 2},
    "time": {"max_time": 1e-9},
}


@pytest.mark.parametrize("name", GENERATION_CONFIGS)
def test_greedy_answers_are_the_arguments_of_the_maximum(name, sharp, tok):
    """Whatever the generation config asks for; afterwards the model has that config again. Stops
    are the model's, so the config that is compared with has the same ones.
    """
    options = GENERATION_CONFIGS[name]
    plain = sharp.generation_config
    stops = options.get("eos_token_id", plain.eos_token_id)
    try:
        sharp.generation_config = GenerationConfig(eos_token_id=stops)
        want = generate.generate_answers(sharp, tok, PROMPTS, max_new_tokens=8)
        other = GenerationConfig(**{"eos_token_id": stops, **options})
        sharp.generation_config = other
        assert generate.generate_answers(sharp, tok, PROMPTS, max_new_tokens=8) == want
        assert sharp.generation_config is other
        changed = sharp.generate(torch.tensor([[0, 70, 71]]), max_new_tokens=8)
        sharp.generation_config = GenerationConfig(eos_token_id=stops)
        usual = sharp.generate(torch.tensor([[0, 70, 71]]), max_new_tokens=8)
    finally:
        sharp.generation_config = plain
    assert changed.tolist() != usual.tolist()  # the config does something


def test_samples_are_the_models_own_whatever_its_generation_config(tok):
    """Equal logits: 400 draws of all 280 tokens show about 213 different ones, as above; a config
    with top_k = 4, a penalty or min_p must not change a single draw.
    """
    model = llama()
    for p in model.parameters():
        torch.nn.init.zeros_(p)
    want = sampling.generate_ids(model, tok, PROMPTS[:1] * 400, 1, 400, 1.0, 0)
    for options in (
        {"top_k": 4},
        {"top_p": 0.1},
        {"min_p": 0.9},
        {"typical_p": 0.1},
        {"epsilon_cutoff": 0.5},
        {"eta_cutoff": 0.5},
        {"top_h": 0.1},
        {"repetition_penalty": 2.0},
        {"temperature": 0.1},
        {"num_beams": 3},
    ):
        model.generation_config = GenerationConfig(do_sample=True, eos_token_id=6, **options)
        assert sampling.generate_ids(model, tok, PROMPTS[:1] * 400, 1, 400, 1.0, 0) == want


def rwkv():
    """It has a state, takes no mask, so that what is on the left of a prompt is text to it, and
    mixes up the states of its rows.
    """
    from transformers import RwkvConfig, RwkvForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 280, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 256}
    model = RwkvForCausalLM(RwkvConfig(**sizes, bos_token_id=0, eos_token_id=6)).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, 0, 0.5)
    return model


def deaf_to_masks(monkeypatch):
    """A Llama that takes padding for text."""
    model = llama(initializer_range=0.3)
    forward = model.model.forward

    def without_mask(*args, **more):
        width = more["input_ids"].shape[1]
        start = more["past_key_values"].get_seq_length()
        positions = torch.arange(start, start + width)[None]
        return forward(*args, **more | {"attention_mask": None, "position_ids": positions})

    monkeypatch.setattr(model.model, "forward", without_mask)
    return model


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("name", ["Rwkv", "Llama"])
def test_answers_do_not_depend_on_the_batch_whatever_the_model_makes_of_it(
    name, batch_size, tok, caplog, monkeypatch
):
    """Batches of one length where padding is taken for text, batches of one where rows are mixed
    up, and one line says so; two prompts here have equal lengths.
    """
    model = rwkv() if name == "Rwkv" else deaf_to_masks(monkeypatch)
    prompts = [*PROMPTS, [{"role": "user", "content": "yy"}]]
    want = [generate.generate_answers(model, tok, [p], max_new_tokens=6)[0] for p in prompts]
    caplog.set_level("INFO", logger="ftlib")
    found = generate.generate_answers(model, tok, prompts, max_new_tokens=6, batch_size=batch_size)
    assert found == want and len(set(want)) > 2
    said = "answered in batches of one" if name == "Rwkv" else "answered in batches of one length"
    assert (f"{said}:" in caplog.text) == (batch_size > 1)
    assert batch_size == 1 or f"of {name}ForCausalLM ({name.lower()}) by" in caplog.text


def test_batches_of_one_length_by_hand():
    """Lengths 2 2 2 3 in batches of two: two of the first, one, and the longer one alone."""
    order = [0, 2, 3, 1]
    assert sampling._of_one_length(order, [2, 3, 2, 2], 2) == [[0, 2], [3], [1]]


def test_the_answer_that_an_exported_file_is_held_against_is_greedy_too(sharp, monkeypatch):
    """llama.cpp knows nothing of the generation config, so neither may the model beside it."""
    from ftlib.export import parity

    ids = [0, 70, 71, 72]
    want = parity._answer(sharp, ids, 8, [6])
    config = GenerationConfig(eos_token_id=6, repetition_penalty=3.0, num_beams=3)
    monkeypatch.setattr(sharp, "generation_config", config)
    assert parity._answer(sharp, ids, 8, [6]) == want
    assert sharp.generation_config is config


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_ordinary_model_answers_prompts_of_any_lengths_together(dtype):
    prompts = [list(range(9, 30)), list(range(40, 45))]
    model = llama(dtype=dtype, initializer_range=0.3)
    assert sampling.prompts_together(model, prompts, 2) == sampling.ANY_LENGTHS
    assert not sampling.beside_shift(model, prompts, 2).is_fault


def test_padding_is_tried_once_for_a_model_and_again_when_its_form_changes(tok, monkeypatch):
    model = llama(layers=1)
    tried = []
    check = sampling.left_padding_shift

    def counted(*arguments):
        tried.append(1)
        return check(*arguments)

    monkeypatch.setattr(sampling, "left_padding_shift", counted)
    for _ in range(2):
        generate.generate_answers(model, tok, PROMPTS, max_new_tokens=1)
    assert len(tried) == 1
    generate.generate_answers(model, tok, PROMPTS, max_new_tokens=1, batch_size=1)
    ft.add_lora(model, r=2)
    generate.generate_answers(model, tok, PROMPTS, max_new_tokens=1)
    assert len(tried) == 2


def test_the_generation_config_is_given_back_after_an_error(sharp, tok, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    given = sharp.generation_config
    monkeypatch.setattr(sharp, "generate", fail)
    with pytest.raises(KeyboardInterrupt):
        generate.generate_answers(sharp, tok, PROMPTS)
    assert sharp.generation_config is given


def test_consistency_by_hand():
    """One pair judged alike in both orders, one tie in both, one by position, one half by position:
    2 of 4.
    """
    verdicts = iter([1, 0, 0.5, 0.5, 1, 1, 1, 0.5])
    result = ft.win_rate(["a"] * 4, ["b"] * 4, lambda x, y: next(verdicts))
    assert result.consistency == 0.5 and result == pytest.approx((1 + 0.5 + 0.5 + 0.75) / 4)


def test_kl_of_one_token_by_enumeration(sharp, tok):
    """Answers of one token: the estimate from 600 samples lies within four standard errors of Σ
    p·(log p - log q).
    """
    model = ft.add_lora(llama(layers=1, initializer_range=0.1), r=2)
    generator = torch.Generator().manual_seed(1)
    for layer in ft.lora_layers(model).values():
        layer.lora_B.data.normal_(0, 0.15, generator=generator)
    ids = torch.tensor(
        [
            tok.apply_chat_template(PROMPTS[1], add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        ]
    )
    with torch.no_grad():
        p = model(ids).logits[0, -1].double().log_softmax(-1)
        with ft.disable_adapter(model):
            q = model(ids).logits[0, -1].double().log_softmax(-1)
    ratio = p - q
    exact = (p.exp() * ratio).sum()
    error = ((p.exp() * (ratio - exact) ** 2).sum() / 600).sqrt()
    found = preference.kl_to_reference(
        model, tok, [PROMPTS[1]], ft.disable_adapter, samples=600, max_new_tokens=1, batch_size=300
    )
    assert exact > 8 * error and abs(found.mean - exact) < 4 * error


def test_kl_to_oneself_is_zero_and_the_mode_is_given_back(tok):
    model = ft.add_lora(llama(layers=1), r=2).train()  # B = 0
    kl = preference.kl_to_reference(
        model, tok, PROMPTS[:3], ft.disable_adapter, samples=2, max_new_tokens=5
    )
    assert (kl.mean, kl.low, kl.high) == (0, 0, 0) and model.training
    with pytest.raises(ValueError, match="prompts is empty"):
        preference.kl_to_reference(model, tok, [], ft.disable_adapter)


@pytest.mark.parametrize("batch_size", [2, 100])
def test_no_more_answers_are_drawn_or_scored_at_once_than_asked(batch_size, tok):
    """Whoever asks for small batches has little memory. The order of the answers is the prompts',
    whatever their lengths.
    """
    model = ft.add_lora(llama(layers=1), r=2)
    rows = []

    def before_forward(module, args, inputs) -> None:
        rows.append(len(inputs["input_ids"]))

    model.register_forward_pre_hook(before_forward, with_kwargs=True)
    uneven = [PROMPTS[2], PROMPTS[0], PROMPTS[1]]
    texts, policy, start = preference.sampled_logps(
        model, tok, uneven, ft.disable_adapter, samples=8, max_new_tokens=5, batch_size=batch_size
    )
    assert len(texts) == len(policy) == 24 and (policy == start).all()  # B = 0
    assert max(rows) == (2 if batch_size == 2 else 24)


@pytest.mark.parametrize("training", [True, False])
def test_an_exception_leaves_the_model_in_the_mode_it_was_in(training, tok, monkeypatch):
    """In evaluation mode while it computes, and back in its own after an exception."""
    model = llama().train(training)
    seen = []

    def fail(*_, **__):
        seen.append(model.training)
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "generate", fail)
    monkeypatch.setattr(model, "forward", fail)
    for work in (
        lambda: generate.generate_answers(model, tok, PROMPTS),
        lambda: metrics.mean_nll(model, tok, ["two words"]),
        lambda: metrics.complete_matches(model, tok, [("two", " words")]),
    ):
        with pytest.raises(KeyboardInterrupt):
            work()
        assert model.training is training
    assert seen == [False] * 3
