"""All systems that summarize, in the order of the tables, and which of them a run measures under which workload."""

from collections.abc import Sequence

from benchmarks.errors import BenchError
from benchmarks.systems.base import System
from benchmarks.texts.library import Library
from benchmarks.texts.models import BART_LARGE, TextModel
from benchmarks.texts.peers import FastApi, LitServe, MlServer
from benchmarks.texts.product import NAME, Product
from benchmarks.texts.systems import COMPARED, MEMORY_AT, Patience, Servers, TextServer, UnderWorkload
from benchmarks.texts.workloads import WORKLOADS

TUTORIAL = "fastapi"
"""Whom the promises are about: generate() in fp32, one request at a time."""
IN_PROCESS = "in-process-bf16"
LIBRARIES = ("ctranslate2", "ctranslate2-int8", "openvino")
"""The in-process ceilings."""
PATIENCE, PATIENCE_QUICK = 60.0, 20.0
_QUICK = (NAME, TUTORIAL)


def catalog(model: TextModel) -> list[TextServer]:
    """Fresh ones."""
    return [
        Library(model, "in-process-fp32", "generate(), fp32", "transformers", "float32"),
        Library(model, IN_PROCESS, "generate(), bf16", "transformers", "bfloat16"),
        Library(model, "ctranslate2", "CTranslate2, fp32", "ctranslate2", "float32", "ctranslate2"),
        Library(model, "ctranslate2-int8", "CTranslate2, int8", "ctranslate2", "int8", "ctranslate2"),
        Library(model, "openvino", "OpenVINO, bf16", "openvino", "bf16", "openvino"),
        Product(model),
        Product(model, int8=True),
        FastApi(model, TUTORIAL, "fp32", "float32"),
        FastApi(model, "fastapi-bf16", "bf16", "bfloat16"),
        MlServer(model),
        LitServe(model),
    ]


def names() -> list[str]:
    return [server.name for server in catalog(BART_LARGE)]


def chosen(model: TextModel, only: Sequence[str], workloads: Sequence[str], quick: bool) -> list[System]:
    """One for each server and workload; a quick run has (b) and (c) only where a promise is.

    Raises BenchError for a name that is not known, and where nothing is left to measure.
    """
    check("--systems", only, names())
    servers: Servers = Servers(lambda served: served.stop())
    found: list[System] = []
    for server in catalog(model):
        for name in workloads:
            wanted = server.name in only or not only
            known = name in server.workloads
            if wanted and known and (only or not quick or name == "a" or server.name in _QUICK):
                patience = _patience(server.name, name, quick)
                found.append(UnderWorkload(server, WORKLOADS[name], patience, servers))
    if not found:
        raise BenchError(
            f"--systems: {', '.join(only)} is measured under (a) only, which --workloads leaves out"
        )
    return found


def _patience(server: str, work: str, quick: bool) -> Patience:
    needed: tuple[int, ...] = COMPARED if server in _QUICK else ()
    if (server, work) == (NAME, "a"):
        needed += (MEMORY_AT,)
    if not quick:
        return Patience(PATIENCE, needed)
    return Patience(PATIENCE_QUICK, needed, least=1 if work == "a" else max(COMPARED))


def check(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Raises BenchError for the first that is not known."""
    for name in given:
        if name not in known:
            raise BenchError(f"{option}: there is no {name!r}; known are {', '.join(known)}")
