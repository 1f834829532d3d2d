"""The stub of the Rust module says what the module has: names, kinds and parameters."""

import ast
import inspect
from pathlib import Path

import pytest

import llm_api
from llm_api import _native

STUB = ast.parse(Path(llm_api.__file__).with_name("_native.pyi").read_text(encoding="utf-8"))
# Types that only the stub has.
TYPING_ONLY = {"EngineConfig", "EngineInfo", "Measures"}


def members(scope: ast.Module | ast.ClassDef) -> dict[str, ast.stmt]:
    """Names that a scope of the stub defines, private aliases left out."""
    found: dict[str, ast.stmt] = {}
    for node in scope.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return {name: node for name, node in found.items() if name not in TYPING_ONLY}


def public(names: object) -> set[str]:
    return {name for name in dir(names) if not name.startswith("_")}


def parameters(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in function.args.args if argument.arg not in {"self", "cls"}]


def check_signature(where: str, stub: ast.FunctionDef, function: object) -> None:
    signature = inspect.signature(function)  # type: ignore[arg-type]
    names = [name for name in signature.parameters if name != "self"]
    assert names == parameters(stub), where


def test_the_module() -> None:
    stub = members(STUB)
    assert set(stub) - {"__version__"} == public(_native)
    for name, node in stub.items():
        if isinstance(node, ast.FunctionDef):
            check_signature(name, node, getattr(_native, name))
        elif isinstance(node, ast.AnnAssign):
            assert isinstance(getattr(_native, name), str)


def test_the_engine() -> None:
    (class_stub,) = [n for n in STUB.body if isinstance(n, ast.ClassDef) and n.name == "Engine"]
    stub = members(class_stub)
    assert set(stub) - {"__new__"} == public(_native.Engine)
    for name, node in stub.items():
        assert isinstance(node, ast.FunctionDef)
        decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
        member = inspect.getattr_static(_native.Engine, name)
        assert inspect.isgetsetdescriptor(member) == ("property" in decorators), name
        if "property" in decorators:
            continue
        callable_member = _native.Engine if name == "__new__" else getattr(_native.Engine, name)
        check_signature(name, node, callable_member)


def test_the_info_and_config_have_the_keys_of_the_stub() -> None:
    native = _native.Engine.scripted("echo", 64, 64, 1, 0)
    try:
        assert set(native.info) == set(_keys("EngineInfo"))
    finally:
        native.close()
    config: dict[str, object] = dict.fromkeys(_keys("EngineConfig"), 1)
    config |= {"model": "missing.gguf", "backends": "missing", "kernels": True}
    config |= {"cache_type_k": "f16", "cache_type_v": "f16", "flash_attn": "auto"}
    config |= {"prompt_lookup": True}
    for key in config:
        incomplete = {name: value for name, value in config.items() if name != key}
        with pytest.raises(KeyError, match=key):
            _native.Engine(incomplete, _native.Loading())  # type: ignore[arg-type]


def _keys(name: str) -> list[str]:
    (node,) = [n for n in STUB.body if isinstance(n, ast.ClassDef) and n.name == name]
    return [n.target.id for n in node.body if isinstance(n, ast.AnnAssign)]  # type: ignore[union-attr]
