"""An adapter merged into a GGUF: the weights, what is copied, memory, refusals. What llama.cpp
makes of the files: test_llamacpp.py.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch
from conftest import randomize
from export_models import LLAMA3_ROPE, qwen_tokenizer, small_llama, small_qwen, world_tokenizer
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file

import ftlib as ft
from ftlib.adapters.peft_format import CONFIG, WEIGHTS
from ftlib.export.errors import ExportError
from ftlib.export.gguf_adapter import export_adapter_gguf
from ftlib.export.gguf_base import open_base
from ftlib.export.gguf_merge import merge_adapter_gguf
from ftlib.export.gguf_names import rotary_pairs
from ftlib.export.gguf_writer import export_gguf

QUERY = "blk.0.attn_q.weight"


def tensors(path) -> dict:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def values(path) -> dict[str, np.ndarray]:
    return {name: dequantize(t.data, t.tensor_type) for name, t in tensors(path).items()}


def models():
    """(name, model without adapter, its tokenizer), one of each architecture."""
    world = world_tokenizer()
    yield "llama", small_llama(tie_word_embeddings=False, rope_parameters=LLAMA3_ROPE), world
    yield "qwen2", small_qwen("qwen2"), qwen_tokenizer()
    yield "qwen3", small_qwen("qwen3"), qwen_tokenizer()


MODELS = {name: (model, tokenizer) for name, model, tokenizer in models()}


@pytest.fixture
def saved(tmp_path):
    """A function: a GGUF of `dtype` of a model without adapter, that model's checkpoint folder, and
    a random adapter's folder.
    """

    def save(architecture="llama", dtype="f32", **options):
        import copy

        model, tokenizer = MODELS[architecture]
        model = copy.deepcopy(model)
        folder = tmp_path / "base"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model.config._name_or_path = str(folder)
        base = export_gguf(model, tokenizer, tmp_path / "base.gguf", dtype)
        randomize(ft.add_lora(model, **{"r": 4, **options}))
        adapter = ft.save_adapter(model, tmp_path / "adapter")
        return base, folder, adapter

    return save


def quantised(path, kind: Type):
    """The file with its matrices as `kind`, by gguf's own quantiser; everything else as it is."""
    base = open_base(path)
    kept = {tensor.name: dequantize(t.data, t.tensor_type) for tensor, t in _both(base, path)}
    target = path.with_name(f"base-{kind.name}.gguf")
    planned = []
    contents = []
    for tensor in base.tensors:
        if len(tensor.shape) == 1:
            planned.append(tensor)
            contents.append(kept[tensor.name].tobytes())
            continue
        data = gguf.quants.quantize(kept[tensor.name], kind)
        contents.append(data.tobytes())
        planned.append(
            type(tensor)(tensor.name, tensor.shape, kind, data.nbytes, tensor.file, tensor.offset)
        )
    with open(target, "wb") as out:
        for part in (base.header(planned), *contents):
            out.write(part)
            out.write(b"\0" * (-out.tell() % base.alignment))
    return target


def _both(base, path):
    by_name = tensors(path)
    return [(tensor, by_name[tensor.name]) for tensor in base.tensors]


# --- what comes out -------------------------------------------------------------------------------
def test_a_weight_by_hand(tmp_path):
    """One query head of two rows would hide the order of rows, so: 4 heads of 64. A is zero but for
    A[0, 0] = 2, B but for B[1, 0] = 3, alpha = r: s = 1, so ΔW has the single entry 6 in row 1,
    column 0. transformers' row 1 of a head of 64 is row 2 in the file: rows 0, 32, 1, 33, …
    """
    model = small_llama()
    base = export_gguf(model, world_tokenizer(), tmp_path / "base.gguf", "f32")
    ft.add_lora(model, r=4, lora_alpha=4, target_modules=["q_proj"])
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.zero_()
    layer = model.model.layers[0].self_attn.q_proj
    layer.lora_A.data[0, 0] = 2.0
    layer.lora_B.data[1, 0] = 3.0
    adapter = ft.save_adapter(model, tmp_path / "adapter")
    merged = merge_adapter_gguf(base, adapter, tmp_path / "merged.gguf", "f32")
    difference = values(merged)[QUERY] - values(base)[QUERY]
    assert np.argwhere(difference > 1).tolist() == [[2, 0]]
    assert difference[2, 0] == pytest.approx(6, abs=1e-5)
    np.testing.assert_array_equal(
        values(merged)["blk.0.attn_k.weight"], values(base)["blk.0.attn_k.weight"]
    )


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}])
@pytest.mark.parametrize("architecture", MODELS)
def test_into_an_f32_file_it_is_the_export_of_base_and_adapter(
    saved, tmp_path, architecture, options
):
    base, folder, adapter = saved(architecture, **options)
    merged = merge_adapter_gguf(base, adapter, tmp_path / "merged.gguf", "f32")
    wanted = export_gguf(folder, None, tmp_path / "wanted.gguf", "f32", adapter=adapter)
    found = values(merged)
    expected = values(wanted)
    assert list(found) == list(expected)
    moved = 0
    before = values(base)
    for name, weight in expected.items():
        np.testing.assert_allclose(found[name], weight, rtol=0, atol=2e-6)
        moved += not np.array_equal(before[name], weight)
    assert moved == 2 * 7  # every linear layer of the two blocks


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q5_1, Type.Q8_0, Type.BF16, Type.F16])
def test_of_a_quantised_base_only_the_changed_tensors_move(saved, tmp_path, kind):
    """They are the dequantised weight plus the update; the others, and the metadata, are the bytes
    of the base.
    """
    plain, _, adapter = saved(target_modules=["q_proj", "down_proj"])
    base = quantised(plain, kind)
    merged = merge_adapter_gguf(base, adapter, tmp_path / "merged.gguf", "f32")
    before = tensors(base)
    after = tensors(merged)
    stored = load_file(adapter / WEIGHTS)
    prefix = "base_model.model.model.layers.1.self_attn.q_proj.lora_"
    scaling = json.loads((adapter / CONFIG).read_text())["lora_alpha"] / 4
    update = scaling * stored[f"{prefix}B.weight"] @ stored[f"{prefix}A.weight"]
    name = "blk.1.attn_q.weight"
    wanted = dequantize(before[name].data, kind) + rotary_pairs(update, 4).numpy()
    np.testing.assert_allclose(after[name].data, wanted, rtol=0, atol=2e-6)
    changed = {n for n in after if "attn_q" in n or "ffn_down" in n}
    assert len(changed) == 4 and {after[n].tensor_type for n in changed} == {Type.F32}
    for other in after.keys() - changed:
        assert after[other].tensor_type == before[other].tensor_type
        assert after[other].data.tobytes() == before[other].data.tobytes()
    assert open_base(merged).metadata() == open_base(base).metadata()


@pytest.mark.parametrize("dtype, kind", [("f16", "F16"), ("bf16", "BF16"), ("q8_0", "Q8_0")])
def test_changed_tensors_have_the_type_asked_for(saved, tmp_path, dtype, kind):
    base, _, adapter = saved(target_modules=["up_proj"])
    exact = values(merge_adapter_gguf(base, adapter, tmp_path / "exact.gguf", "f32"))
    merged = tensors(merge_adapter_gguf(base, adapter, tmp_path / "merged.gguf", dtype))
    name = "blk.0.ffn_up.weight"
    assert merged[name].tensor_type.name == kind
    wanted = gguf.quants.quantize(exact[name], merged[name].tensor_type)
    assert np.array_equal(merged[name].data, wanted)


def test_an_adapter_gguf_gives_what_its_folder_gives(saved, tmp_path):
    base, folder, adapter = saved(use_rslora=True, lora_alpha=6)
    file = export_adapter_gguf(adapter, tmp_path / "adapter.gguf", base=folder)
    of_file = merge_adapter_gguf(base, file, tmp_path / "one.gguf", "f32")
    of_folder = merge_adapter_gguf(base, adapter, tmp_path / "two.gguf", "f32")
    assert of_file.read_bytes() == of_folder.read_bytes()


def test_a_run_is_taken_by_its_folder(saved, tmp_path):
    base, _, adapter = saved()
    wanted = merge_adapter_gguf(base, adapter, tmp_path / "one.gguf").read_bytes()
    run = tmp_path / "run"
    run.mkdir()
    shutil.move(adapter, run / "adapter")
    assert merge_adapter_gguf(base, run, tmp_path / "two.gguf").read_bytes() == wanted


def test_a_base_in_parts_becomes_one_file(saved, tmp_path):
    """The parts as llama.cpp's gguf-split names and marks them."""
    whole, _, adapter = saved()
    base = open_base(whole)
    names = [tmp_path / f"base-{n:05d}-of-00002.gguf" for n in (1, 2)]
    for number, path in enumerate(names):
        writer = gguf.GGUFWriter(path, "llama")
        if number == 0:
            for key, field in gguf.GGUFReader(whole).fields.items():
                if not key.startswith("GGUF.") and key != "general.architecture":
                    sub_type = field.types[1] if len(field.types) > 1 else None
                    writer.add_key_value(key, field.contents(), field.types[0], sub_type)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(base.tensors))
        for tensor in gguf.GGUFReader(whole).tensors[number::2]:
            writer.add_tensor(tensor.name, np.array(tensor.data))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    merged = merge_adapter_gguf(names[0], adapter, tmp_path / "merged.gguf", "f32")
    wanted = values(merge_adapter_gguf(whole, adapter, tmp_path / "wanted.gguf", "f32"))
    found = values(merged)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        np.testing.assert_array_equal(found[name], weight)
    fields = open_base(merged).fields
    assert not [key for key in fields if key.startswith("split.")]
    assert fields["llama.block_count"] == 2
    names[1].unlink()
    with pytest.raises(ExportError, match=r"base-00002-of-00002\.gguf does not exist: .* one of 2"):
        merge_adapter_gguf(names[0], adapter, tmp_path / "again.gguf")


def test_what_is_logged(saved, tmp_path, caplog):
    base, _, adapter = saved(use_dora=True)
    with caplog.at_level(logging.INFO, "ftlib"):
        merge_adapter_gguf(base, adapter, tmp_path / "merged.gguf", "f16")
    assert "merged.gguf: 14 of 22 tensors changed, from F32 to F16" in caplog.text
    assert "rounding to F16 moved the merged weights by" in caplog.text
    assert "DoRA's row norms are those of the base's dequantised weights" in caplog.text


MEMORY = """
import re, sys, threading, time
from pathlib import Path
from ftlib.export.gguf_merge import merge_adapter_gguf

def resident():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", status)[1])

highest = before = resident()
done = threading.Event()

def watch():
    global highest
    while not done.wait(0.002):
        highest = max(highest, resident())

thread = threading.Thread(target=watch)
thread.start()
merge_adapter_gguf(*sys.argv[1:4], "q8_0")
done.set()
thread.join()
print("grown by", highest - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """A file of 0.4 GB with a matrix of 64 MB in fp32 that changes: the peak is a fraction of the
    file, since what is copied passes in parts and what changes some rows at a time.
    """
    base = tmp_path / "base.gguf"
    writer = gguf.GGUFWriter(base, "llama")
    writer.add_block_count(4)
    writer.add_head_count(8)
    writer.add_head_count_kv(8)
    rng = np.random.default_rng(0)
    rows = np.zeros((12_288, 34 * 4096 // 32), np.uint8)
    rows[:, 0:2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    for block in range(4):
        for name in ("attn_q", "ffn_up"):
            rows[:, 2:34] = rng.integers(0, 255, (len(rows), 32), dtype=np.uint8)
            writer.add_tensor(f"blk.{block}.{name}.weight", rows.copy(), raw_dtype=Type.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    shape = {"A": (4, 4096), "B": (12_288, 4)}
    of_layer = "base_model.model.model.layers.2.mlp.up_proj.lora_"
    save_file(
        {f"{of_layer}{k}.weight": torch.full(s, 0.01) for k, s in shape.items()}, adapter / WEIGHTS
    )
    fields = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["up_proj"]}
    (adapter / CONFIG).write_text(json.dumps(fields))
    size = base.stat().st_size
    command = [sys.executable, "-c", MEMORY, str(base), str(adapter), str(tmp_path / "m.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = int(done.stdout.split("grown by")[1])
    assert size > 4e8 and 1e6 < grown < 0.5 * size
    assert (tmp_path / "m.gguf").stat().st_size == size


# --- refusals -------------------------------------------------------------------------------------
def test_bad_input_is_named_and_nothing_is_left(saved, tmp_path):
    base, folder, adapter = saved()
    target = tmp_path / "out" / "merged.gguf"
    text = (adapter / CONFIG).read_text()

    def refused(match, base=base, adapter=adapter, **options):
        with pytest.raises(ExportError, match=match):
            merge_adapter_gguf(base, adapter, target, **options)
        assert not list(target.parent.glob("*"))

    refused("dtype='q4_k'", dtype="q4_k")
    refused("quant='Q4'", quant="Q4")
    refused("nowhere.gguf does not exist", base=tmp_path / "nowhere.gguf")
    with pytest.raises(ExportError, match="is the base itself"):
        merge_adapter_gguf(base, adapter, base)
    other = export_gguf(*MODELS["qwen3"], tmp_path / "qwen.gguf")
    refused("changes blk.0.attn_k.weight by a matrix of shape .* is this the base", base=other)
    file = export_adapter_gguf(adapter, tmp_path / "adapter.gguf", base=folder)
    refused("is an adapter for 'llama', .*qwen.gguf is of the architecture 'qwen3'", other, file)
    refused("base.gguf is no adapter of the kind 'lora'", adapter=base)
    changed = adapter / WEIGHTS
    tensors = load_file(changed)
    first = next(key for key in tensors if "up_proj.lora_A" in key)
    for change, match in (
        ({first.replace("lora_A", "lora_B"): None}, "lacks .*up_proj.lora_B.weight"),
        ({first: torch.full_like(tensors[first], torch.nan)}, "blk.*ffn_up.*NaN"),
        ({first: tensors[first][:2]}, r"A \(2, 256\) and B \(512, 4\), the rank is 4"),
        ({"base_model.model.model.embed_tokens.weight": torch.zeros(8, 256)}, "no low-rank update"),
        (
            {f"base_model.model.model.extra.lora_{k}.weight": torch.zeros(4, 4) for k in "AB"},
            "model.extra has no tensor of its own",
        ),
        (
            {
                "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight": torch.zeros(4, 64),
            },
            r"blk.1.ffn_up.weight by a matrix of shape \(512, 64\)",
        ),
    ):
        kept = {k: v for k, v in {**tensors, **change}.items() if v is not None}
        save_file(kept, changed)
        refused(match)
    save_file(tensors, changed)
    (adapter / CONFIG).write_text(text.replace('"r": 4', '"r": 4, "layers_to_transform": [0]'))
    with pytest.raises(ValueError, match="layers_to_transform"):
        merge_adapter_gguf(base, adapter, target)
    assert not list(target.parent.glob("*"))


def test_a_tied_head_is_refused(saved, tmp_path):
    base, _, adapter = saved("qwen2", target_modules=["lm_head", "q_proj"])
    with pytest.raises(ExportError, match=r"changes lm_head, which in .* is tied"):
        merge_adapter_gguf(base, adapter, tmp_path / "merged.gguf")


def test_another_architecture_is_refused(saved, tmp_path):
    base, _, adapter = saved()
    content = base.read_bytes()
    other = tmp_path / "other.gguf"
    other.write_bytes(content.replace(b"llama", b"gemma"))
    with pytest.raises(ExportError, match="architecture 'gemma': adapters are merged into llama"):
        merge_adapter_gguf(other, adapter, tmp_path / "merged.gguf")


def test_an_older_file_survives_a_failure_and_a_full_disk_is_noticed(saved, tmp_path, monkeypatch):
    base, _, adapter = saved()
    target = tmp_path / "merged.gguf"
    target.write_bytes(b"older")
    monkeypatch.setattr(
        "ftlib.export.gguf_tensors.shutil.disk_usage",
        lambda path: shutil._ntuple_diskusage(10, 10, 0),
    )
    with pytest.raises(ExportError, match="are free"):
        merge_adapter_gguf(base, adapter, target)
    monkeypatch.undo()

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("ftlib.export.gguf_merge.merged_weight", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge_adapter_gguf(base, adapter, target)
    assert target.read_bytes() == b"older"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "adapter",
        "base",
        "base.gguf",
        "merged.gguf",
    ]


# --- the header -----------------------------------------------------------------------------------
def test_the_header_is_what_gguf_reads(saved):
    """Fields, texts, and every tensor's place, type and shape, beside gguf's own reader."""
    base, _, _ = saved("qwen3", "q8_0")
    ours = open_base(base)
    theirs = gguf.GGUFReader(base)
    assert ours.alignment == theirs.alignment
    for key, value in ours.fields.items():
        assert theirs.fields[key].contents() == value
    lists = [entry.key for entry in ours.entries if entry.value is None]
    assert "tokenizer.ggml.tokens" in lists and "tokenizer.ggml.token_type" in lists
    assert {*ours.fields, *lists} == {key for key in theirs.fields if not key.startswith("GGUF.")}
    tokens = theirs.fields["tokenizer.ggml.tokens"].contents()
    assert ours.texts("tokenizer.ggml.tokens") == tokens
    with pytest.raises(ExportError, match=r"has no list 'general\.name'"):
        ours.texts("general.name")
    for one, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (one.name, one.kind, one.offset) == (
            other.name,
            other.tensor_type,
            other.data_offset,
        )
        assert one.nbytes == other.n_bytes
        assert list(reversed(one.shape)) == other.shape.tolist()


def test_damaged_files_are_refused(saved, tmp_path):
    base, _, _ = saved()
    content = base.read_bytes()
    damaged = tmp_path / "damaged.gguf"
    for cut in (2, 6, 20, 100, 3000, len(content) // 2):
        damaged.write_bytes(content[:cut])
        with pytest.raises(ExportError, match=r"damaged\.gguf is damaged or truncated"):
            open_base(damaged)
    damaged.write_bytes(b"GGUF" + (3).to_bytes(4, "big") + content[8:])
    with pytest.raises(ExportError, match="other byte order"):
        open_base(damaged)
    damaged.write_bytes(b"PK" + content[2:])
    with pytest.raises(ExportError, match="does not begin with GGUF"):
        open_base(damaged)
