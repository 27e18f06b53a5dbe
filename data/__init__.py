"""The embedded world: its generator, its base model, and checks that the science on it is real."""
