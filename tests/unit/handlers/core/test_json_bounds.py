"""Tests of the limits on a JSON body's structure, which ignore the contents of strings."""

import json
import random
import time
import tracemalloc

import pytest

from handlers.core.errors import InvalidRequest
from handlers.core.json_bounds import MAX_ELEMENTS, check_json_bounds

MIB = 2**20


def filled(start, piece, end, size):
    return start + piece * ((size - len(start) - len(end)) // len(piece)) + end


HOSTILE = {
    "lists": filled(b'{"text": [', b"[],", b"[]]}", 4 * MIB),
    "objects": filled(b'{"text": [', b"{},", b"{}]}", 4 * MIB),
    "strings": filled(b'{"text": [', b'"ab",', b'""]}', 4 * MIB),
    "empty strings": filled(b'{"text": [', b'"",', b'""]}', 4 * MIB),
    "fields": b"{" + b",".join(b'"%x":0' % n for n in range(300_000)) + b"}",
    "numbers": filled(b'{"text": [', b"1,", b"1]}", 4 * MIB),
    "unclosed lists": b"[" * (4 * MIB),
    "closed lists": b"[" * (2 * MIB) + b"]" * (2 * MIB),
    "nested objects": b'{"a":' * 600_000,
    "after an escape": filled(b'{"\\\\": [', b"[],", b"[]]}", 4 * MIB),
    "after an escaped quote": filled(b'{"\\\\\\"": [', b"[],", b"[]]}", 4 * MIB),
    "escaped quotes": filled(b'["\\"",', b'"\\"",', b'""]', 4 * MIB),
    "a string that does not end": filled(b'{"text": [', b"[],", b'"', 4 * MIB),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_structure_is_rejected_quickly_without_objects(body):
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(InvalidRequest, match=r"the JSON body (has more than|is nested too deeply)"):
        check_json_bounds(body)
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3.5 * len(body)
    assert seconds < 2  # about 0.02 on one free core


@pytest.mark.parametrize(
    "text",
    [
        "[{,:}]" * 170_000,
        '"' * 1_000_000,
        "\\" * 1_000_001,
        '\\"[' * 300_000,
        "é,{😀" * 200_000,
    ],
    ids=["structure", "quotes", "backslashes", "mixed", "not ASCII"],
)
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_characters_inside_strings_are_ignored(text, ensure_ascii):
    check_json_bounds(json.dumps({"text": text}, ensure_ascii=ensure_ascii).encode())
    check_json_bounds(json.dumps({text: [text, text], "a": 7}, ensure_ascii=ensure_ascii).encode())


def test_bounds_are_exact():
    check_json_bounds(json.dumps([[]] * (MAX_ELEMENTS - 1)).encode())
    with pytest.raises(InvalidRequest, match="10000 lists, objects and strings"):
        check_json_bounds(json.dumps([[]] * MAX_ELEMENTS).encode())
    check_json_bounds(json.dumps(["a"] * 99).encode(), max_elements=100)
    with pytest.raises(InvalidRequest, match="100 lists"):
        check_json_bounds(json.dumps(["a"] * 100).encode(), max_elements=100)
    check_json_bounds(b"[" * 64 + b"]" * 64)
    with pytest.raises(InvalidRequest, match="nested too deeply: more than 64"):
        check_json_bounds(b"[" * 65 + b"]" * 65)
    check_json_bounds(b"[" + b"[]," * 500 + b"[]]")  # wide, not deep


def test_numbers_have_a_separate_bound():
    body = json.dumps({"data": list(range(1000))}).encode()
    check_json_bounds(body, max_elements=10, max_values=1000)
    with pytest.raises(InvalidRequest, match="more than 999 values"):
        check_json_bounds(body, max_elements=10, max_values=999)
    with pytest.raises(InvalidRequest, match="more than 100 values"):
        check_json_bounds(body, max_elements=100)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_buffer_type_is_checked(kind):
    check_json_bounds(kind(b'{"text": "a"}'))
    with pytest.raises(InvalidRequest):
        check_json_bounds(kind(HOSTILE["lists"]))


def test_counts_agree_with_parsed_value():
    """Random values are rejected exactly if they contain more elements than the limit."""
    generator = random.Random(5)

    def value(depth):
        kind = generator.randrange(4 if depth else 2)
        if kind == 0:
            return generator.randrange(100)
        if kind == 1:
            return "".join(generator.choice('a"\\[]{},:é😀\n') for _ in range(generator.randrange(6)))
        if kind == 2:
            return [value(depth - 1) for _ in range(generator.randrange(4))]
        return {str(n) + '"\\' * n: value(depth - 1) for n in range(generator.randrange(4))}

    def elements(parsed):
        if isinstance(parsed, dict):
            return 1 + sum(1 + elements(item) for item in parsed.values())
        if isinstance(parsed, list):
            return 1 + sum(map(elements, parsed))
        return int(isinstance(parsed, str))

    rejected = 0
    for _ in range(2000):
        parsed = value(4)
        body = json.dumps(parsed, ensure_ascii=generator.random() < 0.5).encode()
        check_json_bounds(body, max_elements=max(1, elements(parsed)), max_values=1000)
        if elements(parsed) > 1:
            rejected += 1
            with pytest.raises(InvalidRequest):
                check_json_bounds(body, max_elements=elements(parsed) - 1, max_values=1000)
    assert rejected > 500
