"""Clients that people use, over HTTP/2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from llm_api.tls import Certificate

from ..support.http2 import client_context, make_certificate
from ..support.scripted import Job, ScriptedEngine, echo
from ..support.serving import Served, make_settings
from .conftest import Serve


def echo_or_fail(job: Job) -> None:
    if job.text.startswith("fail"):
        job.say("so far")
        threading.Timer(0.2, job.fail).start()  # curl and Go drop what comes with a reset
    else:
        echo(job)


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve(ScriptedEngine(echo_or_fail))


def test_curl_many_at_once(served: Served) -> None:
    urls = [f"http://127.0.0.1:{served.port}/predict?prompt=a+{n}" for n in range(30)]
    command = ["curl", "-sS", "--http2-prior-knowledge", "--parallel", "--parallel-immediate"]
    done = subprocess.run([*command, *urls], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split("a ")[1:], key=int) == [str(n) for n in range(30)]


def test_curl_sends_a_long_form(served: Served) -> None:
    text = "word " * 100_000
    command = ["curl", "-sS", "--http2-prior-knowledge", "--data-urlencode", "prompt@-"]
    url = f"http://127.0.0.1:{served.port}/predict"
    done = subprocess.run([*command, url], input=text, capture_output=True, text=True, check=True)
    assert done.stdout == text


def test_curl_is_told_of_a_failure(served: Served) -> None:
    url = f"http://127.0.0.1:{served.port}/predict?prompt=fail"
    command = ["curl", "-sS", "-N", "--http2-prior-knowledge", url]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (92, "so far")
    assert "INTERNAL_ERROR" in done.stderr


class TestHttpx:
    def test_prior_knowledge(self, served: Served) -> None:
        url = f"http://127.0.0.1:{served.port}/predict"
        with httpx.Client(http1=False, http2=True) as client:

            def ask(n: int) -> str:
                response = client.post(url, data={"prompt": f"{n} {n}"})
                assert response.http_version == "HTTP/2"
                return response.text

            with ThreadPoolExecutor(8) as pool:
                assert list(pool.map(ask, range(50))) == [f"{n} {n}" for n in range(50)]

    def test_tls(self, serve: Serve, tmp_path: Path) -> None:
        paths = make_certificate(tmp_path)
        certificate = Certificate(*map(str, paths))
        served = serve(ScriptedEngine(echo), make_settings(certificate=certificate))
        with httpx.Client(http2=True, verify=client_context(paths[0])) as client:
            response = client.get(f"https://localhost:{served.port}/predict?prompt=a+b")
            assert (response.text, response.http_version) == ("a b", "HTTP/2")

    def test_failure(self, served: Served) -> None:
        with httpx.Client(http1=False, http2=True) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                client.get(f"http://127.0.0.1:{served.port}/predict?prompt=fail")
            assert client.get(f"http://127.0.0.1:{served.port}/health").status_code == 200


_GO = """
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
)

func main() {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	var group sync.WaitGroup
	wrong := make(chan string, 100)
	for n := range 50 {
		group.Add(1)
		go func() {
			defer group.Done()
			prompt := strings.Repeat(fmt.Sprint(n, " "), 2000)
			reply, err := client.PostForm(os.Args[1], url.Values{"prompt": {prompt}})
			if err != nil {
				wrong <- err.Error()
				return
			}
			defer reply.Body.Close()
			body, err := io.ReadAll(reply.Body)
			if err != nil || string(body) != prompt || reply.Proto != "HTTP/2.0" {
				wrong <- fmt.Sprint(n, err, reply.Proto)
			}
		}()
	}
	group.Wait()
	close(wrong)
	failures := []string{}
	for failure := range wrong {
		failures = append(failures, failure)
	}
	reply, err := client.PostForm(os.Args[1], url.Values{"prompt": {"fail"}})
	body := []byte{}
	if err == nil {
		body, err = io.ReadAll(reply.Body)
	}
	json.NewEncoder(os.Stdout).Encode([]any{failures, string(body), fmt.Sprint(err)})
}
"""


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not on this machine")
def test_go(served: Served, tmp_path: Path) -> None:
    (tmp_path / "main.go").write_text(_GO)
    (tmp_path / "go.mod").write_text("module client\n\ngo 1.24\n")
    command = ["go", "run", ".", f"http://127.0.0.1:{served.port}/predict"]
    environment = os.environ | {"GOFLAGS": "-mod=mod"}
    done = subprocess.run(
        command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    failures, body, error = json.loads(done.stdout)
    assert failures == []
    assert (body, "INTERNAL_ERROR" in error) == ("so far", True)
