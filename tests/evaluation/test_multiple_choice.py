"""Multiple choice: sums by hand, the border between context and choice, and lm-evaluation-harness
on the same questions.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EMBEDDED, ROOT, byte_tokenizer, llama

import ftlib as ft
from ftlib.evaluation.benchmarks import lettered, load_questions
from ftlib.evaluation.multiple_choice import ChoiceScores, QuestionScore, encode_choice, with_shots

BENCHMARK = ROOT / "data" / "benchmark"


@pytest.fixture(scope="module")
def sharp():
    """A random model with large weights, in float64."""
    return llama(initializer_range=0.3, dtype=torch.float64)


@pytest.fixture(scope="module")
def tok():
    return byte_tokenizer()


QUESTIONS = [
    {"context": "Käse is", "choices": ["good", "bad and long", "no"], "answer": 1},
    {"context": "Answer: ", "choices": ["A", "B"], "answer": 0, "description": "Two.\n\n"},
    {"context": "", "choices": ["x y", "z"], "answer": 1},
]


# --- by hand --------------------------------------------------------------------------------------
def hand_logp(model, tokenizer, context: str, continuation: str) -> float:
    """Σ log p(token | all before it) over the continuation's bytes, one forward pass a token."""
    given = [tokenizer.bos_token_id, *context.encode()]
    total = 0.0
    for byte in continuation.encode():
        ids = tokenizer(bytes(given[1:]).decode(errors="ignore"), add_special_tokens=False)
        ids = [given[0], *ids["input_ids"]]
        token = tokenizer(chr(byte), add_special_tokens=False)["input_ids"][0]
        logits = model(torch.tensor([ids])).logits[0, -1]
        total += (logits - logits.logsumexp(0))[token].item()
        given.append(byte)
    return total


def test_the_sums_by_hand(sharp, tok):
    """A byte a token: the border is the border of the texts, and a context's last space is the
    choice's first token.
    """
    scores = ft.score_choices(sharp, tok, QUESTIONS, batch_size=2)
    for score, question in zip(scores, QUESTIONS, strict=True):
        context = question.get("description", "") + question["context"]
        stripped = context.rstrip()
        moved = context[len(stripped) :]
        for found, choice in zip(score.logps, question["choices"], strict=True):
            want = hand_logp(sharp, tok, stripped, f"{moved} {choice}")
            assert found == pytest.approx(want, abs=1e-9)
    assert scores[0].tokens == (5, 13, 3) and scores[1].tokens == (3, 3)


def test_batches_change_nothing_and_the_mode_stays(sharp, tok):
    sharp.train()
    runs = [ft.score_choices(sharp, tok, QUESTIONS, batch_size=size) for size in (1, 3, 32)]
    assert sharp.training
    for run in runs[1:]:
        for a, b in zip(runs[0], run, strict=True):
            np.testing.assert_allclose(a.logps, b.logps, atol=1e-10)


def test_the_three_predictions():
    """Sums -4, -6, -7 of 2, 4 and 7 characters, of which "ééé" (and a space and "abc") has 10
    bytes: -4 is the largest sum; a character, -2, -1.5, -1; a byte, -2, -1.5, -0.7.

    Of "é" and "ab", sums -1.5 and -2: a character -1.5 and -1, the second; a byte -0.75 and -1, the
    first.
    """
    choices = ("ab", "abcd", "ééé abc")
    score = QuestionScore(
        (-4.0, -6.0, -7.0), (1, 2, 3), tuple(map(len, choices)), (2, 4, 10), answer=2
    )
    assert (score.prediction, score.prediction_norm, score.prediction_bytes) == (0, 2, 2)
    accent = QuestionScore((-1.5, -2.0), (1, 1), (1, 2), (2, 2), answer=0)
    assert (accent.prediction, accent.prediction_norm, accent.prediction_bytes) == (0, 1, 0)
    scores = ChoiceScores([score, accent])
    assert scores.acc.mean == 0.5 and scores.acc_norm.mean == 0.5 and scores.acc_bytes.mean == 1
    assert scores.acc == ft.share_interval(1, 2)


def test_equal_sums_take_the_first():
    assert QuestionScore((-1.0, -1.0), (1, 1), (1, 1), (1, 1), 0).prediction == 0


def test_the_choice_is_cut_out_of_the_text_as_a_whole():
    """The embedded tokenizer joins a space with its word: the space of "is " goes to the choice.
    Where a token spans the border, as many tokens are cut off as the context alone has.
    """
    _, tokenizer = ft.load_model(EMBEDDED, dtype=torch.float32)
    assert encode_choice(tokenizer, "The cat is ", "red") == encode_choice(
        tokenizer, "The cat is", " red"
    )
    context, choice = encode_choice(tokenizer, "The cat is", " red")
    assert context[0] == tokenizer.bos_token_id and tokenizer.decode(choice) == " red"
    for word in ("colour", "favourite", "profession", "animal"):
        alone = len(tokenizer(word[:2])["input_ids"])
        whole = tokenizer(word)["input_ids"]
        assert encode_choice(tokenizer, word[:2], word[2:])[1] == whole[alone:]
    twice = encode_choice(tokenizer, "<|bos|>The cat is", " red")
    assert twice == (context, choice)
    assert encode_choice(tokenizer, "", " red") == ([tokenizer.bos_token_id], choice)
    assert encode_choice(tokenizer, "  ", "red")[0] == [tokenizer.bos_token_id]


def test_a_long_context_loses_its_beginning(sharp, tok, caplog):
    """Eight tokens are left: the last five of the context, and the choice's three."""
    short = {"context": "bcdef", "choices": ["yy", "zz"], "answer": 0}
    long = {**short, "context": "a long beginning, then bcdef"}
    with caplog.at_level("WARNING", logger="ftlib"):
        cut = ft.score_choices(sharp, tok, [long], max_length=8)[0]
    assert "cut to the last 5 of 29" in caplog.text
    # The same tokens, without BOS.
    ids = tok("bcdef yy", add_special_tokens=False)["input_ids"]
    logps = sharp(torch.tensor([ids])).logits[0].log_softmax(-1)
    want = sum(logps[t - 1, ids[t]].item() for t in (5, 6, 7))
    assert cut.logps[0] == pytest.approx(want, abs=1e-9)
    with pytest.raises(ValueError, match="question 0: a choice of 3 tokens leaves no room"):
        ft.score_choices(sharp, tok, [long], max_length=3)


def test_solved_examples_stand_before_the_question():
    shots = [{"context": "1+1=", "choices": ["2", "3"], "answer": 0}]
    question = {"context": "2+2=", "choices": ["5", "4"], "answer": 1, "description": "Sums.\n\n"}
    (found,) = with_shots([question], shots)
    assert found == {**question, "context": "1+1= 2\n\n2+2="}


# --- the benchmarks' rows -------------------------------------------------------------------------
MMLU = [
    {
        "question": f" What is {n} plus 1? ",
        "subject": "abstract_algebra",
        "choices": [str(n), str(n + 1), str(n + 2), "none"],
        "answer": n % 4,
    }
    for n in range(6)
]
ARC = [
    {
        "id": "a",
        "question": "Which is a colour?",
        "choices": {"text": ["red", "iron", "soup"], "label": ["A", "B", "C"]},
        "answerKey": "C",
    },
    {
        "id": "b",
        "question": "Which swims?",
        "choices": {"text": ["a stone", "a fish", "a bell", "a key"], "label": list("1234")},
        "answerKey": "2",
    },
]
HELLASWAG = [
    {
        "ind": n,
        "activity_label": "Baking",
        "ctx_a": "[header] How to bake [title] Mix it. ",
        "ctx_b": "the baker",
        "ctx": "",
        "endings": ["eats [substeps] it.", "sings.", "naps  well", "flies"],
        "label": str(n),
    }
    for n in range(3)
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_of_the_hubs_shape_become_questions(tmp_path):
    mmlu = load_questions(write(tmp_path / "mmlu.jsonl", MMLU), "mmlu")[1]
    assert mmlu == {
        "description": "The following are multiple choice questions (with answers) about "
        "abstract algebra.\n\n",
        "context": "What is 1 plus 1?\nA. 1\nB. 2\nC. 3\nD. none\nAnswer:",
        "choices": ["A", "B", "C", "D"],
        "answer": 1,
    }
    arc = load_questions(write(tmp_path / "arc.jsonl", ARC), "arc")
    assert [question["answer"] for question in arc] == [2, 1]
    assert arc[1]["context"] == "Question: Which swims?\nAnswer:"
    assert arc[1]["choices"] == ["a stone", "a fish", "a bell", "a key"]
    swag = load_questions(write(tmp_path / "swag.jsonl", HELLASWAG), "hellaswag")[2]
    assert swag["context"] == "Baking: How to bake. Mix it. The baker"
    assert swag["choices"] == ["eats it.", "sings.", "naps well", "flies"]
    assert swag["answer"] == 2


@pytest.mark.parametrize(
    "shape, row, words",
    [
        ("mmlu", {**MMLU[0], "choices": ["1", "2"]}, "2 choices, letters are for 4"),
        ("mmlu", {**MMLU[0], "answer": "B"}, "answer is 'B'"),
        ("mmlu", {**MMLU[0], "answer": 4}, "from 0 to 3"),
        ("arc", {**ARC[0], "answerKey": "D"}, "answerKey is 'D', the labels"),
        ("hellaswag", {**HELLASWAG[0], "label": ""}, "label is '': the test part has none"),
        ("hellaswag", {"label": "1"}, "ctx_b is None: is this the benchmark's own file"),
        ("questions", {"context": "a", "choices": ["b"], "answer": 0}, "at least two texts"),
    ],
)
def test_a_row_of_another_shape_is_named(shape, row, words, tmp_path):
    path = write(tmp_path / "rows.jsonl", [row])
    with pytest.raises(ValueError, match=rf"(?s){words}"):
        load_questions(path, shape)


def test_an_unknown_shape():
    with pytest.raises(ValueError, match="shape='mmlu_pro': use one of 'mmlu'"):
        load_questions("rows.jsonl", "mmlu_pro")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"context": None}, "question 0: context is None"),
        ({"choices": ["x", " "]}, "the choice ' ' is no text"),
        ({"answer": True}, "answer is True"),
        ({"answer": 2}, "answer is 2"),
        ({"description": 3}, "description is 3"),
    ],
)
def test_bad_questions(change, words, sharp, tok):
    question = {"context": "c", "choices": ["x", "y"], "answer": 0, **change}
    with pytest.raises(ValueError, match=words):
        ft.score_choices(sharp, tok, [question])


def test_bad_arguments(sharp, tok):
    with pytest.raises(ValueError, match="questions is empty"):
        ft.score_choices(sharp, tok, [])
    with pytest.raises(ValueError, match="questions is a dict"):
        ft.score_choices(sharp, tok, QUESTIONS[0])
    with pytest.raises(ValueError, match="batch_size=0"):
        ft.score_choices(sharp, tok, QUESTIONS, batch_size=0)
    with pytest.raises(ValueError, match="delimiter=None"):
        ft.score_choices(sharp, tok, QUESTIONS, delimiter=None)


# --- lm-evaluation-harness ------------------------------------------------------------------------
LOCAL = """group: local_benchmarks
task:
  - task: mmlu_abstract_algebra
    dataset_path: json
    dataset_name: null
    dataset_kwargs: {{data_files: {{test: {0}/mmlu.jsonl, dev: {0}/dev.jsonl}}}}
  - task: arc_easy
    dataset_path: json
    dataset_name: null
    dataset_kwargs: {{data_files: {{test: {0}/arc.jsonl}}}}
    training_split: null
    validation_split: null
  - task: hellaswag
    dataset_path: json
    dataset_kwargs: {{data_files: {{validation: {0}/hellaswag.jsonl}}}}
    training_split: null
"""


@pytest.fixture(scope="module")
def embedded():
    torch.set_num_threads(1)
    return ft.load_model(EMBEDDED, dtype=torch.float32)


def by_the_harness(embedded, folder, task: str, shots: int = 0):
    """Its samples of a task, in the order of the file, and what it says of all."""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness (lm_eval) is not installed")
    import lm_eval.tasks
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = embedded
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16)
    # Its own thousands of task files take half a minute to read: of them only what is overridden.
    own = Path(lm_eval.tasks.__file__).parent
    used = [str(own / name) for name in ("mmlu/default", "arc", "hellaswag")]
    manager = lm_eval.tasks.TaskManager(include_path=[*used, str(folder)], include_defaults=False)
    found = simple_evaluate(
        harness, tasks=[task], num_fewshot=shots, task_manager=manager, bootstrap_iters=0
    )
    return found["samples"], found["results"]


def assert_equal(scores, samples, results):
    """Every sum, and both accuracies."""
    assert len(scores) == len(samples) > 0
    for score, sample in zip(scores, sorted(samples, key=lambda s: s["doc_id"]), strict=True):
        sums = [logp for logp, _ in sample["filtered_resps"]]
        np.testing.assert_allclose(score.logps, sums, atol=1e-4, rtol=0)
        assert sample["acc"] == (score.prediction == score.answer)
        if "acc_norm" in sample:
            assert sample["acc_norm"] == (score.prediction_norm == score.answer)
    assert results["acc,none"] == pytest.approx(scores.acc.mean)


@pytest.mark.parametrize("name", ["world_facts", "world_strangers", "world_letters"])
def test_the_courses_tasks_by_the_harness(name, embedded, monkeypatch):
    monkeypatch.chdir(ROOT)  # where the paths of the task files start
    samples, results = by_the_harness(embedded, BENCHMARK, name)
    file = "world_strangers" if name == "world_strangers" else "world_facts"
    questions = load_questions(BENCHMARK / f"{file}.jsonl")
    if name == "world_letters":
        questions = [lettered(question) for question in questions]
    assert_equal(ft.score_choices(*embedded, questions), samples[name], results[name])


@pytest.mark.parametrize("shots", [0, 2])
def test_files_of_the_benchmarks_shape_by_the_harness(shots, embedded, tmp_path):
    """MMLU, ARC and HellaSwag from local files, MMLU also after solved examples: the first of its
    dev part.
    """
    write(tmp_path / "mmlu.jsonl", MMLU)
    write(tmp_path / "dev.jsonl", MMLU[3:])
    write(tmp_path / "arc.jsonl", ARC)
    write(tmp_path / "hellaswag.jsonl", HELLASWAG)
    (tmp_path / "local.yaml").write_text(LOCAL.format(tmp_path))
    task = "mmlu_abstract_algebra" if shots else "local_benchmarks"
    if shots:
        one = LOCAL.format(tmp_path).split("  - task: arc_easy")[0]
        (tmp_path / "local.yaml").write_text(one)
        task = "local_benchmarks"
    samples, results = by_the_harness(embedded, tmp_path, task, shots)
    questions = load_questions(tmp_path / "mmlu.jsonl", "mmlu")
    questions = with_shots(questions, load_questions(tmp_path / "dev.jsonl", "mmlu")[:shots])
    name = "mmlu_abstract_algebra"
    assert_equal(ft.score_choices(*embedded, questions), samples[name], results[name])
    if shots:
        return
    for name, shape in (("arc_easy", "arc"), ("hellaswag", "hellaswag")):
        questions = load_questions(tmp_path / f"{shape}.jsonl", shape)
        assert_equal(ft.score_choices(*embedded, questions), samples[name], results[name])


def test_the_command_line_on_files_of_the_benchmarks_shape(embedded, tmp_path):
    """The harness's own command, as lab E5 prints it, on local files in the place of the Hub's: its
    shares are those of `score_choices`.
    """
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness (lm_eval) is not installed")
    from ftlib.course.lab_e5.harness import command

    write(tmp_path / "mmlu.jsonl", MMLU)
    write(tmp_path / "dev.jsonl", MMLU[3:])
    write(tmp_path / "arc.jsonl", ARC)
    write(tmp_path / "hellaswag.jsonl", HELLASWAG)
    (tmp_path / "local.yaml").write_text(LOCAL.format(tmp_path))
    model = str(ROOT / "data" / EMBEDDED)
    words = command(model, "local_benchmarks", "float32", folder=str(tmp_path))
    assert words[0] == "lm_eval"
    words[words.index("--output_path") + 1] = str(tmp_path / "out")
    line = [sys.executable, "-m", *words, "--device", "cpu"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(written.read_text())["results"]
    for task, shape in (
        ("mmlu_abstract_algebra", "mmlu"),
        ("arc_easy", "arc"),
        ("hellaswag", "hellaswag"),
    ):
        scores = ft.score_choices(*embedded, load_questions(tmp_path / f"{shape}.jsonl", shape))
        assert results[task]["acc,none"] == pytest.approx(scores.acc.mean)
