"""Second solutions of lab E7: more than one GPU."""

import itertools
import math
from fractions import Fraction

import numpy as np
import torch


def zero_bytes(parameters, processes, stage):
    weights = gradients = 2.0 * parameters
    optimizer = 12.0 * parameters
    if stage >= 1:
        optimizer = optimizer / processes
    if stage >= 2:
        gradients = gradients / processes
    if stage >= 3:
        weights = weights / processes
    return weights, gradients, optimizer


def step_traffic(weights, gradients, processes, strategy):
    sent = 0.0
    rounds = {
        "ddp": [gradients, gradients],
        "zero2": [weights, gradients],
        "full": [weights, weights, gradients],
    }
    for tensor in rounds[strategy]:
        for _ in range(processes - 1):
            sent += tensor / processes
    return sent


def rows_of_rank(count, rank, processes, seed, epoch):
    generator = torch.Generator()
    generator.manual_seed(seed + epoch)
    order = itertools.cycle(int(row) for row in torch.randperm(count, generator=generator))
    each = math.ceil(count / processes)
    read = itertools.islice(order, each * processes)
    return [row for place, row in enumerate(read) if place % processes == rank]


def combine_gradients(gradients, tokens):
    total = torch.zeros_like(gradients[0])
    for gradient, count in zip(gradients, tokens.tolist(), strict=True):
        total += gradient * count
    return total / int(tokens.sum())


def cut_flat(tensors, processes):
    numbers = [number for tensor in tensors for number in tensor.flatten().tolist()]
    while len(numbers) % processes:
        numbers.append(0.0)
    return torch.tensor(np.reshape(numbers, (processes, -1)), dtype=tensors[0].dtype)


def join_flat(shards, shapes):
    sizes = [math.prod(shape) for shape in shapes]
    rest = shards.numel() - sum(sizes)
    pieces = torch.split(torch.cat(list(shards)), [*sizes, rest])[:-1]
    return [piece.reshape(*shape) for piece, shape in zip(pieces, shapes, strict=True)]


def nf4_shard_bytes(n_in, n_out, processes):
    weights = n_in * n_out
    packed = math.ceil(Fraction(weights, 2))
    blocks = math.ceil(Fraction(weights, 64))
    return math.ceil(Fraction(packed, processes)), blocks + 4 * math.ceil(Fraction(blocks, 256))
