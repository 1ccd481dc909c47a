"""Custom handlers as sources: a Python file and the folder of files that it loads."""

import ast
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from torchserve_models.packing.errors import InvalidHandler, InvalidOptions, InvalidSource, explain_os_errors
from torchserve_models.packing.models import RepositoryLayout, find_model
from torchserve_models.packing.request import PackRequest
from torchserve_models.packing.sources import folder
from torchserve_models.packing.sources.model_files import ModelFile, sha256_and_size
from torchserve_models.packing.sources.resolve import WeightSource
from torchserve_models.packing.tasks import TaskSpec
from torchserve_models.paths import ROOT

TASK = "own-handler"
"""Name of the task in provenance.json and in packing/defaults/."""

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_MAKE_RECORDS = ("NamedTuple", "namedtuple", "make_dataclass")


def resolve_source(request: PackRequest, handler: Path, layout: RepositoryLayout) -> WeightSource:
    """Return the handler as the source of an archive, with all files of the requested folder.

    Raises:
        InvalidHandler: TorchServe cannot load the handler.
        InvalidOptions: The options contradict each other.
        InvalidSource: The folder cannot be read.
    """
    if find_model(request.name, layout) is not None:
        raise InvalidOptions(
            f"{request.name} is the name of a model in models/. Choose another name for your handler."
        )
    if request.weights != "auto" or request.update:
        raise InvalidOptions(
            "--handler cannot be combined with --weights or --update. Use --from FOLDER for the model files."
        )
    name = check(handler)
    data = None if request.source is None else Path(request.source).expanduser()
    if data is not None and not data.is_dir():
        raise InvalidSource(f"Folder {data} does not exist. With --handler, --from must be a folder.")
    task = TaskSpec(TASK, handler.name, auto_class="", mapping="", side_files=frozenset(), needs_one_of=())
    label = handler.name if data is None else f"{handler.name}, {_printable(data.resolve().name)}/"
    license = None if data is None else folder.license(data)
    files = () if data is None else tuple(_read_files(data))
    return WeightSource("own", label, None, license, task, name, files)


def check(handler: Path) -> str:
    """Return the name of the handler class, or "handle" for a handler function. The file is parsed, not run.

    TorchServe imports the file as a module of the worker, and uses its function `handle` or its only class.

    Raises:
        InvalidHandler: The file defines neither a function `handle` nor exactly one class.
    """
    if handler.suffix != ".py" or not handler.is_file():
        raise InvalidHandler(
            f"{handler} is not an existing Python file. Pass a file such as my_handler.py to --handler."
        )
    _check_module_name(handler)
    try:
        module = ast.parse(handler.read_bytes(), str(handler))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise InvalidHandler(
            f"{handler}{line} is not valid Python: {getattr(error, 'msg', error)}."
        ) from error
    nodes = list(_iterate_module_level(module))
    if any(isinstance(node, _FUNCTION) and node.name == "handle" for node in nodes):
        return "handle"
    records = [name for node in nodes if (name := _get_record_name(node))]
    # Unique names: a class that both branches of an `if` define is one class.
    classes = list(dict.fromkeys([node.name for node in nodes if isinstance(node, ast.ClassDef)] + records))
    if len(classes) != 1 or records:
        definitions = f"{len(classes)}: {', '.join(classes)}" if classes else "none"
        raise InvalidHandler(
            f"{handler} must define a function `handle` or exactly one class, the handler, because TorchServe cannot "
            f"choose between several. The file defines {definitions}. Replace other classes with a tuple or dict, or "
            "move them to another module."
        )
    return classes[0]


def _iterate_module_level(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes outside the bodies of functions and classes."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (*_FUNCTION, ast.ClassDef)):
            yield from _iterate_module_level(child)


def _get_record_name(node: ast.AST) -> str | None:
    """Return `Name (namedtuple)` for `Name = namedtuple(...)` or similar, which TorchServe treats as a class."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Call):
        return None
    function, target = node.value.func, node.targets[0] if isinstance(node, ast.Assign) else node.target
    maker = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    return f"{ast.unparse(target)} ({maker})" if maker in _MAKE_RECORDS else None


def _check_module_name(handler: Path) -> None:
    """Reject a file name that shadows another module, because the archive comes first in the import path."""
    if not handler.stem.isidentifier() or handler.stem.startswith("__"):
        raise InvalidHandler(
            f"{handler.name} is not a valid module name. Use letters, digits and '_', such as my_handler.py."
        )
    spec = importlib.util.find_spec(handler.stem)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() == handler.resolve():
        return
    in_package = spec.has_location and ROOT in Path(spec.origin).resolve().parents[:2]
    if in_package and handler.stem != "handlers":  # archives contain only this package of the repository
        return
    raise InvalidHandler(
        f"{handler.name} would shadow the module {handler.stem!r} in the worker. Rename the file."
    )


def _printable(name: str) -> str:
    """Return a file name with bytes that are not UTF-8 replaced, for use in JSON."""
    return os.fsencode(name).decode(errors="replace")


def _read_files(data: Path) -> Iterator[ModelFile]:
    """Yield all files in the folder that are not hidden."""
    with explain_os_errors(f"reading {data}"):
        for path in sorted(data.rglob("*")):
            parts = path.relative_to(data).parts
            if any(part.startswith(".") or part == "__pycache__" for part in parts) or path.is_dir():
                continue
            if not path.is_file():
                raise InvalidSource(
                    f"{path} is not a regular file, or is a link to a file that does not exist. Remove or replace it."
                )
            if _printable(name := "/".join(parts)) != name:
                raise InvalidSource(f"The file name {name!r} in {data} is not valid UTF-8. Rename the file.")
            sha256, size = sha256_and_size(path)
            yield ModelFile(name, path, size, sha256)
