"""Writes a GGUF file: a llama of one small layer with random weights and a byte vocabulary.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import random
import struct
from collections.abc import Sequence
from pathlib import Path

_STRING, _ARRAY = 8, 9
_FORMATS = {"u32": (4, "<I"), "i32": (5, "<i"), "f32": (6, "<f")}
_ALIGNMENT = 32

EMBEDDING, HEADS, FEED_FORWARD, CONTEXT = 64, 4, 96, 256
#: Unknown, BOS, EOS, the bytes, and the words that text is usually made of.
TOKENS = [
    ("<unk>", 2),
    ("<s>", 3),
    ("</s>", 3),
    *((f"<0x{byte:02X}>", 6) for byte in range(256)),
    *((f"\u2581{word}", 1) for word in ("a", "the", "hello", "world")),
]


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: str, value: float | str) -> bytes:
    if kind == "str":
        return struct.pack("<I", _STRING) + _string(str(value))
    number, layout = _FORMATS[kind]
    return struct.pack("<I", number) + struct.pack(layout, value)


def _array(kind: str, values: Sequence[float] | Sequence[str]) -> bytes:
    if kind == "str":
        items = b"".join(_string(str(value)) for value in values)
        return struct.pack("<IIQ", _ARRAY, _STRING, len(values)) + items
    number, layout = _FORMATS[kind]
    items = b"".join(struct.pack(layout, value) for value in values)
    return struct.pack("<IIQ", _ARRAY, number, len(values)) + items


def _metadata() -> dict[str, bytes]:
    return {
        "general.architecture": _value("str", "llama"),
        "general.name": _value("str", "tiny"),
        "general.alignment": _value("u32", _ALIGNMENT),
        "llama.context_length": _value("u32", CONTEXT),
        "llama.embedding_length": _value("u32", EMBEDDING),
        "llama.block_count": _value("u32", 1),
        "llama.feed_forward_length": _value("u32", FEED_FORWARD),
        "llama.rope.dimension_count": _value("u32", EMBEDDING // HEADS),
        "llama.attention.head_count": _value("u32", HEADS),
        "llama.attention.head_count_kv": _value("u32", HEADS // 2),
        "llama.attention.layer_norm_rms_epsilon": _value("f32", 1e-5),
        "llama.rope.freq_base": _value("f32", 10000.0),
        "tokenizer.ggml.model": _value("str", "llama"),
        "tokenizer.ggml.tokens": _array("str", [text for text, _ in TOKENS]),
        "tokenizer.ggml.scores": _array("f32", [-float(at) for at in range(len(TOKENS))]),
        "tokenizer.ggml.token_type": _array("i32", [kind for _, kind in TOKENS]),
        "tokenizer.ggml.unknown_token_id": _value("u32", 0),
        "tokenizer.ggml.bos_token_id": _value("u32", 1),
        "tokenizer.ggml.eos_token_id": _value("u32", 2),
    }


def _tensors() -> dict[str, tuple[int, ...]]:
    head = EMBEDDING // HEADS
    return {
        "token_embd.weight": (EMBEDDING, len(TOKENS)),
        "blk.0.attn_norm.weight": (EMBEDDING,),
        "blk.0.attn_q.weight": (EMBEDDING, EMBEDDING),
        "blk.0.attn_k.weight": (EMBEDDING, head * HEADS // 2),
        "blk.0.attn_v.weight": (EMBEDDING, head * HEADS // 2),
        "blk.0.attn_output.weight": (EMBEDDING, EMBEDDING),
        "blk.0.ffn_norm.weight": (EMBEDDING,),
        "blk.0.ffn_gate.weight": (EMBEDDING, FEED_FORWARD),
        "blk.0.ffn_up.weight": (EMBEDDING, FEED_FORWARD),
        "blk.0.ffn_down.weight": (FEED_FORWARD, EMBEDDING),
        "output_norm.weight": (EMBEDDING,),
        "output.weight": (EMBEDDING, len(TOKENS)),
    }


def head_of(metadata: dict[str, bytes], tensors: dict[str, tuple[int, ...]]) -> bytes:
    """Return everything before the weights, which are F32."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    out += b"".join(_string(key) + value for key, value in metadata.items())
    offset = 0
    for name, shape in tensors.items():
        count = 1
        for size in shape:
            count *= size
        out += _string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        out += struct.pack("<IQ", 0, offset)
        offset += -(-4 * count // _ALIGNMENT) * _ALIGNMENT
    return out + bytes(-len(out) % _ALIGNMENT)


def tiny_model(seed: int = 0) -> tuple[bytes, int]:
    """Return a model file, and where its weights begin."""
    chance = random.Random(seed)
    head = head_of(_metadata(), _tensors())
    out = bytearray(head)
    for shape in _tensors().values():
        count = 1
        for size in shape:
            count *= size
        out += struct.pack(f"<{count}f", *(chance.gauss(0, 0.1) for _ in range(count)))
        out += bytes(-len(out) % _ALIGNMENT)
    return bytes(out), len(head)


def write_tiny_model(path: Path, seed: int = 0) -> Path:
    """Write a model file and return its path."""
    path.write_bytes(tiny_model(seed)[0])
    return path
