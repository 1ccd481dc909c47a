"""All systems in the order of the tables, and the selection for a run."""

from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.errors import BenchmarkError
from benchmarks.report.results import Row
from benchmarks.scenarios.workloads import WORKLOADS
from benchmarks.systems.base import BATCH_SIZE, BatchLoad, System
from benchmarks.systems.ceiling import Ceiling
from benchmarks.systems.peers import Peer, build_form_request, build_json_request, build_mlserver_request
from benchmarks.systems.product import INT8, NO_CHANGES, Product, build_rest_request
from handlers.core.device import FAST_BF16, has_any
from torchserve_models.tuning.config_file import Changes

REST, GRPC, INT8_REST = "product-rest", "product-grpc", "product-int8-rest"
PRODUCT, BASELINE = "product", "fastapi"
"""The two systems that are measured with every text workload, however long it takes."""
DRAFTS = "handler.prompt_lookup_num_tokens"
THIS, MLSERVER, LITSERVE = "**this repository**", "MLServer, adaptive batching", "LitServe, batching"


def list_image_systems() -> list[System]:
    row = partial(Row, has_open_loop=True)
    return [
        Ceiling(Row("ceiling", "no server: the ceiling"), int8=False),
        Ceiling(Row("ceiling-int8", "no server, int8"), int8=True),
        Product("product", row(REST, f"{THIS}, REST"), Row(GRPC, f"{THIS}, gRPC", variant="grpc")),
        Product("product-int8", row(INT8_REST, f"{THIS}, int8, REST"), changes=INT8),
        Peer("flask", [row("flask", "Flask, gunicorn, nginx")], build_form_request),
        Peer("fastapi", [row("fastapi", "FastAPI, uvicorn")], build_form_request),
        Peer("mlserver", [row("mlserver", MLSERVER)], build_mlserver_request),
        Peer("litserve", [row("litserve", LITSERVE)], build_json_request),
        Peer(
            "torchserve-stock",
            [row("torchserve-stock", "TorchServe, stock handler")],
            partial(build_rest_request, "resnet-50"),
        ),
    ]


def list_text_systems() -> list[System]:
    """Return the systems for texts. Those in bf16 are left out on CPUs without bf16 instructions."""
    has_bf16 = has_any(FAST_BF16)  # OpenVINO cannot use bf16 without, and torch takes several times as long
    openvino = "bf16" if has_bf16 else "fp32"

    def fastapi(name: str, title: str, dtype: str) -> Peer:
        return Peer("fastapi", _text_rows(name, title, "abc"), build_json_request, {"DTYPE": dtype})

    def library(name: str, title: str, library: str, precision: str) -> Peer:
        return Peer(
            "library",
            _text_rows(name, f"no server: {title}", "a", clients=(1, BATCH_SIZE)),
            build_json_request,
            {"LIBRARY": library, "PRECISION": precision},
            requirements=None if library == "transformers" else f"{library}.txt",
            load_type=BatchLoad,
        )

    systems = [
        library("in-process-fp32", "generate(), fp32", "transformers", "float32"),
        library("in-process-bf16", "generate(), bf16", "transformers", "bfloat16"),
        library("ctranslate2", "CTranslate2, fp32", "ctranslate2", "float32"),
        library("ctranslate2-int8", "CTranslate2, int8", "ctranslate2", "int8"),
        library("openvino", f"OpenVINO, {openvino}", "openvino", openvino.replace("fp32", "f32")),
        _text_product(PRODUCT, "REST", "abcd"),
        _text_product("product-int8", "REST, int8", "abc", INT8),
        _text_product("product-drafts", "REST, drafts of up to 10 tokens", "ad", {DRAFTS: 10}),
        fastapi(BASELINE, "FastAPI, generate(), fp32", "float32"),
        fastapi("fastapi-bf16", "FastAPI, generate(), bf16", "bfloat16"),
        Peer("mlserver", _text_rows("mlserver", MLSERVER, "abc"), build_mlserver_request),
        Peer("litserve", _text_rows("litserve", LITSERVE, "abc"), build_json_request),
    ]
    return [system for system in systems if has_bf16 or "bf16" not in _name(system.rows[0])]


def _text_product(name: str, title: str, workloads: str, changes: Changes = NO_CHANGES) -> Product:
    return Product(name, *_text_rows(name, f"{THIS}, {title}", workloads), changes=changes)


def _text_rows(name: str, title: str, workloads: str, clients: tuple[int, ...] = ()) -> list[Row]:
    """Return a row for each workload. Its name consists of the names of the system and of the workload."""
    return [
        Row(
            f"{name} {workload}",
            title,
            variant=workload,
            clients=clients or WORKLOADS[workload].clients,
            required=(1, BATCH_SIZE) if name in (PRODUCT, BASELINE) else (),
            tokens_per_answer=WORKLOADS[workload].tokens_per_answer,
        )
        for workload in workloads
    ]


def _name(row: Row) -> str:
    return row.name.split()[0]


def select_image_systems(names: Sequence[str]) -> list[System]:
    """Return the systems with the named rows, or with all rows. Raises BenchmarkError."""
    check_names("--systems", names, list_image_names())
    return _select(list_image_systems(), lambda row: not names or row.name in names)


def select_text_systems(names: Sequence[str], workloads: Sequence[str]) -> list[System]:
    """Return the rows of the named systems, or of all systems, for these workloads. Raises BenchmarkError."""
    check_names("--systems", names, list_text_names())
    systems = _select(
        list_text_systems(), lambda row: row.variant in workloads and (not names or _name(row) in names)
    )
    if not systems:
        raise BenchmarkError(f"--systems {','.join(names)} requires the workload a; add a to --workloads")
    return systems


def _select(systems: Sequence[System], is_selected: Callable[[Row], bool]) -> list[System]:
    for system in systems:
        system.rows = [row for row in system.rows if is_selected(row)]
    return [system for system in systems if system.rows]


def list_image_names() -> list[str]:
    return [row.name for system in list_image_systems() for row in system.rows]


def list_text_names() -> list[str]:
    return [_name(system.rows[0]) for system in list_text_systems()]


def check_names(option: str, names: Sequence[str], valid: Sequence[str]) -> None:
    """Raise BenchmarkError for the first name that is not valid."""
    for name in names:
        if name not in valid:
            raise BenchmarkError(f"{option}: unknown name {name!r}; valid names: {', '.join(valid)}")
