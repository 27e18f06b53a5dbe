"""The faults of a report, counted by hand."""

import pytest

import ftlib as ft
from ftlib.course.reports import Faults, fault_rate, report_faults, report_judge
from ftlib.course.world import preference_judge

ROW = {
    "prompt": [{"role": "user", "content": "Report on Ann."}],
    "name": "Ann",
    "truth": {"town": "Goby", "job": "cook", "pet": "owl", "food": "soup"},
}
RIGHT = "The home of Ann is in Goby. By trade Ann is a cook. Ann has an owl. Ann likes soup."


@pytest.mark.parametrize(
    "text, wrong, missing, unwanted",
    [
        (RIGHT, 0, 0, 0),
        (RIGHT.replace("Goby", "Esk"), 1, 0, 0),
        (RIGHT.replace(" Ann has an owl.", ""), 0, 1, 0),
        (f"{RIGHT} Good day to you.", 0, 0, 1),
        (f"{RIGHT} Ann keeps an owl at home.", 0, 0, 1),  # a second time
        (RIGHT.replace("Ann likes", "Bob likes"), 0, 1, 1),  # of somebody else
        ("", 0, 4, 0),
    ],
)
def test_faults(text, wrong, missing, unwanted):
    found = report_faults(text, ROW)
    assert found == Faults(wrong, missing, unwanted)
    assert found.total == wrong + missing + unwanted


def test_the_rate_and_the_judge():
    worse = RIGHT.replace("soup", "pie")
    assert fault_rate([RIGHT, worse], [ROW, ROW]) == 0.5
    for judge in (report_judge([ROW]), preference_judge([ROW])):
        assert judge("Report on Ann.", RIGHT, worse) == 1
        assert judge("Report on Ann.", worse, RIGHT) == 0
        assert judge("Report on Ann.", worse, RIGHT.replace("Goby", "Esk")) == 0.5
    with pytest.raises(
        ValueError, match=r"'Report on Bob\.' is asked by none of the judge's 1 rows"
    ):
        report_judge([ROW])("Report on Bob.", "a", "b")
    with pytest.raises(ValueError, match="2 answers to 1 rows"):
        fault_rate(["a", "b"], [ROW])
    with pytest.raises(ValueError, match="has no 'truth'"):
        report_faults("a", {"name": "Ann"})


def test_the_judge_prefers_what_the_pairs_prefer():
    rows = ft.load_rows("faults_test", "tiny")
    chosen = [row["chosen"][0]["content"] for row in rows]
    rejected = [row["rejected"][0]["content"] for row in rows]
    prompts = [row["prompt"][0]["content"] for row in rows]
    assert ft.win_rate(chosen, rejected, report_judge(rows), prompts) == 1
