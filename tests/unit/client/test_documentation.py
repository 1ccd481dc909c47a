"""The public API of the client is documented: every class, method, property, parameter and field.

A parameter needs no entry only in an async method whose docstring refers to the sync method of the same
name (test_public.py compares their signatures), and where a function has no `Args` section because it takes none.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import torchserve_models
from torchserve_models import client
from torchserve_models.client import AsyncClient, Client

EXPORTS = {
    name: getattr(module, name)
    for module in (torchserve_models, client)
    for name in module.__all__
    if not name.startswith("__")
}
CLASSES = {name: value for name, value in EXPORTS.items() if inspect.isclass(value)}
CONSTANTS = {"PROTOCOLS", "Protocol"}


def members() -> Iterator[tuple[str, Any]]:
    """Yield the methods and properties of the exported classes that this package defines."""
    for class_name, cls in CLASSES.items():
        for name in dir(cls):
            member = inspect.getattr_static(cls, name)
            if isinstance(member, (classmethod, staticmethod)):
                member = member.__func__
            is_function = inspect.isfunction(getattr(member, "fget", None) or member)
            function = member.fget if isinstance(member, property) else member
            is_public = not name.startswith("_") or (name == "__init__" and not dataclasses.is_dataclass(cls))
            if is_function and is_public and function.__module__.startswith("torchserve_models"):
                yield f"{class_name}.{name}", member


MEMBERS = dict(members())


def section(docstring: str, title: str) -> set[str]:
    """Return the names that a section of a docstring describes."""
    match = re.search(rf"^{title}:\n((?:    .*\n|\n)*)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    return set(re.findall(r"^    \*{0,2}(\w+): \S", match[1], re.MULTILINE)) if match else set()


def check_first_line(docstring: str | None) -> None:
    assert docstring, "it has no docstring"
    first_line = docstring.strip().splitlines()[0]
    assert first_line[0].isupper() or first_line.startswith("`"), first_line
    assert first_line.endswith("."), f"the first line is not a sentence: {first_line}"


def test_exports_are_classes_and_constants():
    assert EXPORTS.keys() - CLASSES.keys() == CONSTANTS


@pytest.mark.parametrize("name", CLASSES)
def test_class_and_its_fields_are_documented(name):
    cls = CLASSES[name]
    docstring = cls.__dict__.get("__doc__")  # not that of a base class
    check_first_line(docstring)
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    assert fields == (section(docstring, "Attributes") if fields else set())


@pytest.mark.parametrize("name", MEMBERS)
def test_method_and_its_parameters_are_documented(name):
    member = MEMBERS[name]
    check_first_line(member.__doc__)
    if isinstance(member, property):
        return
    reference = f"See `Client.{name.rpartition('.')[2]}`."
    if name.startswith("AsyncClient.") and reference in member.__doc__:
        assert name.replace("AsyncClient.", "Client.") in MEMBERS
        return
    parameters = {
        parameter for parameter in inspect.signature(member).parameters if parameter not in ("self", "cls")
    }
    assert section(member.__doc__, "Args") == parameters
    returns_value = inspect.signature(member).return_annotation not in (None, "None")
    says_what = re.match(r"(Return|Describe|Yield)|.*\n(?:.*\n)*\s*(Returns|Yields):", member.__doc__)
    assert says_what or not returns_value, "it does not say what it returns"


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_client_has_an_example(cls):
    assert re.search(r"^Example:\n    \S", inspect.cleandoc(cls.__doc__), re.MULTILINE)
