"""Parsing of code blocks and their expected outputs, and comparison of outputs."""

from pathlib import Path

import pytest

from tests.doc_pages import Block, blocks, is_tested_elsewhere, matches_output

PAGE = """
# A page

```bash fails
# a comment
curl one \\
  two
echo $(cat <<END
```

```json
{"a": 1}
```

```python file=own/a.py
x = 1
```

```text
not an output: a file prints nothing
```

```
usage
```
"""


@pytest.fixture
def page_blocks(tmp_path: Path) -> list[Block]:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    return blocks(page)


def test_blocks_are_parsed_with_their_outputs(page_blocks):
    command, file, text, usage = page_blocks
    assert (command.location, command.kind, command.fails, command.output) == (
        "page.md:4",
        "bash",
        True,
        '{"a": 1}\n',
    )
    assert command.commands == ["curl one    two", "echo $(cat <<END"]
    assert (file.file, file.text, file.output) == ("own/a.py", "x = 1\n", None)
    assert (text.kind, usage.kind, usage.text) == ("text", "", "usage\n")


@pytest.mark.parametrize(
    ("expected", "output", "is_match"),
    [
        ("a b\n", "a b", True),
        ("a b\n", "a c", False),
        ("a b\n", "a b\nc", False),
        ("a\n\nb\n", "a  \nb\n", True),
        ('{"score": 0.9...}', '{"score": 0.98}', True),
        ('{"score": 0.9...}', '{"score": 0.8}', False),
        ("a (b)...", "a (b) and more\nand more", True),
        ("a.c", "abc", False),
    ],
)
def test_output_is_compared_with_the_page(expected, output, is_match):
    assert matches_output(expected, output) == is_match


def test_block_that_starts_a_server_is_run_by_another_test():
    def block(text):
        return Block(Path("page.md"), 1, "bash", (), text)

    assert is_tested_elsewhere(block("scripts/serve resnet-50 --detach\ncurl one\n"))
    assert not is_tested_elsewhere(block("curl one\n"))
    with pytest.raises(AssertionError, match="split this block"):
        is_tested_elsewhere(block("curl one\nscripts/serve\n"))
