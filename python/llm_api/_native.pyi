"""llm-engine, the engine in Rust. `llm_api.Engine` is the interface to use."""

from collections.abc import Sequence
from os import PathLike
from typing import Literal, TypedDict, final, type_check_only

from llm_api.events import FinishReason

__all__ = [
    "Engine",
    "Loading",
    "Prepared",
    "__version__",
    "check_stop",
    "end_on_crash",
    "ggml_version",
    "llama_version",
]

__version__: str
ggml_version: str
llama_version: str

_End = tuple[FinishReason, str | None, int, int, int, float, float, float, int]
_Event = tuple[int, str, _End | None]
_Prompt = Sequence[tuple[str, bool]]

@type_check_only
class EngineConfig(TypedDict):
    model: str | PathLike[str]
    backends: str | PathLike[str]
    context: int
    pool: int
    parallel: int
    queue: int
    prompt_lookup: bool
    threads: int
    kernels: bool
    gpu_layers: int
    cache_type_k: str
    cache_type_v: str
    flash_attn: str
    rope_freq_base: float
    rope_freq_scale: float

@type_check_only
class EngineInfo(TypedDict):
    description: str
    cells: int
    sequences: int
    batch: int
    trained_context: int
    can_shift: bool
    can_truncate: bool
    kernels: str
    kernels_failure: str | None
    cpu_variant: str
    devices: list[str]
    backend_failures: list[str]

_Histogram = tuple[list[tuple[float, int]], int, float]

@type_check_only
class Measures(TypedDict):
    busy: int
    prompt_tokens: int
    prompt_seconds: float
    reply_seconds: float
    first_token: _Histogram
    between_tokens: _Histogram

def check_stop(patterns: list[str], literals: list[str]) -> None: ...
def end_on_crash() -> None: ...

@final
class Loading:
    def __new__(cls) -> Loading: ...
    @property
    def progress(self) -> float: ...
    def cancel(self) -> None: ...

@final
class Prepared: ...

@final
class Engine:
    def __new__(cls, config: EngineConfig, loading: Loading) -> Engine: ...
    @staticmethod
    def scripted(spec: str, context: int, pool: int, parallel: int, queue: int) -> Engine: ...
    @property
    def bell(self) -> int: ...
    @property
    def info(self) -> EngineInfo: ...
    @property
    def chat_template(self) -> str | None: ...
    @property
    def bos_text(self) -> str: ...
    @property
    def eos_text(self) -> str: ...
    def tokenize(self, prompt: _Prompt) -> list[int]: ...
    def prepare(self, prompt: _Prompt, options: dict[str, object]) -> Prepared: ...
    def submit(self, request: Prepared) -> int: ...
    def cancel(self, id: int) -> None: ...
    def drain(self) -> list[_Event]: ...
    @property
    def state(self) -> Literal["ready", "rebuilding", "failed"]: ...
    def stats(self) -> dict[str, int]: ...
    def measures(self) -> Measures: ...
    def close(self) -> list[_Event]: ...
