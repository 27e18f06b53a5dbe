"""Serving: Ollama's client side against a stand-in of its API, and a real Ollama where there is
one; llama-cpp-python's server for real.
"""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import EMBEDDED, ROOT, needs_llama

pytest.importorskip("ollama", reason="needs the extra `export`")
from ollama_stand_in import StandIn

from ftlib.export import llama_probe, serving
from ftlib.export.go_template import CHATML, WORLD
from ftlib.export.llama_probe import Probe
from ftlib.export.make_modelfile import write_modelfile
from ftlib.export.modelfile import ModelfileError
from ftlib.export.serving import (
    Reply,
    ServingError,
    chat,
    find_ollama,
    ollama_url,
    serve,
)

COUNTED = "Ollama's eval_count / eval_duration"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def ollama(monkeypatch):
    with StandIn() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        yield server


@pytest.fixture
def modelfile(tmp_path) -> Path:
    """A Modelfile over files that only begin as GGUFs: the stand-in does not read them."""
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + os.urandom(3 << 20))
    (tmp_path / "a.gguf").write_bytes(b"GGUF adapter")
    path = tmp_path / "Modelfile"
    path.write_text(
        f'FROM ./m.gguf\nADAPTER ./a.gguf\nTEMPLATE "{WORLD}"\n'
        "SYSTEM Be brief.\nPARAMETER num_ctx 512\n"
        'PARAMETER stop "<|end|>"\nPARAMETER temperature 0\n'
    )
    return path


def test_create_sends_what_the_modelfile_says(ollama, modelfile, caplog):
    with caplog.at_level("INFO", "ftlib"), serve(modelfile, "my-model:q4") as server:
        assert server.runtime == "ollama" and server.base_url == f"{ollama.url}/v1"
    asked = ollama.models["my-model:q4"]
    assert asked["system"] == "Be brief." and asked["template"] == WORLD
    assert asked["parameters"] == {"num_ctx": 512, "stop": ["<|end|>"], "temperature": 0}
    assert ollama.blobs[asked["files"]["m.gguf"]] == modelfile.with_name("m.gguf").read_bytes()
    assert ollama.blobs[asked["adapters"]["a.gguf"]] == b"GGUF adapter"
    assert "served by Ollama 0.32.15" in caplog.text
    with serve(modelfile, "again") as server:
        assert len(ollama.sent) == 2  # the blobs are there already: none is sent twice
        server.delete()
    assert list(ollama.models) == ["my-model:q4"]  # what was not deleted stays
    with serve(modelfile, "again") as server:
        ollama.models.clear()
        with pytest.raises(ServingError, match=r"deleting 'again'.*not found"):
            server.delete()


def test_chat(ollama, modelfile):
    """7 tokens in 2,000,000,000 ns, as the stand-in counts, are 3.5 a second; our names go out as
    Ollama's, stops with the Modelfile's.
    """
    with serve(modelfile, "m") as server:
        reply = chat(server, "Hello", max_tokens=9, temperature=0.5, stop="###")
        assert (
            reply
            == Reply("An answer.", "ollama", 7, 2.0, COUNTED, "stop", prompt_tokens=11, context=512)
            == server.last
        )
        assert reply.tokens_per_second == 3.5 and str(reply) == "An answer."
        assert ollama.asked[-1]["options"] == {
            "num_predict": 9,
            "temperature": 0.5,
            "stop": ["<|end|>", "###"],
        }
        assert ollama.asked[-1]["messages"] == HELLO
        pieces = server.chat(HELLO, stream=True)
        assert (
            next(pieces) == "An "
            and "".join(pieces) == "answer."
            and server.last.text == "An answer."
            and server.last.tokens == 7
        )


@pytest.mark.parametrize(
    "fault, word",
    [
        ("error", "runner died"),
        ("drop", "broke off"),
        ("half", "broke off after 10 characters"),
        ("damaged", "damaged line"),
    ],
)
def test_faults_within_the_stream(ollama, modelfile, fault, word):
    """An error line, a dropped connection, a body that ends early, half a line: named, after what
    came, and never taken for an answer.
    """
    with serve(modelfile, "m") as server:
        ollama.fault, got = fault, []
        with pytest.raises(ServingError, match=word):
            for piece in server.chat(HELLO, stream=True):
                got.append(piece)
        assert "".join(got).startswith("An answer") and server.last is None


@pytest.mark.parametrize(
    "fault, word",
    [
        ("create", "invalid model"),
        ("drop create", "broke off"),
        ("half create", "broke off creating 'm'"),
        ("digest", "refused m.gguf.*digest mismatch"),
    ],
)
def test_faults_in_creating(ollama, modelfile, fault, word):
    ollama.fault = fault
    with pytest.raises(ServingError, match=word), serve(modelfile, "m"):
        pytest.fail("the model was never created")
    assert not ollama.models


def test_slow_and_unknown(ollama, modelfile):
    with serve(modelfile, "m", timeout=2.0) as server:
        ollama.fault = "slow"
        with pytest.raises(ServingError, match=r"in time.*timeout"):
            server.chat(HELLO)
        ollama.fault = "any"
        with pytest.raises(ServingError, match="runner died"):
            server.chat(HELLO)
        ollama.models.clear()
        for stream in (False, True):
            with pytest.raises(ServingError, match=r"'m'.*not found"):
                list(server.chat(HELLO, stream=stream))


def test_logprobs_are_asked_for_and_read(ollama, modelfile):
    with serve(modelfile, "m", logprobs=True) as server:
        reply = server.chat(HELLO, logprobs=True)
        assert reply.logprobs == (-0.5, -0.25, -0.125)
        assert server.chat(HELLO).logprobs == ()
        with pytest.raises(ServingError, match="stream=False"):
            server.chat(HELLO, stream=True, logprobs=True)
        ollama.generation = (0, 24, 0)
        with pytest.raises(ServingError, match="gave no log-probabilities"):
            server.chat(HELLO, logprobs=True)


def test_a_prompt_that_fills_the_context_is_said(ollama, modelfile, caplog):
    """511 tokens in a context of 512 leave room for the one that is to come, and so were cut if
    there were more; 510 fit.
    """
    with serve(modelfile, "m") as server:
        for tokens, cut in ((510, False), (511, True)):
            ollama.prompt_tokens = tokens
            for stream in (False, True):
                caplog.clear()
                list(server.chat(HELLO, stream=True)) if stream else server.chat(HELLO)
                assert server.last.prompt_tokens == tokens and server.last.prompt_was_cut is cut
                assert ("was cut if it was longer: raise num_ctx" in caplog.text) is cut


@pytest.mark.parametrize("version, takes", [("0.24.0", True), ("0.32.15", True), ("0.34.1", False)])
def test_an_adapter_beside_its_base_by_generation(monkeypatch, modelfile, version, takes):
    """What takes none is not sent gigabytes first; the way that leads on is named."""
    with StandIn(version) as ollama:
        monkeypatch.setenv("OLLAMA_HOST", ollama.url)
        if takes:
            with serve(modelfile, "m"):
                assert ollama.models["m"]["adapters"]
            return
        with (
            pytest.raises(ServingError, match=r"this is Ollama 0\.34\.1\. .* --into BASE\.gguf"),
            serve(modelfile, "m"),
        ):
            pass
        assert not ollama.sent and not ollama.models


def test_the_servers_own_refusal_of_an_adapter_gets_the_same_words(monkeypatch, modelfile):
    """Of a server that does not say its version: it is asked, and refuses."""
    with StandIn("0.34.1") as ollama:
        monkeypatch.setenv("OLLAMA_HOST", ollama.url)
        monkeypatch.setattr("ftlib.export.ollama_server.find_ollama", lambda url: None)
        with (
            pytest.raises(ServingError, match=r"no longer supported.* --into BASE\.gguf"),
            serve(modelfile, "m"),
        ):
            pass


def test_who_answers(ollama, modelfile, monkeypatch):
    assert find_ollama() == "0.32.15"
    ollama.fault = "hangs"
    assert find_ollama(timeout=0.2) is None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free.getsockname()[1]}")
        assert find_ollama() is None
        with (
            pytest.raises(
                ServingError, match=r"no Ollama answers at http://127\.0\.0\.1:.*ollama serve"
            ),
            serve(modelfile, "m", runtime="ollama"),
        ):
            pass
        missing = Probe("missing", "llama-cpp-python is not installed")
        monkeypatch.setattr(llama_probe, "probe_llama", lambda: missing)
        said = "llama-cpp-python is not installed: .*ollama serve"
        with pytest.raises(ServingError, match=said), serve(modelfile, "m"):
            pass


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "1.2.3.4",
        ":56789",
        "1.2.3.4:56789",
        "http://1.2.3.4",
        "https://1.2.3.4",
        "https://1.2.3.4:56789",
        "example.com",
        "example.com:56789/path/",
        "[0001:002:003:0004::1]:56789",
    ],
)
def test_addresses_as_the_official_client_reads_them(host, monkeypatch):
    from ollama._client import _parse_host

    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert ollama_url(host) == _parse_host(host)


def test_bad_addresses(monkeypatch):
    assert (
        ollama_url("0.0.0.0:11434") == "http://127.0.0.1:11434"
    )  # what a server binds to, no address to call
    monkeypatch.setenv("OLLAMA_HOST", "localhost:many")
    with pytest.raises(ServingError, match="localhost:many"):
        find_ollama()


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"messages": HELLO, "temprature": 1}, "temprature=1"),
        ({"messages": []}, "empty"),
        ({"messages": ["Hello"]}, "'Hello'"),
        ({"messages": [{"role": "user"}]}, "content"),
    ],
)
def test_bad_calls(ollama, modelfile, arguments, word):
    with serve(modelfile, "m") as server, pytest.raises(ServingError, match=word):
        server.chat(**arguments)


def test_bad_models(ollama, modelfile):
    for name in ("", None, "../x", "a b", "é"):
        with pytest.raises(ServingError, match="name the model"), serve(modelfile, name):
            pass
    with pytest.raises(ServingError, match="runtime='vllm'"), serve(modelfile, "m", runtime="vllm"):
        pass
    with pytest.raises(ModelfileError, match="nowhere"), serve(modelfile.with_name("nowhere"), "m"):
        pass
    modelfile.with_name("m.gguf").unlink()
    with pytest.raises(ServingError, match=r"m\.gguf, which is not there"), serve(modelfile, "m"):
        pass
    assert not ollama.asked


# --- llama-cpp-python, for real -------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The embedded model with its SFT adapter as f16 GGUF and its Modelfile; and the model and
    tokenizer themselves.
    """
    import ftlib as ft
    from ftlib.export.gguf_writer import export_gguf

    model, tokenizer = ft.load_model(EMBEDDED)
    ft.load_adapter(model, ROOT / "data" / "sft-adapter")
    folder = tmp_path_factory.mktemp("world")
    export_gguf(model, tokenizer, folder / "world.gguf", dtype="f16")
    return (
        model,
        tokenizer,
        write_modelfile(
            folder / "Modelfile",
            folder / "world.gguf",
            tokenizer=tokenizer,
            num_ctx=512,
            parameters={"temperature": 0, "num_thread": 1},
        ),
    )


@pytest.fixture(scope="module")
def llama_server(world):
    needs_llama()
    patch = pytest.MonkeyPatch()
    patch.setenv("HOST", "0.0.0.0")  # must not move it from 127.0.0.1
    patch.setenv("PORT", "1")
    with serve(world[2], "world", runtime="llama-cpp-python", timeout=120) as server:
        patch.undo()
        yield server


def prompts() -> list[str]:
    import ftlib as ft

    return [row["messages"][0]["content"] for row in ft.load_rows("golden")[:5]]


def test_the_same_answers_as_transformers(world, llama_server):
    model, tokenizer, _ = world
    for prompt in prompts():
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        new = model.generate(**ids, max_new_tokens=40, do_sample=False)[0][
            ids["input_ids"].shape[1] :
        ]
        reply = chat(llama_server, prompt, max_tokens=40)
        assert (
            reply.text == tokenizer.decode(new, skip_special_tokens=True)
            and reply.runtime == "llama-cpp-python"
            and reply.end == "stop"
        )
        assert (
            "waiting time" in reply.measured
            and 0 < reply.tokens <= 40
            and reply.tokens_per_second > 0
        )
        assert (
            "".join(chat(llama_server, prompt, max_tokens=40, stream=True))
            == llama_server.last.text
            == reply.text
        )


def test_only_on_localhost_and_openai_compatible(llama_server):
    """On Linux all of 127/8 is this machine: a server on 0.0.0.0 would answer at 127.0.0.2 too."""
    import httpx

    port = httpx.URL(llama_server.base_url).port
    with socket.socket() as other:
        assert (
            llama_server.base_url.startswith("http://127.0.0.1:")
            and other.connect_ex(("127.0.0.2", port)) != 0
        )
    assert (
        httpx.get(f"{llama_server.base_url}/models", trust_env=False).json()["data"][0]["id"]
        == "world"
    )


def test_length_and_stop(llama_server):
    assert chat(llama_server, prompts()[0], max_tokens=3).end == "length"
    whole = chat(llama_server, prompts()[0], max_tokens=40).text
    assert (
        chat(llama_server, prompts()[0], max_tokens=40, stop=whole[6:9]).text
        == whole[: whole.index(whole[6:9])]
    )


def test_the_system_prompt_of_the_modelfile(llama_server, monkeypatch):
    """It goes before messages that have none, exactly as if the caller had sent it; a caller's own
    takes its place.
    """
    sent = []
    monkeypatch.setattr(llama_server.modelfile, "system", "Answer in JSON.")
    llama_server.http.event_hooks["request"] = [lambda request: sent.append(request.read())]
    system = {"role": "system", "content": "Answer in JSON."}
    assert llama_server.chat(HELLO, max_tokens=4) and llama_server.chat(
        [system, *HELLO], max_tokens=4
    )
    llama_server.http.event_hooks["request"] = []
    assert sent[0] == sent[1] and b"Answer in JSON." in sent[0]


def test_the_template_of_the_modelfile_is_served(llama_server, monkeypatch, caplog):
    """What it renders is what the server is sent, the start token left to the runtime; another
    family's gives another answer. One that `render_go` cannot read is said, and the GGUF's is
    served.
    """
    sent = []
    right = chat(llama_server, prompts()[0], max_tokens=40).text
    llama_server.http.event_hooks["request"] = [lambda request: sent.append(request)]
    monkeypatch.setattr(llama_server, "template", CHATML)
    assert chat(llama_server, prompts()[0], max_tokens=40).text != right
    monkeypatch.setattr(llama_server, "template", None)
    assert chat(llama_server, prompts()[0], max_tokens=40).text == right
    llama_server.http.event_hooks["request"] = []
    prompt = json.loads(sent[0].content)["prompt"]
    assert prompt == f"<|im_start|>user\n{prompts()[0]}<|im_end|>\n<|im_start|>assistant\n"
    assert sent[0].url.path == "/v1/completions" and sent[1].url.path == "/v1/chat/completions"
    odd = replace(llama_server.modelfile, template="{{ template .Prompt }}")
    other = serving.LlamaCppServer("m", "http://127.0.0.1:1", odd, 1.0, None)
    assert other.template is None and "TEMPLATE is left out" in caplog.text


def test_errors_leave_it_usable(llama_server):
    long = "long words " * 2000
    with pytest.raises(ServingError, match="maximum context length is 512"):
        chat(llama_server, long)
    with pytest.raises(ServingError, match="num_ctx=512"):
        list(chat(llama_server, long, stream=True))
    with pytest.raises(ServingError, match="top_k"):
        chat(llama_server, "x", top_k="many")
    pieces = chat(llama_server, "x", stream=True)
    next(pieces)
    pieces.close()  # a reader who leaves
    assert chat(llama_server, prompts()[0], max_tokens=3).tokens == 3


def test_a_server_that_does_not_start(world, tmp_path):
    """A damaged GGUF: the tail of the server's log. Too short a time: said so. No process is left
    either way.
    """
    needs_llama()
    import httpx

    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "Modelfile").write_text("FROM ./bad.gguf\n")
    with (
        pytest.raises(
            ServingError, match=r"(?s)ended with .*bad\.gguf.*log:\n.*Failed to load model"
        ),
        serve(tmp_path / "Modelfile", "m", runtime="llama-cpp-python", timeout=120),
    ):
        pass
    started = []
    real = serving.LlamaCppServer.__init__
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ServingError, match=r"within 0\.2 s"):
        patch.setattr(
            serving.LlamaCppServer,
            "__init__",
            lambda self, *a: started.append(self) or real(self, *a),
        )
        with serve(world[2], "world", runtime="llama-cpp-python", timeout=0.2):
            pass
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{started[0].base_url}/models", trust_env=False)


# --- a real Ollama --------------------------------------------------------------------------------


def test_a_real_ollama(world):
    """The whole path where an Ollama answers: create, chat, stream, delete; the answers of
    transformers.
    """
    if not find_ollama():
        pytest.skip("no Ollama answers at OLLAMA_HOST or localhost:11434")
    model, tokenizer, path = world
    with serve(path, "ftlib-test-world", runtime="ollama") as server:
        try:
            for prompt in prompts():
                ids = tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt}],
                    add_generation_prompt=True,
                    return_tensors="pt",
                    return_dict=True,
                )
                new = model.generate(**ids, max_new_tokens=40, do_sample=False)[0][
                    ids["input_ids"].shape[1] :
                ]
                assert chat(server, prompt, max_tokens=40).text == tokenizer.decode(
                    new, skip_special_tokens=True
                )
                assert "".join(chat(server, prompt, max_tokens=40, stream=True)) == server.last.text
            assert server.last.tokens_per_second > 0
        finally:
            server.delete()
