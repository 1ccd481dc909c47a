"""An archive around somebody's own handler: one Python file, and the files that it loads."""

import ast
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from torchserve_models.packing.errors import BadHandler, BadRequest, BadSource, explained
from torchserve_models.packing.models import Layout, find_model
from torchserve_models.packing.sources import folder
from torchserve_models.packing.sources.model_files import ModelFile, sha256_and_size
from torchserve_models.packing.sources.resolve import PackOptions, Source
from torchserve_models.packing.tasks import Task
from torchserve_models.paths import ROOT

TASK = "own-handler"
"""What provenance.json calls the task; packing/defaults/ has its model-config.yaml."""

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_MAKE_RECORDS = ("NamedTuple", "namedtuple", "make_dataclass")


def find(options: PackOptions, handler: Path, layout: Layout) -> Source:
    """The handler as the source of an archive, with every file of the folder that the options name.

    Raises BadHandler for a file that TorchServe could not take, BadRequest and BadSource.
    """
    if find_model(options.name, layout) is not None:
        raise BadRequest(f"{options.name} is a model of models/; give your own handler another name.")
    if options.weights != "auto" or options.update:
        raise BadRequest("--handler goes with --from FOLDER; --weights and --update choose among our models.")
    name = check(handler)
    data = None if options.source is None else Path(options.source).expanduser()
    if data is not None and not data.is_dir():
        raise BadSource(f"There is no folder {data}; with --handler, --from takes a folder.")
    task = Task(TASK, handler.name, auto_class="", mapping="", side_files=frozenset(), needs_one_of=())
    label = handler.name if data is None else f"{handler.name}, {_printable(data.resolve().name)}/"
    license = None if data is None else folder.license(data)
    files = () if data is None else tuple(_files(data))
    return Source("own", label, None, license, task, name, files)


def check(handler: Path) -> str:
    """The name of the handler's class, or `handle` where it is a function. The file is read, not run.

    TorchServe imports it by its name, as a module of the worker, and takes its function `handle` or its only class.
    Raises BadHandler.
    """
    if handler.suffix != ".py" or not handler.is_file():
        raise BadHandler(f"There is no Python file {handler}; --handler takes one, such as my_handler.py.")
    _check_module_name(handler)
    try:
        module = ast.parse(handler.read_bytes(), str(handler))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise BadHandler(f"{handler}{line} is not valid Python: {getattr(error, 'msg', error)}.") from error
    nodes = list(_run_at_import(module))
    if any(isinstance(node, _FUNCTION) and node.name == "handle" for node in nodes):
        return "handle"
    records = [name for node in nodes if (name := _record(node))]
    # By their names: what both branches of an `if` define is one.
    classes = list(dict.fromkeys([node.name for node in nodes if isinstance(node, ast.ClassDef)] + records))
    if len(classes) != 1 or records:
        found = f"{len(classes)}: {', '.join(classes)}" if classes else "none"
        raise BadHandler(
            f"{handler} must define exactly one class, the handler, as TorchServe asks; it defines {found}. "
            "For small records take a tuple or a dict."
        )
    return classes[0]


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """All below but what functions and classes hold."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (*_FUNCTION, ast.ClassDef)):
            yield from _run_at_import(child)


def _record(node: ast.AST) -> str | None:
    """`Name (namedtuple)` for `Name = namedtuple(...)` and the like: TorchServe counts it as a class of the file."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Call):
        return None
    function, target = node.value.func, node.targets[0] if isinstance(node, ast.Assign) else node.target
    maker = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    return f"{ast.unparse(target)} ({maker})" if maker in _MAKE_RECORDS else None


def _check_module_name(handler: Path) -> None:
    """The archive's folder comes first where workers look for modules, so its file would hide another of its name."""
    if not handler.stem.isidentifier() or handler.stem.startswith("__"):
        raise BadHandler(
            f"{handler.name} cannot be imported: take letters, digits and '_', such as my_handler.py."
        )
    spec = importlib.util.find_spec(handler.stem)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() == handler.resolve():
        return
    ours = spec.has_location and ROOT in Path(spec.origin).resolve().parents[:2]
    if ours and handler.stem != "handlers":  # the only one of our packages that an archive holds
        return
    raise BadHandler(
        f"{handler.name} would hide the module {handler.stem!r} in its worker; give it another name."
    )


def _printable(name: str) -> str:
    """A file's name as JSON can hold it: bytes that are not UTF-8 are replaced."""
    return os.fsencode(name).decode(errors="replace")


def _files(data: Path) -> Iterator[ModelFile]:
    """Everything below the folder but what is hidden; it comes to lie in model/."""
    with explained(f"reading {data}"):
        for path in sorted(data.rglob("*")):
            parts = path.relative_to(data).parts
            if any(part.startswith(".") or part == "__pycache__" for part in parts) or path.is_dir():
                continue
            if not path.is_file():
                raise BadSource(f"{path} is a link to a file that does not exist, or no regular file.")
            if _printable(name := "/".join(parts)) != name:
                raise BadSource(f"The name {name!r} in {data} is not UTF-8; rename that file.")
            sha256, size = sha256_and_size(path)
            yield ModelFile(name, path, size, sha256)
