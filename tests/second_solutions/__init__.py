"""A second solution of every exercise, written another way than ftlib's and without it.

A check must accept any right answer, not only one that looks like the reference. So these use loops
where the reference has tensors, autograd where it has a formula, counting where it has arithmetic.
Nothing of ftlib is imported.
"""
