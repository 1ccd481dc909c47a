"""Tests of parsing a request's deadline, start time and ids."""

import pytest

from handlers.core.deadline import format_timeout, parse_timeout, read_timing, reserved_values

NOW, WALL = 500.0, 1_800_000_000.0


def timing(timeout="", start="", **others):
    values = {"x-request-timeout": timeout, "x-request-start": start, **others}
    return read_timing(values, NOW, WALL)


def test_request_without_headers_has_no_deadline():
    for values in (
        {},
        {"x-request-timeout": "", "x-request-start": " ", "x-edge-id": "", "x-request-id": ""},
    ):
        result = read_timing(values, NOW, WALL)
        assert (result.started, result.deadline, result.edge_id, result.request_id) == (NOW, None, "", "")
        assert not result.has_expired(NOW + 1e6)
        assert result.error is None


@pytest.mark.parametrize(
    ("timeout", "start", "left"),
    [
        ("10", "", 10),
        ("2.5", f"{WALL - 2:.3f}", 0.5),
        ("2", f"{WALL - 3:.3f}", -1),
        ("0", "", 0),
        ("10", f"t={WALL - 1:.3f}", 9),
        ("10", f"{WALL + 4:.3f}", 10),  # clocks differ a little
        ("10", f"{WALL + 6:.3f}", 10),
        ("10", f"{WALL - 4000:.3f}", 10),
        ("10", "0", 10),
        ("10", "yesterday", 10),
        ("10", "nan", 10),
        ("10", "-5", 10),
        ("10", "9" * 400, 10),
    ],
)
def test_deadline_is_relative_to_plausible_start(timeout, start, left):
    result = timing(timeout, start)
    assert result.error is None
    assert result.deadline == pytest.approx(NOW + left, abs=1e-6)
    assert result.has_expired(NOW) == (left <= 0)


@pytest.mark.parametrize(
    "timeout", ["x", "-1", "nan", "inf", "1e3", "1,5", "5s", "99999999", "٣", "1" * 5000]
)
def test_invalid_timeout_sets_invalid_request_error(timeout):
    error = timing(timeout).error
    assert error.code == 400
    assert "'X-Request-Timeout' must be a number of seconds" in error.message
    assert error.__traceback__ is None


def test_ids_are_safe_to_log_and_to_use_as_file_names():
    result = timing(**{"x-edge-id": "AB" * 16, "x-request-id": "order-7\n\x1b[31m" + "x" * 500})
    assert result.edge_id == "ab" * 16
    assert result.request_id.startswith("order-731m")
    assert len(result.request_id) == 64
    for edge_id in ("../../x", "a" * 31, "g" * 32, "a" * 33):
        assert timing(**{"x-edge-id": edge_id}).edge_id == ""


def test_reserved_values_are_read_from_headers_of_any_case_and_grpc_keys():
    headers = {"X-Request-Timeout": "3", "body": {"content-type": "x"}, "x-Edge-ID": "a"}
    reserved, fields = reserved_values({"body": b"", "x-request-timeout": b"9"}, headers, is_grpc=False)
    assert reserved == {"x-request-timeout": "3", "x-edge-id": "a"}
    assert fields == {"body": b"", "x-request-timeout": b"9"}
    reserved, fields = reserved_values(
        {"text": b"a", "x-request-timeout": bytearray(b"9\xff")}, {}, is_grpc=True
    )
    assert reserved == {"x-request-timeout": "9\ufffd"}
    assert fields == {"text": b"a"}


@pytest.mark.parametrize(
    ("seconds", "read"), [(0, 0), (1e-9, 1e-9), (5e-5, 5e-5), (2.5, 2.5), (999_999.5, 999_999.5), (1e9, 1e6)]
)
def test_formatted_timeout_is_parsed_back(seconds, read):
    assert parse_timeout(format_timeout(seconds)) == pytest.approx(read)
