"""What the search finds, in a headless Chromium: `docs/_static/search.js` over a few sections that
stand for the course's, each with the words that make its case.
"""

import html
import json
import os
import re
import shutil
import subprocess

import pytest
from conftest import ROOT

CHROMIUM = os.environ.get("FTLIB_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on the path, or FTLIB_CHROMIUM")

PAGES = [  # url, title, name in the sidebar
    ["glossary.html", "Glossary", ""],
    ["reference/losses.html", "Losses", ""],
    ["reference/export.html", "Export and serving", ""],
    ["papers.html", "Papers, and where each is used", ""],
    ["labs/dpo.html", "Lab 3.1.7 · DPO: preferences without a reward model", "3.1.7 DPO"],
    ["labs/libraries.html", "Lab E6 · From ftlib to the libraries", ""],
    ["labs/qlora.html", "Lab 3.1.5 · 70B on one machine", "3.1.5 QLoRA and memory"],
    ["TROUBLESHOOTING.html", "Troubleshooting, by symptom", "Troubleshooting"],
    ["LAB_PREP.html", "Before a lab", "Set up a machine"],
    ["INSTRUCTORS.html", "For instructors", ""],
]
SECTIONS = [  # page, anchor, heading, heading above, text
    [0, "dpo", "DPO", "", "Preferences without a reward model."],
    [0, "beta", "beta", "", "The price of moving away from the reference."],
    [0, "merging", "merging", "", "Adding the update into the base weights."],
    [0, "double", "double quantisation", "", "The scales are quantised too."],
    [0, "distillation", "distillation", "", "A small model learns from a large one."],
    [1, "ftlib.dpo_loss", "ftlib.dpo_loss", "", "−log σ(β·margin) of summed log-probabilities."],
    [2, "ftlib.merge_gguf", "ftlib.merge_gguf", "", "Write a file with an adapter merged in."],
    [2, "ftlib.quantize", "ftlib.quantize", "", "Rounds; takes what merge_gguf leaves, a source."],
    [3, "paper-dpo", "Rafailov et al. 2023: DPO", "", "lab 3.1.7. Functions: dpo_loss"],
    [4, "loss", "Exercise 3 · The loss · 8 min · ●●○", "1 · From rewards", "The loss of DPO."],
    [5, "dpo", "6 · DPO", "", "DPO in TRL: the loss, the loss again, and which adapter."],
    [6, "memory", "6 · Memory", "", "A 70B model under QLoRA. A peak of 44 GB."],
    [6, "scales", "Exercise 5 · What a scale costs", "4 · Twice", "70B: 4 GB of scales, a cost."],
    [7, "oom", "Out of memory, or the machine freezes", "Training", "Plan first."],
    [7, "ollama", "Ollama's versions", "Export", "An older one lacks templates."],
    [8, "spark", "A DGX Spark", "Where you are", "CUDA 13, 128 GB. Memory is unified: out of it?"],
    [8, "machine", "A machine with a GPU", "Where you are", "A graphics card of 24 GB of memory."],
    [9, "mac", "What was tried", "", "On macOS and with Podman; a container."],
]
RANKS = """
<input id="query"><p id="found"></p><ol id="results"></ol><pre id="ranks"></pre>
<script>window.COURSE = %s;</script><script>%s</script>
<script>
  const told = {};
  for (const asked of %s) {
    show(sections, asked);
    const links = [...document.querySelectorAll("#results a")];
    const marks = [...document.querySelectorAll("#results li:first-child mark")];
    told[asked] = {
      urls: links.map((link) => link.getAttribute("href")),
      found: document.getElementById("found").textContent,
      marks: marks.map((mark) => mark.textContent),
    };
  }
  document.getElementById("ranks").textContent = JSON.stringify(told);
</script>"""
FIRST = {
    # a name of the library, as it is typed
    "ft.dpo_loss": "reference/losses.html#ftlib.dpo_loss",
    "dpo loss": "reference/losses.html#ftlib.dpo_loss",
    "merge_gguf source": "reference/export.html#ftlib.merge_gguf",
    # a word for the kind of page
    "what is the formula of DPO?": "reference/losses.html#ftlib.dpo_loss",
    "DPO paper": "papers.html#paper-dpo",
    "what is DPO": "glossary.html#dpo",
    "ollama error": "TROUBLESHOOTING.html#ollama",
    "install on a Spark": "LAB_PREP.html#spark",
    # spelling, endings, signs, other words
    "quantization": "reference/export.html#ftlib.quantize",
    "merge": "glossary.html#merging",
    "distilation": "glossary.html#distillation",
    "β": "glossary.html#beta",
    "OOM": "TROUBLESHOOTING.html#oom",
    "CUDA out of memory": "TROUBLESHOOTING.html#oom",
    "mac": "INSTRUCTORS.html#mac",
    "docker": "INSTRUCTORS.html#mac",
    # a heading that all of the question is about, rather than one that shares a word
    "70B memory": "labs/qlora.html#memory",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """For each question what the page shows."""
    folder = tmp_path_factory.mktemp("search")
    script = (ROOT / "docs" / "_static" / "search.js").read_text(encoding="utf-8")
    course = json.dumps({"pages": PAGES, "sections": SECTIONS})
    page = folder / "ranks.html"
    asked = json.dumps([*FIRST, "machine", "dpo kubernetes", "zzz", "the", ""])
    page.write_text('<meta charset="utf-8">' + RANKS % (course, script, asked), encoding="utf-8")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=180).stdout
    return json.loads(html.unescape(re.search(r'<pre id="ranks">(.*?)</pre>', shown, re.S)[1]))


@pytest.mark.parametrize("question", FIRST)
def test_the_first_result(told, question):
    assert told[question]["urls"][0] == FIRST[question]


def test_a_short_word_is_not_the_beginning_of_another(told):
    assert "LAB_PREP.html#machine" not in told["mac"]["urls"]
    assert "LAB_PREP.html#machine" in told["machine"]["urls"]


def test_a_word_that_is_nowhere_is_named_with_what_was_looked_for(told):
    assert (
        "“distilation” is nowhere; “distillation” was looked for." in told["distilation"]["found"]
    )
    assert told["dpo kubernetes"]["urls"][0] == "glossary.html#dpo"
    assert told["dpo kubernetes"]["found"].endswith("“kubernetes” is nowhere.")
    assert told["zzz"] == {"urls": [], "found": told["zzz"]["found"], "marks": []}
    assert told["zzz"]["found"].startswith("No sections for “zzz”.")


def test_what_was_found_is_marked_and_nothing_asked_is_nothing_said(told):
    assert told["merge"]["marks"][0] == "merging"
    assert told[""] == {"urls": [], "found": "", "marks": []}


def test_small_words_are_looked_for_where_there_are_no_others(told):
    assert "TROUBLESHOOTING.html#oom" in told["the"]["urls"]  # "or the machine freezes"
