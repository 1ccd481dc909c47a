"""Unit tests mirror the modules that they test: same folder, same name."""

from pathlib import Path

from tests.conftest import ROOT

UNIT = ROOT / "tests" / "unit"
OUTSIDE_THE_PACKAGE = {
    "benchmarks": "benchmarks",
    "chaos": "tests/chaos",
    "deploy": "deploy",
    "handlers": "handlers",
    "scripts": "scripts",
    "training": "training",
}
"""Mirrored folder of each folder of tests/unit; all others mirror folders of torchserve_models."""
OF_SEVERAL_MODULES = {
    "chaos/test_connections.py": "the scenario of that name, in tests/chaos/scenarios",
    "chaos/test_overload.py": "the scenario of that name, in tests/chaos/scenarios",
    "cli/test_client_commands.py": "cli/predict.py and cli/manage.py against one fake server",
    "client/test_api_key.py": "both clients, over REST and gRPC",
    "client/test_documentation.py": "the docstrings of the whole package",
    "client/test_public.py": "what the package exports and imports",
    "client/test_services.py": "one test for each protocol and for both clients",
    "client/test_tasks.py": "one test for each protocol and for both clients",
    "client/test_transports.py": "rest_transport.py and grpc_transport.py",
    "deploy/test_compose.py": "deploy/compose.yaml",
    "handlers/core/test_late_requests.py": "deadlines from the request to the log",
    "handlers/core/test_open_inference_clients.py": "requests of MLServer and Triton clients, from parsing to answer",
    "handlers/core/test_parallel_decode.py": "decoding in threads, from the request to the answer",
    "handlers/core/test_recorded_requests.py": "all parsers, on requests that clients sent",
    "handlers/engines/image/test_agreement.py": "all engines, on many images",
    "handlers/engines/image/test_classifier_engines.py": "all engines, compared with transformers",
    "handlers/test_architectures.py": "models of many architectures, compared with their libraries",
    "handlers/test_classifier_parity.py": "the whole handler, compared with transformers",
    "handlers/test_request_forms.py": "all parsers, compared with each other",
    "handlers/test_torchserve.py": "the fake TorchServe of the unit tests",
    "handlers/text/test_parity.py": "the whole handler, compared with transformers",
    "handlers/vision/test_agreement.py": "decoding and preprocessing together, compared with transformers",
    "handlers/vision/test_avif.py": "a format that decode.py reads",
    "packing/archive/test_archive.py": "packing as a whole, to the bytes of the archive",
    "packing/artifacts/test_calibration.py": "packing as a whole, with int8",
    "packing/sources/test_auto.py": "--weights auto",
    "packing/sources/test_checked.py": "packing as a whole, of models that cannot be served",
    "packing/sources/test_torchvision.py": "packing as a whole, of torchvision's models",
    "packing/sources/test_unusual_folders.py": "packing as a whole, of folders that are not as usual",
    "packing/test_pack_command.py": "cli/pack.py, which packs with the fixtures of packing",
    "packing/test_mit_b0.py": "packing as a whole, of a model of models/",
    "test_doc_references.py": "names of code in the docs",
    "test_doc_pages.py": "tests/doc_pages.py",
    "test_mirror.py": "all of tests/unit",
    "test_readiness.py": "readiness in the client, the supervisor and the gateway",
    "test_troubleshooting.py": "docs/troubleshooting.md",
    "training/test_sample_inputs.py": "torchserve_models/sample_inputs, which training draws",
}
"""Test modules that mirror no single module, with the reason."""


def has_module(path: Path) -> bool:
    """Return whether a test module is named after a module, package or script; `_properties` is ignored."""
    folder, name = path.relative_to(UNIT).parent, path.stem.removeprefix("test_").removesuffix("_properties")
    first = folder.parts[0] if folder.parts else ""
    if first in OUTSIDE_THE_PACKAGE:
        source = ROOT / OUTSIDE_THE_PACKAGE[first] / Path(*folder.parts[1:])
    else:
        source = ROOT / "torchserve_models" / folder
    return any((source / candidate).exists() for candidate in (f"{name}.py", name, name.replace("_", "-")))


def test_each_test_module_mirrors_a_module():
    modules = sorted(UNIT.rglob("test_*.py"))
    assert len(modules) > 200
    unmatched = {path.relative_to(UNIT).as_posix() for path in modules if not has_module(path)}
    assert unmatched == OF_SEVERAL_MODULES.keys()
