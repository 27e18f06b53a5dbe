"""Second solutions of lab E4: distillation."""

import math

import torch


def independent_student(joint):
    rows, columns = joint.shape
    out = torch.zeros_like(joint)
    for i in range(rows):
        for j in range(columns):
            out[i, j] = joint[i, :].sum() * joint[:, j].sum()
    return out


def forward_kl(student_logits, teacher_logits, temperature):
    total = 0.0
    for z, v in zip(student_logits, teacher_logits, strict=True):
        p = torch.softmax(v / temperature, 0)
        q = torch.softmax(z / temperature, 0)
        total = total + (p * torch.log(p)).sum() - (p * torch.log(q)).sum()
    return temperature * temperature * total / len(student_logits)


def reverse_kl_gradient(student_logits, teacher_logits):
    q = torch.softmax(student_logits, -1)
    ratio = torch.log(q) - torch.log(torch.softmax(teacher_logits, -1))
    found = []
    for weights, ratios in zip(q, ratio, strict=True):
        jacobian = torch.diag(weights) - torch.outer(weights, weights)  # of the softmax
        found.append(jacobian @ ratios)
    return torch.stack(found)


def generalised_jsd(student_logits, teacher_logits, beta):
    q = torch.exp(torch.log_softmax(student_logits, -1))
    p = torch.exp(torch.log_softmax(teacher_logits, -1))
    m = beta * p + (1 - beta) * q
    entropies = [-(x * torch.log(x)).sum(-1) for x in (m, p, q)]
    return entropies[0] - beta * entropies[1] - (1 - beta) * entropies[2]


def teacher_rows(rows, answers, complete):
    kept = []
    for i in range(len(rows)):
        if not complete[i] or not answers[i].strip():
            continue
        messages = [dict(message) for message in rows[i]["messages"]]
        messages[-1]["content"] = answers[i]
        kept.append({"messages": messages})
    return kept


def bytes_per_token(config, context, weight_bytes, cache_bytes=2.0):
    d = config["hidden_size"]
    width = config["head_dim"]
    q = config["num_attention_heads"] * width
    kv = config["num_key_value_heads"] * width
    layer = d * (2 * q + 2 * kv + 3 * config["intermediate_size"])
    weights = config["num_hidden_layers"] * layer + config["vocab_size"] * d
    kept = math.prod((2, kv, context, config["num_hidden_layers"]))
    return weights * weight_bytes + kept * cache_bytes
