"""The table of chat templates: what it says of good and of bad ones."""

from conftest import CHATML, unmarked

from tools.templates import examine, main

THINKING = (
    "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ m.content ~ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think></think>{% endif %}"
)


def test_a_table_of_a_folder(tmp_path, capsys):
    (tmp_path / "chatml.jinja").write_text(unmarked(CHATML))
    (tmp_path / "thinking.jinja").write_text(THINKING)
    (tmp_path / "broken.jinja").write_text("{{ functions | length }}{{ nothing.at.all }}")
    counted = "{{ messages | length }}" + THINKING
    (tmp_path / "counted.jinja").write_text(counted)
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.endswith("4 templates, 3 render; of these 2 have a Go template, 3 training text\n")
    assert "no Go template was found" in said and "UndefinedError" in said
    plain = examine(tmp_path / "chatml.jinja")
    assert plain.examples == 1.0
    # One example an answer: the questions before a later answer are read again.
    assert examine(tmp_path / "thinking.jinja").examples > 1.5


def test_without_a_folder(capsys):
    assert main([]) == 2 and main(["/no/such/folder"]) == 2
    assert "python -m tools.templates FOLDER" in capsys.readouterr().err
