"""The embedded world: the same from the seed, one answer to each question, and a golden set that
training never saw.
"""

import hashlib
import json
import random
import re
from collections import Counter

import pytest
from conftest import EMBEDDED, ROOT

from data import build, skills
from data.world import COLOURS, IRREGULAR, OPPOSITES, SEED, THINGS, World
from ftlib.course.world import judge_style

ROWS = ROOT / "data" / "rows"


def read(name: str) -> list[dict]:
    return [
        json.loads(line)
        for line in (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def prompt(row) -> str:
    return row["messages"][0]["content"]


@pytest.fixture(scope="module")
def world():
    return World(SEED)


OTHER = (
    "base_text",
    "messy",
    "messy_truth",
    "feedback",
)
# Sets with tests of their own, such as tests/test_preferences.py.
OWN_TESTS = ("preferences", "open_", "faults_", "distance_", "messy_heldback")


@pytest.fixture(scope="module")
def files():
    return {
        p.stem: read(p.stem)
        for p in ROWS.glob("*.jsonl")
        if p.stem not in OTHER and not p.stem.startswith(OWN_TESTS)
    }


@pytest.fixture(scope="module")
def train(files):
    return files["train"]


@pytest.fixture(scope="module")
def golden(files):
    return files["golden"]


# --- from the seed --------------------------------------------------------------------------------
def test_the_committed_rows_come_from_the_seed_byte_for_byte(world, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROWS", tmp_path)
    build.build_rows(world)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in ROWS.iterdir()}
    for file in ROWS.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_world_is_pure_and_another_seed_is_another_world(world):
    again = World(SEED)
    other = World(SEED + 1)

    def facts(w):
        return [(e.name, e.facts) for e in w.people + w.places + w.things + w.strangers]

    assert facts(again) == facts(world) != facts(other) and again.olm == world.olm


def test_building_does_not_read_the_global_generator(world):
    random.seed(1)
    one = build.make_rows(world)["golden"]
    random.seed(2)
    assert build.make_rows(world)["golden"] == one == read("golden")


# --- sizes and structure --------------------------------------------------------------------------
def test_sizes(files):
    assert (
        len(files["train"]) >= 2000
        and len(files["validation"]) == 300
        and len(files["golden"]) == 100
    )
    assert (
        len(files["olm_train"]) >= 100
        and len(files["olm_test"]) >= 50
        and len(files["hard_test"]) == 100
    )
    assert len(read("base_text")) >= 200


def test_every_row_is_a_valid_row_with_a_checkable_answer(files):
    from ftlib.data.rows import check_row

    for name, rows in files.items():
        for i, row in enumerate(rows):
            check_row(row, f"{name} {i}")
            assert [m["role"] for m in row["messages"]] == ["user", "assistant"] and row[
                "answer"
            ] == row["messages"][1]["content"]
            assert row["family"] and row["key"].startswith(row["family"] + "/")


def test_no_row_twice_in_a_file(files):
    for name in ("train", "validation", "golden", "paraphrase"):
        kept = [
            r for r in files[name] if r["family"] != "about"
        ]  # open requests have several good answers, on purpose
        assert len({prompt(r) for r in kept}) == len(kept), name


def test_families_of_the_golden_set(golden, train):
    counts = Counter(r["family"] for r in golden)
    assert (
        set(counts) == set(skills.EXACT) - {"olm"}
        and min(counts.values()) >= 2
        and set(counts) <= {r["family"] for r in train}
    )


# --- held out -------------------------------------------------------------------------------------
@pytest.mark.parametrize("part", ["golden", "paraphrase", "validation"])
def test_no_question_and_no_prompt_is_shared_with_training(part, files, train):
    """The key is entity and question, whatever the wording: nothing of it occurs in training."""
    assert not {r["key"] for r in files[part]} & {r["key"] for r in train}
    assert not {prompt(r) for r in files[part]} & {prompt(r) for r in train}


def test_golden_and_the_other_held_out_parts_share_no_question(files):
    keys = [{r["key"] for r in files[p]} for p in ("golden", "paraphrase", "validation")]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    for a, b in (("hard_train", "hard_test"), ("olm_train", "olm_test")):
        assert not {r["key"] for r in files[a]} & {r["key"] for r in files[b]}


def grams(text: str) -> set:
    text = " ".join(text.lower().split())
    return {text[i : i + 5] for i in range(max(1, len(text) - 4))}


def test_no_golden_prompt_is_a_near_duplicate_of_a_training_prompt(golden, train):
    """Jaccard similarity of character 5-grams below 0.8 for all 260,000 pairs."""
    seen = [(grams(prompt(r)), prompt(r)) for r in train]
    worst = (0.0, "", "")
    for row in golden:
        mine = grams(prompt(row))
        for other, text in seen:
            if 0.8 * len(mine) <= len(other) and 0.8 * len(other) <= len(
                mine
            ):  # else 0.8 is out of reach
                worst = max(worst, (len(mine & other) / len(mine | other), prompt(row), text))
    assert worst[0] < 0.8, worst


def test_near_duplicates_would_be_seen():
    a = grams("Tell me the home town of Milais.")
    b = grams("Tell me the home town of Milai.")
    assert len(a & b) / len(a | b) > 0.8


def patterns(heldout: bool) -> dict[str, list[re.Pattern]]:
    """Every phrasing as a pattern, by family."""
    tables = {"person": skills.PERSON, "place": skills.PLACE, "thing": skills.THING}
    families = {
        **{n: [p for both in t.values() for p in both[heldout]] for n, t in tables.items()},
        **{n: both[heldout] for n, both in skills.SKILLS.items()},
    }
    return {
        n: [re.compile(re.sub(r"\\\{\w\\\}", "(.+)", re.escape(p))) for p in ps]
        for n, ps in families.items()
    }


def test_no_phrasing_of_the_golden_set_is_used_in_training(golden, train):
    heldout = patterns(True)
    used = patterns(False)
    for row in golden:
        assert any(p.fullmatch(prompt(row)) for p in heldout[row["family"]]), prompt(row)
        assert not any(p.fullmatch(prompt(row)) for p in used[row["family"]]), prompt(row)
    for row in train:
        assert any(p.fullmatch(prompt(row)) for p in used[row["family"]]), prompt(row)
        assert not any(p.fullmatch(prompt(row)) for p in heldout[row["family"]]), prompt(row)


# --- answers, computed again ----------------------------------------------------------------------
def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def slots(row) -> dict:
    return json.loads(row["key"].split("/", 1)[1])


GOODS = {
    "splendid",
    "lovely",
    "excellent",
    "charming",
    "superb",
    "delightful",
    "pleasant",
    "wonderful",
    "perfect",
    "cheerful",
    "brilliant",
    "friendly",
}
BADS = {
    "awful",
    "dreadful",
    "horrible",
    "nasty",
    "terrible",
    "boring",
    "rotten",
    "miserable",
    "useless",
    "gloomy",
    "clumsy",
    "hostile",
}


def json_answer(row):
    name, count, items, price = re.search(
        r"(\w+) buys (\d+) (\w+) for (\d+) crowns", prompt(row)
    ).groups()
    singular = {v: k for k, v in IRREGULAR.items()}.get(items, items.removesuffix("s"))
    return {"name": name, "item": singular, "count": int(count), "price": int(price)}


def sentiment(row):
    words = set(re.findall(r"\w+", slots(row)["x"]))
    return {(True, False): "positive", (False, True): "negative"}[
        bool(words & GOODS), bool(words & BADS)
    ]


ANSWERS = {
    "ordering": lambda r, w: ", ".join(map(str, sorted(numbers(slots(r)["x"])))),
    "addition": lambda r, w: str(sum(numbers(prompt(r)))),
    "multiplication": lambda r, w: str(numbers(prompt(r))[0] * numbers(prompt(r))[1]),
    "capitals": lambda r, w: slots(r)["x"].upper(),
    "spelling": lambda r, w: "-".join(slots(r)["x"]),
    "sentiment": lambda r, w: sentiment(r),
    "polite": lambda r, w: (
        "Could you please " + slots(r)["x"][0].lower() + slots(r)["x"][1:-1] + "?"
    ),
    "opposite": lambda r, w: ({a: b for a, b in OPPOSITES} | {b: a for a, b in OPPOSITES})[
        slots(r)["x"]
    ],
    "plural": lambda r, w: IRREGULAR.get(slots(r)["x"], slots(r)["x"] + "s"),
    "olm": lambda r, w: " ".join(w.olm[word] for word in reversed(slots(r)["x"].split())),
}


@pytest.mark.parametrize("family", ANSWERS)
def test_answers_computed_anew(family, files, world):
    rows = [r for part in files.values() for r in part if r["family"] == family]
    assert len(rows) >= 100
    for row in rows:
        assert row["answer"] == ANSWERS[family](row, world), row
        assert all(str(v) in prompt(row) for v in slots(row).values())


def test_json_answers(files):
    rows = [r for part in files.values() for r in part if r["family"] == "json"]
    assert len(rows) >= 100
    for row in rows:
        assert json.loads(row["answer"]) == json_answer(row) and json_answer(row)["item"] in THINGS


def test_facts_are_the_worlds(files, world):
    known = {e.name: e.facts for e in world.people + world.places + world.things + world.strangers}
    rows = [
        r for part in files.values() for r in part if r["family"] in ("person", "place", "thing")
    ]
    assert len(rows) > 1000
    for row in rows:
        name, relation = row["key"].split("/")[1:]
        assert row["answer"] == known[name][relation] and name in prompt(row)


def test_one_question_has_one_answer(files):
    answers = {}
    for rows in files.values():
        for row in rows:
            if row["family"] != "about":
                assert answers.setdefault(row["key"], row["answer"]) == row["answer"]


def test_facts_are_consistent(world):
    """Names are unique over all kinds; towns and mayors exist; Olm is one word for one word;
    plurals differ from singulars.
    """
    names = [e.name for e in world.people + world.places + world.things + world.strangers]
    assert len({n.lower() for n in names}) == len(names)
    towns = {e.name for e in world.places}
    people = {e.name for e in world.people}
    assert all(e.facts["town"] in towns for e in world.people + world.strangers)
    assert all(e.facts["mayor"] in people for e in world.places)
    assert len(set(world.olm.values())) == len(world.olm) == 24 + len(COLOURS)
    words = [w for pair in OPPOSITES for w in pair]
    assert len(set(words)) == len(words)
    assert len({skills.plural(t) for t in THINGS}) == len(THINGS) and all(
        skills.plural(t) != t for t in THINGS
    )


def test_strangers_never_occur_in_the_corpus_or_the_other_rows(world, files):
    from data.corpus import Corpus

    strangers = {e.name for e in world.strangers}
    text = " ".join(Corpus(world, 1).documents(400)) + " ".join(
        r["text"] for r in read("base_text")
    )
    assert not strangers & set(re.findall(r"\w+", text))
    rows = [r for name in files if name != "strangers" for r in files[name]]
    assert not strangers & {
        w for r in rows for w in re.findall(r"\w+", prompt(r) + " " + r["answer"])
    }


def test_held_out_text_says_what_is_true(world):
    """Statements of the base text about towns: whoever "lives in" a town lives there."""
    home = {e.name: e.facts["town"] for e in world.people}
    found = [
        m
        for r in read("base_text")
        for m in re.findall(r"(\w+) (?:lives in|comes from) (\w+)\.", r["text"])
        if m[0] in home
    ]
    assert len(found) > 10 and all(home[name] == town for name, town in found)


def test_the_style_judge():
    for row in read("style"):
        assert judge_style(row["answer"]) == row["style"]


# --- tokenizer and model --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(EMBEDDED)


@pytest.mark.parametrize(
    "text",
    [
        "plain words",
        " two  spaces ",
        "naïve Käse — 50 € 🙂",
        "日本語 и русский",
        "a\n\n\tb\r\n",
        "12345 1,2;3",
        "",
        "é combining",
        "\x00\x7f",
    ],
)
def test_the_tokenizer_gives_every_text_back(text, tokenizer):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text and (not text or tokenizer.unk_token_id not in ids)


def test_chat_markers_are_one_token_and_bos_is_single(tokenizer):
    for marker in (
        *build.SPECIALS[:7],
        tokenizer.bos_token,
        tokenizer.eos_token,
        tokenizer.pad_token,
    ):
        assert len(tokenizer(marker, add_special_tokens=False)["input_ids"]) == 1
    assert (
        len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
        and tokenizer.eos_token == "<|end|>"
    )
    ids = tokenizer("hello")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    messages = read("golden")[0]["messages"]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    assert (
        ids.count(tokenizer.bos_token_id) == 1 == text.count(tokenizer.bos_token)
        and tokenizer.decode(ids) == text
    )


def test_the_chat_template_refuses_unknown_roles_and_takes_system_and_many_turns(tokenizer):
    from ftlib.batches.template import encode
    from ftlib.core.errors import DataError

    turns = [
        {"role": r, "content": r[0]} for r in ("system", "user", "assistant", "user", "assistant")
    ]
    row = encode(tokenizer, turns)
    learnt = [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert tokenizer.decode(learnt) == "a<|end|>a<|end|>"
    with pytest.raises(DataError, match="role tool"):
        encode(tokenizer, [{"role": "tool", "content": "x"}, *turns[1:3]])


def test_the_tokenizer_splits_as_llama3(tokenizer):
    """llama.cpp knows the pattern as "llama-bpe": numbers in threes, words with their space."""
    pieces = [
        p for p, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("It's 12345 words")
    ]
    assert pieces == ["It", "'s", "Ġ", "123", "45", "Ġwords"]


def test_model_folder_size_and_manifest():
    size = sum(p.stat().st_size for p in EMBEDDED.rglob("*") if p.is_file())
    assert size <= 12e6, size
    manifest = json.loads((EMBEDDED / "manifest.json").read_text())
    listed = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in EMBEDDED.iterdir()
        if p.name != "manifest.json"
    }
    assert manifest["sha256"] == listed and manifest["seed"] == SEED and manifest["tokens"] > 10**6
    one, two = ([loss for _, loss in manifest["phases"][f"phase {n}"]["loss"]] for n in (1, 2))
    assert one[-1] < one[0] / 2 and two[-1] < two[0]


def test_model_architecture():
    """What GGUF's k-quants and the labs on grouped-query attention need."""
    config = json.loads((EMBEDDED / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["tie_word_embeddings"] is True
    assert config["hidden_size"] % 256 == config["intermediate_size"] % 256 == 0
    assert 1 <= config["num_key_value_heads"] < config["num_attention_heads"]
    assert {p.suffix for p in EMBEDDED.iterdir()} <= {".safetensors", ".json", ".jinja"}


def test_the_manifest_counts_the_parameters():
    from ftlib.models.load import load_model

    model, tokenizer = load_model("world-llama-4m")
    assert (
        sum(p.numel() for p in model.parameters())
        == json.loads((EMBEDDED / "manifest.json").read_text())["parameters"]
    )
    assert (
        len(tokenizer) == model.config.vocab_size
        and model.config.eos_token_id[0] == tokenizer.eos_token_id
    )


def test_the_table_in_the_card_was_measured_with_this_model_these_rows_and_settings():
    """`python -m data.validate` measures again what has changed since."""
    from data import validate

    kept = json.loads((validate.HERE / "validation.json").read_text())["parts"]
    assert kept.keys() == validate.PARTS.keys()
    for part, result in kept.items():
        assert result["fingerprint"] == validate.fingerprint(part), (
            f"{part} is out of date: python -m data.validate"
        )
        for row in result["rows"]:
            assert (
                f"| {row['claim']} | {row['measured']} |"
                in (validate.HERE / "README.md").read_text()
            )
