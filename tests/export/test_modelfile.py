"""Modelfiles: what is written is what Ollama reads back, or it is refused by name."""

import os
from pathlib import Path

import pytest
from conftest import CHATML, GEMMA, byte_tokenizer, gemma_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from ftlib.export.chat_format import chat_format
from ftlib.export.errors import TemplateError
from ftlib.export.go_template import CHATML as GO_CHATML
from ftlib.export.make_modelfile import diagnose_stops, write_modelfile
from ftlib.export.modelfile import PARAMETERS, Modelfile, ModelfileError, parse_modelfile

awkward = st.text(st.sampled_from('"""ab \t\n\r\\#{}é日🙂'), max_size=30)


@pytest.fixture
def gguf_file(tmp_path) -> Path:
    """A file that begins as a GGUF; with a tokenizer given, no more of it is read."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF rest")
    return path


def vocabulary(path: Path, tokens, bos=None, eos=None, eot=None, template=None) -> Path:
    """A GGUF without weights."""
    gguf = pytest.importorskip("gguf", reason="needs the extra `export`")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list(tokens)
    for add, value in (
        (writer.add_bos_token_id, bos),
        (writer.add_eos_token_id, eos),
        (writer.add_eot_token_id, eot),
    ):
        if value is not None:
            add(value)
    if template:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_a_file_that_has_changed_under_its_name_is_read_again(tmp_path):
    """With the same size; long ago, so that what was read of it is kept, and just now."""
    tokens = ["a", "<one>", "<two>"]
    file = tmp_path / "v.gguf"
    for written in (1, 2):
        for eos in (1, 2, 1):
            vocabulary(file, tokens, eos=eos)
            if written == 1:
                os.utime(file, (eos, eos))
            for _ in range(2):
                assert chat_format(file).eos == (tokens[eos],)


@given(awkward, awkward, awkward)
def test_round_trip(system, template, stop):
    """Any text comes back as it was, or is refused: a line within it ends in three quotes."""
    modelfile = Modelfile(
        "./m.gguf",
        None,
        template,
        system,
        {"num_ctx": 64, "stop": [stop or "x"], "temperature": 0.5},
    )
    try:
        written = str(modelfile)
    except ModelfileError as error:
        assert '"""' in str(error) and any(
            '"""' in t and ("\n" in t or "\r" in t) for t in (system, template, stop)
        )
        return
    assert parse_modelfile(written) == modelfile


@given(st.text(max_size=40))
def test_round_trip_of_all_of_unicode(system):
    """What does not print (zero-width joiner, no-break space, control characters) Ollama's parser
    drops: refused, not lost.
    """
    try:
        written = str(Modelfile("m", system=system))
    except ModelfileError as error:
        assert "U+" in str(error) or '"""' in str(error)
        assert any(not c.isprintable() and c not in "\t\r\n" for c in system) or '"""' in system
    else:
        assert parse_modelfile(written).system == system


@pytest.mark.parametrize(
    "system",
    [
        'He said "hi"',
        '"',
        '""',
        '"""',
        'a """ b',
        'ends in """',
        "trailing \n",
        " lead",
        "",
        "#no comment",
        "FROM x",
        'x\n"y"\nz',
        "C:\\path\\",
        "日本語 🙂 é",
        "\r\n",
        "{{ .System }}",
    ],
)
def test_systems_by_hand(system):
    assert parse_modelfile(str(Modelfile("m", system=system))) == Modelfile("m", system=system)


@pytest.mark.parametrize(
    "system, word",
    [
        ('a"""\nb', "closes it"),
        ('a"""  \r\nb', "closes it"),
        ("no\u00a0break", r"U\+00A0 \(position 2"),
        ("\U0001f469\u200d\U0001f52c", r"U\+200D"),
        ("\ud800", r"U\+D800"),
        ("nul\0", r"U\+0000"),
    ],
)
def test_what_cannot_be_represented(system, word, gguf_file):
    target = gguf_file.parent / "Modelfile"
    with pytest.raises(ModelfileError, match=f"SYSTEM.*{word}"):
        write_modelfile(target, gguf_file, tokenizer=byte_tokenizer(CHATML), system=system)
    assert sorted(p.name for p in gguf_file.parent.iterdir()) == ["model.gguf"]


def test_written_by_hand(gguf_file):
    """The whole file, line by line: ChatML's vocabulary has both end tokens, the first ends a turn
    in the template.
    """
    adapter = gguf_file.with_name("adapter.gguf")
    adapter.write_bytes(b"GGUF")
    path = write_modelfile(
        gguf_file.parent / "Modelfile",
        gguf_file,
        tokenizer=byte_tokenizer(CHATML),
        system='Say "x"\n',
        num_ctx=2048,
        stop=["###"],
        adapter=adapter,
        parameters={"temperature": 0, "use_mmap": True, "top_p": 0.9},
    )
    assert path.read_bytes().decode() == (
        "FROM ./model.gguf\nADAPTER ./adapter.gguf\n"
        'TEMPLATE "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n'
        '{{ end }}<|im_start|>assistant\n"\n'
    ).replace('TEMPLATE "', 'TEMPLATE """').replace('assistant\n"', 'assistant\n"""') + (
        'SYSTEM """Say "x"\n"""\nPARAMETER num_ctx 2048\nPARAMETER repeat_penalty 1\n'
        'PARAMETER stop "<|im_end|>"\nPARAMETER stop "<|endoftext|>"\nPARAMETER stop "###"\n'
        "PARAMETER temperature 0\nPARAMETER use_mmap true\nPARAMETER top_p 0.9\n"
    )
    read = parse_modelfile(path)
    assert read.path(read.base, path.parent) == gguf_file and read.template == GO_CHATML
    elsewhere = write_modelfile(
        gguf_file.parent / "sub" / "Modelfile", gguf_file, tokenizer=byte_tokenizer(CHATML)
    )
    assert parse_modelfile(elsewhere).base == str(gguf_file)


def test_an_old_file_survives_a_failure(gguf_file, monkeypatch):
    path = write_modelfile(
        gguf_file.parent / "Modelfile", gguf_file, tokenizer=byte_tokenizer(CHATML)
    )
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_modelfile(path, gguf_file, tokenizer=byte_tokenizer(CHATML), system="new")
    assert path.read_bytes() == before and sorted(p.name for p in path.parent.iterdir()) == [
        "Modelfile",
        "model.gguf",
    ]


@pytest.mark.parametrize(
    "options, word",
    [
        ({"parameters": {"temprature": 1}}, "temprature is unknown"),
        ({"parameters": {"temperature": "hot"}}, "'hot'"),
        ({"parameters": {"top_k": 1.5}}, "1.5"),
        ({"parameters": {"seed": True}}, "True"),
        ({"parameters": {"top_p": float("nan")}}, "nan"),
        ({"parameters": {"num_ctx": 5}}, "pass num_ctx="),
        ({"parameters": {"stop": "x"}}, "pass stop="),
        ({"num_ctx": 0}, "num_ctx=0"),
        ({"num_ctx": 4096.0}, "4096.0"),
        ({"stop": [""]}, "non-empty"),
        ({"adapter": "none.gguf"}, "none.gguf"),
    ],
)
def test_bad_options(options, word, gguf_file):
    with pytest.raises(ModelfileError, match=word):
        write_modelfile(
            gguf_file.parent / "Modelfile", gguf_file, tokenizer=byte_tokenizer(CHATML), **options
        )
    assert not (gguf_file.parent / "Modelfile").exists()


def test_files_that_are_no_gguf(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(ModelfileError, match="is not GGUF"):
        write_modelfile(
            tmp_path / "Modelfile",
            tmp_path / "model.safetensors",
            template="{{ .Prompt }}",
            stop="x",
        )
    with pytest.raises(ModelfileError, match=r"missing\.gguf cannot be read.*export_gguf"):
        write_modelfile(
            tmp_path / "Modelfile", tmp_path / "missing.gguf", tokenizer=byte_tokenizer(CHATML)
        )


def test_without_any_stop(tmp_path):
    """A vocabulary without end tokens and a template that marks no turn's end."""
    file = vocabulary(tmp_path / "v.gguf", ["a", "b"])
    with pytest.raises(ModelfileError, match="stop="):
        write_modelfile(tmp_path / "Modelfile", file, template="{{ .Prompt }}")


def test_parse_as_ollama_does():
    """Instructions in either case, comments at line starts only, tabs, quotes over lines, CRLF,
    several stops, LICENSE, MESSAGE.
    """
    read = parse_modelfile(
        '# a comment\r\nfrom  ./m.gguf  \r\n\tSystem """two\nlines # no comment"""\n'
        'parameter stop a b\nPARAMETER stop "c"\n'
        "PARAMETER temperature 0.5\nPARAMETER num_ctx 8\nPARAMETER use_mmap FALSE\n"
        "LICENSE MIT\nMESSAGE user Hi there\n"
    )
    assert read == Modelfile(
        "./m.gguf",
        None,
        None,
        "two\nlines # no comment",
        {"stop": ["a b", "c"], "temperature": 0.5, "num_ctx": 8, "use_mmap": False},
        [("LICENSE", "MIT"), ("MESSAGE user", "Hi there")],
    )
    assert parse_modelfile(str(read)) == read
    assert (
        parse_modelfile("FROM m\nSYSTEM zero\u200bwidth").system == "zerowidth"
    )  # dropped, as Ollama drops it


@pytest.mark.parametrize(
    "text, word",
    [
        ("SYSTEM x", "no FROM"),
        ('FROM m\nSYSTEM """open\n', "line 2.*never closed"),
        ("FROM m\nTEMPERATURE 1", "line 2.*TEMPERATURE"),
        ("FROM m\nPARAMETER top_k many", "line 2.*top_k.*many"),
        ("FROM m\nPARAMETER nonsense 1", "nonsense is unknown"),
        ("FROM m\nPARAMETER", "unknown"),
    ],
)
def test_bad_modelfiles(text, word):
    with pytest.raises(ModelfileError, match=word):
        parse_modelfile(text)


def test_a_missing_modelfile(tmp_path):
    with pytest.raises(ModelfileError, match="nowhere"):
        parse_modelfile(tmp_path / "nowhere")
    (tmp_path / "latin").write_bytes("FROM m\nSYSTEM é".encode("latin-1"))
    with pytest.raises(ModelfileError, match="latin"):
        parse_modelfile(tmp_path / "latin")


def test_parameters_are_ollamas():
    """Every option of the official client is known or deprecated by Ollama; min_p the client's own
    list lacks.
    """
    options = set(
        pytest.importorskip("ollama", reason="needs the extra `export`").Options.model_fields
    )
    deprecated = {
        "typical_p",  # refused since 0.34
        "numa",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "use_mlock",
        "embedding_only",
        "tfs_z",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "penalize_newline",
    }
    assert options - deprecated == PARAMETERS.keys() - {"min_p"}


def test_from_the_gguf_alone(tmp_path):
    """Template and stops out of the GGUF's own metadata; eot (2) and eos (1) both, and the ends
    that its vocabulary has.
    """
    jinja = byte_tokenizer(CHATML).chat_template
    file = vocabulary(
        tmp_path / "v.gguf",
        ["<|im_start|>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "a"],
        eos=1,
        eot=2,
        template=jinja,
    )
    read = parse_modelfile(write_modelfile(tmp_path / "Modelfile", file))
    assert read.template == GO_CHATML and read.parameters == {
        "num_ctx": 4096,
        "repeat_penalty": 1,
        "stop": ["<|im_end|>", "<|endoftext|>", "<|eot_id|>"],
    }
    bare = vocabulary(tmp_path / "bare.gguf", ["a"], bos=0)
    with pytest.raises(TemplateError, match="no chat template"):
        write_modelfile(tmp_path / "Modelfile", bare)


def test_diagnosis(tmp_path):
    """<|im_end|> ends each turn, but is neither eos nor a stop: the classic fault. <|endoftext|> is
    eos, so the runtime stops there.
    """
    file = vocabulary(tmp_path / "v.gguf", ["<|im_end|>", "<|endoftext|>", "a"], eos=1)
    modelfile = Modelfile(str(file), template=GO_CHATML, parameters={"num_ctx": 64})
    found = {stop.token: stop for stop in diagnose_stops(file, modelfile)}
    assert found.keys() == {"<|im_end|>", "<|endoftext|>"}
    assert (
        not found["<|im_end|>"].by_gguf
        and found["<|im_end|>"].why == "ends a turn in TEMPLATE"
        and "runs on" in str(found["<|im_end|>"])
    )
    assert found["<|endoftext|>"].by_gguf and "alone stops" in str(found["<|endoftext|>"])
    modelfile.parameters["stop"] = ["<|im_end|>", "<|endoftext|>"]
    assert (
        diagnose_stops(file, modelfile) == []
        and diagnose_stops(byte_tokenizer(CHATML), str(modelfile)) == []
    )


@pytest.mark.parametrize("named", ["<end_of_turn>", "<turn|>", "[/INST]"])
def test_the_turn_end_of_the_chat_template_is_missed_in_a_modelfile(named, tmp_path):
    """Gemma: eos is another token, and the Modelfile has neither TEMPLATE nor stop. Whatever the
    token is called.
    """
    file = vocabulary(
        tmp_path / "v.gguf",
        ["<bos>", "<|eos|>", "<start_of_turn>", named, "a"],
        bos=0,
        eos=1,
        template=GEMMA.replace("<end_of_turn>", named),
    )
    bare = Modelfile(str(file), parameters={"num_ctx": 64, "stop": ["<|eos|>"]})
    [stop] = diagnose_stops(file, bare)
    assert (stop.token, stop.why) == (named, "ends a turn in the chat template")
    assert not stop.by_gguf and "runs on" in str(stop)
    with_eot = vocabulary(
        tmp_path / "w.gguf",
        ["<bos>", "<|eos|>", "<start_of_turn>", named, "a"],
        bos=0,
        eos=1,
        eot=3,
        template=GEMMA.replace("<end_of_turn>", named),
    )
    [stop] = diagnose_stops(with_eot, bare)
    assert stop.by_gguf
    written = write_modelfile(tmp_path / "Modelfile", file, template="{{ .Prompt }}")
    assert parse_modelfile(written).parameters["stop"] == [named, "<|eos|>"]
    assert diagnose_stops(file, written) == []


def test_the_turn_end_of_a_tokenizer_is_missed_too(gguf_file):
    bare = Modelfile("m", parameters={"stop": ["<|eos|>"]})
    missing = [stop.token for stop in diagnose_stops(gemma_tokenizer(), bare)]
    assert missing == ["<end_of_turn>", "<|end|>"]  # the byte vocabulary has both
    path = gguf_file.parent / "Modelfile"
    write_modelfile(path, gguf_file, template="{{ .Prompt }}", tokenizer=gemma_tokenizer())
    assert "<end_of_turn>" in parse_modelfile(path).parameters["stop"]


def test_every_end_that_a_gguf_names_is_known(tmp_path):
    """eos, eot, eom, and the list of further ones, at which Ollama's engine alone stops."""
    gguf = pytest.importorskip("gguf", reason="needs the extra `export`")
    file = tmp_path / "v.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_token_list(["zero", "one", "two", "three", "four"])
    writer.add_eos_token_id(1)
    writer.add_eom_token_id(2)
    writer.add_array("tokenizer.ggml.eos_token_ids", [1, 4])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    found = diagnose_stops(file, Modelfile("m"))
    assert [stop.token for stop in found] == ["one", "two", "four"]
    assert [stop.by_gguf for stop in found] == [True, True, False]
