"""The server conforms to its OpenAPI document, which schemathesis checks with generated requests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server.fronted import in_front_of, needs_nginx

SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS", "15"))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)


pytestmark = needs_nginx


CONFIG = """[checks]
negative_data_rejection.expected-statuses = [400, 404, 405, 406, 413, 415, 422, 429]
"""
"""The default statuses, and 413, which takes precedence over other errors of a request."""


@pytest.fixture(scope="module")
def front(server):
    with in_front_of(server.endpoints) as running:
        yield running.url


def test_schemathesis_finds_no_difference_to_the_document(front, tmp_path):
    """Set SCHEMATHESIS_SECONDS=300 for a run of five minutes."""
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{front}/openapi.json"),
        *("--checks", ",".join(CHECKS), "--max-time", str(SECONDS), "--phases", "examples,coverage,fuzzing"),
        *("--seed", "1", "--generation-database", "none", "--request-timeout", "60", "--no-color"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS + 120)
    output = "\n".join(line[:500] for line in (done.stdout + done.stderr).splitlines())
    assert done.returncode == 0, output[-20_000:]


def test_every_example_of_the_document_is_answered(front):
    """Each example body is answered with 200."""
    document = httpx.get(f"{front}/openapi.json", timeout=60).json()
    tried = 0
    for path, item in document["paths"].items():
        for media_type, body in item.get("post", {}).get("requestBody", {}).get("content", {}).items():
            for example in body.get("examples", {}).values():
                value = example["value"]
                content = value if isinstance(value, str) else json.dumps(value)
                answer = httpx.post(
                    front + path, content=content.encode(), headers={"content-type": media_type}, timeout=60
                )
                assert (path, answer.status_code) == (path, 200), answer.text
                tried += 1
    assert tried >= 10
