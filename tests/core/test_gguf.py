"""The quick reader of GGUF files against gguf's own."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGUFEndian

from ftlib.core.gguf import open_reader


class RefusedError(Exception):
    """What the tests ask for where a file is no good."""


def opened(path: Path):
    return open_reader(path, RefusedError, "make one", "make it again")


def written(path: Path, endian=GGUFEndian.LITTLE) -> Path:
    """A file with arrays of every kind, empty strings among them, and two tensors."""
    writer = GGUFWriter(path, "llama", endianess=endian)
    writer.add_array("strings", ["a", "", "Grüße", "<|end|>"])
    writer.add_array("one string", ["alone"])
    writer.add_array("floats", [0.5, -2.0])
    writer.add_array("numbers", [1, -2, 300_000])
    writer.add_array("flags", [True, False, True])
    writer.add_array("rows", [[1, 2], [3, 4]])
    writer.add_array("rows of strings", [["a", "bc"], ["d"]])
    writer.add_string("name", "tiny")
    writer.add_uint32("size", 7)
    writer.add_tensor("w", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("v", np.ones(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("endian", [GGUFEndian.LITTLE, GGUFEndian.BIG])
def test_the_same_fields_and_tensors(tmp_path, endian):
    file = written(tmp_path / "m.gguf", endian)
    mine, theirs = opened(file), GGUFReader(file)
    assert type(mine) is not GGUFReader
    assert list(mine.fields) == list(theirs.fields)
    for name, field in mine.fields.items():
        other = theirs.fields[name]
        assert (field.offset, field.data, field.types) == (other.offset, other.data, other.types)
        assert field.contents() == other.contents()
        assert len(field.parts) == len(other.parts)
        for part, its in zip(field.parts, other.parts, strict=True):
            assert part.dtype == its.dtype and np.array_equal(part, its)
    for tensor, other in zip(mine.tensors, theirs.tensors, strict=True):
        assert tensor.name == other.name and np.array_equal(tensor.data, other.data)


def test_arrays_are_read_at_once_and_not_item_by_item(tmp_path, monkeypatch):
    """A vocabulary costs gguf's own reader a call for every token."""
    calls = []
    own = GGUFReader._get_field_parts

    def counted(self, *args):
        calls.append(args)
        return own(self, *args)

    monkeypatch.setattr(GGUFReader, "_get_field_parts", counted)
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_array("tokens", [f"token {i}" for i in range(500)])
    writer.add_array("types", list(range(500)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert len(opened(tmp_path / "m.gguf").fields["tokens"].data) == 500
    assert len(calls) < 10


def test_a_file_cut_anywhere_is_refused_as_gguf_refuses_it(tmp_path):
    """Every length of the header, and some of the tensors: an error that names file and way out."""
    whole = written(tmp_path / "m.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    within_last_tensor = len(whole) - 25  # its 10 bytes are padded to 32
    for length in [*range(0, within_last_tensor, 7), within_last_tensor]:
        cut.write_bytes(whole[:length])
        with pytest.raises(RefusedError, match=r"cut\.gguf is damaged or truncated.*make it again"):
            opened(cut)
    with pytest.raises(RefusedError, match=r"none\.gguf does not exist: make one"):
        opened(tmp_path / "none.gguf")


def test_a_length_that_no_file_has_is_refused(tmp_path):
    """Not tried: it would not fit into memory."""
    content = bytearray(written(tmp_path / "m.gguf").read_bytes())
    place = content.index("Grüße".encode()) - 8
    content[place : place + 8] = (2**60).to_bytes(8, "little")
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(RefusedError, match="goes on after the end"):
        opened(tmp_path / "m.gguf")
