"""Pairs and binary feedback: derived by hand, inverse to each other, every row accounted for."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ftlib as ft
from ftlib.core.errors import DataError, PairError
from ftlib.data.feedback import (
    binary_to_pairs,
    flip_judgements,
    imbalanced,
    pairs_to_binary,
    pairs_to_rows,
)
from ftlib.data.length_bias import balance_length, length_bias, rank_biserial
from ftlib.data.pairs import CORRUPTIONS, pairs_from_scores, synthetic_pairs
from ftlib.data.rows import check_any, check_binary, check_pair

USER = [{"role": "user", "content": "Who is Ann?"}]


def says(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


def pair(chosen="good", rejected="bad", prompt="q", **more) -> dict:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


words = st.text(alphabet="abc ", min_size=1, max_size=8).filter(str.strip)
plain_pairs = st.builds(pair, words, words, words, id=st.integers(0, 3)).filter(
    lambda p: p["chosen"] != p["rejected"]
)


# Checks


def test_good_rows_come_back_as_they_are():
    for row in (pair(), {"prompt": USER, "chosen": says("a"), "rejected": says("b"), "key": 1}):
        assert check_pair(row) is row and check_any(row) is row
    for row in (
        {"prompt": "q", "completion": "a", "label": False},
        {"prompt": USER, "completion": says("a"), "label": True},
    ):
        assert check_binary(row) is row and check_any(row) is row
    chat = {"messages": USER + says("a")}
    assert check_any(chat) is chat


@pytest.mark.parametrize(
    "row, message",
    [
        (pair("same", "same"), "chosen equals rejected"),
        ({"prompt": USER, "chosen": says("a"), "rejected": says("a")}, "chosen equals rejected"),
        (pair(" \n"), "chosen is empty"),
        (pair(rejected=""), "rejected is empty"),
        ({"prompt": USER, "chosen": says(""), "rejected": says("b")}, "chosen is empty"),
        (pair(prompt=USER + says("x")), "must end with the user's turn"),
        (pair(prompt=[]), "prompt is"),
        (pair(prompt=" "), "prompt is"),
        (pair(prompt=[{"role": "user"}]), "prompt is"),
        (pair(prompt=[{"role": "user", "content": ""}]), "not empty"),
        ({"chosen": "a", "rejected": "b"}, "no 'prompt'"),
        ({"prompt": "q", "chosen": "a"}, "rejected is None"),
        (pair(prompt=USER), "as the prompt is of messages"),
        (pair(chosen=says("a")), "text, as the prompt is"),
        (
            {"prompt": USER, "chosen": says("a") * 2, "rejected": says("b")},
            "one message of the assistant",
        ),
        ({"prompt": USER, "chosen": USER, "rejected": says("b")}, "one message of the assistant"),
        ("text", "no 'prompt'"),
        (None, "no 'prompt'"),
    ],
)
def test_broken_pairs_are_named(row, message):
    with pytest.raises(PairError, match=message) as error:
        check_pair(row, "file.jsonl:7")
    assert str(error.value).startswith("file.jsonl:7: ")


@pytest.mark.parametrize(
    "row, message",
    [
        ({"prompt": "q", "completion": "a", "label": 1}, "label is 1"),
        ({"prompt": "q", "completion": "a", "label": "True"}, "label is 'True'"),
        ({"prompt": "q", "completion": "a"}, "label is None"),
        ({"prompt": "q", "completion": "", "label": True}, "completion is empty"),
        ({"prompt": says("x"), "completion": says("a"), "label": True}, "user's turn"),
        ([], "no 'prompt'"),
    ],
)
def test_broken_feedback_is_named(row, message):
    with pytest.raises(PairError, match=message):
        check_binary(row)


# Pairs from scores


def scored(*scores, **more) -> dict:
    return {
        "prompt": "q",
        "completions": [f"a{i}" for i in range(len(scores))],
        "scores": list(scores),
        **more,
    }


def test_best_and_worst():
    """Scores 3, 9, 1: a1 against a2, margin 8. A tie (5, 5), a margin of 1 under 2, and a lone
    answer are counted.
    """
    out = pairs_from_scores(
        [scored(3, 9, 1, key="k"), scored(5, 5), scored(4, 5), scored(7), scored()], margin=2
    )
    assert out == [pair("a1", "a2", key="k", margin=8)]
    assert out.left_out == {"tie": 1, "margin": 1, "fewer than two completions": 2}


def test_all_pairs():
    """Scores 1, 2, 2, 4 with margin 2: of six comparisons (4,2), (4,2), (4,1) stand, (2,1) twice is
    too close, (2,2) a tie.
    """
    out = pairs_from_scores([scored(1, 2, 2, 4)], margin=2, how="all")
    assert [(p["chosen"], p["rejected"], p["margin"]) for p in out] == [
        ("a3", "a1", 2),
        ("a3", "a2", 2),
        ("a3", "a0", 3),
    ]
    assert out.left_out == {"margin": 2, "tie": 1}


def test_the_same_text_scored_differently_is_no_pair():
    out = pairs_from_scores(
        [{"prompt": USER, "completions": [says("a"), says("a")], "scores": [1, 2]}]
    )
    assert out == [] and out.left_out == {"same text": 1}


@given(
    st.lists(st.lists(st.integers(-3, 3), max_size=5), max_size=6),
    st.integers(0, 3),
    st.sampled_from(["best-worst", "all"]),
)
def test_every_comparison_is_accounted_for(table, margin, how):
    rows = [scored(*scores) for scores in table]
    out = pairs_from_scores(rows, margin, how)
    compared = sum(
        (math.comb(len(s), 2) if how == "all" else 1) if len(s) > 1 else 1 for s in table
    )
    assert len(out) + sum(out.left_out.values()) == compared
    for p in out:
        check_pair(p)
        assert p["margin"] >= max(margin, 1)


@pytest.mark.parametrize(
    "row",
    [
        scored(1, float("nan")),
        scored(1, "2"),
        scored(1, True),
        {"prompt": "q", "completions": ["a"], "scores": []},
        {},
        {"prompt": "q", "completions": ["a", ""], "scores": [1, 2]},
        {"prompt": USER, "completions": ["a", "b"], "scores": [1, 2]},
        3,
    ],
)
def test_broken_scores_are_named(row):
    with pytest.raises(PairError, match="row 1"):
        pairs_from_scores([scored(1, 2), row])


@pytest.mark.parametrize("options", [{"how": "most"}, {"margin": -1}, {"margin": float("nan")}])
def test_bad_options_of_scores(options):
    with pytest.raises(PairError, match="how="):
        pairs_from_scores([], **options)


# Pairs from corruptions


def conversations(*answers) -> list[dict]:
    return [{"messages": [*USER, *says(a)], "key": i} for i, a in enumerate(answers)]


def test_a_corruption_by_hand():
    out = synthetic_pairs(
        conversations("one two", "three"), {"shout": lambda answer, rng, others: answer.upper()}
    )
    assert out[0] == {
        "prompt": USER,
        "chosen": says("one two"),
        "rejected": says("ONE TWO"),
        "key": 0,
        "corruption": "shout",
    }
    assert len(out) == 2 and not out.left_out


def test_named_corruptions():
    rows = conversations(*(f"a{i} b c d" for i in range(40)))
    assert all(
        len(p["rejected"][0]["content"]) < len(p["chosen"][0]["content"])
        for p in synthetic_pairs(rows, "cut")
    )
    assert synthetic_pairs(rows, "repeat")[3]["rejected"] == says("a3 b c d a3 b c d")
    for p in synthetic_pairs(rows, ["shuffle_words"]):
        assert sorted(p["rejected"][0]["content"].split()) == sorted(
            p["chosen"][0]["content"].split()
        )
    families = [{**row, "family": i % 2} for i, row in enumerate(rows)]
    for p in synthetic_pairs(families, "other_answer"):
        assert int(p["rejected"][0]["content"].split()[0][1:]) % 2 == p["family"]


def test_what_a_corruption_cannot_worsen_is_counted():
    out = synthetic_pairs(conversations("one", "one"), "shuffle_words")
    assert out == [] and out.left_out == {"shuffle_words": 2}
    assert synthetic_pairs(conversations("a b"), {"empty": lambda *_: " "}).left_out == {"empty": 1}


@given(st.lists(words, max_size=12), st.integers(0, 5))
def test_every_row_is_a_good_pair_or_counted_and_the_seed_decides(answers, seed):
    rows = conversations(*answers)
    out = synthetic_pairs(rows, seed=seed)
    assert len(out) + sum(out.left_out.values()) == len(rows) and all(
        check_pair(p)["corruption"] in CORRUPTIONS for p in out
    )
    assert synthetic_pairs(rows, seed=seed) == out


@pytest.mark.parametrize("corrupt", ["burn", ["cut", "burn"], [], {"x": 3}])
def test_unknown_corruptions(corrupt):
    with pytest.raises(PairError, match="corrupt="):
        synthetic_pairs(conversations("a b"), corrupt)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"messages": USER},
        {"messages": says("x")},
        {"messages": [{}, {}]},
        {"messages": USER + says(" ")},
        {"messages": USER + says("x"), "family": ["x"]},
    ],
)
def test_rows_without_question_and_answer(row):
    with pytest.raises(DataError, match="row 0"):
        synthetic_pairs([row])


# Pairs and binary feedback


def test_one_pair_as_feedback_and_back():
    rows = pairs_to_binary([pair(id=7)])
    assert rows == [
        {"prompt": "q", "completion": "good", "label": True, "id": 7},
        {"prompt": "q", "completion": "bad", "label": False, "id": 7},
    ]
    assert binary_to_pairs(rows) == [pair(id=7)]


@given(st.lists(plain_pairs, max_size=8))
def test_feedback_from_pairs_gives_the_pairs_back(pairs):
    back = binary_to_pairs(pairs_to_binary(pairs))
    assert back == pairs and not back.left_out


@given(
    st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from("abc"), st.booleans()), max_size=12)
)
def test_every_judgement_is_used_once_or_counted(judgements):
    rows = [{"prompt": p, "completion": c, "label": label} for p, c, label in judgements]
    out = binary_to_pairs(rows)
    assert 2 * len(out) + sum(out.left_out.values()) == len(rows)
    for p in out:
        check_pair(p)
        assert (p["prompt"], p["chosen"], True) in judgements and (
            p["prompt"],
            p["rejected"],
            False,
        ) in judgements


def test_unpaired_and_contradicting_judgements_are_counted():
    rows = [
        {"prompt": p, "completion": c, "label": label}
        for p, c, label in [
            ("q", "a", True),
            ("q", "b", True),
            ("r", "c", False),
            ("q", "a", False),
        ]
    ]
    out = binary_to_pairs(
        rows
    )  # q's first thumbs up meets q's thumbs down: the same text judged both ways
    assert out == [] and out.left_out == {"both labels": 2, "no thumbs down": 1, "no thumbs up": 1}


def test_keys_that_differ_are_kept_by_side():
    up, down = (
        {"prompt": "q", "completion": c, "label": label, "by": c, "same": 1}
        for c, label in (("a", True), ("b", False))
    )
    assert binary_to_pairs([down, up]) == [pair("a", "b", same=1, chosen_by="a", rejected_by="b")]


def test_a_key_in_the_way():
    with pytest.raises(PairError, match="'label'"):
        pairs_to_binary([pair(label=1)])


@pytest.mark.parametrize(
    "ratio, size, want",
    [
        (1, None, (30, 30)),
        (10, 33, (3, 30)),
        (0.5, 45, (30, 15)),
        (10, None, (6, 60)),
        (0.1, None, (30, 3)),
    ],
)
def test_imbalanced(ratio, size, want):
    """Of 30 up and 60 down: without a size as many as there are, so 1:10 takes 60/10 = 6 up and all
    60 down.
    """
    rows = [{"prompt": str(i), "completion": "a", "label": i % 3 == 0} for i in range(90)]
    out = imbalanced(rows, ratio, size)
    assert (sum(r["label"] for r in out), sum(not r["label"] for r in out)) == want
    assert [int(r["prompt"]) for r in out] == sorted(int(r["prompt"]) for r in out) and imbalanced(
        rows, ratio, size
    ) == out
    if size:
        assert imbalanced(rows, ratio, size, seed=1) != out


@pytest.mark.parametrize(
    "ratio, size",
    [
        (0, None),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        (1, 100),
        (1, 0),
        (100, None),
    ],
)
def test_imbalances_that_the_rows_do_not_hold(ratio, size):
    rows = [{"prompt": "q", "completion": "a", "label": i % 3 == 0} for i in range(90)]
    with pytest.raises(PairError, match="ratio="):
        imbalanced(rows, ratio, size)


def thumbs(ups: int, downs: int) -> list[dict]:
    return [{"prompt": str(i), "completion": "a", "label": i < ups} for i in range(ups + downs)]


def test_imbalance_that_holds_the_thumbs_up():
    """Of 20 up and 100 down, 10 up at every ratio from 1:1 to 1:10: the same ten, and 10, 30, 100
    down, of which the fewer are among the more.
    """
    rows = thumbs(20, 100)
    kept = {ratio: imbalanced(rows, ratio, ups=10) for ratio in (1, 3, 10)}
    prompts = {ratio: [r["prompt"] for r in part] for ratio, part in kept.items()}
    for ratio, part in kept.items():
        assert sum(r["label"] for r in part) == 10
        assert sum(not r["label"] for r in part) == 10 * ratio
        assert prompts[ratio] == sorted(prompts[ratio], key=int)
    ups = [{r["prompt"] for r in part if r["label"]} for part in kept.values()]
    assert ups[0] == ups[1] == ups[2]
    assert set(prompts[1]) < set(prompts[3]) < set(prompts[10])
    assert imbalanced(rows, 3, ups=10) == kept[3] != imbalanced(rows, 3, seed=1, ups=10)


@pytest.mark.parametrize(
    "more, match",
    [
        ({"ups": 21}, "ups=21: needs 21 rows with label True, there are 20"),
        ({"ups": 11}, "needs 110 rows with label False, there are 100"),
        ({"ups": 0}, "ups"),
        ({"ups": 2.5}, "ups"),
        ({"ups": 5, "size": 55}, "size=55, ups=5: hold one of them"),
    ],
)
def test_thumbs_up_that_cannot_be_held(more, match):
    with pytest.raises(PairError, match=match):
        imbalanced(thumbs(20, 100), 10, **more)


def test_embedded_thumbs_carry_an_imbalance_of_1_to_10_both_ways():
    import ftlib as ft

    rows = ft.load_rows("feedback", "tiny")
    for ratio, ups in ((1, 48), (10, 48), (0.1, 480)):
        part = imbalanced(rows, ratio, ups=ups)
        assert sum(r["label"] for r in part) == ups and len(part) == ups + round(ups * ratio)


# Wrong judgements


def test_flipped_pairs_by_hand():
    """Of ten, 0.3 is three: answers and what belongs to them change places, the rest stays."""
    rows = [pair(f"c{i}", f"r{i}", f"p{i}", chosen_score=1, rejected_score=0) for i in range(10)]
    out = flip_judgements(rows, 0.3)
    assert [r["prompt"] for r in out] == [r["prompt"] for r in rows]
    flipped = [i for i, r in enumerate(out) if r["flipped"]]
    assert len(flipped) == 3
    for i, row in enumerate(out):
        better, worse = ("r", "c") if i in flipped else ("c", "r")
        assert (row["chosen"], row["rejected"]) == (f"{better}{i}", f"{worse}{i}")
        assert (row["chosen_score"], row["rejected_score"]) == ((0, 1) if i in flipped else (1, 0))
        check_pair(row)
    assert rows[flipped[0]]["chosen"] == f"c{flipped[0]}"  # the rows that came are as they were


def test_flipped_thumbs_and_shares():
    rows = thumbs(30, 30)
    for share, count in ((0, 0), (0.1, 6), (0.4, 24), (1, 60)):
        out = flip_judgements(rows, share)
        assert sum(r["flipped"] for r in out) == count
        for before, after in zip(rows, out, strict=True):
            assert (before["label"] != after["label"]) == after["flipped"]


def test_more_noise_is_more_of_the_same_noise():
    rows = thumbs(50, 50)

    def wrong(share, seed=0):
        return {r["prompt"] for r in flip_judgements(rows, share, seed) if r["flipped"]}

    assert wrong(0.1) < wrong(0.2) < wrong(0.4)
    assert wrong(0.2) == wrong(0.2) != wrong(0.2, seed=1)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "0.2", True, None])
def test_no_share(share):
    with pytest.raises(PairError, match="share="):
        flip_judgements([pair()], share)


def test_what_has_no_judgement_is_not_flipped():
    with pytest.raises(PairError, match="row 1"):
        flip_judgements([pair(), {"messages": []}], 0.5)


# The baseline of preference methods


def test_conversations_with_one_of_the_answers():
    rows = pairs_to_rows([pair("good", "bad", "q", key=1)])
    assert rows == [{"messages": [{"role": "user", "content": "q"}, *says("good")], "key": 1}]
    talk = {"prompt": USER, "chosen": says("a"), "rejected": says("b")}
    assert pairs_to_rows([talk], "rejected") == [{"messages": [*USER, *says("b")]}]
    with pytest.raises(PairError, match="side='best': use 'chosen' or 'rejected'"):
        pairs_to_rows([talk], "best")
    with pytest.raises(PairError, match="has 'messages' already"):
        pairs_to_rows([{**talk, "messages": USER}])


# Length


def of_lengths(*differences) -> list[dict]:
    return [
        pair("x" * (20 + max(d, 0)) + "c", "x" * (20 - min(d, 0)) + "r", prompt=str(i))
        for i, d in enumerate(differences)
    ]


def test_length_bias_by_hand():
    """Differences 1, -2, 3, 0, 3: longer in 3 and equal in 1 of 5, (3 + ½)/5 = 0.7; mean 1.
    Absolute values 1, 2, 3, 3 have the ranks 1, 2, 3.5, 3.5: W+ = 8, W- = 2, so the correlation is
    (8 - 2)/10 = 0.6.
    """
    bias = length_bias(of_lengths(1, -2, 3, 0, 3))
    assert (
        bias.longer.mean == pytest.approx(0.7)
        and bias.difference.mean == 1
        and bias.correlation == pytest.approx(0.6)
        and bias.unit == "characters"
    )
    assert "chosen longer in 70%" in str(bias)


def test_rank_biserial_equals_scipys_ranks():
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = random.Random(0)
    d = [rng.randint(-5, 6) for _ in range(200)]
    kept = [x for x in d if x]
    ranks = scipy_stats.rankdata([abs(x) for x in kept])
    want = sum(r * (1 if x > 0 else -1) for r, x in zip(ranks, kept, strict=True)) / sum(ranks)
    assert (
        rank_biserial(d) == pytest.approx(want, abs=1e-12)
        and rank_biserial([0, 0]) == 0
        and rank_biserial([2, 3]) == 1
        and rank_biserial([-1]) == -1
    )


def test_length_in_tokens():
    _, tokenizer = ft.load_model("world-llama-4m")
    bias = length_bias([pair("With pleasure. Ann", "Ann")], tokenizer)
    one, two = (
        len(tokenizer(t, add_special_tokens=False)["input_ids"])
        for t in ("With pleasure. Ann", "Ann")
    )
    assert bias.difference.mean == one - two and bias.unit == "tokens"


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 3))
def test_balanced_pairs_say_nothing_by_length(differences, width, seed):
    """The two signs of a bin come in equal numbers; what is refused has no bin with both and no
    equal lengths.
    """
    pairs = of_lengths(*differences)

    def bins(sign):
        return {(abs(d) - 1) // width for d in differences if d * sign > 0}

    if not bins(1) & bins(-1) and 0 not in differences:
        with pytest.raises(PairError, match="match"):
            balance_length(pairs, bin_width=width, seed=seed)
        return
    out = balance_length(pairs, bin_width=width, seed=seed)
    kept = [differences[int(p["prompt"])] for p in out]
    assert sum(d > 0 for d in kept) == sum(d < 0 for d in kept) and abs(sum(kept)) < width * len(
        kept
    )
    assert (
        kept.count(0) == differences.count(0)
        and [p for p in pairs if p in out] == out
        and out.left_out == {"length": len(pairs) - len(out)}
    )
    assert balance_length(pairs, bin_width=width, seed=seed) == out


def test_width_one_takes_the_correlation_out():
    out = balance_length(of_lengths(*[5] * 7, *[-5] * 3, 2, -1, 0), bin_width=1)
    assert len(out) == 7 and length_bias(out).correlation == 0


def test_nothing_to_balance():
    with pytest.raises(PairError, match="3 have the longer answer chosen, 0 the shorter"):
        balance_length(of_lengths(1, 2, 3))
    with pytest.raises(PairError, match="bin_width=0"):
        balance_length(of_lengths(1, -1), bin_width=0)
    with pytest.raises(PairError, match="pairs is empty"):
        length_bias([])
