"""A run that is interrupted, for tests of what resuming gives."""

from ftlib.training.folder import MarkComplete


def interrupt_at(step: int, monkeypatch) -> None:
    """Ctrl-C after `step` steps, when their checkpoint has been written."""
    saved = MarkComplete.on_save

    def stop(self, args, state, control, **more):
        saved(self, args, state, control, **more)
        if state.global_step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(MarkComplete, "on_save", stop)
