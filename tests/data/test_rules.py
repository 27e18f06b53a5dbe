"""Filters drop what was planted, for the reason that was planted, and leave clean rows and code
alone.
"""

import pytest
from conftest import byte_tokenizer, chat
from hypothesis import given
from hypothesis import strategies as st

from ftlib.core.errors import DataError
from ftlib.data.clean import clean_text
from ftlib.data.load import load_rows
from ftlib.data.rules import (
    QUALITY,
    Clean,
    Html,
    Language,
    Length,
    MaskPii,
    Repetition,
    Symbols,
    boilerplate,
    broken_encoding,
    echo,
    has_answer,
    html_left,
    strip_html,
    truncated,
)

CODE = '''def merge(a, b):
    """Merge two sorted lists; a < b && c > d is no HTML."""
    out, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        if a[i] <= b[j]:
            out.append(a[i]); i += 1
        else:
            out.append(b[j]); j += 1
    return out + a[i:] + b[j:]'''
SQL = (
    "SELECT a.name, COUNT(*) AS n FROM people AS a JOIN towns AS b ON a.town = b.id "
    "WHERE b.size >= 3 AND a.age <> 7 GROUP BY a.name ORDER BY n DESC"
)
C = (
    "#include <map>\n#include <vector>\n"
    "template <typename T> std::vector<T> f(std::map<int, T> &m, T *p) "
    "{ return (*p)->x[0] && m.at(1) << 2; }"
)
PROSE = (
    "The castle stands on a hill above the river. "
    "It was built of grey stone, and its tower can be seen from the next town."
)


@pytest.mark.parametrize("code", [CODE, SQL, C, '{"a": [1, 2, {"b": null}], "c": "d"}'])
@pytest.mark.parametrize(
    "form", ["{}", "```\n{}\n```", "Here it is:\n\n```python\n{}\n```\nIt works on sorted lists."]
)
def test_code_survives_everything(code, form):
    row = chat("Write the program that the task describes.", form.format(code))
    for rule in (Clean(), Html(), *QUALITY, Length(), Language()):
        assert rule(row) is None, rule


@pytest.mark.parametrize(
    "split", ["train", "golden", "olm_train", "hard_train", "strangers", "style"]
)
def test_embedded_rows_are_left_alone(split):
    rules = (Clean(), Html(), MaskPii(), *QUALITY, Length(), Language())
    assert [
        (rule, row) for row in load_rows(split, "tiny")[:700] for rule in rules if rule(row)
    ] == []


# HTML


@pytest.mark.parametrize(
    "text, want",
    [
        ("<p>One</p><p>two &amp; <b>three</b></p>", "One\ntwo & three"),
        ("a<br/>b<BR>c", "a\nb\nc"),
        ('<a href="x.org" class=y>link</a>', "link"),
        ("x<!-- hidden --><script>var a = 1;</script>y", "xy"),
        ("&lt;b&gt;bold&lt;/b&gt;", "bold"),
        ("&amp;lt;", "<"),
        ("a &unknown; b", "a &unknown; b"),
        ("1 < 2 and b > a", "1 < 2 and b > a"),
        ("if a <b and c> d", "if a <b and c> d"),
        ("?a=1&copy=2", "?a=1&copy=2"),
        ("List<String> x", "List<String> x"),
        ("use `<b>` here <i>now</i>", "use `<b>` here now"),
        ("```\n<p>&amp;</p>\n```\n<p>a</p>", "```\n<p>&amp;</p>\n```\na"),
        ("The HTML tag <b> makes text bold.", "The HTML tag <b> makes text bold."),
        (PROSE, PROSE),
        (CODE, CODE),
    ],
)
def test_strip_html(text, want):
    assert strip_html(text) == want


@given(
    st.lists(
        st.sampled_from(
            [
                "<p>",
                "</p>",
                "<b",
                ">",
                "&lt;",
                "&amp;",
                "lt;",
                "a ",
                "`",
                "\n",
                "    ",
                "<!--",
                "-->",
                "```",
                "&#60;",
                "&#10;",
            ]
        ),
        max_size=14,
    )
)
def test_stripping_twice_is_stripping_once(pieces):
    once = strip_html(clean_text("".join(pieces)))
    assert strip_html(once) == once == clean_text(once)


def test_html_rule_and_what_is_left():
    row, counts = Html()({**chat("a &amp; b", "<p>c</p>"), "answer": "<p>c</p>"})
    assert not counts and row == {**chat("a & b", "c"), "answer": "c"} and html_left(row) is None
    assert (
        html_left(chat("q", "one <b>two")) == "HTML '<b>'"
        and html_left(chat("Which tag is bold in HTML?", "<b>")) is None
    )
    assert Html()(chat("Which tag is bold in HTML?", "<b>")) is None


def test_pii_is_masked_and_counted():
    row, counts = MaskPii()(
        {**chat("Mail ann@x.org or +49 30 1234567", "ann@x.org"), "answer": "ann@x.org"}
    )
    assert row == {
        **chat("Mail [EMAIL] or [PHONE]", "[EMAIL]"),
        "answer": "[EMAIL]",
    } and counts == {"email": 3, "phone": 1}
    assert MaskPii()(chat("a", "b")) is None


# Language and length


@pytest.mark.parametrize(
    "code, text",
    [
        ("de", "Wie viele Menschen leben heute in dieser Stadt am Fluss?"),
        ("de", "Schreibe bitte einen kurzen Brief an meine Tante in Wien."),
        ("fr", "Quelle est la capitale de ce pays et combien d'habitants a-t-elle ?"),
        ("fr", "Il fait beau aujourd'hui, nous allons au lac avec les enfants."),
        ("es", "¿Cuál es la capital de este país y cuántos habitantes tiene?"),
        ("es", "Escribe una carta breve a mi tía que vive en la montaña, por favor."),
        ("ru", "Сколько людей живёт сегодня в этом городе возле реки?"),
    ],
)
def test_other_languages_go(code, text):
    assert (
        Language()(chat(text, "ok")).startswith(code)
        and Language(("en", code))(chat(text, "ok")) is None
    )


@pytest.mark.parametrize(
    "text",
    [
        "Give me 1 plus 7.",
        "Work out 14 plus 9.",
        PROSE,
        "Vijair lives in Gorby and is a clerk.",
        CODE,
    ],
)
def test_english_and_what_is_too_short_stay(text):
    assert Language()(chat(text, "8")) is None


@pytest.mark.parametrize(
    "options, name",
    [
        ({"allowed": "en"}, "allowed='en'"),
        ({"allowed": ("xx",)}, "xx"),
        ({"among": ("en", "qq")}, "qq"),
    ],
)
def test_bad_languages(options, name):
    with pytest.raises(DataError, match=name):
        Language(**options)


def test_length():
    row = chat("abc", "de")  # with the line break between them six characters, or bytes
    assert (
        Length(6, 6)(row) is None
        and Length(7)(row) == "6 characters, fewer than 7"
        and Length(0, 5)(row) == "6 characters, more than 5"
    )
    assert Length(0, 5, byte_tokenizer())(row) == "6 tokens, more than 5"
    with pytest.raises(DataError, match="minimum=3, maximum=2"):
        Length(3, 2)


# Quality


@pytest.mark.parametrize(
    "rule, row",
    [
        (has_answer, chat("q", " \n")),
        (has_answer, {"messages": [{"role": "user", "content": "q"}]}),
        (has_answer, {"text": " "}),
        (has_answer, {"prompt": "q", "chosen": "", "rejected": "b"}),
        (echo, chat("What is the river of Vasmere?", "what is the river of Vasmere")),
        (echo, chat("What is the river of Vasmere?", "What is the river of Vasmere? The Jorn.")),
        (boilerplate, chat("q", "As an AI language model, I have no dog.")),
        (boilerplate, chat("q", "I'm sorry, but I can't help with that.")),
        (boilerplate, chat("q", "I am unable to assist with this.")),
        (boilerplate, chat("q", "As a large language model I think so.")),
        (truncated, chat("q", PROSE + " The old people of the town still tell how the")),
        (truncated, chat("q", "```python\nx = 1")),
        (broken_encoding, chat("q", "cafÃ© and more")),
        (broken_encoding, chat("q", "itâ€™s")),
        (broken_encoding, chat("q", "a \ufffd b")),
        (Repetition(), chat("q", "I like the sea. " * 8)),
        (Repetition(), chat("q", "a" * 40)),
        (Symbols(), chat("q", "#$%&*!@#$ no (*&^%$#@!)(*&^%")),
    ],
)
def test_defects_are_found(rule, row):
    assert rule(row)


@pytest.mark.parametrize(
    "rule, row",
    [
        (has_answer, chat("q", "8")),
        (has_answer, {"text": "t"}),
        (has_answer, {"prompt": "q", "completion": "", "label": False}),
        (echo, chat("Put red pot into capitals.", "RED POT")),
        (
            echo,
            chat(
                "Say it politely: Sell me the orange sword.",
                "Could you please sell me the orange sword?",
            ),
        ),
        (
            boilerplate,
            {
                "prompt": "q",
                "chosen": "No dog.",
                "rejected": "As an AI language model, I have no dog.",
            },
        ),
        (boilerplate, chat("q", "A language model predicts the next word. I cannot swim.")),
        (truncated, chat("q", PROSE)),
        (truncated, chat("q", "doctor")),
        (
            truncated,
            chat("q", "Three things. They are:\n- the tall castle on the hill by the river"),
        ),
        (truncated, chat("q", "Dear Ann. I am well.\n\nBest wishes\nTom")),
        (truncated, chat("q", SQL)),
        (
            truncated,
            chat(
                "q",
                'def f(a):\n    """Return it. Or not."""\n'
                "    return a if a is not None else b and c",
            ),
        ),
        (broken_encoding, chat("q", "São Paulo, Âme, naïve — it’s")),
        (Repetition(), chat("q", PROSE)),
        (Repetition(), chat("q", "b-u-c-k-e-t")),
        (Symbols(), chat("q", "b-u-c-k-e-t, s-h-o-v-e-l, l-a-n-t-e-r-n")),
        (Symbols(), chat("q", "नमस्ते, आप कैसे हैं? मैं ठीक हूँ।")),
    ],
)
def test_good_answers_stay(rule, row):
    assert rule(row) is None


SENTENCES = {
    "ar": "مرحبا كيف حالك؟",
    "de": "Grüße aus Köln, schöne Straße.",
    "el": "Καλημέρα, τι κάνεις;",
    "en": "It’s a “quoted” word, for £5.",
    "es": "¿Dónde está el niño? ¡Mañana!",
    "fr": "L’été à la plage, où êtes-vous ?",
    "hi": "नमस्ते, आप कैसे हैं?",
    "ja": "東京は大きい都市です。",
    "pl": "Zażółć gęślą jaźń, proszę.",
    "pt": "IRMÃ, NÃO, MÃE: três palavras.",
    "ru": "Привет, как дела?",
    "tr": "Çok güzel bir ağaç, öğretmenim; iyi şanslar.",
    "vi": "Xin chào, bạn khỏe không?",
    "zh": "北京是中国的首都。",
}


def misread(text: str, encoding: str) -> str:
    """UTF-8's bytes read in a one-byte encoding, those that it lacks as control characters."""
    characters = []
    for byte in text.encode():
        read = bytes([byte]).decode(encoding, errors="ignore")
        characters.append(read or chr(byte))
    return "".join(characters)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
@pytest.mark.parametrize("language", SENTENCES)
def test_a_wrong_encoding_is_found_in_any_language(language, encoding):
    sentence = SENTENCES[language]
    assert broken_encoding(chat("q", sentence)) is None
    assert broken_encoding(chat("q", misread(sentence, encoding))).startswith("broken encoding '")


@pytest.mark.parametrize(
    "text",
    [
        "SÃO PAULO, CORAÇÃO, PÂTÉ",
        "10 € – 20 €, ½ × ¾, 3 Å, 20 °C, ±2 µm",
        "∑ x² ≤ ½·π·r², x̂ = Âx + b, ‖x‖ ≠ ∅",
        "┌──┐\n│ a│\n└──┘",
        "„Gänsefüßchen“, « Ça », “Œuvre”…",
    ],
)
def test_unusual_characters_are_no_wrong_encoding(text):
    assert broken_encoding(chat("q", text)) is None
