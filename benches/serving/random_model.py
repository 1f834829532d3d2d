"""A model of one small layer with random weights and a real vocabulary.

It computes next to nothing, so what a server takes for a token is nearly all the server's own.
"""

from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter, quantize
from gguf.constants import GGMLQuantizationType

_EMBEDDING = 32
_HEADS = 1
_FEED_FORWARD = 32
_CONTEXT = 8192
_EPSILON = 1e-5
_TYPE = GGMLQuantizationType.Q4_0


def write(vocabulary_of: Path, path: Path) -> None:
    """Write the model to `path`, with the tokenizer of another GGUF file."""
    reader = GGUFReader(vocabulary_of)
    writer = GGUFWriter(path, "llama")
    writer.add_name("random, one layer")
    writer.add_block_count(1)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_EMBEDDING)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(_EPSILON)
    writer.add_rope_dimension_count(_EMBEDDING // _HEADS)
    writer.add_vocab_size(_copy_tokenizer(reader, writer))
    for name, shape in _shapes(_vocabulary(reader)).items():
        _add(writer, name, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary(reader: GGUFReader) -> int:
    return len(reader.fields["tokenizer.ggml.tokens"].data)


def _copy_tokenizer(reader: GGUFReader, writer: GGUFWriter) -> int:
    for name, entry in reader.fields.items():
        if not name.startswith("tokenizer.") or name == "tokenizer.chat_template":
            continue
        kind = entry.types[0]
        inner = entry.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, entry.contents(), kind, sub_type=inner)
    return _vocabulary(reader)


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    square = (_EMBEDDING, _EMBEDDING)
    return {
        "token_embd.weight": (vocabulary, _EMBEDDING),
        "output_norm.weight": (_EMBEDDING,),
        "output.weight": (vocabulary, _EMBEDDING),
        "blk.0.attn_norm.weight": (_EMBEDDING,),
        "blk.0.attn_q.weight": square,
        "blk.0.attn_k.weight": square,
        "blk.0.attn_v.weight": square,
        "blk.0.attn_output.weight": square,
        "blk.0.ffn_norm.weight": (_EMBEDDING,),
        "blk.0.ffn_gate.weight": (_FEED_FORWARD, _EMBEDDING),
        "blk.0.ffn_up.weight": (_FEED_FORWARD, _EMBEDDING),
        "blk.0.ffn_down.weight": (_EMBEDDING, _FEED_FORWARD),
    }


def _add(writer: GGUFWriter, name: str, shape: tuple[int, ...]) -> None:
    if len(shape) == 1:
        writer.add_tensor(name, np.ones(shape, np.float32))
        return
    # Logits that spread like those of models: a standard deviation of a few units.
    scale = 0.5 if name == "output.weight" else 0.1
    random = np.random.default_rng(len(name))
    weights = (random.standard_normal(shape) * scale).astype(np.float32)
    writer.add_tensor(name, quantize(weights, _TYPE), raw_dtype=_TYPE)
