"""Flags and the model config file become settings, or an error that names the culprit."""

import json
import re
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_api import flags
from llm_api.address import Address, UnixAddress, parse_address
from llm_api.config import ConfigError, load_settings
from llm_api.limits import LIMIT_FLAGS, Limits
from llm_api.options import DEFAULTS, OPTIONS, Scope
from llm_api.proxies import TrustedProxies

FLAGS = [option.flag for option in OPTIONS]
TEMPLATE = '{{define "prompt"}}{{.SystemPrompt}}{{end}}'


def settings(*argv):
    return load_settings(flags.parse(FLAGS, [*argv, "model.gguf"]))


def refusal(*argv):
    with pytest.raises(ConfigError) as caught:
        settings(*argv)
    return str(caught.value)


@pytest.fixture
def config_file(tmp_path):
    """Write a model config file; returns the flags that name it."""

    def write(content):
        path = tmp_path / "model.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return ("-model-config-file", str(path))

    return write


def test_the_contracts_defaults():
    made = settings()
    effective = json.loads(made.as_json())
    assert effective.pop("threads") == made.engine.threads >= 1
    assert effective == {
        "model": "model.gguf",
        "addr": "localhost:8080",
        "socketMode": "0600",
        "context": 512,
        "pool": 2048,
        "parallel": 4,
        "queue": 16,
        "kernels": "auto",
        "cacheTypeK": "f16",
        "cacheTypeV": "f16",
        "flashAttn": "auto",
        "promptLookup": True,
        "gpuLayers": 0,
        "ropeFreqBase": 0,
        "ropeFreqScale": 0,
        "shutdownTimeout": 30,
        "tlsCert": "",
        "tlsKey": "",
        "apiKey": [],
        "trustedProxy": [],
        "apiKeyFile": "",
        "allowedHosts": [],
        "corsOrigins": [],
        "maxConnections": 1000,
        "maxStreams": 100,
        "maxPerClient": 0,
        "maxHeaderBytes": 32768,
        "maxBodyBytes": 1048576,
        "maxFields": 1000,
        "maxPromptBytes": 1048576,
        "headerTimeout": 30,
        "bodyTimeout": 30,
        "idleTimeout": 75,
        "stallTimeout": 30,
        "metrics": True,
        "logPrompts": False,
        "tokens": 0,
        "maxTime": 0,
        "temperature": 0.8,
        "topK": 40,
        "topP": 0.2,
        "minP": 0,
        "typicalP": 1,
        "tailFreeSamplingZ": 1,
        "penaltyRepetition": 1.1,
        "penaltyFrequency": 0.1,
        "penaltyPresence": 0,
        "penaltyLastN": 64,
        "mirostat": 0,
        "mirostatTau": 5,
        "mirostatEta": 0.1,
        "seed": -1,
        "nKeep": 0,
        "ignoreEos": False,
        "stopRegex": "",
        "stop": [],
        "promptTemplate": "",
        "promptTemplateFile": "",
        "promptTemplateType": "",
        "systemPrompt": "",
        "systemPromptFile": "",
    }
    assert made.generation == DEFAULTS
    assert made.chat.template is None
    assert not made.chat.model_template


# Another value than the default for every flag that is a number or a switch.
OTHERS = {option.name: 7 for option in OPTIONS if option.type is int} | {
    option.name: 0.5 for option in OPTIONS if option.type is float
}
OTHERS |= {"log-prompts": True, "ignore-eos": True, "context": 100, "pool": 300, "mirostat": 2}


@pytest.mark.parametrize("name", OTHERS)
def test_every_flag_reaches_the_settings(name):
    option = next(option for option in OPTIONS if option.name == name)
    made = settings(f"-{name}={str(OTHERS[name]).lower()}", *(["-context=9"] * (name == "pool")))
    assert json.loads(made.as_json())[option.field] == OTHERS[name]
    if option.scope is Scope.GENERATION:
        assert made.generation[option.key] == OTHERS[name]
    else:
        key = LIMIT_FLAGS.get(name, option.key)
        holders = (made.engine, made.server, made.server.limits)
        assert OTHERS[name] in [getattr(holder, key, None) for holder in holders]


def test_the_pool_is_context_times_parallel_unless_given():
    assert settings("-context", "100", "-parallel", "3").engine.pool == 300
    assert settings("-context", "100", "-pool", "100").engine.pool == 100
    assert refusal("-pool", "511") == "pool: must be at least the context (512 tokens), not 511"


def test_limits():
    assert settings().server.limits == Limits()
    assert settings("-max-header-bytes", "100").server.limits.header_block == 200
    for flag, reason in {
        "max-body-bytes": "must be at least 1",
        "idle-timeout": "must be greater than 0",
    }.items():
        with pytest.raises(flags.FlagError, match=reason):
            settings(f"-{flag}=0")


def test_stop_rules():
    made = settings("-stop-regex", r"\n\n", "-stop", "a", "-stop", "b")
    assert (made.generation["stop_regex"], made.generation["stop"]) == ((r"\n\n",), ("a", "b"))
    effective = json.loads(made.as_json())
    assert (effective["stopRegex"], effective["stop"]) == (r"\n\n", ["a", "b"])
    assert "stop-regex" in refusal("-stop-regex", "(")


# --- the model config file ---


def test_the_file_gives_values_and_flags_win(config_file):
    content = {"context": 100, "gpuLayers": 3, "ropeFreqBase": 1, "temperature": 0, "stop": "x"}
    file = config_file(content)
    made = settings(*file, "-context", "200")
    assert (made.engine.context, made.engine.gpu_layers) == (200, 3)
    assert made.engine.rope_freq_base == 1.0
    assert (made.generation["temperature"], made.generation["stop"]) == (0.0, ("x",))
    # A flag that repeats the default still wins.
    assert settings(*file, "-context=512").engine.context == 512


def test_a_byte_order_mark_is_no_error(config_file):
    assert settings(*config_file('\ufeff{"context": 100}')).engine.context == 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"gpulayers": 1}, "gpulayers: not known; did you mean gpuLayers?"),
        ({"gpu-layers": 1}, "gpu-layers: not known; did you mean gpuLayers?"),
        ({"addr": ":1"}, "addr: not known; did you mean"),
        ({"systemPrompt": "x"}, "systemPrompt: not known; did you mean"),
        ({"context": "512"}, "context: must be a whole number"),
        ({"context": 512.0}, "context: must be a whole number"),
        ({"context": None}, "context: must be a whole number"),
        ({"context": True}, "context: must be a whole number"),
        ({"context": 0}, "context: must be at least 2"),
        ({"ropeFreqBase": []}, "ropeFreqBase: must be a number"),
        ({"promptTemplate": 1}, "promptTemplate: must be a string"),
        ({"promptTemplate": "\ud800"}, "promptTemplate: must be valid Unicode text"),
        ({"stopRegex": "("}, "stop-regex: "),
        ('{"context": 1, "context": 2}', "context: given more than once"),
        ('{"temperature": NaN}', "NaN is not a number in JSON"),
        ('{"temperature": 1e999}', "temperature: must be finite"),
        ('{"context": ' + "9" * 5000 + "}", "model.json"),
        ([], "must be a JSON object"),
        ("", "Expecting value"),
        ("{", "line 1 column 2"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_files(config_file, content, message):
    text = refusal(*config_file(content))
    assert message in text
    assert "model.json" in text or text.startswith("stop-regex")


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xfd")
    for flag in ("model-config-file", "system-prompt-file", "prompt-template-file"):
        what = flag.replace("-", " ")
        for path, reason in (
            ("none", "No such file"),
            (".", "Is a directory"),
            ("latin", "decode"),
        ):
            text = refusal(f"-{flag}", str(tmp_path / path))
            assert re.match(f'{what} ".*": cannot be read: .*{reason}', text)
        assert "cannot be read" in refusal(f"-{flag}", "a\0b")


# --- prompts ---


def test_the_system_prompt_file_is_stripped(tmp_path):
    path = tmp_path / "system.txt"
    path.write_text("\n \tBe brief.\nAlways. \u00a0\r\n\n")
    assert settings("-system-prompt-file", str(path)).chat.system_prompt == "Be brief.\nAlways."
    assert settings("-system-prompt", " as is ").chat.system_prompt == " as is "


def test_two_system_prompts():
    text = refusal("-system-prompt", "a", "-system-prompt-file", "b")
    assert text == "only one of -system-prompt and -system-prompt-file can be given"


@pytest.mark.parametrize(
    "pair",
    [
        ("prompt-template", "prompt-template-file"),
        ("prompt-template", "prompt-template-type"),
        ("prompt-template-file", "prompt-template-type"),
    ],
)
def test_two_prompt_templates(pair, config_file):
    one, two = pair
    text = refusal(f"-{one}", "x", f"-{two}", "y")
    assert text == f"only one of -{one} and -{two} can be given"
    fields = [next(o.field for o in OPTIONS if o.name == name) for name in pair]
    assert "only one of" in refusal(*config_file(dict.fromkeys(fields, "x")))


def test_each_way_to_give_a_template(tmp_path, config_file):
    path = tmp_path / "prompt.tmpl"
    path.write_text(TEMPLATE)
    for way in (
        ("-prompt-template", TEMPLATE),
        ("-prompt-template-file", str(path)),
        ("-prompt-template-type", "vicuna_v1.1"),
        config_file({"promptTemplateFile": str(path)}),
    ):
        chat = settings(*way).chat
        assert chat.template is not None
        assert not chat.model_template
    chat = settings("-prompt-template-type", "gguf").chat
    assert chat.model_template
    assert chat.template is None


def test_a_template_on_the_command_line_hides_those_of_the_file(config_file):
    file = config_file({"promptTemplateType": "nonsense", "context": 100})
    assert "nonsense" in refusal(*file)
    made = settings(*file, "-prompt-template", TEMPLATE)
    assert made.chat.template is not None
    assert made.engine.context == 100
    assert settings(*file, "-prompt-template-type=").chat.template is None


def test_an_unknown_template_type_names_the_known_ones():
    text = refusal("-prompt-template-type", "llama2")
    assert text.startswith('unknown prompt template type "llama2"; known are ')
    for name in ("chatml", "llama-2", "llama-3", "gemma", "mistral", "phi", "vicuna_v1.1", "gguf"):
        assert name in text


def test_a_template_type_that_needs_a_system_prompt():
    text = refusal("-prompt-template-type", "llama-2")
    assert '"llama-2" needs a system prompt' in text
    assert settings("-prompt-template-type", "llama-2", "-system-prompt", "x").chat.template


@pytest.mark.parametrize("source", ['{{define "prompt"}}{{end', '{{define "other"}}x{{end}}'])
def test_bad_templates(source, tmp_path):
    assert re.match(r"prompt template(, line 1)?: ", refusal("-prompt-template", source))
    path = tmp_path / "bad.tmpl"
    path.write_text(source)
    assert re.match(
        r'prompt template file ".*bad\.tmpl"(, line 1)?: ', refusal(f"-prompt-template-file={path}")
    )


# --- the address ---


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:8080", Address("localhost", 8080)),
        (":80", Address("", 80)),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:8080", Address("::1", 8080)),
        ("[fe80::1%eth0]:65535", Address("fe80::1%eth0", 65535)),
        ("unix:/run/llm-api.sock", UnixAddress("/run/llm-api.sock", 0o600)),
        ("unix:a:80", UnixAddress("a:80", 0o600)),
        ("unix:" + "ä" * 53 + "x", UnixAddress("ä" * 53 + "x", 0o600)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text, 0o600) == address


@pytest.mark.parametrize(
    "text", ["", "localhost", "::1:80", "h:", "h:65536", "h:-1", "h:+1", "h:1_0", "h:٣", "h:http"]
)
def test_bad_addresses(text):
    assert refusal("-addr", text).startswith(f'addr "{text}": ')


@pytest.mark.parametrize("path", ["", "x" * 108, "ä" * 54])
def test_paths_that_no_unix_socket_can_have(path):
    assert refusal("-addr", f"unix:{path}").startswith(f'addr "unix:{path}": ')


@pytest.mark.parametrize(
    ("text", "mode"), [("0600", 0o600), ("660", 0o660), ("0", 0), ("0o777", 0o777)]
)
def test_socket_modes(text, mode):
    assert settings("-addr", "unix:x", "-socket-mode", text).server.address.mode == mode


@pytest.mark.parametrize("text", ["", "0800", "rw", "-1", "01000", "0x1ff", "06 0", "0o", "٣"])
def test_bad_socket_modes(text):
    assert refusal("-socket-mode", text).startswith(f'socket-mode "{text}": ')


def test_trusted_proxies():
    made = settings("-trusted-proxy", "10.0.0.0/8", "-trusted-proxy=unix").server.trusted_proxies
    assert made == TrustedProxies((ip_network("10.0.0.0/8"),), True)


@pytest.mark.parametrize("text", ["", "proxy", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.1:80", "Unix"])
def test_bad_trusted_proxies(text):
    assert refusal("-trusted-proxy", text).startswith("trusted-proxy: ")


# --- anything ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from([option.field for option in OPTIONS]) | st.text(max_size=5)


@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_any_file_is_settings_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    try:
        made = settings("-model-config-file", str(path))
    except ConfigError:
        return
    assert content.keys() <= {option.field for option in OPTIONS}
    json.loads(made.as_json())


def test_arguments():
    with pytest.raises(ConfigError, match=r"^no arguments$"):
        load_settings(flags.parse(FLAGS, ["-context=100"]))
    with pytest.raises(ConfigError, match=r"^too many arguments$"):
        load_settings(flags.parse(FLAGS, ["a", "-context=100"]))
