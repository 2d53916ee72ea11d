"""Writing a checkpoint as a Hugging Face LLaMA folder: config, weights and tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from skippipe.data.tokenizer import SENTENCEPIECE, PretrainedTokenizer, SentencePieceTokenizer, load_tokenizer
from skippipe.errors import UserError
from skippipe.model.blocks import llama_config
from skippipe.model.checkpoint import Checkpoint, load_stages
from skippipe.model.stage import canonical_state

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How sentencepiece writes a space."""
TOKENIZER_CHECK = "def f(x):\n    return  x * 2 - 'na\u00efve'  # \u4e2d\U0001f600\n\n\tprint(f(3.14), SPAM)\n"


def export_folder(checkpoint: Checkpoint, folder: Path) -> bool:
    """Write config, weights and tokenizer; False if the tokenizer is left as tokenizer.model alone.

    UserError if the folder has something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {folder}: is there already and not empty; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    meta = checkpoint.meta
    config = llama_config(meta.config.model, meta.stages, meta.vocabulary)
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = "float32"
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    for name, token in (("bos_token_id", tokenizer.bos_id), ("eos_token_id", tokenizer.eos_id)):
        setattr(config, name, token if token >= 0 else None)
    config.save_pretrained(folder)
    weights = {name: tensor for stage in load_stages(checkpoint) for name, tensor in canonical_state(stage).items()}
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    if isinstance(tokenizer, PretrainedTokenizer):
        for name, contents in tokenizer.files().items():
            (folder / name).write_bytes(contents)
        return True
    assert isinstance(tokenizer, SentencePieceTokenizer)
    shutil.copyfile(checkpoint.tokenizer, folder / SENTENCEPIECE)
    fast = fast_tokenizer(tokenizer.model)
    encoded = fast(TOKENIZER_CHECK, add_special_tokens=False)["input_ids"]
    if encoded != tokenizer.encode(TOKENIZER_CHECK):
        return False
    fast.save_pretrained(folder)
    return True


def fast_tokenizer(sentencepiece: Any) -> Any:
    """A sentencepiece BPE model with byte fallback as transformers' PreTrainedTokenizerFast.

    If the model is of another kind, the two encode differently.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = [sentencepiece.id_to_piece(index) for index in range(sentencepiece.get_piece_size())]
    control = {index for index in range(len(pieces)) if sentencepiece.is_control(index)}
    unknown = sentencepiece.unk_id()
    # White space but the space itself is only ever a piece of its own if a user-defined symbol made it one.
    symbols = [piece for index, piece in enumerate(pieces) if index not in control and piece.isspace()]
    ordinary = {
        piece: index
        for index, piece in enumerate(pieces)
        if index not in control | {unknown} and piece not in symbols and not sentencepiece.is_byte(index)
    }
    merges = sorted(
        (ordinary[piece], ordinary[piece[:cut]], ordinary[piece[cut:]])
        for piece in ordinary
        for cut in range(1, len(piece))
        if piece[:cut] in ordinary and piece[cut:] in ordinary
    )
    model = models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[(pieces[left], pieces[right]) for _, left, right in merges],
        unk_token=pieces[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    prefixed = sentencepiece.encode("a", out_type=str)[0].startswith(SPACE)
    backend.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(SPACE)] if prefixed else []), normalizers.Replace(" ", SPACE)]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefixed else []),
        ]
    )
    backend.add_tokens([AddedToken(symbol, normalized=False) for symbol in symbols])
    names = {"bos_token": sentencepiece.bos_id(), "eos_token": sentencepiece.eos_id(), "unk_token": unknown}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        **{name: pieces[index] for name, index in names.items() if index >= 0},
    )
