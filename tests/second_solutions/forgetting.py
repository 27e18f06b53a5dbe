"""Second solutions of lab E2: forgetting."""

import numpy as np
import torch


def pareto_front(points):
    # From the lowest loss on: a point is on the front if it forgets less than all before it; points
    # of equal loss are judged together, and equal points stand or fall together.
    order = sorted(range(len(points)), key=lambda i: tuple(points[i]))
    kept = []
    least = float("inf")
    for i in order:
        is_twin = bool(kept) and tuple(points[kept[-1]]) == tuple(points[i])
        if points[i][1] < least or is_twin:
            kept.append(i)
            least = min(least, points[i][1])
    return sorted(kept)


def replay_count(rows, share):
    nearest = min(range(20 * rows), key=lambda k: abs(k - share * rows - share * k))
    return int(nearest)


def fisher_diagonal(gradients):
    moments = {}
    for n, example in enumerate(gradients, 1):
        for name, gradient in example.items():
            before = moments.get(name, torch.zeros_like(gradient))
            moments[name] = before + (gradient**2 - before) / n
    return moments


def ewc_penalty(theta, anchor, fisher, weight):
    moved = (theta - anchor).flatten()
    return 0.5 * torch.einsum("i,i,i->", weight * fisher.flatten(), moved, moved)


def interpolate_states(before, after, t):
    return {name: torch.lerp(before[name], tensor, t) for name, tensor in after.items()}


def stop_step(watched, every, threshold):
    rises = np.array(watched) - watched[0]
    above = np.flatnonzero(rises > threshold)
    last = len(watched) - 1
    return int(every * (above[0] if len(above) else last))
