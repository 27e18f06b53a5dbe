"""Exercises: check what a student wrote, name the mistake, hint, show the solution, and go on. Progress, quizzes, a planner.

    check, hint, solution, predict = open_lab("3.1.1")
    lora_forward = check(lora_forward)

Each lab's exercises are in one file, `ftlib/course/lab_3_1_1.py` and so on, as a list `EXERCISES`; its quiz in `quizzes/3.1.1.json`.
"""
from ftlib.course.exercise import Exercise, Grade, Lab, Wrong, open_lab, say
from ftlib.course.memory_planner import planner
from ftlib.course.progress import show_progress
from ftlib.course.quizzes import quiz

__all__ = ["Exercise", "Grade", "Lab", "Wrong", "open_lab", "planner", "quiz", "say", "show_progress"]
