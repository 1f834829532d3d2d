"""A damaged model file ends the program with a reason, never by a signal."""

import json
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.gguf import tiny_model, write_tiny_model

MUTATIONS = 200
ABSURD = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


def load_each(paths: list[Path]) -> dict[str, tuple[int, str]]:
    """Load every file in a process of its own: its exit status and last words."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.load_each", *map(str, paths)],
        capture_output=True,
        check=True,
        text=True,
        timeout=100,
    )
    return {
        Path(path).name: (status, words)
        for path, (status, words) in json.loads(done.stdout).items()
    }


def cut(chance: random.Random, model: bytearray, head: int) -> None:
    end = chance.choice([head, len(model)])
    del model[chance.randrange(end) :]


def flip(chance: random.Random, model: bytearray, head: int) -> None:
    for _ in range(chance.choice([1, 1, 1, 20])):
        model[chance.randrange(head)] ^= 1 << chance.randrange(8)


def absurd(chance: random.Random, model: bytearray, head: int) -> None:
    """Write an absurd number over any place: counts, lengths, sizes, offsets, types."""
    width, layout = chance.choice([(4, "<I"), (8, "<Q")])
    number = chance.choice(ABSURD) & ((1 << 8 * width) - 1)
    struct.pack_into(layout, model, chance.randrange(head - width), number)


def too_long(chance: random.Random, model: bytearray, head: int) -> None:
    """Make a string end behind the end of the file."""
    at = model.find(chance.choice([b"llama.", b"tokenizer.", b"general.", b"blk.0."]))
    length = len(model) + chance.choice([-head, 0, 1, 2**20, 2**40, 2**63 - 1 - len(model)])
    struct.pack_into("<Q", model, at - 8, length)


def twin(chance: random.Random, model: bytearray, head: int) -> None:
    """Give two tokens one text, on which llama.cpp stops by an assertion."""
    first, second = (b"<0x%02X>" % byte for byte in chance.sample(range(256), 2))
    at = model.find(first)
    model[at : at + len(first)] = second


def mutations() -> list[bytes]:
    model, head = tiny_model()
    mutated = []
    for seed in range(MUTATIONS):
        chance = random.Random(seed)
        copy = bytearray(model)
        mutate: Callable[[random.Random, bytearray, int], None] = chance.choice(
            [cut, flip, flip, absurd, absurd, too_long, twin]
        )
        mutate(chance, copy, head)
        mutated.append(bytes(copy))
    return mutated


@pytest.mark.timeout(120)
def test_no_mutation_of_a_model_ends_in_a_signal(tmp_path: Path) -> None:
    paths = []
    for number, content in enumerate(mutations()):
        paths.append(tmp_path / f"{number}.gguf")
        paths[-1].write_bytes(content)
    outcomes = load_each(paths)
    assert len(outcomes) == MUTATIONS
    odd = {
        name: outcome
        for name, outcome in outcomes.items()
        if outcome[0] not in {0, 1} or (outcome[0] == 1 and not outcome[1])
    }
    assert not odd
    # Some change nothing that matters; most do.
    refused = [words for status, words in outcomes.values() if status == 1]
    assert len(refused) > MUTATIONS // 2


def test_the_unharmed_model_loads(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    assert load_each([path]) == {"tiny.gguf": (0, "")}


def test_an_assertion_of_llama_cpp_is_a_fatal_error(tmp_path: Path) -> None:
    model, _ = tiny_model()
    path = tmp_path / "twice.gguf"
    # Two tokens with one text.
    path.write_bytes(model.replace(b"<0x41>", b"<0x42>"))
    done = subprocess.run(  # noqa: PLW1510 - it fails, as it should
        [sys.executable, "-m", "llm_api", "-addr", "localhost:0", str(path)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 1
    reason = done.stderr.strip().splitlines()[-1]
    assert reason.startswith(f"FATAL ERROR: the model cannot be loaded: {path}: ")
    assert "/llama-vocab.cpp" not in reason


def test_a_vocabulary_that_cannot_spell_a_byte_is_refused(tmp_path: Path) -> None:
    model, _ = tiny_model()
    path = tmp_path / "dumb.gguf"
    path.write_bytes(model.replace(b"<0xC3>", b"<0x??>"))
    status, words = load_each([path])["dumb.gguf"]
    assert (status, words) == (1, f"{path}: its vocabulary has no tokens for some bytes")
