"""Second solutions of lab E1: RLHF."""

import math

import torch


def reward_loss(chosen_rewards, rejected_rewards, margin=0.0):
    """ln(1 + e^-x), x the lead beyond the margin, with the larger of 0 and -x taken out."""
    lead = chosen_rewards - rejected_rewards - margin
    return torch.clamp(-lead, min=0) + torch.log1p(torch.exp(-lead.abs()))


def calibration_error(gaps, bins=5):
    pairs = []
    for gap in gaps.tolist():
        likely = 1 / (1 + math.exp(-abs(gap)))
        place = min(bins - 1, int((likely - 0.5) * 2 * bins))
        pairs.append((place, likely, 1.0 if gap > 0 else 0.0))
    total = 0.0
    for place in {place for place, _, _ in pairs}:
        here = [(likely, right) for at, likely, right in pairs if at == place]
        total += abs(sum(right for _, right in here) - sum(likely for likely, _ in here))
    return total / len(pairs)


def kl_shaped_rewards(scores, logps, ref_logps, mask, kl_coef):
    out = torch.zeros_like(logps)
    for row in range(len(scores)):
        places = mask[row].nonzero().flatten().tolist()
        for t in places:
            out[row, t] = kl_coef * (ref_logps[row, t] - logps[row, t])
        out[row, places[-1]] += scores[row]
    return out


def gae(rewards, values, mask, gamma, lam):
    """Every later error of one step, weighed by its distance."""
    out = torch.zeros_like(values)
    for row in range(len(values)):
        places = mask[row].nonzero().flatten().tolist()
        errors = []
        for i, t in enumerate(places):
            after = values[row, places[i + 1]] if i + 1 < len(places) else 0.0
            errors.append(rewards[row, t] + gamma * after - values[row, t])
        for i, t in enumerate(places):
            later = [(gamma * lam) ** k * error for k, error in enumerate(errors[i:])]
            out[row, t] = sum(later)
    return out


def ppo_policy_loss(logps, old_logps, advantages, mask, clip_range=0.2):
    """Above 0 the ratio is held from above, below 0 from below."""
    ratio = torch.exp(logps - old_logps)
    top = torch.where(advantages > 0, torch.clamp(ratio, max=1 + clip_range), ratio)
    held = torch.where(advantages < 0, torch.clamp(top, min=1 - clip_range), top)
    gain = held * advantages
    return -(gain * mask).sum() / mask.sum()


def leave_one_out(scores, group_size):
    out = torch.empty_like(scores)
    for i in range(len(scores)):
        first = i - i % group_size
        others = [scores[j] for j in range(first, first + group_size) if j != i]
        out[i] = scores[i] - sum(others) / len(others)
    return out
