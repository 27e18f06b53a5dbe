"""From a fine-tuned model to a file that llama.cpp and Ollama run: merge, GGUF, quantise, and proof that it is the same model.

`tensors` makes merged weights one at a time, `vocab` translates the tokenizer, `writer` writes the file; `llamacpp` quantises and
opens files with llama-cpp-python, `parity` compares them with transformers.
"""
from ftlib.export.llamacpp import QuantizedFile, open_llama, quantize_gguf, read_gguf
from ftlib.export.parity import ExportReport, check_export
from ftlib.export.tensors import ExportError
from ftlib.export.writer import export_adapter_gguf, export_gguf

__all__ = ["ExportError", "ExportReport", "QuantizedFile", "check_export", "export_adapter_gguf", "export_gguf", "open_llama",
           "quantize_gguf", "read_gguf"]
