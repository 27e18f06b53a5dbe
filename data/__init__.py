"""The embedded world: its generator, its base model and the checks that the science on it is
real.
"""
