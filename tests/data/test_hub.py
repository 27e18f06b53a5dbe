"""Hub datasets read as the course's rows: parts, conversions, what is left out, and errors. The Hub
is played by a list.
"""

import dataclasses

import pytest

import ftlib as ft
from ftlib.core.errors import DataError
from ftlib.core.profiles import PROFILES
from ftlib.course.reports import report_faults
from ftlib.data.hub import HUB, hub_rows
from ftlib.data.load import FOLDERS, load_raw
from ftlib.data.rows import check_binary, check_pair, check_row

ULTRA = "trl-lib/ultrafeedback_binarized"


class FakeHub(list):
    def shuffle(self, seed):
        return FakeHub(self[::-1])

    def select(self, indices):
        return [self[i] for i in indices]


def turn(role, content):
    return {"role": role, "content": content}


def conversations(good: str, bad: str) -> dict:
    return {
        "chosen": [turn("user", "Hi"), turn("assistant", good)],
        "rejected": [turn("user", "Hi"), turn("assistant", bad)],
        "score_chosen": float(len(good) % 10),
    }


def offline(*args, **kwargs):
    raise ConnectionError("no route")


def test_rows_are_converted_and_splits_share_none(monkeypatch):
    raw = FakeHub(
        {
            "context": f"CREATE TABLE t{i}",
            "question": f"q{i}?",
            "answer": f"SELECT {i}" + (" join x" if i % 2 else ""),
        }
        for i in range(5000)
    )
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: raw)
    splits = {name: ft.load_rows(name, "small") for name in ("train", "validation", "golden")}
    assert {n: len(r) for n, r in splits.items()} == {
        "train": 4000,
        "validation": 300,
        "golden": 100,
    }
    answers = {n: {r["answer"] for r in rows} for n, rows in splits.items()}
    assert len(set.union(*answers.values())) == 4400
    row = check_row(splits["golden"][0], "row")
    assert (
        "CREATE TABLE t4999" in row["messages"][0]["content"]
        and "q4999?" in row["messages"][0]["content"]
    )
    assert row["messages"][1]["content"] == row["answer"] and {
        r["family"] for r in splits["golden"]
    } == {"select", "join"}


def test_pairs_by_part_each_a_pair_and_equal_answers_left_out(monkeypatch, caplog):
    """Of 90 raw pairs a third has the longer answer chosen, a third the shorter, a third says the
    same twice.
    """
    raw = FakeHub(
        conversations(
            *[(f"{i} long enough", f"{i}"), (f"{i}", f"{i} long enough"), (f"{i}", f"{i}")][i % 3]
        )
        for i in range(90)
    )
    asked = []
    monkeypatch.setattr(
        "datasets.load_dataset", lambda name, split: asked.append((name, split)) or raw
    )
    with caplog.at_level("INFO", "ftlib"):
        parts = {part: ft.load_rows(part, "small") for part in HUB[ULTRA][1]}
    assert {name: len(rows) for name, rows in parts.items() if name.startswith("pref")} == {
        "preferences": 60,
        "preferences_long": 30,
        "preferences_matched": 60,
        "preferences_irrelevant": 60,
        "preferences_test": 60,
    }
    assert (
        set(asked) == {(ULTRA, "train"), (ULTRA, "test")}
        and "30 of 90 pairs with equal or empty answers left out" in caplog.text
    )
    for rows in parts.values():
        for row in rows:
            check_pair(row)
    assert {r["axis"] for r in parts["preferences_long"]} == {"longer"}
    assert all(
        len(r["chosen"][0]["content"]) > len(r["rejected"][0]["content"])
        for r in parts["preferences_long"]
    )
    assert abs(ft.length_bias(parts["preferences_matched"]).longer.mean - 0.5) < 0.01


def long_pairs() -> FakeHub:
    """20,000 pairs: an answer of 1 to 4 words over one of the first of them and others."""
    rows = []
    for i in range(20_000):
        rows.append(conversations(f"a b c {i}", " ".join("abcd"[: i % 4 + 1])))
    return FakeHub(rows)


def test_pairs_with_two_endings(monkeypatch):
    """The same answer twice, preferred for its ending, which says nothing."""
    raw = FakeHub(long_pairs()[:400])
    monkeypatch.setattr("datasets.load_dataset", lambda name, split: raw)
    rows = ft.load_rows("preferences", "small")
    irrelevant = ft.load_rows("preferences_irrelevant", "small")
    assert len(irrelevant) == len(rows)
    for row, of in zip(irrelevant, rows, strict=True):
        chosen = check_pair(row)["chosen"][0]["content"]
        rejected = row["rejected"][0]["content"]
        assert chosen.startswith(of["chosen"][0]["content"]) and row["axis"] == "ending"
        assert chosen.split("\n\n")[0] == rejected.split("\n\n")[0] and chosen != rejected


@pytest.mark.parametrize("name", ["small", "spark"])
def test_faults_are_counted_on_pairs_with_a_truth(name):
    """Pairs of the Hub have none, so these are the course's own English ones, in every profile."""
    for split in ("faults_train", "faults_irrelevant", "faults_validation", "faults_test"):
        assert ft.load_rows(split, name) == ft.load_rows(split, "pocket")
    for row in ft.load_rows("faults_train", name)[:50]:
        of_chosen = report_faults(row["chosen"][0]["content"], row).total
        assert of_chosen < report_faults(row["rejected"][0]["content"], row).total


def test_pairs_by_how_much_they_differ(monkeypatch):
    """Four kinds of pairs, by words that only one answer has: the more they share, the lower."""
    raw = FakeHub(long_pairs()[:400])
    monkeypatch.setattr("datasets.load_dataset", lambda name, split: raw)
    rows = ft.load_rows("distance_train", "small")
    shared = {level: set() for level in range(4)}
    for row in rows:
        shared[row["level"]].add(len(row["rejected"][0]["content"].split()))
    assert [row["level"] for row in rows].count(0) == 100
    assert shared[3] == {1} and shared[2] == {2} and 1 not in shared[0] | shared[1]


def test_open_rows_have_open_answers(monkeypatch, caplog):
    """Answers below 25 words are left out and counted; the parts share no row."""
    raw = FakeHub(
        {
            "instruction": f"task {i}",
            "input": "more" if i % 2 else "",
            "output": "word " * (40 if i % 4 else 24),
        }
        for i in range(6000)
    )
    monkeypatch.setattr("datasets.load_dataset", lambda name, split: raw)
    with caplog.at_level("INFO", "ftlib"):
        parts = {
            n: ft.load_rows(n, "small") for n in ("open_train", "open_validation", "open_test")
        }
    assert {name: len(rows) for name, rows in parts.items()} == {
        "open_train": 3000,
        "open_validation": 300,
        "open_test": 375,
    }
    assert "1000 of 4000 rows with short answers left out" in caplog.text
    asked = {row["messages"][0]["content"] for rows in parts.values() for row in rows}
    assert len(asked) == 3675
    row = check_row(parts["open_test"][0], "row")
    assert row["answer"] == row["messages"][1]["content"] and row["family"] == "open"
    assert {"task 5099\n\nmore"} <= asked


def test_thumbs_keep_their_three_keys(monkeypatch):
    thumb = {
        "prompt": [turn("user", "Hi")],
        "completion": [turn("assistant", "No")],
        "label": False,
    }
    monkeypatch.setattr(
        "datasets.load_dataset", lambda *a, **k: FakeHub([{**thumb, "source": "x"}])
    )
    rows = ft.load_rows("feedback", "small")
    assert rows == [thumb] and check_binary(rows[0])


def test_rows_without_an_answer_are_left_out(monkeypatch, caplog):
    """An empty query, chosen, rejected, completion or request, a conversation without a turn: none
    of these is a row that could be trained on.
    """
    pairs = FakeHub(conversations(*texts) for texts in (("a", ""), (" ", "b"), ("a b", "b")))
    pairs.append({**pairs[0], "chosen": []})
    pairs.append({**pairs[2], "chosen": [turn("user", ""), turn("assistant", "a")]})
    thumbs = FakeHub(
        {"prompt": [turn("user", "Hi")], "completion": [turn("assistant", text)], "label": True}
        for text in ("", "Yes")
    )
    queries = FakeHub({"context": "c", "question": "q", "answer": text} for text in ("", "SELECT"))
    raw = {ULTRA: pairs, "trl-lib/kto-mix-14k": thumbs, "b-mc2/sql-create-context": queries}
    monkeypatch.setattr("datasets.load_dataset", lambda name, split: raw[name])
    with caplog.at_level("INFO", "ftlib"):
        assert [row["axis"] for row in ft.load_rows("preferences", "small")] == ["longer"]
        assert [r["completion"] for r in ft.load_rows("feedback", "small")] == [
            [turn("assistant", "Yes")]
        ]
        assert [row["answer"] for row in ft.load_rows("golden", "small")] == ["SELECT"]
    assert "4 of 5 pairs with equal or empty answers left out" in caplog.text
    assert "1 of 2 rows with empty completions left out" in caplog.text
    assert "1 of 2 rows with empty queries left out" in caplog.text


def test_system_turns_and_several_turns_stay_in_the_prompt(monkeypatch):
    prompt = [turn("system", "Be brief."), turn("user", "Hi"), turn("assistant", "Yes?")]
    prompt.append(turn("user", "Go on."))
    pair = {
        "chosen": [*prompt, turn("assistant", "So be it.")],
        "rejected": [*prompt, turn("assistant", "No.")],
        "score_chosen": 8.0,
    }
    monkeypatch.setattr("datasets.load_dataset", lambda name, split: FakeHub([pair]))
    [row] = ft.load_rows("preferences", "small")
    assert row["prompt"] == prompt and check_pair(row)["rejected"] == [turn("assistant", "No.")]


def test_another_dataset_under_the_name_is_named(monkeypatch):
    """Were a column renamed, the error says which fields there are."""
    raw = FakeHub([{"prompt": "Hi", "preferred": "a"}])
    monkeypatch.setattr("datasets.load_dataset", lambda name, split: raw)
    for part in ("preferences", "preferences_long"):
        with pytest.raises(DataError, match=r"fields prompt, preferred, and no '.*FTLIB_ROWS"):
            ft.load_rows(part, "small")


def test_one_configuration_is_enough_in_a_copy(tmp_path, monkeypatch):
    """`hf download --include "wikitext-2-raw-v1/*"` leaves the card and one folder: the other
    configurations of the card have no files.
    """
    from datasets import Dataset

    copy = tmp_path / "Salesforce" / "wikitext"
    folder = copy / "wikitext-2-raw-v1"
    folder.mkdir(parents=True)
    long = "long " * 50
    for split in ("test", "train", "validation"):
        rows = Dataset.from_list([{"text": split}, {"text": long + split}])
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    card = ["---", "configs:"]
    for config in ("wikitext-103-raw-v1", "wikitext-2-raw-v1"):
        card += [f"- config_name: {config}", "  data_files:"]
        card += ["  - split: validation", f"    path: {config}/validation-*"]
    (copy / "README.md").write_text("\n".join([*card, "---"]))
    monkeypatch.setenv("FTLIB_HUB", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert ft.load_base_text("small") == [long + "validation"]


def test_errors(monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", offline)
    for split, name in (
        ("train", "b-mc2/sql-create-context"),
        ("preferences", ULTRA),
        ("feedback", "trl-lib/kto-mix-14k"),
    ):
        with pytest.raises(DataError, match=f"{name}.*ConnectionError.*FTLIB_ROWS"):
            ft.load_rows(split, "small")
    with pytest.raises(DataError, match="no split 'test'"):
        ft.load_rows("test", "small")
    other = dataclasses.replace(PROFILES["small"], dataset="org/other")
    with pytest.raises(DataError, match=r"org/other.*FTLIB_ROWS"):
        ft.load_rows("train", other)
    with pytest.raises(DataError, match="no split 'golden' here: use preferences"):
        hub_rows(ULTRA, "golden")


@pytest.mark.parametrize("name", PROFILES)
def test_every_dataset_that_a_profile_names_is_known(name):
    p = PROFILES[name]
    for dataset, part in (
        (p.dataset, "golden"),
        (p.preference.pairs, "preferences_test"),
        ("english", "faults_train"),
        (p.preference.pairs, "distance_probe"),
        (p.preference.feedback, "feedback"),
        (p.open.dataset, "open_train"),
    ):
        if dataset in FOLDERS:
            assert (FOLDERS[dataset] / f"{part}.jsonl").is_file()
        else:
            assert part in HUB[dataset][1]


def test_raw_rows_of_a_profile(monkeypatch):
    """Embedded: the first training rows. From the Hub: as they are, but without Alpaca's `text`,
    which says everything twice.
    """
    tiny = PROFILES["tiny"]
    asked = []
    assert load_raw(tiny) == ft.load_rows("train", tiny)[: tiny.preparation.rows]

    def hub(name, split):
        asked.append((name, split))
        return [{"instruction": "a", "input": "", "output": "b", "text": "a b"}]

    monkeypatch.setattr("datasets.load_dataset", hub)
    assert load_raw("small") == [{"instruction": "a", "input": "", "output": "b"}] and asked == [
        ("tatsu-lab/alpaca", "train[:5000]")
    ]
    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(
        DataError,
        match=r"'tatsu-lab/alpaca' could not be loaded \(ConnectionError\): go online once",
    ):
        load_raw("small")


def test_text_of_the_base_model_from_the_hub(monkeypatch):
    """Long texts alone, of the configuration that is named; offline the error says what to do."""
    asked = []

    def hub(*names, split):
        asked.append((*names, split))
        return [{"text": "short"}, {"text": "long " * 50}]

    monkeypatch.setattr("datasets.load_dataset", hub)
    assert ft.load_base_text("small") == ["long " * 50]
    assert asked == [("Salesforce/wikitext", "wikitext-2-raw-v1", "validation")]
    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(DataError, match=r"'Salesforce/wikitext' could not be loaded"):
        ft.load_base_text("small")
