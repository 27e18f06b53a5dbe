"""Duplicates and copies of the golden set: similarities by hand, against brute force and
datasketch, and what must not be lost.
"""

import os
import random

import pytest
from conftest import chat
from datasketch import MinHash, MinHashLSH
from hypothesis import given
from hypothesis import strategies as st

from ftlib.core.errors import DataError
from ftlib.data import duplicates
from ftlib.data.contamination import Contamination
from ftlib.data.duplicates import (
    ExactDuplicates,
    NearDuplicates,
    NearIndex,
    exact_duplicates,
    exact_key,
    jaccard,
    lsh_bands,
    near_duplicates,
    shingles,
)
from ftlib.data.load import load_rows
from ftlib.data.texts import row_text, tokens


def texts(*given):
    return [{"text": t} for t in given]


def test_exact_duplicates_ignore_case_and_white_space_and_nothing_else():
    assert exact_duplicates(texts("A b", "c", "a\n  B", "a b.", "C")) == [[0, 2], [1, 4]]
    assert exact_duplicates([chat("a b", "c"), chat("a", "b c"), chat("a b", "c", family="x")]) == [
        [0, 2]
    ]
    swapped = [{"prompt": "p", "chosen": a, "rejected": b} for a, b in ("xy", "yx")]
    assert (
        exact_duplicates(swapped) == []
        and len(exact_key(swapped[0])) == 16
        and exact_duplicates(texts("\ud800", "\ud800")) == [[0, 1]]
    )


def test_similarity_by_hand():
    """ "a b c d e" has the runs abc, bcd, cde; "a b c d f" abc, bcd, cdf: two in common of four."""
    a, b = (shingles(tokens(t), 3) for t in ("a b c d e", "A b C d f"))
    assert jaccard(a, b) == 0.5 and shingles(["a", "b"], 3) == {"a b"} and shingles([], 3) == {""}


def test_threshold_is_inclusive_and_verified():
    pair = texts("a b c d e", "a b c d f")
    assert near_duplicates(pair, 0.5) == [[0, 1]] and near_duplicates(pair, 0.51) == []


def test_groups_are_connected_components():
    """Runs of one: {abcd}, {bcde}, {cdef}: neighbours 3/5, ends 2/6."""
    chain = texts("a b c d", "x", "b c d e", "c d e f", "x")
    assert near_duplicates(chain, 0.6, shingle=1) == [[0, 2, 3], [1, 4]]
    check = NearDuplicates(
        0.6, shingle=1
    ).begin()  # the rule compares with kept rows only: the far end stays
    assert [check(row, 10 + i) for i, row in enumerate(chain)] == [
        None,
        None,
        "0.60 like row 10",
        None,
        "1.00 like row 11",
    ]


@pytest.mark.parametrize(
    "new, verdict",
    [
        ("please : spell the word hammer for me", "2 tokens more or less than row 0"),
        ("spell the word hammer for", "0.75 like row 0"),  # 3 of 4
        ("dear friend please spell the word hammer for me", None),  # three put in, 4/7
        ("spell the word lamp for me", None),
        ("for me spell the word hammer", None),
    ],
)
def test_a_word_put_into_a_short_row(new, verdict):
    """Six tokens have four shingles; two before them make six, four of which are shared: 4/6 =
    0.67, below the threshold of 0.7.
    """
    check = NearDuplicates(0.7).begin()
    assert (
        check(*texts("spell the word hammer for me"), 0) is None
        and check(*texts(new), 1) == verdict
    )


def test_a_row_with_two_tokens_less_and_rows_too_short_for_it():
    check = NearDuplicates().begin()
    strict = NearDuplicates(insertions=0).begin()
    for rule in (check, strict):
        assert rule(*texts("please : spell the word hammer for me"), 0) is None
    (shorter,) = texts("spell the word hammer for me")
    assert check(shorter, 1) == "2 tokens more or less than row 0" and strict(shorter, 1) is None
    few = NearDuplicates(0.9).begin()  # 3 of 4 shingles, but five tokens say too little
    assert (
        few(*texts("spell the word for me"), 0) is None
        and few(*texts("please spell the word for me"), 1) is None
    )


def test_bands_and_recall():
    """0.8: 6 a band, 21 bands: 1 - (1 - 0.8⁶)²¹ = 1 - 0.737856²¹ = 0.99831; 7 a band would give 1 -
    0.7902848¹⁸ = 0.9855.
    """
    assert lsh_bands(0.8, 128) == (21, 6) and NearIndex().recall(0.8) == pytest.approx(
        0.99831, abs=1e-5
    )
    assert NearIndex().recall(1) == 1 and NearIndex().recall(0) == 0
    with pytest.raises(DataError, match="num_perm=4"):
        lsh_bands(0.2, 4)


@given(
    st.lists(
        st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12).map(" ".join), max_size=12
    ),
    st.sampled_from([0.5, 0.8]),
)
def test_no_pair_below_the_threshold_and_the_seed_decides(given_texts, threshold):
    rows = texts(*given_texts)
    groups = near_duplicates(rows, threshold)
    assert groups == near_duplicates(rows, threshold)
    sets = [shingles(tokens(t), 3) for t in given_texts]
    for group in groups:
        assert group == sorted(group) and all(
            max(jaccard(sets[i], sets[j]) for j in group if j != i) >= threshold for i in group
        )


def test_candidates_are_those_of_datasketch():
    """The same signatures and bands in datasketch's own MinHashLSH."""
    rows = load_rows("train", "tiny")[:600]
    index = NearIndex(0.5)
    theirs = MinHashLSH(params=(index.bands, index.size), num_perm=128)
    some = 0
    for i, row in enumerate(rows):
        joined, pieces, keys = index.sketch(row_text(row))
        minhash = MinHash(128, 1, hashfunc=index._minhash.hashfunc)
        minhash.update_batch(pieces)
        assert index.candidates(keys) == sorted(theirs.query(minhash))
        some += len(index.candidates(keys))
        index.insert(joined, keys)
        theirs.insert(i, minhash)
    assert some > 100


def test_opposite_labels_are_no_duplicates_for_the_rules():
    rows = [{"prompt": "p", "completion": "c", "label": label} for label in (True, False, True)]
    for rule in (ExactDuplicates(), NearDuplicates()):
        check = rule.begin()
        assert [bool(check(row, i)) for i, row in enumerate(rows)] == [False, False, True]


def long_rows(count, seed=0):
    """Rows of 40 words that share next to nothing."""
    rng = random.Random(seed)
    return [
        chat(" ".join(f"w{rng.randrange(3000)}" for _ in range(40)), f"answer {i}")
        for i in range(count)
    ]


def edited(row, rng):
    """One word swapped, or added: of 40 words and a two-word answer, 38 of 44 runs of three agree
    (0.86) or more.
    """
    said = row["messages"][0]["content"].split()
    at = rng.randrange(len(said))
    said[at : at + rng.randrange(2)] = ["edited"]
    return chat(" ".join(said), row["messages"][1]["content"])


def test_recall_of_planted_near_duplicates():
    rng = random.Random(1)
    clean = long_rows(400)
    rows = clean + [edited(row, rng) for row in clean]
    found = {tuple(g) for g in near_duplicates(rows)}
    planted = {(i, i + 400) for i in range(400)}
    assert len(found & planted) >= 0.99 * 400 and found <= planted


def test_different_questions_of_the_embedded_rows_are_not_lost():
    rows = load_rows("train", "tiny")[:3000]
    copy = chat(
        "Now " + rows[0]["messages"][0]["content"].upper(), rows[0]["answer"]
    )  # one run of three more than the six of row 0: 0.86
    assert near_duplicates([*rows, copy]) == [[0, 3000]]


@pytest.mark.parametrize(
    "options, name",
    [
        ({"threshold": 0}, "threshold=0"),
        ({"threshold": 1.1}, "threshold=1.1"),
        ({"shingle": 0}, "shingle=0"),
    ],
)
def test_bad_settings(options, name):
    with pytest.raises(DataError, match=name):
        near_duplicates(texts("a"), **options)


# Contamination


def mangled(text, rng):
    return (
        "".join(
            rng.choice(" ,;!—\n") + " " if c == " " else rng.choice([c.upper(), c.lower()])
            for c in text
        )
        + "?!"
    )


def test_every_copy_of_a_golden_prompt_is_found():
    golden = load_rows("golden", "tiny")
    rng = random.Random(0)
    check = Contamination(golden)
    for row in golden:
        prompt = row["messages"][0]["content"]
        for copy in (prompt, prompt.upper(), mangled(prompt, rng)):
            assert "golden row" in check(chat(copy, "x")), copy


def test_no_training_row_is_taken_for_golden():
    check = Contamination(load_rows("golden", "tiny"))
    assert [reason for row in load_rows("train", "tiny") if (reason := check(row))] == []


def test_runs_by_hand():
    """Twelve words are five runs of eight; the first ten words hold three of them."""
    check = Contamination(["one two three four five six seven eight nine ten eleven twelve"])
    copy = "so: one two three four five six seven eight nine"
    assert (
        check(chat("x", copy + " ten")) == "3 of 5 runs of golden row 0"
        and check(chat("x", copy)) is None
    )
    assert (
        Contamination(
            ["one two three four five six seven eight nine ten eleven twelve"], share=0.4
        )(chat("x", copy))
        == "2 of 5 runs of golden row 0"
    )


def test_short_prompts_and_templates():
    check = Contamination(
        [
            "spell key",
            "name the dog of Ann",
            "answer the question in one short word please: "
            + "what is the colour of the sky at night",
        ]
    )
    assert (
        check(chat("Spell: KEY!", "k"))
        and not check(chat("now spell key for me", "k"))
        and check(chat("Now name the dog of Ann.", "Rex"))
    )
    assert not check(chat("Answer the question in one short word please: who are you?", "me"))


@pytest.mark.parametrize(
    "golden, options, name",
    [
        (["?!"], {}, "golden row 0"),
        ([{"text": "a"}], {}, "golden row 0 has no prompt"),
        (["a"], {"n": 0}, "n=0"),
        (["a"], {"share": 0}, "share=0"),
    ],
)
def test_bad_golden_sets(golden, options, name):
    with pytest.raises(DataError, match=name):
        Contamination(golden, **options)


def test_texts_in_a_file_are_found_as_those_in_memory(monkeypatch):
    rng = random.Random(0)
    rows = [
        {"text": " ".join(rng.choices(["straße", "\ud800", "🐟", "a"], k=5))} for _ in range(300)
    ]
    verdicts = []
    for limit in (duplicates.SPOOL, 100):
        monkeypatch.setattr(duplicates, "SPOOL", limit)
        check = NearDuplicates(0.5).begin()
        verdicts.append([check(row, i) for i, row in enumerate(rows)])
    assert verdicts[0] == verdicts[1] and 10 < sum(v is not None for v in verdicts[0]) < 290


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_named():
    index = NearIndex()
    said = r"do not fit into .*: No space left on device; set TMPDIR"
    with open("/dev/full", "r+b", buffering=0) as full, pytest.raises(DataError, match=said):
        index._texts = full
        index.insert("some text", index.sketch("some text")[2])
