"""Values that leave a process as bytes come back as they were, and bytes that hold anything else
make nothing.
"""

import collections
import dataclasses
import enum
import fractions
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from ftlib.core.stats import Interval
from ftlib.course.comparing import changed, difference, kind_of, shown
from ftlib.course.plain import LENGTH, PlainError, decode, encode


class Level(enum.IntEnum):
    LOW = 1


Point = collections.namedtuple("Point", "x y")
SAME = {
    "nothing": None,
    "truth": True,
    "an integer": -(2**200),
    "numbers that are none": [math.inf, -math.inf, 0.1 + 0.2, -0.0],
    "a text": "é\n\ud800",
    "bytes": b"\x00\xff",
    "a complex number": 1 - 2j,
    "containers": {"a": [1, (2.5, None)], (1, "b"): {1, 2}, 3: frozenset({"x"})},
    "empty": [[], (), {}, set()],
    "a dtype": torch.bfloat16,
    "a mapping": collections.OrderedDict(b=1, a=2),
    "a default": collections.defaultdict(list, a=[1]),
    "a named tuple": Point(1, 2.5),
    "an enumeration": Level.LOW,
}


@pytest.mark.parametrize("name", SAME)
def test_plain_values_come_back(name):
    value = SAME[name]
    back = decode(encode(value))
    assert back == value
    assert kind_of(back) == kind_of(value) and shown(back) == shown(value)
    assert repr(back) == repr(value) or isinstance(value, dict)


TENSORS = {
    "0 dimensions": torch.tensor(1.5, dtype=torch.float64),
    "none in it": torch.empty(0, 3),
    "bf16": torch.randn(4, 3).bfloat16(),
    "float8": torch.randn(4).to(torch.float8_e4m3fn),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "truth": torch.tensor([True, False]),
    "complex": torch.randn(3, dtype=torch.complex64).conj(),
    "transposed": torch.randn(3, 4).T,
    "expanded": torch.ones(1).expand(3, 2),
    "one expanded": torch.tensor(2.0).expand(1),
    "a slice": torch.arange(10)[2::3],
    "a parameter": nn.Parameter(torch.ones(2)),
    "not finite": torch.tensor([math.nan, math.inf]),
}


def bits(tensor):
    whole = tensor.resolve_conj().clone(memory_format=torch.contiguous_format)
    return whole.reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_come_back_bit_by_bit(name):
    tensor = TENSORS[name].detach()
    back = decode(encode(TENSORS[name]))
    assert back.dtype == tensor.dtype and back.shape == tensor.shape
    assert torch.equal(bits(back), bits(tensor))


ARRAYS = [
    np.arange(6).reshape(2, 3)[:, ::2],
    np.array(2.5),
    np.array(["a", "bc"]),
    np.zeros((0, 2)),
]


@pytest.mark.parametrize("array", [*ARRAYS, np.float32(1.5), np.bool_(True), np.int64(3)])
def test_arrays_and_numbers_of_numpy_come_back(array):
    back = decode(encode(array))
    assert type(back) is type(array) and back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_which_results_train_is_told():
    trains = torch.ones(2, requires_grad=True)
    collected = []
    message = encode([trains.detach(), {"a": 2 * trains}, trains], collected)
    assert len(collected) == 2 and collected[1] is trains
    seen = decode(message, lambda tensor, number: (number, tensor.tolist()))
    assert seen[1:] == [{"a": (0, [2.0, 2.0])}, (1, [1.0, 1.0])]


def test_of_other_objects_their_words_come_and_what_acts_as_a_number_is_one():
    assert shown(decode(encode(nn.Linear(2, 2)))) == "a Linear"
    assert kind_of(decode(encode(nn.Linear(2, 2)))) == "Linear"
    assert shown(decode(encode(len))) == "the function len"
    third = decode(encode(fractions.Fraction(1, 4)))
    assert difference(third, 0.25, 1e-6) is None and repr(third) == "Fraction(1, 4)"
    interval = Interval(1.0, 0.5, 2.0)
    assert shown(decode(encode(interval))) == shown(interval)


def test_what_changed_in_a_module_or_a_dataclass_shows():
    @dataclasses.dataclass
    class Held:
        numbers: torch.Tensor

    layer = nn.Linear(2, 2)
    held = Held(torch.zeros(2))
    before = decode(encode([layer, held]))
    assert not changed(before, decode(encode([layer, held])))
    layer.bias.requires_grad_(False)
    assert changed(before[0], decode(encode(layer)))
    held.numbers.add_(1)
    assert changed(before[1], decode(encode(held)))


def test_what_cannot_be_written_is_a_thing():
    endless: list = []
    endless.append(endless)

    class Raises(dict):
        def items(self):
            raise RuntimeError

        keys = __iter__ = items

    for value in (
        endless,
        Raises(),
        10**5000,
        torch.ones(2).to_sparse(),
        torch.empty(1, device="meta"),
    ):
        back = decode(encode([value, 1]))
        assert back[1] == 1


def message(tree, *blocks: bytes) -> bytes:
    parts = [json.dumps(tree).encode(), *blocks]
    sizes = [LENGTH.pack(len(part)) for part in parts]
    return b"".join([LENGTH.pack(len(parts)), *sizes, *parts])


WRONG = {
    "an unknown kind": ["system", "ls"],
    "a dtype that is none": ["tensor", "torch.load", [1], 0, None],
    "a shape of another size": ["tensor", "torch.float32", [1000, 1000], 0, None],
    "a block that is not there": ["bytes", 7],
    "an array of objects": ["array", "O", [1], 0],
    "kin of a thing": ["kin", "X", "x", ["thing", "Y", "y", None]],
    "a set of lists": ["set", [["list", []]]],
    "a class's name that is none": ["thing", "a\0b", "x", None],
    "no arguments": ["tensor"],
    "too deep": None,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_forged_message_is_refused(name):
    tree = WRONG[name]
    with pytest.raises(PlainError):
        if tree is None:
            decode(message([]).replace(b"[]", b"[" * 100_000))
        decode(message(tree, b"\0" * 8))
