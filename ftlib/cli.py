"""The `ftlib` command: `ftlib labs` runs the notebooks, `ftlib doctor` says whether this machine is
ready, `ftlib plan` what a training run will hold in memory, `ftlib sft` trains without a notebook,
`ftlib export` makes a GGUF with its Modelfile of a run, `ftlib release` gives labs out, `ftlib
collect` sorts what comes back and `ftlib grade` marks it, `ftlib exercise` writes and checks an
exercise of an instructor's own, `ftlib record` computes what the labs' experiments compare with,
`ftlib progress` shows what a student has done, `ftlib prerequisites` asks what one should know
before lab 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from ftlib.arguments import build_parser
from ftlib.core.interrupt import FirstInterrupt
from ftlib.core.runtime import configure

MOST_LINES = 30  # of what a zip holds that is not collected
INTERRUPTED = 130  # as shells count an end by SIGINT


# --- commands -------------------------------------------------------------------------------------
def run_sft(args) -> int:
    import torch

    import ftlib as ft

    profile = ft.get_profile(args.profile)
    model, tokenizer = ft.load_model(quantization=args.quantization, profile=profile)
    rank = _chosen(args.r, profile.rank)
    torch.manual_seed(args.seed)
    ft.add_lora(model, r=rank, lora_alpha=2 * rank, use_dora=args.use_dora)
    run = ft.finetune(
        model,
        tokenizer,
        ft.load_rows("train", profile),
        steps=_chosen(args.steps, profile.steps),
        learning_rate=profile.lr_lora,
        seed=args.seed,
        batch_size=_chosen(args.batch_size, profile.batch_size),
        max_length=profile.max_length,
        control_tokens=args.control_tokens,
        output_dir=args.output,
        checkpointing=profile.gradient_checkpointing or None,
    )
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        print(
            f"loss {run.final_loss:.3f}, the mean of the last steps, after {run.seconds:.0f} s; "
            f"adapter in {run.output_dir}/adapter"
        )
    return 0


def show_plan(args) -> int:
    from rich.console import Console

    from ftlib.training.memory_plan import NotEnoughMemoryError, plan_memory

    plan = plan_memory(args.model, **_options(args, "model", "fits", "json"))
    if args.json:
        content = {
            "model": plan.name,
            "settings": plan.settings,
            "parts": plan.parts,
            "total": plan.total,
        }
        print(json.dumps(content, indent=1))
    else:
        Console().print(plan)
    try:
        plan.check(plan.total if args.fits is None else args.fits * 1e9)
    except NotEnoughMemoryError as error:
        print(f"ftlib: {error}", file=sys.stderr)
        return 1
    return 0


def run_release(args) -> int:
    try:
        from ftlib.course.release import release
    except ModuleNotFoundError as error:
        package = (error.name or "nbgrader").partition(".")[0]
        raise ValueError(
            f"{package} is not installed: pip install -c constraints.txt -e '.[grading]'"
        ) from None
    for written in release(args.output, args.which):
        print(written)
    return 0


def run_collecting(args) -> int:
    from ftlib.course.lms import collect

    for path, collected in zip(args.zips, collect(args.zips, args.output), strict=True):
        count = sum(len(files) for files in collected.files.values())
        print(
            f"{path} ({collected.layout}): {count} notebooks of {len(collected.files)} students in "
            f"{args.output}"
        )
        for line in collected.left_out[:MOST_LINES]:
            print(f"left out: {line}")
        if len(collected.left_out) > MOST_LINES:
            print(f"left out: {len(collected.left_out) - MOST_LINES} more")
    return 0


def run_grading(args) -> int:
    from ftlib.course.grading import grade_class

    rows = grade_class(args.submissions, args.csv, args.labs, args.cell_timeout)
    full = sum(row["total"] == row["max"] for row in rows)
    print(f"{len(rows)} rows in {args.csv}; {full} with full marks")
    if args.feedback:
        from ftlib.course.feedback import write_feedback

        print(f"{len(write_feedback(rows, args.feedback))} pages in {args.feedback}")
    if args.report:
        from ftlib.course.class_report import write_class_report

        page, table = write_class_report(rows, args.report)
        print(f"the class: {page}, {table}")
    return 0


def run_authoring(args) -> int:
    from ftlib.course import authoring

    if args.action == "new":
        for path in authoring.new_exercise(args.lab, args.name, args.title, args.after):
            print(path)
        print(
            f"Change these; then `ftlib exercise check {args.lab} {args.name}`, and `ftlib labs "
            f"{args.lab} --write-back` for the notebook's outputs."
        )
        return 0
    from ftlib.course import soundness

    faults = soundness.check_exercise(args.lab, args.name)
    for part in soundness.still_the_templates(args.lab, args.name):
        print(f"○ still the template's: {part}")
    for fault in faults:
        print(f"✗ {fault}")
    if not faults:
        print(f"✓ {soundness.describe(soundness.load_exercise(args.lab, args.name))}")
    return 1 if faults else 0


def run_recording(args) -> int:
    from ftlib.course.catalogue import MODULES
    from ftlib.course.records.compute import record_labs
    from ftlib.course.records.report import claims_table, state_table
    from ftlib.course.records.restamp import restamp_labs
    from ftlib.course.records.scales import scales_table

    labs = args.labs or list(MODULES)
    if args.state:
        print(state_table(labs, args.profile))
    elif args.claims:
        for line in claims_table(labs, args.profile):
            print(line, flush=True)
    elif args.scales:
        print(scales_table(labs))
    elif args.restamp:
        restamp_labs(labs, args.profile, args.names)
    else:
        record_labs(labs, args.profile, args.names, args.seeds, args.processes)
    return 0


def show_progress(args) -> int:
    from ftlib.course.progress import mark_read, progress_path, summary
    from ftlib.course.progress_views import progress_text

    if args.merge_from:
        _import_progress(args.merge_from)
    if args.read:
        mark_read(args.read)
    if args.unread:
        mark_read(args.unread, read=False)
    if args.export:
        _export_progress(args.export)
    elif args.json:
        print(json.dumps(summary(), indent=1))
    else:
        print(progress_text(summary()))
        print(f"kept in {progress_path()}")
    return 0


def _import_progress(files: list[str]) -> None:
    from ftlib.course.progress import import_progress

    gained = import_progress(files)
    print(
        f"merged {', '.join(files)}: {gained['exercises']:+d} exercises, "
        f"{gained['readings']:+d} readings",
        file=sys.stderr,
    )


def _export_progress(file: str) -> None:
    from ftlib.course.progress import export_progress

    export_progress(file)
    print(f"{file}: take it along, and `ftlib progress --import {file}` on the other machine")


def run_doctor(args) -> int:
    from ftlib.doctor import examine, report

    findings = examine()
    if args.json:
        print(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        print(report(findings))
    return 1 if any(finding.status == "failure" for finding in findings) else 0


def ask_prerequisites(args) -> int:
    from ftlib.course.prerequisites import run_check

    return run_check(args.answers)


def run_export(args) -> int:
    from ftlib.export.run import export_run

    print(export_run(**_options(args)))
    return 0


def run_notebooks(args) -> int:
    if args.list:
        from ftlib.course.catalogue import list_labs

        print(list_labs())
        return 0
    from ftlib.course.notebooks import run_labs

    if args.rehearse:
        os.environ["FTLIB_REHEARSE"] = "1"
    return run_labs(
        args.which,
        args.output,
        args.profile,
        args.cell_timeout,
        args.write_back,
        args.prepare,
        args.side_by_side,
    )


def _chosen(given, default):
    """What was given on the command line, else the default."""
    return default if given is None else given


def _options(args, *left_out: str) -> dict:
    """The arguments by name, but for the command's own name and those left out."""
    return {k: v for k, v in vars(args).items() if k != "command" and k not in left_out}


COMMANDS = {
    "labs": run_notebooks,
    "doctor": run_doctor,
    "sft": run_sft,
    "export": run_export,
    "release": run_release,
    "collect": run_collecting,
    "grade": run_grading,
    "exercise": run_authoring,
    "plan": show_plan,
    "record": run_recording,
    "progress": show_progress,
    "prerequisites": ask_prerequisites,
}


# --- interruptions --------------------------------------------------------------------------------
def _kept_of_run(args) -> str:
    """What an interrupted training run has saved."""
    from ftlib.training.checkpoints import last_checkpoint, steps_of

    checkpoint = last_checkpoint(Path(args.output))
    if checkpoint is None:
        return f"no checkpoint is in {args.output} yet: the same command starts again"
    return (
        f"{checkpoint} holds the run up to step {steps_of(checkpoint)}: the same command goes on "
        "from there"
    )


def _kept_of_grades(args) -> str:
    return f"{args.csv} holds the marks so far: the same command goes on from there"


def _kept_of_labs(args) -> str:
    return f"the labs that ran to their end are in {args.output}"


def _kept_of_records(args) -> str:
    return "the entries computed so far are in labs/records: the same command goes on from there"


KEPT = {
    "sft": _kept_of_run,
    "grade": _kept_of_grades,
    "labs": _kept_of_labs,
    "record": _kept_of_records,
}


def _say_interrupted(args) -> int:
    """What there is of an interrupted command and how to go on, said by the first process alone."""
    if os.environ.get("RANK", "0") == "0":
        kept = KEPT[args.command](args) if args.command in KEPT else "nothing half-written is left"
        print(f"\nftlib: interrupted; {kept}", file=sys.stderr)
    return INTERRUPTED


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code: 0, 1 for a negative finding, 2 for bad input, 130 if it
    was interrupted.
    """
    args = argparse.Namespace(command="")
    with FirstInterrupt() as interrupt:
        try:
            build_parser().parse_args(argv, args)
            configure()
            return COMMANDS[args.command](args)
        except KeyboardInterrupt:
            return _say_interrupted(args)
        except Exception as error:
            if interrupt.asked:
                return _say_interrupted(args)
            if not isinstance(error, (ValueError, OSError)):
                raise
            print(f"ftlib: {error}", file=sys.stderr)
            return 2


def entry() -> None:
    """The command: `main`, and its exit code. An interrupted one leaves without Python's own
    shutdown, which ends by SIGINT instead where the interrupt came into an import.
    """
    code = main()
    if code == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    entry()
