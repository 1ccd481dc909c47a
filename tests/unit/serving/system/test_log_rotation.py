"""Tests of rotating a log that another program appends to."""

from torchserve_models.serving.system.log_rotation import rotate


def test_large_file_is_copied_and_emptied(tmp_path):
    path = tmp_path / "java.out"
    with open(path, "ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        rotate(path, 100)
        assert path.stat().st_size == 100
        writer.write(b"y")
        rotate(path, 100)
        assert path.stat().st_size == 0
        writer.write(b"z")
    assert path.read_bytes() == b"z"
    assert (tmp_path / "java.out.1").read_bytes() == b"x" * 100 + b"y"


def test_file_is_emptied_if_the_copy_fails(tmp_path):
    path = tmp_path / "java.out"
    path.write_bytes(b"x" * 100)
    (tmp_path / "java.out.1").mkdir()
    rotate(path, 10)
    assert path.stat().st_size == 0
    rotate(tmp_path / "missing", 10)
