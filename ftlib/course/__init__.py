"""Exercises: check what a student wrote, name the mistake, hint, show the solution, and go on. Progress, quizzes, a planner.

    check, hint, solution, predict = open_lab("3.1.1")
    lora_forward = check(lora_forward)

Each lab's exercises are in one file, `ftlib/course/lab_3_1_1.py` and so on, as a list `EXERCISES`; its quiz in `quizzes/3.1.1.json`.
"""
from importlib import import_module as _import_module

# Each loaded on first use: who asks for progress does not wait for what the exercises compute with.
_HOME = {
    "Exercise": "exercise",
    "Grade": "exercise",
    "Lab": "exercise",
    "Wrong": "exercise",
    "open_lab": "exercise",
    "say": "exercise",
    "planner": "memory_planner",
    "show_progress": "progress",
    "quiz": "quizzes",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
