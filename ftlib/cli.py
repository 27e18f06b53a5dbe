"""The `ftlib` command: `ftlib labs` runs the notebooks, `ftlib doctor` says whether this machine is
ready, `ftlib plan` what a training run will hold in memory, `ftlib sft` trains without a notebook,
`ftlib export` makes a GGUF with its Modelfile of a run, `ftlib release` and `ftlib grade` give labs
out and mark them, `ftlib progress` shows what a student has done, `ftlib prerequisites` asks what
one should know before lab 1.
"""

from __future__ import annotations

import argparse
import json
import sys


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ftlib", description="LLM fine-tuning labs")
    commands = parser.add_subparsers(dest="command", required=True)
    labs = commands.add_parser("labs", help="list the labs, or execute them")
    labs.add_argument("which", nargs="*", help="labs to run, such as 3.1.1 (default: all)")
    labs.add_argument("--list", action="store_true", help="list the labs and stop")
    labs.add_argument(
        "--profile", help="tiny, small or spark (default: FTLIB_PROFILE, or by this machine)"
    )
    labs.add_argument(
        "--output", default="build", help="folder for the executed copies and the index page"
    )
    labs.add_argument(
        "--cell-timeout", type=int, default=300, help="seconds that one cell may take"
    )
    labs.add_argument(
        "--write-back",
        action="store_true",
        help="also store clean outputs in labs/ itself (for maintainers)",
    )
    labs.add_argument(
        "--prepare",
        action="store_true",
        help="compile what a lab needs just before it, in .venv (as `make labs`)",
    )
    doctor = commands.add_parser("doctor", help="check this machine")
    doctor.add_argument("--json", action="store_true", help="machine-readable")
    sft = commands.add_parser(
        "sft", help="lab 4's fine-tuning without its notebook; also under `accelerate launch`"
    )
    sft.add_argument("--profile", help="tiny, small or spark")
    sft.add_argument(
        "--output",
        required=True,
        help="folder of the run: checkpoints, adapter, manifest; a second call resumes it",
    )
    sft.add_argument("--quantization", choices=["nf4"], help="QLoRA: the base in 4 bits")
    sft.add_argument("--steps", type=int, help="default: the profile's")
    sft.add_argument("--batch-size", type=int, help="rows of each process (default: the profile's)")
    sft.add_argument("--rank", dest="r", type=int, help="of the adapter (default: the profile's)")
    sft.add_argument("--use-dora", action="store_true")
    sft.add_argument("--seed", type=int, default=0)
    export = commands.add_parser(
        "export", help="a run's adapter as GGUF with a Modelfile, and as a model of Ollama"
    )
    export.add_argument(
        "run", help="folder that `ftlib sft` or finetune left, or an adapter folder"
    )
    export.add_argument("--name", required=True, help="of the model, such as my-model")
    export.add_argument(
        "--quant", default="Q4_K_M", help="Q4_K_M, Q8_0, …, or F16, BF16, F32 (default: Q4_K_M)"
    )
    export.add_argument(
        "--base", help="base model, a folder or Hub id (default: the one that the run names)"
    )
    export.add_argument("--system", help="system prompt")
    export.add_argument(
        "--num-ctx", type=int, help="context in tokens (default: the model's, 4096 at most)"
    )
    export.add_argument("--output", help="folder for the files (default: RUN/export)")
    export.add_argument(
        "--adapter",
        action="store_true",
        help="base and adapter as two GGUFs instead of merged (plain LoRA)",
    )
    export.add_argument(
        "--ollama", action="store_true", help="create the model in the running Ollama"
    )
    release = commands.add_parser(
        "release", help="the labs for students: outputs stripped, stubs kept, checks locked"
    )
    release.add_argument("output", help="folder for the notebooks")
    release.add_argument("which", nargs="*", help="labs such as 3.1.1 (default: all)")
    grade = commands.add_parser(
        "grade", help="grade a class; run it in a container, the submissions are others' code"
    )
    grade.add_argument(
        "submissions",
        help="folder with a folder of notebooks for each student, or nbgrader's course folder",
    )
    grade.add_argument(
        "--csv",
        required=True,
        help="file for the marks; rows of submissions that have not changed are kept",
    )
    grade.add_argument(
        "--labs",
        nargs="+",
        metavar="LAB",
        help="such as 3.1.1 (default: those that somebody handed in)",
    )
    grade.add_argument(
        "--cell-timeout",
        type=float,
        default=20,
        help="seconds that one cell may take (default: 20)",
    )
    plan = commands.add_parser("plan", help="what a training run will hold in memory")
    plan.add_argument("model", help="a name such as llama-3.1-70b, or a folder with a config.json")
    plan.add_argument("--method", default="qlora", help="full, lora, dora, qlora or qdora")
    plan.add_argument("--loss", default="sft", help="sft, dpo, orpo, simpo or kto")
    plan.add_argument("--rank", dest="r", type=int, default=16)
    plan.add_argument("--batch-size", type=int, default=1)
    plan.add_argument("--seq-len", type=int, default=1024)
    plan.add_argument("--optimizer", default="adamw")
    plan.add_argument("--dtype", default="bfloat16", help="of the frozen weights")
    plan.add_argument(
        "--no-checkpointing",
        dest="gradient_checkpointing",
        action="store_false",
        help="keep all activations",
    )
    plan.add_argument("--full-logits", action="store_true", default=None)
    plan.add_argument(
        "--fits",
        type=float,
        metavar="GB",
        help="exit with 1, and say what would help, if it takes more",
    )
    plan.add_argument("--json", action="store_true", help="machine-readable")
    progress = commands.add_parser(
        "progress", help="labs, exercises, readings and experience points"
    )
    progress.add_argument(
        "--read", nargs="+", default=[], metavar="KEY", help="tick readings off, such as lora"
    )
    progress.add_argument(
        "--unread", nargs="+", default=[], metavar="KEY", help="take the tick away"
    )
    progress.add_argument("--json", action="store_true", help="machine-readable")
    prerequisites = commands.add_parser("prerequisites", help="a self-check before lab 1")
    prerequisites.add_argument(
        "--answers", action="store_true", help="print the tasks with their answers and stop"
    )
    return parser


def run_sft(args) -> int:
    import torch

    import ftlib as ft

    p = ft.get_profile(args.profile)
    model, tokenizer = ft.load_model(quantization=args.quantization, profile=p)
    rank = args.r or p.rank
    torch.manual_seed(args.seed)
    ft.add_lora(model, r=rank, lora_alpha=2 * rank, use_dora=args.use_dora)
    run = ft.finetune(
        model,
        tokenizer,
        ft.load_rows("train", p),
        steps=args.steps or p.steps,
        learning_rate=p.lr_lora,
        seed=args.seed,
        batch_size=args.batch_size or p.batch_size,
        max_length=p.max_length,
        output_dir=args.output,
        checkpointing=p.gradient_checkpointing or None,
    )
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        print(
            f"loss {run.history[-1]['loss']:.3f} after {run.seconds:.0f} s; adapter in "
            f"{run.output_dir}/adapter"
        )
    return 0


def show_plan(args) -> int:
    from rich.console import Console

    from ftlib.training.memory_plan import NotEnoughMemoryError, plan_memory

    options = {k: v for k, v in vars(args).items() if k not in ("command", "model", "fits", "json")}
    plan = plan_memory(args.model, **options)
    if args.json:
        print(
            json.dumps(
                {
                    "model": plan.name,
                    "settings": plan.settings,
                    "parts": plan.parts,
                    "total": plan.total,
                },
                indent=1,
            )
        )
    else:
        Console().print(plan)
    try:
        plan.check(plan.total if args.fits is None else args.fits * 1e9)
    except NotEnoughMemoryError as error:
        print(f"ftlib: {error}", file=sys.stderr)
        return 1
    return 0


def run_grading(args) -> int:
    try:
        from ftlib.course.grading import grade_class, release
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed: pip install -c constraints.txt -e '.[grading]'"
        ) from None
    if args.command == "release":
        print("\n".join(map(str, release(args.output, args.which))))
    else:
        rows = grade_class(args.submissions, args.csv, args.labs, args.cell_timeout)
        print(
            f"{len(rows)} rows in {args.csv}; {sum(row['total'] == row['max'] for row in rows)} "
            "with full marks"
        )
    return 0


def show_progress(args) -> int:
    from ftlib.course.progress import mark_read, progress_path, progress_text, summary

    if args.read:
        mark_read(args.read)
    if args.unread:
        mark_read(args.unread, read=False)
    print(
        json.dumps(summary(), indent=1)
        if args.json
        else f"{progress_text()}\nkept in {progress_path()}"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        if args.command == "doctor":
            from ftlib.doctor import examine, report

            findings = examine()
            print(
                json.dumps([vars(f) for f in findings], indent=1) if args.json else report(findings)
            )
            return 1 if any(f.status == "failure" for f in findings) else 0
        if args.command == "sft":
            return run_sft(args)
        if args.command in ("release", "grade"):
            return run_grading(args)
        if args.command == "plan":
            return show_plan(args)
        if args.command == "progress":
            return show_progress(args)
        if args.command == "prerequisites":
            from ftlib.course.prerequisites import run_check

            return run_check(args.answers)
        if args.command == "export":
            from ftlib.export.run import export_run

            print(
                export_run(**{key: value for key, value in vars(args).items() if key != "command"})
            )
            return 0
        if args.list:
            from ftlib.course.catalogue import list_labs

            print(list_labs())
            return 0
        from ftlib.course.notebooks import run_labs

        return run_labs(
            args.which, args.output, args.profile, args.cell_timeout, args.write_back, args.prepare
        )
    except (ValueError, OSError) as error:
        print(f"ftlib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ftlib: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
