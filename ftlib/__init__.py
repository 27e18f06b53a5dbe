"""ftlib: fine-tuning methods, small and exact, for the ten labs. `import ftlib as ft`."""
import logging as _logging
import os as _os
from importlib import import_module as _import_module

# Before torch: spinning threads starve shared cores (measured: 15 times slower).
_os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
_os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# On AVX512-BF16 processors bitsandbytes warns that an optional Hub kernel is absent; ftlib does not want it.
_logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(_logging.ERROR)

from ftlib.adapter_io import AdapterError, load_adapter, save_adapter  # noqa: E402
from ftlib.datasets import (DataError, inference_template, load_base_text, load_rows, read_jsonl, show_mask,  # noqa: E402
                            training_template)
from ftlib.doctor import preflight  # noqa: E402
from ftlib.evaluate import (api_judge, bootstrap_interval, forgetting, golden_accuracy, kl_to_reference,  # noqa: E402
                            paired_difference, perplexity, shots_by_family, win_rate)
from ftlib.files import stream_rows, write_rows  # noqa: E402
from ftlib.formats import convert, detect_format  # noqa: E402
from ftlib.loading import LoadError, load_model  # noqa: E402
from ftlib.logps import completion_logps, sequence_logps, token_logps  # noqa: E402
from ftlib.lora import (add_lora, count_parameters, describe_trainable, disable_adapter, lora_layers,  # noqa: E402
                        merge_adapter, merge_and_unload, unmerge_adapter)
from ftlib.losses import dpo_loss, kto_loss, orpo_loss, simpo_loss  # noqa: E402
from ftlib.manifest import read_manifest, verify_dataset, write_dataset  # noqa: E402
from ftlib.memory import MemoryPlan, plan_memory  # noqa: E402
from ftlib.neftune import neftune  # noqa: E402
from ftlib.packing import pack  # noqa: E402
from ftlib.pairs import (balance_length, binary_to_pairs, imbalanced, length_bias, pairs_from_scores, pairs_to_binary,  # noqa: E402
                         synthetic_pairs)
from ftlib.preference import prefer  # noqa: E402
from ftlib.profiles import get_profile  # noqa: E402
from ftlib.quant import NF4_LEVELS, quantize_nf4  # noqa: E402
from ftlib.seeds import over_seeds  # noqa: E402
from ftlib.splits import split_by_group  # noqa: E402
from ftlib.train import RunError, finetune  # noqa: E402

__version__ = "0.1.0"

# Loaded on first use: what they import takes seconds, and few labs need them.
_LATER = {"prepare": "ftlib.pipeline", "standard_rules": "ftlib.pipeline", "exact_duplicates": "ftlib.duplicates",
          "near_duplicates": "ftlib.duplicates",
          **dict.fromkeys(("export_gguf", "export_adapter_gguf", "quantize_gguf", "check_export", "ExportError"), "ftlib.export"),
          **dict.fromkeys(("write_modelfile", "parse_modelfile", "diagnose_stops"), "ftlib.modelfile"),
          **dict.fromkeys(("go_template", "render_go"), "ftlib.gotemplate"),
          **dict.fromkeys(("serve", "chat"), "ftlib.serving"), "export_run": "ftlib.deploy"}


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module 'ftlib' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


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
