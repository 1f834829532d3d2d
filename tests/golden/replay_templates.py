"""Replay Go template vectors: python tests/golden/replay_templates.py FILE...

Each line of a file is a case: a template, data, and what Go's text/template makes of them.  A case
passes when the bytes are equal, or when both refuse in the same phase.
"""

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from llm_api.templates.errors import TemplateError
from llm_api.templates.gotemplate import GoStruct, Slice, parse

CASE_SECONDS = 20


class Fields(GoStruct):
    """A struct whose fields are those of a dict."""

    def __init__(self, values: dict[str, object]) -> None:
        self.values = values


def field(name: str, default: object = "") -> Any:
    return lambda struct: struct.values.get(name, default)


class Message(Fields):
    go_type = "main.Message"
    go_fields: ClassVar = {"Role": field("Role"), "Text": field("Text")}


class Data(Fields):
    """The root of the kind `chat`."""

    go_type = "main.Data"

    def messages(self) -> list[Message]:
        return [Message(message) for message in self.values.get("Messages") or ()]

    def without_system_prompt(self) -> Slice:
        messages = self.messages()
        drop = bool(messages) and messages[0].values["Role"] == "system"
        return Slice(messages, Message.go_type).cut(int(drop), len(messages))

    def last_of(self, role: str) -> object:
        messages = self.messages()
        if not messages:
            raise LookupError("no messages in conversation")
        for message in reversed(messages[-2:]):
            if message.values["Role"] == role:
                return message.values["Text"]
        raise LookupError(f"no message of {role}")

    go_fields: ClassVar = {
        "SystemPrompt": field("SystemPrompt"),
        "Messages": lambda data: Slice(data.messages(), Message.go_type),
    }
    go_methods: ClassVar = {
        "MessagesWithoutSystemPrompt": without_system_prompt,
        "LastMessageOfUser": lambda data: data.last_of("user"),
        "LastMessageOfAssistant": lambda data: data.last_of("assistant"),
    }


def structs(name: str, struct: type[Fields]) -> Any:
    return lambda parent: Slice(
        [struct(value) for value in parent.values.get(name) or ()], struct.go_type
    )


class CalledFunction(Fields):
    go_type = "main.CalledFunction"
    go_fields: ClassVar = {"Name": field("name"), "Arguments": field("arguments", None)}
    go_json_names: ClassVar = {"Name": "name", "Arguments": "arguments"}


class ToolCall(Fields):
    go_type = "main.ToolCall"
    go_fields: ClassVar = {
        "Type": field("type"),
        "Function": lambda call: CalledFunction(call.values["function"]),
    }
    go_json_names: ClassVar = {"Type": "type", "Function": "function"}


class ToolFunction(Fields):
    go_type = "main.ToolFunction"
    go_fields: ClassVar = {
        "Name": field("name"),
        "Description": field("description"),
        "Parameters": field("parameters", None),
    }
    go_json_names: ClassVar = {
        "Name": "name",
        "Description": "description",
        "Parameters": "parameters",
    }


class Tool(Fields):
    go_type = "main.Tool"
    go_fields: ClassVar = {
        "Type": field("type"),
        "Function": lambda tool: ToolFunction(tool.values["function"]),
    }
    go_json_names: ClassVar = {"Type": "type", "Function": "function"}


class OllamaMessage(Fields):
    go_type = "main.OllamaMessage"
    go_fields: ClassVar = {
        "Role": field("Role"),
        "Content": field("Content"),
        "ToolCalls": structs("ToolCalls", ToolCall),
    }


def ollama_data(data: dict[str, Any]) -> dict[str, object]:
    kinds: dict[str, type[Fields]] = {"Messages": OllamaMessage, "Tools": Tool}
    # A chat is rendered up to the reply, which is empty.
    defaults = {"Response": ""} if "Messages" in data else {}
    return defaults | {
        key: Slice([kinds[key](item) for item in value], kinds[key].go_type)
        if key in kinds
        else value
        for key, value in data.items()
    }


def data_of(case: dict[str, Any]) -> object:
    """Give a case's data the shape its kind names."""
    if case["kind"] == "chat":
        return Data(case["data"])
    if case["kind"] == "ollama":
        return ollama_data(case["data"])
    return case["data"]


def outcome(case: dict[str, Any]) -> bytes | TemplateError:
    """Run a case."""
    try:
        template = parse(case["template"], case.get("funcs") or (), name="file")
        return template.execute_bytes(case["entry"], data_of(case))
    except TemplateError as error:
        return error


def failure(case: dict[str, Any]) -> str | None:
    """Run a case; say what is wrong with the outcome."""
    expect = case["expect"]
    got = outcome(case)
    if not expect["ok"]:
        if isinstance(got, bytes):
            return f"gave {got!r}, expected the {expect['phase']} error {expect['error']!r}"
        if got.phase != expect["phase"]:
            return f"failed in {got.phase} ({got}), expected {expect['phase']}: {expect['error']}"
        has_line = re.search(r":\d+:", expect["error"])
        if (got.line is None and has_line) or not got.reason:
            return f"the error names no line or no reason: {got}"
        return None
    wanted = (
        bytes.fromhex(expect["output_hex"]) if "output_hex" in expect else expect["output"].encode()
    )
    return None if got == wanted else f"gave {got!r}, expected {wanted!r}"


def cases(paths: list[str]) -> Iterator[dict[str, Any]]:
    """Read the cases of files."""
    for path in paths:
        for line in Path(path).read_text(encoding="utf-8").split("\n"):
            if line.strip():
                yield json.loads(line)


def timed_failure(case: dict[str, Any]) -> str | None:
    """Run a case as `failure` does; a case that takes too long, or breaks, has failed."""

    def interrupt(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(CASE_SECONDS)
    try:
        return failure(case)
    except TimeoutError:
        return f"took more than {CASE_SECONDS} seconds"
    except Exception as error:
        return f"broke: {error!r}"
    finally:
        signal.alarm(0)


def main(paths: list[str]) -> int:
    """Replay files; return the exit status."""
    passed = failed = 0
    for case in cases(paths):
        reason = timed_failure(case)
        if reason is None:
            passed += 1
        else:
            failed += 1
            print(f"{case.get('id', '?')}: {case['template']!r}: {reason}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: replay_templates.py FILE...")
    sys.exit(main(sys.argv[1:]))
