"""ftlib: fine-tuning methods, small and exact, for the ten labs. `import ftlib as ft`."""
import logging as _logging
import os as _os
from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec

# Before torch: spinning threads starve shared cores (measured: 15 times slower).
_os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
_os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# On AVX512-BF16 processors bitsandbytes warns that an optional Hub kernel is absent; ftlib does not want it.
_logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(_logging.ERROR)

__version__ = "0.1.0"

# The public names, each loaded on first use: a command or an export does without what training imports (seconds, and memory).
_NAMES = {
    "adapter_io": "AdapterError load_adapter save_adapter",
    "datasets": "DataError inference_template load_base_text load_rows read_jsonl show_mask training_template",
    "deploy": "export_run",
    "doctor": "preflight",
    "duplicates": "exact_duplicates near_duplicates",
    "evaluate": "api_judge bootstrap_interval forgetting golden_accuracy kl_to_reference paired_difference perplexity "
                "shots_by_family win_rate",
    "export": "ExportError check_export export_adapter_gguf export_gguf quantize_gguf",
    "files": "stream_rows write_rows",
    "formats": "convert detect_format",
    "gotemplate": "go_template render_go",
    "loading": "LoadError load_model",
    "logps": "completion_logps sequence_logps token_logps",
    "lora": "add_lora count_parameters describe_trainable disable_adapter lora_layers merge_adapter merge_and_unload unmerge_adapter",
    "losses": "dpo_loss kto_loss orpo_loss simpo_loss",
    "manifest": "read_manifest verify_dataset write_dataset",
    "memory": "MemoryPlan plan_memory",
    "modelfile": "diagnose_stops parse_modelfile write_modelfile",
    "packing": "pack",
    "pairs": "balance_length binary_to_pairs imbalanced length_bias pairs_from_scores pairs_to_binary synthetic_pairs",
    "pipeline": "prepare standard_rules",
    "preference": "prefer",
    "profiles": "get_profile",
    "quant": "NF4_LEVELS quantize_nf4",
    "seeds": "over_seeds",
    "serving": "chat serve",
    "splits": "split_by_group",
    "training.neftune": "neftune",
    "train": "RunError finetune",
}
_HOME = {name: f"ftlib.{module}" for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str):
    """A public name, or a module of the library: `ft.load_model`, `ft.losses`."""
    if name in _HOME:
        value = globals()[name] = getattr(_import_module(_HOME[name]), name)
        return value
    if not name.startswith("_") and _find_spec(f"ftlib.{name}"):
        return _import_module(f"ftlib.{name}")
    raise AttributeError(f"module 'ftlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


class _Say(_logging.Handler):
    """Prints what ftlib reports, such as how many parameters train, where no one has set up logging; a line twice in a row once.

    `logging.getLogger("ftlib").setLevel("WARNING")` keeps it quiet.
    """
    last = None

    def emit(self, record) -> None:
        text = self.format(record)
        if text != self.last and not _logging.getLogger().handlers:
            print(text, flush=True)
        self.last = text


_logging.getLogger("ftlib").addHandler(_Say())
_logging.getLogger("ftlib").setLevel(_logging.INFO)
