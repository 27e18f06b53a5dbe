"""The pipeline: every row accounted for, order kept, twice is once, planted defects found and clean
rows not lost.
"""

import io
import json
import random
from collections import Counter

import pytest
from conftest import chat
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ftlib.core.errors import DataError
from ftlib.data.load import load_rows
from ftlib.data.prepare import PrepareError, prepare, standard_rules

FOREIGN = [
    "Wie heißt der Fluss, der durch diese kleine Stadt fließt?",
    "Das Wetter ist heute schön, darum gehen wir an den See.",
    "Quelle est la rivière qui traverse cette petite ville ?",
    "Nous avons mangé du pain et du fromage dans le jardin.",
    "¿Cómo se llama el río que pasa por esta pequeña ciudad?",
    "Mañana vamos a comprar naranjas y pan en el mercado.",
]
PII_FORMS = [
    "mail {n}.x@mail.example.org now",
    "call +49 30 12{n:05d}",
    "from 10.0.{m}.7 today",
    "pay to DE89 3704 0044 0532 0130 00",
]


def no_digits(row):
    return "a digit" if any(c.isdigit() for c in row["text"]) else None


def shout(row):
    return (
        None
        if row["text"].isupper()
        else ({**row, "text": row["text"].upper()}, Counter(letters=len(row["text"])))
    )


ROWS = st.lists(
    st.fixed_dictionaries({"text": st.text(alphabet="abc 1<>&;pbr/\n@.", max_size=30)}), max_size=20
)


def test_reasons_changes_and_steps():
    rows = [{"text": "ab"}, {"text": "a1"}, {"text": "C"}]
    done = prepare(iter(rows), [no_digits, shout])
    assert (
        done.rows == [{"text": "AB"}, {"text": "C"}]
        and rows[0] == {"text": "ab"}
        and done.dropped == [(1, "no_digits", "a digit")]
    )
    assert done.changed == {"shout": {"rows": 1, "letters": 2}} and (done.count, done.kept) == (
        3,
        2,
    )
    assert done.steps() == [("no_digits", 1, 2, {}), ("shout", 0, 2, {"rows": 1, "letters": 2})]


def test_first_rule_decides():
    done = prepare([{"text": "1"}], [no_digits, lambda row: "never"])
    assert [d.rule for d in done.dropped] == ["no_digits"]


@given(ROWS)
@settings(max_examples=60)
def test_every_row_is_accounted_for_in_order_and_twice_is_once(rows):
    rules = standard_rules(["a golden prompt of five words"])
    numbered = [{**row, "number": i} for i, row in enumerate(rows)]
    done = prepare(numbered, rules)
    kept = [r["number"] for r in done.rows]
    gone = [d.row for d in done.dropped]
    assert (
        kept == sorted(kept)
        and sorted(kept + gone) == list(range(len(rows)))
        and all(d.reason and d.rule in done.rules for d in done.dropped)
    )
    again = prepare(done.rows, rules)
    assert again.rows == done.rows and not again.dropped and not again.changed


def test_file_and_list_hold_the_same(tmp_path):
    rows = [{"text": f"t{i} é"} for i in range(5)]
    done = prepare(
        (r for r in rows),
        [lambda row: "odd" if row["text"] == "t1 é" else None],
        out=tmp_path / "out.jsonl",
    )
    assert done.rows == [r for r in rows if r["text"] != "t1 é"] and [
        p.name for p in tmp_path.iterdir()
    ] == ["out.jsonl"]
    assert (
        json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[0]) == rows[0]
    )


@pytest.mark.parametrize(
    "rule, name",
    [
        (lambda row: row["no"], "row 1: rule '<lambda>' failed: KeyError"),
        (lambda row: True, "gave 'True'"),
    ],
)
def test_a_rule_that_fails_is_named_and_leaves_no_file(rule, name, tmp_path):
    with pytest.raises(PrepareError, match=name):
        prepare(
            [{"no": None}, {"text": "a"}],
            [rule] if name.startswith("row") else [lambda row: None if "no" in row else rule(row)],
            out=tmp_path / "x",
        )
    assert list(tmp_path.iterdir()) == []


def test_bad_input():
    with pytest.raises(PrepareError, match="row 0 is str"):
        prepare(["x"], [])
    with pytest.raises(DataError, match="two rules are named 'no_digits'"):
        prepare([], [no_digits, no_digits])
    with pytest.raises(PrepareError, match="row 0: rule 'has_answer' failed: DataError"):
        prepare([{"output": "x"}], standard_rules()[3:])


def test_report_shows_reasons():
    done = prepare(
        [{"text": "1 [b] <i>"}, {"text": "a"}],
        [lambda row: "has [b] <i>" if "[b]" in row["text"] else None],
    )
    console = Console(file=io.StringIO(), record=True, width=120)
    console.print(done.report())
    assert (
        "has [b] <i>" in console.export_text()
        and "&lt;i&gt;" in done._repr_html_()
        and repr(done) == "2 rows in, 1 kept, 1 dropped by 1 rules"
    )


def long_row(rng, prompts, i):
    return chat(
        f"Answer these, sheet {i}: " + " ".join(rng.sample(prompts, 8)),
        f"Sheet {i} is too long for me.",
    )


def planted(seed=0):
    """(rows, defect by row number): 500 clean embedded rows, 100 clean long ones, and defects of
    every kind, shuffled.
    """
    rng = random.Random(seed)
    golden = load_rows("golden", "tiny")
    clean = load_rows("train", "tiny")[:500]
    prompts = [r["messages"][0]["content"] for r in clean]
    clean += [long_row(rng, prompts, i) for i in range(100)]
    rows = [(None, r) for r in clean]
    rows += [("exact", {**r, "family": "copy"}) for r in rng.sample(clean, 40)]
    for r in clean[500:]:
        said = r["messages"][0]["content"].split()
        at = rng.randrange(5, len(said))
        said[at : at + rng.randrange(2)] = ["other"]
        rows.append(("near", chat(" ".join(said), r["messages"][1]["content"])))
    for r in golden:
        prompt = r["messages"][0]["content"]
        rows.append(
            (
                "golden",
                chat(rng.choice([prompt, prompt.upper(), prompt.replace(" ", " - ")]), r["answer"]),
            )
        )
    rows += [
        (
            "html",
            chat(f"<p>Say &quot;{i}&quot; for me, <b>please</b>.</p>", f"Well then, number {i}."),
        )
        for i in range(40)
    ]
    rows += [("language", chat(text, "ok")) for text in FOREIGN]
    rows += [
        ("pii", chat(f"Keep note {i}: " + PII_FORMS[i % 4].format(n=i, m=i), f"Note {i} is kept."))
        for i in range(100)
    ]
    rows = rows[:600] + rng.sample(rows[600:], len(rows) - 600)  # copies after what they copy
    return [r for _, r in rows], {i: kind for i, (kind, _) in enumerate(rows) if kind}, golden


def test_planted_defects():
    rows, kinds, golden = planted()
    done = prepare(rows, standard_rules(golden))
    why = {d.row: d.rule for d in done.dropped}

    def recall(kind, rules):
        return (
            sum(why.get(i) in rules for i, k in kinds.items() if k == kind)
            / Counter(kinds.values())[kind]
        )

    assert (
        recall("exact", {"exact duplicates"}) == 1
        and recall("golden", {"contamination"}) == 1
        and recall("language", {"language"}) == 1
    )
    assert recall("near", {"near duplicates"}) >= 0.95
    assert done.changed["html"]["rows"] == 40
    text = json.dumps(done.rows)
    masked = sum(done.changed["pii"][kind] for kind in ("email", "phone", "ip", "iban"))
    assert masked >= 99 and "mail.example.org" not in text and "DE89" not in text
    assert {i: why[i] for i in why if i not in kinds} == {}, "clean rows were lost"


@pytest.mark.parametrize("value", [float("nan"), "\ud800", {1}])
def test_a_row_that_json_cannot_hold_is_named_and_what_was_there_stays(value, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("before")
    rows = [{"text": "a"}, {"text": "b", "score": value}]
    with pytest.raises(DataError, match="row 2 cannot be written as JSON"):
        prepare(rows, [no_digits], out=out)
    assert out.read_text() == "before" and list(tmp_path.iterdir()) == [out]


def test_kept_rows_are_read_by_the_one_reader(tmp_path):
    """A file that was damaged since is named with its line, as any JSONL file is."""
    done = prepare([{"text": "a"}, {"text": "b"}], [no_digits], out=tmp_path / "kept")
    assert done.rows == [{"text": "a"}, {"text": "b"}]
    done.path.write_text('{"text": "a"}\n{"text": 1, "text": 2}\n')
    with pytest.raises(DataError, match="kept:2: the key 'text' is there twice"):
        _ = done.rows
