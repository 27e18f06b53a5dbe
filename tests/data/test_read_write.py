"""Files of rows: every format there and back, each kind of damage by name and place, ten thousand
mutated files.
"""

import gzip
import io
import json
import random
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import chat
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.core.errors import DataError
from ftlib.data import read as read_module
from ftlib.data import stream as stream_module
from ftlib.data.formats import FORMATS, convert
from ftlib.data.stream import read_jsonl, stream_rows
from ftlib.data.write import write_rows

NAMES = [
    "rows.jsonl",
    "rows.json",
    "rows.csv",
    "rows.parquet",
    "rows.jsonl.gz",
    "rows.json.gz",
    "rows.csv.gz",
]
ROWS = [chat('Say «é» "x", 1\n\tand', " ok\r\n ", id=f"r{i}", note="a, b") for i in range(5)]
GOOD = json.dumps(chat("a", "b")).encode()


def lines(*content: bytes, end: bytes = b"\n") -> bytes:
    return b"".join(c + end for c in content)


def read(path, content: bytes | None = None, share: float = 1.0, **options):
    """(rows, stream) of a file with this content."""
    if content is not None:
        path.write_bytes(content)
    stream = stream_rows(path, max_reject_share=share, progress=False, **options)
    return list(stream), stream


# --- there and back -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name, tmp_path):
    """More rows than one Parquet batch, so that a second batch meets the first one's types."""
    rows = ROWS * 300
    assert write_rows(tmp_path / name, iter(rows)) == 1500
    first = (tmp_path / name).read_bytes()
    out, stream = read(tmp_path / name, check="messages", share=0)
    assert out == rows and (stream.read, stream.rejected, stream.reasons) == (1500, 0, [])
    write_rows(tmp_path / name, rows)
    assert (tmp_path / name).read_bytes() == first and [p.name for p in tmp_path.iterdir()] == [
        name
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_rows(name, tmp_path):
    assert write_rows(tmp_path / name, []) == 0
    assert read(tmp_path / name)[0] == []


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=("Cs",)), max_size=6),
    lambda v: (
        st.lists(v, max_size=3)
        | st.dictionaries(
            st.text(st.characters(blacklist_categories=("Cs",)), max_size=3), v, max_size=3
        )
    ),
    max_leaves=6,
)


@given(
    rows=st.lists(
        st.dictionaries(
            st.text(st.characters(blacklist_categories=("Cs",)), max_size=4), values, max_size=4
        ),
        max_size=5,
    ),
    name=st.sampled_from(["rows.jsonl", "rows.json.gz"]),
)
@settings(max_examples=60)
def test_any_json_rows_come_back(rows, name, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / name
    write_rows(path, rows)
    assert read(path, share=0)[0] == rows


@given(
    rows=st.lists(st.fixed_dictionaries({"a": values, "b": values}), min_size=1, max_size=4),
    name=st.sampled_from(["rows.csv", "rows.parquet"]),
)
@settings(max_examples=100)
def test_tables_give_back_what_they_take_or_refuse_it(rows, name, tmp_path_factory):
    """CSV turns numbers into text, as documented; everything else comes back or the write names the
    row.
    """
    path = tmp_path_factory.mktemp("table") / name
    try:
        write_rows(path, rows)
    except DataError as error:
        assert "row" in str(error) and not list(path.parent.iterdir())
        return

    def number(v):
        return (
            json.dumps(v)
            if name == "rows.csv" and isinstance(v, (int, float)) and not isinstance(v, bool)
            else v
        )

    assert read(path, share=0)[0] == [{k: number(v) for k, v in row.items()} for row in rows]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json.gz"])
def test_integers_of_any_size_are_exact(name, tmp_path):
    """Beyond 64 bits, where other readers make floats of them or give up."""
    rows = [{"n": 2**63}, {"n": -(10**30) - 1}, {"n": 1.5}]
    write_rows(tmp_path / name, rows)
    assert [repr(row["n"]) for row in read(tmp_path / name, share=0)[0]] == [
        "9223372036854775808",
        "-1000000000000000000000000000001",
        "1.5",
    ]


def test_parquet_refuses_integers_beyond_64_bits(tmp_path):
    with pytest.raises(DataError, match="rows 1 to 1 do not fit"):
        write_rows(tmp_path / "r.parquet", [{"n": 2**64}])


def test_several_files_are_one_stream(tmp_path):
    write_rows(tmp_path / "a.jsonl", ROWS[:2])
    write_rows(tmp_path / "b.parquet", ROWS[2:])
    assert list(stream_rows([tmp_path / "a.jsonl", tmp_path / "b.parquet"])) == ROWS


# --- bad rows -------------------------------------------------------------------------------------
BAD_LINES = {
    b'{"a": 1': "not valid JSON",
    b"\xff{}": "not UTF-8 .* at byte 0",
    b'{"a": "x\x00"}': "not valid JSON .Invalid control character at column 9",
    b'{"a": 1, "a": 2}': "the key 'a' is there twice",
    b'{"a": {"b": 1, "b": 1}}': "'b' is there twice",
    b'{"a": NaN}': "NaN is no JSON value",
    b'{"a": -Infinity}': "-Infinity is no JSON",
    b'{"a": 1e999}': "1e999 is too large",
    b'{"a": "\\ud800"}': "half of a character",
    b"[" * 100_000: "nested too deep",
    b'{"a": ' + b"9" * 5000 + b"}": "not usable JSON",
    b"[1]": "a row is an object .* not list",
    b"3": "not int",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_has_place_and_reason(line, tmp_path):
    rows, stream = read(
        tmp_path / "r.jsonl", lines(GOOD, b"  ", line, GOOD), rejects=tmp_path / "bad.jsonl"
    )
    assert len(rows) == stream.read == 2 and stream.rejected == 1
    (aside,) = map(json.loads, (tmp_path / "bad.jsonl").read_text().splitlines())
    assert (
        aside["file"] == str(tmp_path / "r.jsonl")
        and aside["line"] == 3
        and "r.jsonl" not in aside["reason"]
    )
    assert (
        aside["raw"].startswith(line.decode("utf-8", "backslashreplace")[:9_000])
        and len(aside["raw"]) <= stream_module.RAW_KEPT
    )
    with pytest.raises(DataError, match=f"r.jsonl:3: .*{BAD_LINES[line]}"):
        read(tmp_path / "r.jsonl", share=0)


@pytest.mark.parametrize(
    "check, good, bad, words",
    [
        ("messages", chat("a", "b"), chat("a", " "), "non-empty answer"),
        (
            "preference",
            {"prompt": "p", "chosen": "a", "rejected": "b"},
            {"prompt": "p", "chosen": "a", "rejected": "a"},
            "chosen equals rejected",
        ),
        (
            "preference",
            {
                "prompt": chat("a", "b")["messages"][:1],
                "chosen": [{"role": "assistant", "content": "a"}],
                "rejected": [{"role": "assistant", "content": "b"}],
            },
            {"prompt": [], "chosen": "a", "rejected": "b"},
            "prompt is []",
        ),
        (
            "preference",
            {"prompt": "p", "chosen": "a", "rejected": "b"},
            {"prompt": "p", "chosen": [{"role": "x"}], "rejected": "b"},
            "chosen is [{'role': 'x'}]",
        ),
        (
            "binary",
            {"prompt": "p", "completion": "c", "label": True},
            {"prompt": "p", "completion": "c", "label": 1},
            "label is 1",
        ),
        (
            "binary",
            {"prompt": "p", "completion": "c", "label": False},
            {"prompt": "p", "label": False},
            "completion is None",
        ),
    ],
)
def test_checks_by_name(check, good, bad, words, tmp_path):
    write_rows(tmp_path / "r.json", [good, bad, good])
    rows, stream = read(tmp_path / "r.json", check=check)
    assert (
        rows == [good, good]
        and "r.json row 2: " in stream.reasons[0]
        and words in stream.reasons[0]
    )


def test_checks_of_ones_own(tmp_path):
    def small(row, where):
        if row["n"] > 2:
            raise ValueError("n is too large")
        return {**row, "seen": True}

    write_rows(tmp_path / "r.jsonl", [{"n": 1}, {"n": 3}])
    rows, stream = read(tmp_path / "r.jsonl", check=small)
    assert rows == [{"n": 1, "seen": True}] and stream.reasons == [
        f"{tmp_path / 'r.jsonl'}:2: n is too large"
    ]
    with pytest.raises(DataError, match=r"r\.jsonl:1: the check itself failed \(KeyError: 'm'"):
        read(tmp_path / "r.jsonl", check=lambda row, where: row["m"])
    with pytest.raises(DataError, match=r"r\.jsonl:1: the check returned NoneType"):
        read(tmp_path / "r.jsonl", check=lambda row, where: None)


def test_the_share_of_rejects(tmp_path):
    """Five of a hundred are allowed, six are not. Before the hundredth row nothing is judged; at
    the end everything is.
    """
    path = tmp_path / "r.jsonl"
    assert len(read(path, lines(*[b"x"] * 5, *[GOOD] * 95), share=0.05)[0]) == 95
    with pytest.raises(
        DataError, match=r"6 of 100 rows are unusable, more than max_reject_share=0\.05"
    ) as caught:
        read(path, lines(*[b"x"] * 6, *[GOOD] * 94), share=0.05)
    assert str(caught.value).count("r.jsonl:") == 6
    seen = []
    with pytest.raises(DataError, match="50 of 100"):
        path.write_bytes(lines(*[GOOD, b"x"] * 500))
        for row in stream_rows(path, rejects=tmp_path / "bad.jsonl"):
            seen.append(row)
    assert len(seen) == 50 and len((tmp_path / "bad.jsonl").read_text().splitlines()) == 50
    with pytest.raises(DataError) as caught:
        read(path, lines(*[b"x"] * 50), share=0.05)
    assert str(caught.value).count("r.jsonl:") == 10


def test_rejects_are_reported_once(tmp_path, caplog):
    with caplog.at_level("WARNING", logger="ftlib"):
        read(tmp_path / "r.jsonl", lines(GOOD, b"x"))
    assert (
        len(caplog.messages) == 1
        and "left out 1 of 2 rows, the first" in caplog.text
        and "r.jsonl:2" in caplog.text
    )


def test_long_lines_are_named_and_not_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(read_module, "MAX_BYTES", 1000)
    monkeypatch.setattr(read_module, "CHUNK", 100)
    tracemalloc.start()
    rows, stream = read(
        tmp_path / "r.jsonl", lines(GOOD, b"x" * 5_000_000, GOOD, b"y" * 1000, b"z" * 1001)
    )
    assert len(rows) == 2 and ["longer than 1,000 bytes" in r for r in stream.reasons] == [
        True,
        False,
        True,
    ]
    start = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    read(tmp_path / "r.jsonl")
    assert tracemalloc.get_traced_memory()[1] - start < 1_000_000
    tracemalloc.stop()
    with pytest.raises(DataError, match="row 2: the row is longer than 1,000 characters"):
        read(tmp_path / "r.json", b'[{"a": 1}, {"a": "' + b"x" * 5_000 + b'"}]')


def test_byte_order_marks_and_windows_line_ends(tmp_path):
    mark = b"\xef\xbb\xbf"
    assert (
        read(tmp_path / "r.jsonl", mark + lines(GOOD, GOOD, end=b"\r\n"), share=0)[0]
        == [chat("a", "b")] * 2
    )
    assert read(tmp_path / "r.json", mark + b"\r\n[" + GOOD + b"]\r\n", share=0)[0] == [
        chat("a", "b")
    ]
    assert read(tmp_path / "r.csv", mark + b"a,b\r\n1,2\r\n", share=0)[0] == [{"a": "1", "b": "2"}]
    assert read_jsonl(tmp_path / "r.jsonl") == [chat("a", "b")] * 2


# --- JSON arrays ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "no JSON array"),
        (b'{"a": 1}', "no JSON array"),
        (b"[", "row 1: not valid JSON"),
        (b'[{"a": 1}', "row 1: the file ends after it"),
        (b'[{"a": 1} {"a": 2}]', "row 1: followed by '{'"),
        (b'[{"a": 1},]', "row 2: not valid JSON"),
        (b'[{"a": 1}, {"a": "x', "row 2: not valid JSON .Untermin"),
        (b'[{"a": 1}] []', "row 1: after the closing ] comes '\\['"),
        (b'[{"a": "\xff"}]', "not UTF-8 .* at byte 8"),
        (b'[{"a": 1}, ' + b"[" * 100_000, "not usable JSON"),
    ],
)
def test_a_broken_array_is_named_at_its_place(content, words, tmp_path):
    with pytest.raises(DataError, match=f"r.json: .*{words}"):
        read(tmp_path / "r.json", content)


def test_rows_of_an_array_are_rejected_one_by_one(tmp_path):
    content = b'[{"a": 1, "a": 2}, 3, {"a": NaN}, {"a": "\\udc00"}, {"a": 4}]'
    rows, stream = read(tmp_path / "r.json", content, rejects=tmp_path / "bad.jsonl")
    assert rows == [{"a": 4}] and [r.split(": ")[0][-1] for r in stream.reasons] == list("1234")
    assert [
        json.loads(line)["raw"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()
    ] == content.decode()[1:-1].split(', {"a": 4}')[0].replace(", 3", "|3").replace(
        "}, {", "}|{"
    ).replace("3, ", "3|").split("|")


@given(
    rows=st.lists(values, max_size=4),
    space=st.sampled_from(["", " ", "\n"]),
    chunk=st.integers(1, 9),
)
def test_an_array_is_the_same_in_chunks_of_any_size(rows, space, chunk):
    """Chunks that end inside numbers, words, escapes and characters of several bytes."""
    text = (
        space
        + "["
        + (space + "," + space).join(json.dumps(r, ensure_ascii=False) for r in rows)
        + "]"
        + space
    ).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_module, "CHUNK", chunk)
        items = list(read_module._read_json(io.BytesIO(text)))
    assert [i[2] for i in items] == rows and [i[0] for i in items] == list(range(1, len(rows) + 1))


# --- CSV ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "record, words",
    [
        (b"1", "1 columns where the header has 2"),
        (b"1,2,3", "3 columns"),
        (b'"1"x,2', "not valid CSV"),
        (b"1,\x00", "a NUL byte"),
        (b"\xff,2", "not UTF-8"),
        (b"1," + b"x" * 140_000, "field larger than field limit"),
        (b'1,"{""a"":1,""a"":2}"', "is there twice"),
        (b'"open,2', "not valid CSV"),
    ],
)
def test_a_bad_record_costs_one_line(record, words, tmp_path):
    """Also an open quote, which would swallow everything up to the next one."""
    rows, stream = read(
        tmp_path / "r.csv", lines(b"a,b", b'1,"two\nlines"', b"", record, b'3,"4"', b"5,6")
    )
    assert rows == [{"a": "1", "b": "two\nlines"}, {"a": "3", "b": "4"}, {"a": "5", "b": "6"}]
    assert (
        stream.rejected == 1
        and stream.reasons[0].startswith(f"{tmp_path / 'r.csv'}:5: ")
        and words in stream.reasons[0]
    )


@pytest.mark.parametrize("header", [b"a,a", b"a,", b"\xff,b", b'"a', b"a\x00,b"])
def test_a_bad_header(header, tmp_path):
    with pytest.raises(DataError, match=r"r\.csv: line 1: no header of column names"):
        read(tmp_path / "r.csv", lines(header, b"1,2"))


def test_nested_cells(tmp_path):
    content = lines(
        b"a", b'"[{""b"": 1}]"', b"true", b"True", b"12", b"[see above]", b'"{""x"": [NaN]}"'
    )
    rows, stream = read(tmp_path / "r.csv", content)
    assert [r["a"] for r in rows] == [
        [{"b": 1}],
        True,
        "True",
        "12",
        "[see above]",
    ] and "NaN" in stream.reasons[0]


@pytest.mark.parametrize("value", ["[1]", "null", '{"a": 1, "a": 1}', "a\0"])
def test_text_that_csv_would_read_as_something_else_is_refused(value, tmp_path):
    with pytest.raises(DataError, match=r"row 1: the text .* in 'a' would not be read back"):
        write_rows(tmp_path / "r.csv", [{"a": value}])


# --- damaged files --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl.gz", "rows.json.gz", "rows.csv.gz"])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_damaged_files_are_named(name, damage, tmp_path):
    """Cut in half after rows that do not compress away, emptied, or another thing by that name."""
    rng = random.Random(0)
    write_rows(tmp_path / name, [{"text": rng.randbytes(40).hex()} for _ in range(5000)])
    whole = (tmp_path / name).read_bytes()
    content = {"cut": whole[: len(whole) // 2], "empty": b"", "other": b"hello, world"}[damage]
    if damage == "empty" and name.endswith("l.gz"):
        assert read(tmp_path / name, content)[0] == []  # an empty file holds no rows
    elif damage == "empty" and name == "rows.csv.gz":
        assert read(tmp_path / name, content)[0] == []
    else:
        with pytest.raises(DataError, match=rf"{name}: .*(damaged or cut off|no JSON array)"):
            read(tmp_path / name, content)


def test_a_flipped_bit_in_a_parquet_page_is_found(tmp_path):
    write_rows(
        tmp_path / "r.parquet", [{"text": random.Random(i).randbytes(20).hex()} for i in range(500)]
    )
    content = bytearray((tmp_path / "r.parquet").read_bytes())
    content[len(content) // 3] ^= 1
    with pytest.raises(DataError, match=r"r\.parquet: after row 0: damaged"):
        read(tmp_path / "r.parquet", bytes(content))


def test_bad_calls(tmp_path):
    for path, words in (
        ("r.txt", "unknown format"),
        ("r.parquet.gz", "unknown format"),
        ("r.jsonl", "does not exist"),
    ):
        with pytest.raises(DataError, match=words):
            stream_rows(tmp_path / path)
    (tmp_path / "r.jsonl").touch()
    for options, words in (
        ({"check": "sft"}, "check='sft': use None, 'messages'"),
        ({"max_reject_share": 5}, "between 0 and 1"),
    ):
        with pytest.raises(DataError, match=words):
            stream_rows(tmp_path / "r.jsonl", **options)
    with pytest.raises(DataError, match="paths is empty"):
        stream_rows([])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "bad, words",
    [
        ({"messages": {1, 2}}, "row 3|rows 1 to 3"),
        ([], "row 3 is \\[\\]"),
        ({1: "a"}, "row 3 is {1"),
        ({"messages": "\ud800"}, "row"),
    ],
)
def test_a_failed_write_leaves_what_was_there(name, bad, words, tmp_path):
    (tmp_path / name).write_bytes(b"before")
    with pytest.raises(DataError, match=words):
        write_rows(tmp_path / name, [{"messages": "x"}, {"messages": "y"}, bad])
    assert (tmp_path / name).read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["r.csv", "r.parquet"])
def test_a_table_needs_one_set_of_columns(name, tmp_path):
    with pytest.raises(DataError, match="row 2 has the keys b, the first one a"):
        write_rows(tmp_path / name, [{"a": "1"}, {"b": "2"}])


def test_parquet_refuses_what_it_would_change(tmp_path):
    with pytest.raises(DataError, match="row 1 would change in Parquet"):
        write_rows(tmp_path / "r.parquet", [{"m": [{"role": "user"}]}, {"m": [{"content": "x"}]}])
    with pytest.raises(DataError, match="rows 1001 to 1001 do not fit"):
        write_rows(tmp_path / "r.parquet", [{"m": 1}] * 1000 + [{"m": "x"}])


# --- ten thousand damaged inputs ------------------------------------------------------------------
def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to four bit flips, cuts, insertions, or pieces copied elsewhere."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data = data[: max(at, 1)]
        elif kind == 2:
            data[at:at] = rng.choice(
                [
                    b"\0",
                    b"\xff",
                    b'"',
                    b"{",
                    b"]",
                    b",",
                    b"\n",
                    b"\\ud800",
                    b"NaN",
                    b"\r",
                    rng.randbytes(5),
                ]
            )
        else:
            start = rng.randrange(len(data) + 1)
            data[at:at] = data[start : start + rng.randint(1, 30)]
    return bytes(data)


def sources() -> dict[str, bytes]:
    rows = [
        convert({"messages": chat(f"Q{i}\n«é»", "A")["messages"], "id": str(i)}, to)
        for i in range(3)
        for to in FORMATS
    ]
    text = lines(*(json.dumps(r).encode() for r in rows))
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows[3::4]), table, write_page_checksum=True)
    record = b'id,instruction,output\n1,"two\nlines","[""x""]"\n2,b,"say ""hi"""\n3,c,d\n'
    return {
        "r.jsonl": text,
        "r.json": json.dumps(rows).encode(),
        "r.csv": record,
        "r.parquet": table.getvalue(),
        "r.jsonl.gz": gzip.compress(text, mtime=0),
    }


@pytest.mark.parametrize(
    "name, count",
    [
        ("r.jsonl", 3500),
        ("r.json", 2500),
        ("r.csv", 2500),
        ("r.parquet", 500),
        ("r.jsonl.gz", 1000),
    ],
)
def test_ten_thousand_mutated_files(name, count, tmp_path):
    """Only DataError comes out of the readers and of convert; what JSONL reads and rejects adds up
    to the lines that hold something.
    """
    content = sources()[name]
    rng = random.Random(name)
    path = tmp_path / name
    damaged = 0
    for _ in range(count):
        path.write_bytes(mutated := mutate(content, rng))
        stream = stream_rows(path, max_reject_share=1, progress=False)
        try:
            for row in stream:
                try:
                    convert(row, rng.choice(list(FORMATS)))
                except DataError:
                    damaged += 1
        except DataError:
            damaged += 1
        if name == "r.jsonl":
            whole = mutated.removeprefix(b"\xef\xbb\xbf")
            assert stream.read + stream.rejected == sum(
                bool(line.strip()) for line in whole.split(b"\n")
            )
        damaged += stream.rejected
    assert damaged > count / 4


@given(
    content=st.binary(max_size=200)
    | st.text(alphabet='[]{}",:\\ntrue1e-. \r\0', max_size=60).map(str.encode),
    name=st.sampled_from(["r.jsonl", "r.json", "r.csv"]),
)
@settings(max_examples=300)
def test_any_bytes(content, name, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / name
    try:
        read(path, content)
    except DataError as error:
        assert str(path) in str(error)
