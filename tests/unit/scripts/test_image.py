"""scripts/image: the selected build tool, its arguments, and the files in the build context."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case "$1" in
    info) exit {works} ;;
    images) echo "1.23 GB" ;;
esac
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Return a function that runs scripts/image with fake tools, each of which works (True) or fails."""
    for name in ("PIP_INDEX_URL", "TORCH_CPU_INDEX", "HF_ENDPOINT", "IMAGE_BUILD_ARGS"):
        monkeypatch.delenv(name, raising=False)

    def run(tools: dict[str, bool], *arguments: str, **environment: str) -> tuple[int, str, list[str]]:
        for name in ("docker", "podman", "buildah"):  # the fakes hide the tools of this machine
            works = tools.get(name, False)
            (tmp_path / name).write_text(TOOL.format(works=0 if works else 1))
            (tmp_path / name).chmod(0o755)
        log = tmp_path / "log"
        log.write_text("")
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log)}
        done = subprocess.run(
            [ROOT / "scripts" / "image", *arguments],
            env=os.environ | path | environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        calls = [line for line in log.read_text().splitlines() if not line.endswith(" info")]
        return done.returncode, done.stdout + done.stderr, calls

    return run


def test_first_working_tool_builds_the_image(build):
    code, output, calls = build({"podman": True, "buildah": True})
    assert code == 0
    assert [call.split()[:2] for call in calls] == [["podman", "build"], ["podman", "images"]]
    for words in ("BASE=debian:bookworm-slim", "TORCH=cpu", "WEIGHTS=starter", "--tag torchserve-models"):
        assert words in calls[0]
    assert "--format docker" in calls[0]  # other formats have no health check
    assert output.endswith("image: torchserve-models, 1.23 GB\n")


def test_tool_option_selects_the_tool(build):
    _, _, calls = build({"podman": True, "buildah": True}, "--tool", "buildah")
    assert [call.split()[:2] for call in calls] == [["buildah", "build"], ["buildah", "images"]]


def test_options_are_passed_to_the_build(build):
    code, _, calls = build(
        {"docker": True},
        *("--gpu", "--weights", "none", "--base", "localhost/mine", "--tag", "a/b:c", "--", "--no-cache"),
        TORCH_CPU_INDEX="https://example.org/simple",
        IMAGE_BUILD_ARGS="-v /a:/a:ro --pull",
    )
    assert code == 0
    for words in ("BASE=localhost/mine", "TORCH=cuda", "WEIGHTS=none", "--tag a/b:c", "-v /a:/a:ro --pull"):
        assert words in calls[0]
    assert calls[0].endswith(" --no-cache .")
    assert "--build-arg TORCH_CPU_INDEX " in calls[0]
    assert "--format" not in calls[0]
    assert "HF_ENDPOINT" not in calls[0]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--weights", "none-of-these"], "--weights must be starter, pretrained or none"),
        (["--tag"], "--tag needs a value"),
        (["--gpus"], "unknown option --gpus"),
    ],
)
def test_invalid_command_line_builds_nothing(build, arguments, why):
    code, output, calls = build({"docker": True}, *arguments)
    assert code == 2
    assert why in output
    assert calls == []


def test_missing_build_tool_is_an_error(build):
    code, output, _ = build({})
    assert code == 2
    assert "docker, podman and buildah are missing or do not work" in output


def test_build_context_has_only_files_of_the_image():
    """.dockerignore excludes everything, then includes files by name."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    named = {line[1:] for line in lines if line.startswith("!")}
    imported = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert named - {"gateway"} == (imported - {"gateway", "tests", "benchmarks", "training"}) | {
        *(
            "LICENSE",
            "requirements",
            "config.properties",
            "models",
            "pyproject.toml",
            "scripts",
            "deploy/nginx",
        )
    }
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for source in " ".join(copied).split():
        assert source == "." or source.split("/")[0] in named, source
        assert (ROOT / source).exists()
    assert "**/__pycache__" in lines


def test_scripts_of_excluded_packages_are_excluded():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    inside = {line[1:] for line in lines if line.startswith("!")}
    for script in filter(Path.is_file, (ROOT / "scripts").iterdir()):
        programs = set(re.findall(r" -m ([a-z]+)", script.read_text())) & {
            path.name for path in ROOT.iterdir()
        }
        if not programs <= inside:
            assert f"scripts/{script.name}" in lines, script.name


def test_image_runs_without_root_and_has_a_health_check():
    text = (ROOT / "Dockerfile").read_text()
    final = text[text.rindex("\nFROM ") :]
    assert "\nUSER 1000:1000\n" in final  # a number, for Kubernetes' runAsNonRoot
    assert re.search(
        r"^HEALTHCHECK .* CMD \[\"scripts/probe\", \"8083\", \"/readyz\"\]$", final, re.MULTILINE
    )
    assert '\nENTRYPOINT ["tini", "--"]\n' in final
    assert "apt-get" not in final
    assert Path(ROOT / "scripts" / "probe").is_file()
