"""What a GGUF file says of a tokenizer: its tokens, how text is cut, and where generation ends."""

from __future__ import annotations

from dataclasses import dataclass

from gguf import GGUFWriter

# The key under which Ollama looks for every end token.
EOS_IDS = "tokenizer.ggml.eos_token_ids"


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp needs to encode, decode, render a chat and stop."""

    model: str  # llama.cpp's: "gpt2" for byte-level BPE, "llama" for SentencePiece's
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]  # of byte-level BPE
    scores: list[float]  # of SentencePiece
    space_prefix: bool
    special: dict[str, int]  # bos, eos, eot, eom, pad, unk -> id
    stops: list[int]  # every id that ends generation
    add_bos: bool
    add_eos: bool
    chat_template: str

    def write(self, writer: GGUFWriter) -> None:
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.merges:
            writer.add_token_merges(self.merges)
        if self.scores:
            writer.add_token_scores(self.scores)
        for name, token in self.special.items():
            getattr(writer, f"add_{name}_token_id")(token)
        # llama.cpp has one eos, one eot and one eom; Ollama's own engine reads this list.
        if len(self.stops) > 1:
            writer.add_array(EOS_IDS, self.stops)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        writer.add_add_space_prefix(self.space_prefix)
        writer.add_chat_template(self.chat_template)
