"""Run Python modules in forks of one process that has already imported the large libraries.

Packing starts a process for each model that it prepares. Importing torch, transformers and OpenVINO takes such a
process several times as long as its work on the small models of these tests.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, Self

LIBRARIES = (
    "httpx",
    "model_archiver.model_packaging_utils",
    "networkx",
    "numpy",
    "pydantic.dataclasses",
    "sympy.tensor.tensor",
    "torch",
    "torch._inductor.decomposition",
    "torch.export._trace",
    "torchvision.models",
    "transformers.image_processing_utils",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.resnet.modeling_resnet",
    "transformers.models.t5.modeling_t5",
    "openvino",
    "openvino.frontend.pytorch.fx_decoder",
    "openvino.tools.ovc",
)
RUN = subprocess.run
"""The original `subprocess.run`, which the fixture `forked_modules` replaces."""


class PreloadedPython:
    """A Python process with the libraries, which forks for each module that it runs."""

    def __enter__(self) -> Self:
        self._process: subprocess.Popen[str] | None = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate()

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Do what `subprocess.run` does; a fork runs `python -P -m MODULE` if its output is captured as bytes."""
        words = list(map(str, command))
        is_module = words[0] == sys.executable and "-m" in words[1:4]
        if not is_module or not options.get("capture_output") or options.get("text"):
            return RUN(command, **options)
        module_index = words.index("-m") + 1
        assert set(words[1 : module_index - 1]) <= {"-P", "-s"}, words
        with tempfile.TemporaryDirectory(prefix="preloaded-") as folder:
            outputs = [Path(folder, name) for name in ("stdout", "stderr")]
            request = {
                "module": words[module_index],
                "arguments": words[module_index + 1 :],
                "folder": str(options.get("cwd") or Path.cwd()),
                "environment": dict(options.get("env") or os.environ),
                "outputs": list(map(str, outputs)),
            }
            stdin, stdout = self._pipes()
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            code = int(stdout.readline())
            return subprocess.CompletedProcess(command, code, *(path.read_bytes() for path in outputs))

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__], stdin=pipe, stdout=pipe, text=True
            )
        assert self._process.stdin
        assert self._process.stdout
        return self._process.stdin, self._process.stdout


def _serve() -> None:
    """Fork for each line of stdin; write the exit code of the fork as a line."""
    import gc
    import importlib

    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # blocked as in the code under test
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # so that no fork copies the memory of all objects when it collects garbage
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            _run_module(**json.loads(line))
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run_module(
    module: str, arguments: list[str], folder: str, environment: dict[str, str], outputs: list[str]
) -> None:
    """Become `python -P -m MODULE ARGUMENTS`."""
    import runpy
    import traceback

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # may be set by the imports; TMPDIR in the environment decides anew
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv[1:] = arguments
    code: Any = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    _serve()
