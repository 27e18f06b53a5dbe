"""What the `ftlib` command takes: a parser with an entry for each command."""

from __future__ import annotations

import argparse
import math
import re


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ftlib", description="LLM fine-tuning labs")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_labs(commands)
    _add_doctor(commands)
    _add_sft(commands)
    _add_export(commands)
    _add_release(commands)
    _add_collect(commands)
    _add_grade(commands)
    _add_exercise(commands)
    _add_plan(commands)
    _add_record(commands)
    _add_progress(commands)
    _add_prerequisites(commands)
    return parser


def _add_labs(commands) -> None:
    command = commands.add_parser("labs", help="list the labs, or execute them")
    command.add_argument(
        "which",
        nargs="*",
        help="such as 3.1.1 or E1; 'extensions': all beyond the ten (default: the ten)",
    )
    command.add_argument("--list", action="store_true", help="list the labs and stop")
    command.add_argument(
        "--profile",
        help="tiny, pocket, small or spark (default: FTLIB_PROFILE, or by machine)",
    )
    command.add_argument(
        "--output", default="build", help="folder for the executed copies and the index page"
    )
    command.add_argument(
        "--cell-timeout",
        type=_whole,
        help="seconds that one cell may take (default: the profile's)",
    )
    command.add_argument(
        "--write-back",
        action="store_true",
        help="also store clean outputs in labs/ itself; the profile is then tiny by default",
    )
    command.add_argument(
        "--prepare",
        action="store_true",
        help="compile what a lab needs just before it, in .venv (as `make labs`)",
    )
    command.add_argument(
        "--rehearse",
        action="store_true",
        help="with a few steps, rows and seeds: whether the labs run to their end here, before "
        "hours are spent; their results mean nothing",
    )
    command.add_argument(
        "--side-by-side",
        type=_whole,
        default=1,
        metavar="N",
        help="labs at once (default: 1; with --write-back always 1)",
    )


def _add_doctor(commands) -> None:
    command = commands.add_parser("doctor", help="check this machine")
    command.add_argument("--json", action="store_true", help="machine-readable")


def _add_sft(commands) -> None:
    command = commands.add_parser(
        "sft", help="lab 4's fine-tuning without its notebook; also under `accelerate launch`"
    )
    command.add_argument("--profile", help="tiny, pocket, small or spark")
    command.add_argument(
        "--output",
        required=True,
        help="folder of the run: checkpoints, adapter, manifest; a second call resumes it",
    )
    command.add_argument("--quantization", choices=["nf4"], help="QLoRA: the base in 4 bits")
    command.add_argument("--steps", type=_whole, help="default: the profile's")
    command.add_argument(
        "--batch-size", type=_whole, help="rows of each process (default: the profile's)"
    )
    command.add_argument(
        "--rank", dest="r", type=_whole, help="of the adapter (default: the profile's)"
    )
    command.add_argument("--use-dora", action="store_true")
    command.add_argument(
        "--control-tokens",
        choices=["refuse", "text", "allow"],
        default="refuse",
        help="in the rows' texts, such as <|end|>: refuse the row, encode them as plain text, or "
        "as the tokens that they are; says how many rows hold some (default: refuse)",
    )
    command.add_argument("--seed", type=int, default=0)


def _add_export(commands) -> None:
    command = commands.add_parser(
        "export", help="a run's adapter as GGUF with a Modelfile, and as a model of Ollama"
    )
    command.add_argument(
        "run", help="folder that `ftlib sft` or finetune left, or an adapter folder"
    )
    command.add_argument("--name", required=True, help="of the model, such as my-model")
    command.add_argument(
        "--quant", default="Q4_K_M", help="Q4_K_M, Q8_0, …, or F16, BF16, F32 (default: Q4_K_M)"
    )
    command.add_argument(
        "--base", help="base model, a folder or Hub id (default: the one that the run names)"
    )
    command.add_argument("--system", help="system prompt")
    command.add_argument(
        "--num-ctx", type=_whole, help="context in tokens (default: the model's, 4096 at most)"
    )
    command.add_argument("--output", help="folder for the files (default: RUN/export)")
    command.add_argument(
        "--adapter",
        action="store_true",
        help="base and adapter as two GGUFs instead of merged (plain LoRA)",
    )
    command.add_argument(
        "--into",
        metavar="BASE.gguf",
        help="merge the adapter into this GGUF, however it is quantised, in little memory; the "
        "run may be an adapter GGUF",
    )
    command.add_argument(
        "--no-proof",
        dest="prove",
        action="store_false",
        help="do not hold llama.cpp's tokens against the tokenizer's before writing",
    )
    command.add_argument(
        "--ollama", action="store_true", help="create the model in the running Ollama"
    )


def _add_release(commands) -> None:
    command = commands.add_parser(
        "release", help="the labs for students: outputs stripped, stubs kept, checks locked"
    )
    command.add_argument("output", help="folder for the notebooks")
    command.add_argument(
        "which", nargs="*", help="labs such as 3.1.1, or 'extensions' (default: the ten)"
    )


def _add_collect(commands) -> None:
    command = commands.add_parser(
        "collect", help="sort a zip of an LMS (Moodle, Canvas) into a folder for each student"
    )
    command.add_argument(
        "zips",
        nargs="+",
        metavar="ZIP",
        help="of Moodle's or Canvas's download of all submissions, or with a folder a student",
    )
    command.add_argument(
        "--output", default="class", help="folder for the students' folders (default: class)"
    )


def _add_grade(commands) -> None:
    command = commands.add_parser(
        "grade", help="grade a class; run it in a container, the submissions are others' code"
    )
    command.add_argument(
        "submissions",
        help="folder with a folder of notebooks for each student, or nbgrader's course folder",
    )
    command.add_argument(
        "--csv",
        required=True,
        help="file for the marks; rows whose notebooks and grader have not changed are kept",
    )
    command.add_argument(
        "--labs",
        nargs="+",
        metavar="LAB",
        help="such as 3.1.1 (default: those that somebody handed in)",
    )
    command.add_argument(
        "--cell-timeout",
        type=_seconds,
        default=20,
        help="seconds that one cell may take (default: 20)",
    )
    command.add_argument(
        "--feedback",
        metavar="FOLDER",
        help="write a page for each student: what was wrong, with a hint that helps",
    )
    command.add_argument(
        "--report",
        type=_page,
        metavar="FILE.html",
        help="write what the class solved and which mistakes it made, as a page and as CSV",
    )


EXERCISES_OF_YOUR_OWN = """\
An exercise of your own, in three steps (INSTRUCTORS.md, "Your own exercise"):

  ftlib exercise new 3.1.7 margin_of_pairs     writes one that works, from a template
  ftlib exercise check 3.1.7 margin_of_pairs   says what is not sound, after each of your changes
  ftlib labs 3.1.7 --write-back                runs the lab and renews its outputs (minutes)
"""


def _add_exercise(commands) -> None:
    command = commands.add_parser(
        "exercise",
        help="write an exercise of your own, or check one",
        description=EXERCISES_OF_YOUR_OWN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = command.add_subparsers(dest="action", required=True)
    new = actions.add_parser("new", help="a working exercise from the template, ready to change")
    check = actions.add_parser("check", help="whether an exercise is sound, and what it lacks")
    for action in (new, check):
        action.add_argument("lab", help="such as 3.1.7")
        action.add_argument("name", help="of the student's function, such as margin_of_pairs")
    new.add_argument("--title", default="", help="default: the name in words")
    new.add_argument(
        "--after",
        default="",
        metavar="HEADING",
        help="where it goes in the notebook: a heading, at the end of its section, or an exercise "
        "(default: behind the last exercise)",
    )


def _add_plan(commands) -> None:
    command = commands.add_parser("plan", help="what a training run will hold in memory")
    command.add_argument(
        "model", help="a name such as llama-3.1-70b, or a folder with a config.json"
    )
    command.add_argument("--method", default="qlora", help="full, lora, dora, qlora or qdora")
    command.add_argument("--loss", default="sft", help="sft, dpo, orpo, simpo or kto")
    command.add_argument("--rank", dest="r", type=_whole, default=16)
    command.add_argument("--batch-size", type=_whole, default=1)
    command.add_argument("--seq-len", type=_whole, default=1024)
    command.add_argument("--optimizer", default="adamw")
    command.add_argument("--dtype", default="bfloat16", help="of the frozen weights")
    command.add_argument(
        "--no-checkpointing",
        dest="gradient_checkpointing",
        action="store_false",
        help="keep all activations",
    )
    command.add_argument("--full-logits", action="store_true", default=None)
    command.add_argument("--gpus", type=_whole, default=1, help="processes with a GPU each")
    command.add_argument("--shard", help="over the GPUs: ddp (nothing), zero2 or full (zero3)")
    command.add_argument(
        "--fits",
        type=_gigabytes,
        metavar="GB",
        help="exit with 1, and say what would help, if it takes more",
    )
    command.add_argument("--json", action="store_true", help="machine-readable")


def _add_record(commands) -> None:
    command = commands.add_parser(
        "record",
        help="compute the missing entries of the labs' records, seed by seed; can be interrupted",
    )
    command.add_argument("labs", nargs="*", help="such as 3.1.7 (default: all)")
    command.add_argument(
        "--experiment", action="append", dest="names", help="this one alone; can be repeated"
    )
    command.add_argument("--seeds", type=_whole, help="how many (default: the experiment's own)")
    command.add_argument("--profile", help="tiny, pocket, small or spark")
    command.add_argument(
        "--processes", type=_whole, help="side by side (default: one per core, one on a GPU)"
    )
    command.add_argument(
        "--state", action="store_true", help="only show what is there and what is missing"
    )
    command.add_argument(
        "--claims", action="store_true", help="only show what each claim came to, as a table"
    )
    command.add_argument(
        "--scales",
        action="store_true",
        help="only show which claims of tiny are there in pocket too, as a table",
    )
    command.add_argument(
        "--restamp",
        action="store_true",
        help="after a rewriting: compute two entries an experiment again, and keep all where those "
        "come out as recorded",
    )


def _add_progress(commands) -> None:
    command = commands.add_parser(
        "progress", help="labs, exercises, readings and experience points"
    )
    command.add_argument(
        "--read", nargs="+", default=[], metavar="KEY", help="tick readings off, such as lora"
    )
    command.add_argument(
        "--unread", nargs="+", default=[], metavar="KEY", help="take the tick away"
    )
    command.add_argument(
        "--export",
        metavar="FILE",
        help="write the record to a file; one that is there already is merged with it",
    )
    command.add_argument(
        "--import",
        dest="merge_from",
        nargs="+",
        metavar="FILE",
        help="merge exported files of other machines into this machine's record",
    )
    command.add_argument("--json", action="store_true", help="machine-readable")


def _add_prerequisites(commands) -> None:
    command = commands.add_parser("prerequisites", help="a self-check before lab 1")
    command.add_argument(
        "--answers", action="store_true", help="print the tasks with their answers and stop"
    )


# --- arguments ------------------------------------------------------------------------------------
def _whole(text: str) -> int:
    """An argument that counts something."""
    if not re.fullmatch(r"0*[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _above_zero(text: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of {unit} above 0")
    return value


def _seconds(text: str) -> float:
    return _above_zero(text, "seconds")


def _page(text: str) -> str:
    if not text.lower().endswith(".html"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .html")
    return text


def _gigabytes(text: str) -> float:
    return _above_zero(text, "GB")
