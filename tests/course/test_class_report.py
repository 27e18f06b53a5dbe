"""Feedback and the class's report, from rows of marks: a submission's texts are escaped and cannot
pass for what a check said of another exercise, and equal mistakes are counted together.
"""

import csv
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.arguments import build_parser
from ftlib.course.class_report import groups_of, write_class_report
from ftlib.course.exercise import load_lab
from ftlib.course.feedback import feedback_page, file_names, write_feedback
from ftlib.course.outcomes import helpful_hint, outcomes_of
from ftlib.course.pages import shown_text
from ftlib.course.reasons import join_reason, split_reason

LAB = "3.1.7"
EXERCISES = load_lab(LAB).exercises
NAMES = [exercise.name for exercise in EXERCISES]
LOGP, REWARD, LOSS, WEIGHT = EXERCISES[:4]


def known(exercise, i: int = 0) -> str:
    return " ".join(exercise.wrong[i].message.split())


def row(student: str, said: dict[str, str], notes=(), changed=(), **more) -> dict[str, str]:
    """A row of marks in which the exercises of `said` have no points."""
    marks = {}
    for exercise in EXERCISES:
        marks[f"{LAB} {exercise.name}"] = "0" if exercise.name in said else str(exercise.points)
    total = sum(map(int, marks.values()))
    most = sum(exercise.points for exercise in EXERCISES)
    fixed = {"student": student, "lab": LAB, "total": f"{total}", "max": f"{most}"}
    reason = join_reason(notes, said, changed)
    return fixed | {"submission": "12ab", "reason": reason, "grader": "x"} | marks | more


OPEN = 'not attempted yet; going on with ftlib\'s. hint("x") gives a first step.'
CLASS = [
    row("Ada", {}),
    row("Ben", {LOGP.name: known(LOGP), REWARD.name: OPEN}),
    row("Cleo", {LOGP.name: known(LOGP), REWARD.name: known(REWARD, 1)}),
    row("Dan", {LOGP.name: "it raises ValueError: <script>alert(1)</script>; input 1 of 4: x"}),
    row("Eve", {LOGP.name: "Your result is 2 times the wanted: values; input 1 of 4: x = 1"}),
    row("Fay", {LOGP.name: "Your result is 2 times the wanted: values; input 3 of 4: x = 9"}),
    row("Gus", {name: "" for name in NAMES}, reason="not handed in", submission=""),
]


# --- the reason -----------------------------------------------------------------------------------
TEXTS = st.text(st.sampled_from("ab;: \n,.") | st.characters(codec="utf-8"), max_size=30)
WORDS = st.lists(st.sampled_from([*NAMES[:3], "; ", ": ", "its code changes x", "a"]) | TEXTS).map(
    "".join
)


@settings(max_examples=400, deadline=None)
@given(st.lists(WORDS, max_size=2), st.dictionaries(st.sampled_from(NAMES[:3]), WORDS))
def test_a_reason_is_taken_apart_again(notes, said):
    """Each exercise has its own words again, but for another's name in them; no text of a
    submission adds words to another exercise.
    """
    reason = join_reason(notes, said, ["its code changes ftlib.a, ftlib.b and 2 more"])
    found_notes, found = split_reason(reason, list(said))
    assert found_notes.endswith("its code changes ftlib.a, ftlib.b and 2 more")
    assert list(reversed(found)) == list(said)
    for name, words in said.items():
        for other in said:
            words = words.replace(f"; {other}: ", f", {other}: ")
        assert found[name] == words


def test_a_note_with_an_exercises_name_stays_a_note():
    note = "kl_estimate: defined 2 times, the last one before its check was graded"
    reason = join_reason([note], {"kl_estimate": "the sign; yours: 1"}, ["its code changes check"])
    assert split_reason(reason, ["kl_estimate"]) == (
        f"{note}; its code changes check",
        {"kl_estimate": "the sign; yours: 1"},
    )
    assert split_reason(note, []) == (note, {})


# --- outcomes -------------------------------------------------------------------------------------
def test_what_became_of_an_exercise():
    kinds = {}
    for each in CLASS:
        outcome = outcomes_of(each)[0][0]
        kinds[each["student"]] = (outcome.kind, outcome.mistake)
    assert kinds == {
        "Ada": ("solved", ""),
        "Ben": ("mistake", known(LOGP)),
        "Cleo": ("mistake", known(LOGP)),
        "Dan": ("error", "it raises ValueError"),
        "Eve": ("other", "Your result is 2 times the wanted: values"),
        "Fay": ("other", "Your result is 2 times the wanted: values"),
        "Gus": ("missing", "not handed in, or unreadable"),
    }
    stopped = row("H", {LOSS.name: "ran past its limit of 20 s", WEIGHT.name: "NameError: name"})
    mistakes = [(outcome.kind, outcome.mistake) for outcome in outcomes_of(stopped)[0][2:4]]
    assert mistakes == [("error", "ran past its limit of 20 s"), ("error", "NameError")]


@pytest.mark.parametrize("exercise", EXERCISES, ids=NAMES)
def test_a_hint_is_never_the_whole_answer(exercise):
    """The last of the hints is one."""
    for wrong in exercise.wrong:
        outcomes, _ = outcomes_of(row("a", {exercise.name: " ".join(wrong.message.split())}))
        mine = next(outcome for outcome in outcomes if outcome.exercise is exercise)
        assert helpful_hint(exercise, mine) in ("", *exercise.hints[:-1])


def test_the_hint_is_the_one_that_speaks_of_the_mistake():
    """A mask that is missing: the hint that has "-100" and "mask", not the first, on the shift."""
    no_mask = next(i for i, wrong in enumerate(LOGP.wrong) if wrong.name == "no mask")
    outcome = outcomes_of(row("a", {LOGP.name: known(LOGP, no_mask)}))[0][0]
    assert "mask" in helpful_hint(LOGP, outcome)
    shift = outcomes_of(row("a", {LOGP.name: known(LOGP, 1)}))[0][0]
    assert "position t" in helpful_hint(LOGP, shift)
    root = outcomes_of(row("a", {LOSS.name: known(LOSS)}))[0][2]  # F.logsigmoid is in one hint
    assert "stays finite" in helpful_hint(LOSS, root)
    minus = next(i for i, wrong in enumerate(LOGP.wrong) if wrong.name == "negative")
    unrelated = outcomes_of(row("a", {LOGP.name: known(LOGP, minus)}))[0][0]
    assert helpful_hint(LOGP, unrelated) == ""
    begun = outcomes_of(row("a", {LOGP.name: OPEN}))[0][0]
    assert helpful_hint(LOGP, begun) == LOGP.hints[0]


# --- feedback -------------------------------------------------------------------------------------
class Reader(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.said += data


def is_self_contained(text: str) -> bool:
    page = Reader(text)
    loads = {"src", "href", "srcset", "onload", "onclick", "onerror", "action"}
    return not page.tags & {"script", "link", "img", "iframe"} and not page.attributes & loads


def test_a_students_page_says_what_was_wrong_and_what_helps():
    page = feedback_page("Cleo", [CLASS[2]])
    said = Reader(page).said
    most = sum(exercise.points for exercise in EXERCISES)
    assert f"{most - LOGP.points - REWARD.points} of {most} points." in said
    assert known(LOGP) in said and known(REWARD, 1) in said
    assert LOGP.title in said and f"0 of {LOGP.points}" in said
    assert f'hint("{LOGP.name}")' in said and LOGP.hints[-1] not in said
    assert f"Solved: {', '.join(NAMES[2:])}." in said
    assert is_self_contained(page) and "default-src" in page


def test_points_that_an_instructor_has_corrected_count():
    """1 of 3 for an answer that the check refused, in the CSV."""
    corrected = row("Ben", {LOGP.name: known(LOGP)}) | {f"{LAB} {LOGP.name}": "1"}
    most = sum(exercise.points for exercise in EXERCISES)
    said = Reader(feedback_page("Ben", [corrected])).said
    assert f"{most - LOGP.points + 1} of {most} points." in said and "✗" not in said


def test_what_a_submission_says_is_escaped():
    evil = "<img src=x onerror=alert(1)>\u202egnirts\x1b[0m"
    page = feedback_page(
        evil, [row(evil, {LOGP.name: f"it raises {evil}"}, [f"graded from {evil}"])]
    )
    assert is_self_contained(page) and "\u202e" not in page and "\x1b" not in page
    assert Reader(page).said.count("\\u202egnirts\\u001b[0m") == 4  # title, heading, card, notes
    assert shown_text("a<b>&\"'\n\x00") == "a&lt;b&gt;&amp;&quot;&#x27;\n\\u0000"


def test_a_submission_that_cannot_be_read_gets_its_reason_once():
    said = Reader(feedback_page("Gus", [CLASS[-1]])).said
    assert said.count("There was no answer that could be graded") == 1
    assert "Notes: not handed in." in said and "0 of " in said


def test_every_student_has_a_page_under_a_name_of_its_own(tmp_path):
    rows = [row(name, {}) for name in ("Ada", "ada", "a/b", "a\\b", "../x", "Ada-2")]
    names = file_names(rows)
    assert len({name.casefold() for name in names.values()}) == len(rows)
    written = write_feedback(rows, tmp_path / "feedback")
    assert {path.parent for path in written} == {tmp_path / "feedback"}
    assert len(list((tmp_path / "feedback").iterdir())) == len(rows)


# --- the report -----------------------------------------------------------------------------------
def test_equal_mistakes_are_counted_together():
    counted = {}
    for group in groups_of(CLASS):
        if group.example.exercise is LOGP:
            counted[group.kind, group.mistake] = len(group.outcomes)
    assert list(counted.items()) == [
        (("solved", ""), 1),
        (("mistake", known(LOGP)), 2),
        (("other", "Your result is 2 times the wanted: values"), 2),
        (("error", "it raises ValueError"), 1),
        (("missing", "not handed in, or unreadable"), 1),
    ]


def test_the_page_has_counts_by_exercise_and_no_name(tmp_path):
    """7 students at LOGP: 1 solved it; each count is in the picture's text too."""
    page, _ = write_class_report(CLASS, tmp_path / "report.html")
    text = page.read_text(encoding="utf-8")
    said = Reader(text).said
    assert is_self_contained(text)
    assert "7 students, 1 lab." in said and "6 of 7 handed in" in said
    assert f"Fewest solved {LOGP.name}: 1 of 7." in said
    assert (
        f"{LOGP.name}: 1 solved, 2 a mistake that the check knows, 2 another wrong result, "
        "1 an error or a stop, 1 not handed in, or unreadable." in text
    )
    for student in ("Ada", "Cleo", "Gus"):
        assert student not in said
    assert said.index(known(LOGP)) < said.index("it raises ValueError")  # the most frequent first


def test_a_report_that_is_no_page_is_refused_before_anything_is_graded(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["grade", "in", "--csv", "m.csv", "--report", "report.pdf"])
    assert "'report.pdf' does not end in .html" in capsys.readouterr().err


def test_the_table_has_everything_and_no_formula(tmp_path):
    rows = [*CLASS, row("=1+1", {LOGP.name: "=cmd|calc; input 1 of 4: x"})]
    _, table = write_class_report(rows, tmp_path / "report.html")
    with table.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    first = next(line for line in lines if line["kind"] == "mistake")
    assert first == {
        "lab": LAB,
        "exercise": LOGP.name,
        "points": str(LOGP.points),
        "kind": "mistake",
        "mistake": known(LOGP),
        "students": "2",
        "share": "0.250",
        "who": "Ben; Cleo",
    }
    for name in NAMES:
        shares = [float(line["share"]) for line in lines if line["exercise"] == name]
        assert sum(shares) == pytest.approx(1, abs=0.01)
    formulas = [line for line in lines if line["mistake"].startswith("'=") or "'=" in line["who"]]
    assert len(formulas) == 1 and formulas[0]["who"] == "'=1+1"
    with pytest.raises(ValueError, match=r"the report is .*\.csv: name a file that ends in \.html"):
        write_class_report(rows, table)
