"""Load a model and its tokenizer: the embedded one, a local folder, or a Hub id, with one clear
error each.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftlib.batches.template import check_tokenizer
from ftlib.core.errors import LoadError
from ftlib.core.paths import EMBEDDED, POCKET, is_path, name_of, resolve, stand_in
from ftlib.core.runtime import configure, default_threads
from ftlib.models.matrices import describe_others
from ftlib.models.nf4 import fix_4bit_layers
from ftlib.models.wrapped import unwrapped

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ftlib.core.profiles import Profile

log = logging.getLogger("ftlib")
# Tokens that no text holds, the best to pad with first.
RESERVED = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<unk>")
# Bases of a profile whose repository has no chat template, and the model whose template they take:
# it has the same vocabulary.
TEMPLATE_OF = {"meta-llama/Llama-3.1-8B": "meta-llama/Llama-3.1-8B-Instruct"}


def check_folder(folder: Path) -> None:
    """A local checkpoint must be whole before anything of it is read into memory."""
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        raise LoadError(
            f"{folder} does not exist: pass a checkpoint folder, a Hub id, or {EMBEDDED!r}"
        )
    if not (folder / "config.json").is_file():
        raise LoadError(f"{folder} has no config.json: it is not a model checkpoint")
    for name in _weight_files(folder):
        if not (folder / name).is_file():
            raise LoadError(
                f"{folder} lacks {name}: "
                "download or copy it again (pickled .bin weights are not read)"
            )
        try:
            with safe_open(folder / name, "pt"):
                pass
        except SafetensorError as error:
            raise LoadError(
                f"{folder / name} is damaged or truncated ({error}): download or copy it again"
            ) from None


def _weight_files(folder: Path) -> list[str]:
    """Names of the files that hold a checkpoint's weights: one, or those of the index."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        return sorted(set(content["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LoadError(f"{index} is damaged: download or copy it again") from None


def holds_tokenizer(folder: str | os.PathLike) -> bool:
    """Whether a folder has a tokenizer's files."""
    return (Path(folder) / "tokenizer_config.json").is_file()


def ready_tokenizer(name: str, hub_id: str = ""):
    """Load the tokenizer. Where a Hub model has no pad token, take one of its reserved tokens;
    where a base has no chat template, that of `TEMPLATE_OF`. `hub_id`: the id of which `name` is a
    copy.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve(name), trust_remote_code=False)
    lender = TEMPLATE_OF.get(hub_id or name)
    if lender and not tokenizer.chat_template:
        lent = AutoTokenizer.from_pretrained(resolve(lender), trust_remote_code=False)
        tokenizer.chat_template = lent.chat_template
        log.info("%s has no chat template: that of %s is used", hub_id or name, lender)
    if tokenizer.pad_token is None:
        vocabulary = tokenizer.get_vocab()
        reserved = [token for token in RESERVED if token in vocabulary]
        if reserved:
            tokenizer.pad_token = reserved[0]
    return check_tokenizer(tokenizer, name)


def quantization_config(quantization: str | None, precision: str = "bf16"):
    """bitsandbytes' settings of "nf4"; its layers compute in `precision`, "fp32" or "bf16"."""
    if quantization is None:
        return None
    if quantization != "nf4":
        raise LoadError(f"quantization={quantization!r}: use None or 'nf4'")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
    )


def quantised_already(name: str) -> bool:
    """Whether a checkpoint's own configuration says that its weights lie there in 4 bits.
    Other methods than bitsandbytes' are refused."""
    if is_path(name):
        try:
            content = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise LoadError(
                f"{name}/config.json is not valid JSON ({error}): download or copy it again"
            ) from None
    else:
        from transformers import PretrainedConfig

        try:
            content, _ = PretrainedConfig.get_config_dict(name)
        except (OSError, ValueError) as error:
            raise _hub_error(name, error) from error
    quantised = content.get("quantization_config") if isinstance(content, dict) else None
    if not quantised:
        return False
    method = quantised.get("quant_method")
    if method != "bitsandbytes" or not quantised.get("load_in_4bit"):
        raise LoadError(
            f"{name} is quantised with {method!r}: "
            "ftlib trains over 16- or 32-bit weights and bitsandbytes' 4 bits"
        )
    return True


# Arguments of transformers' from_pretrained, which its errors advise and load_model does not have.
ADVISED = re.compile(
    r"trust_remote_code|ignore_mismatched_sizes|use_safetensors|device_map|offload_folder|from_tf|"
    r"from_flax|use_auth_token|token=|revision|llm_int8|max_memory|variant|weights_only|attn_impl"
)
REMOTE_CODE = "trust_remote_code"


def _reason(error: Exception) -> str:
    """What transformers says is wrong, in one line, without advice that cannot be followed here."""
    text = " ".join(str(error).split())
    sentences = re.split(r"(?<=[.!?]) ", text)
    reason = " ".join(s for s in sentences if not ADVISED.search(s))
    if REMOTE_CODE in text:
        return (
            "it needs Python code of its own, which ftlib does not run: take a model of an "
            "architecture that transformers has"
        )
    return reason or type(error).__name__


def _hub_error(name: str, error: Exception) -> LoadError:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        why = "HF_HUB_OFFLINE=1 and it is not in the cache"
    else:
        why = f"{type(error).__name__}: {_reason(error)}"
    return LoadError(
        f"{name!r} could not be loaded ({why}): check the name, go online, ask for access and run "
        "`hf auth login`, or put a local folder in FTLIB_MODEL"
    )


def _settle_4bit(model, precision: str):
    """Make 4-bit layers compute alike on every processor. Their weights stay in one format:
    bitsandbytes would repack them at the first evaluation (AVX512-BF16), rounding their scales, and
    training and dequantising would then read another weight. And where the profile's precision is
    fp32 they compute in it, whatever a stored checkpoint asks for.
    """
    fix_4bit_layers(model)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
            if precision == "fp32":
                module.compute_dtype = torch.float32
                module.compute_type_is_set = True
    return model


def load_model(
    name_or_path: str | os.PathLike | None = None,
    quantization: str | None = None,
    profile: str | Profile | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load (model, tokenizer) onto the GPU if there is one, else the CPU.

    `name_or_path`: a folder, a Hub id, or None for the profile's model (`FTLIB_MODEL` replaces
    the last two). `quantization`: None or "nf4" (bitsandbytes, double quantisation; computes in the
    profile's precision, bf16 or fp32); a checkpoint that is stored in 4 bits is loaded as it is,
    whichever is given. Nothing is upcast for training: norms, embedding and head keep their dtype,
    since ftlib's adapters are fp32 themselves and compute in the input's dtype. `dtype`: None takes
    the profile's. It calls `ftlib.core.runtime.configure`: on a CPU PyTorch gets one thread for the
    embedded model, which is faster so, else as many as there were. Only safetensors are read and no
    remote code is run. LoadError names what is missing or damaged.
    """
    from ftlib.core.profiles import get_profile

    profile = get_profile(profile)
    wanted = stand_in(str(name_or_path or profile.model), given=name_or_path is not None)
    name = _prepared(wanted)
    if is_path(name):
        name = str(Path(name).expanduser())
        check_folder(Path(name))
    options = _load_options(name, quantization, profile)
    _configure_for(name)
    try:
        tokenizer = ready_tokenizer(name, wanted)
        model = _load_weights(name, dtype or profile.torch_dtype, options)
    except LoadError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        if is_path(name):
            raise LoadError(f"{name} could not be loaded: {_reason(error)}") from error
        raise _hub_error(name, error) from error
    if getattr(model, "quantization_method", None):
        _say_unpacked(name, model)
    return _settle_4bit(model, profile.precision), tokenizer


def _prepared(name: str) -> str:
    """The folder or Hub id of a name; pocket's checkpoint is made first, where it is not there."""
    if name == POCKET:
        from ftlib.models.pocket import prepare_pocket

        return prepare_pocket()
    return resolve(name)


def _say_unpacked(name: str, model) -> None:
    """Name the matrices that 4 bits do not reach."""
    others = describe_others(model)
    if others:
        log.warning(
            "%s: 4 bits hold linear layers (torch.nn.Linear) only; %s stay in their dtype: plan "
            "memory for them",
            name,
            others,
        )


def _load_options(name: str, quantization: str | None, profile) -> dict:
    """What `from_pretrained` is told of this machine and checkpoint."""
    config = quantization_config(quantization, profile.precision)
    packed = quantised_already(name)
    options: dict = {"device_map": None}
    if config and not packed:
        options["quantization_config"] = config
    if torch.cuda.is_available():
        options["device_map"] = {"": 0}
    elif config or packed:
        options["device_map"] = {"": "cpu"}
    # Plain matmuls are faster on short rows and a CPU.
    options["attn_implementation"] = "eager" if _is_embedded(name) else "sdpa"
    return options


def _is_embedded(name: str) -> bool:
    return name == resolve(EMBEDDED)


def _configure_for(name: str) -> None:
    """Set the process up for this model (`ftlib.core.runtime.configure`)."""
    embedded = _is_embedded(name)
    threads = None
    if not torch.cuda.is_available():
        # The embedded model's products are so short that two threads mostly wait for each other.
        threads = 1 if embedded else default_threads()
    # It loads in a blink: a bar would only clutter the notebook.
    configure(threads=threads, progress_bars=not embedded)


def _load_weights(name: str, dtype: torch.dtype, options: dict):
    """The model. LoadError where its files lack weights, or hold them in other shapes."""
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        name,
        output_loading_info=True,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # to name them below
        **options,
    )
    for key, stored, wanted in sorted(info["mismatched_keys"]):
        raise LoadError(
            f"{name}: {key} has shape {tuple(stored)}, its config.json asks for {tuple(wanted)}: "
            "download or copy both again"
        )
    if info["missing_keys"]:  # transformers would fill them with random numbers
        missing = sorted(info["missing_keys"])
        raise LoadError(
            f"{name} lacks {len(missing)} weights of its architecture, the first {missing[0]!r}: "
            "download or copy it again"
        )
    return model


def base_name(model: nn.Module) -> str:
    """What the model was loaded from, by the name that a profile has for it (`name_of`); empty
    where its config does not say.
    """
    config = getattr(unwrapped(model), "config", None)
    folder = str(getattr(config, "_name_or_path", "") or "")
    return name_of(folder) if folder else ""
