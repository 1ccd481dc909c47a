"""What the tests of the pages rest on: blocks are found with their outputs, and a wrong output is seen."""

from pathlib import Path

import pytest

from tests.doc_pages import Block, blocks, elsewhere, prints

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
def found(tmp_path: Path) -> list[Block]:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    return blocks(page)


def test_blocks_and_their_outputs(found):
    command, file, text, usage = found
    assert (command.place, command.kind, command.fails, command.output) == (
        "page.md:4",
        "bash",
        True,
        '{"a": 1}\n',
    )
    assert command.commands == ["curl one    two", "echo $(cat <<END"]
    assert (file.file, file.text, file.output) == ("own/a.py", "x = 1\n", None)
    assert (text.kind, usage.kind, usage.text) == ("text", "", "usage\n")


@pytest.mark.parametrize(
    ("expected", "output", "right"),
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
def test_what_a_page_shows(expected, output, right):
    assert prints(expected, output) == right


def test_a_block_is_run_here_or_elsewhere():
    def block(text):
        return Block(Path("page.md"), 1, "bash", (), text)

    assert elsewhere(block("scripts/serve resnet-50 --detach\ncurl one\n"))
    assert not elsewhere(block("curl one\n"))
    with pytest.raises(AssertionError, match="split this block"):
        elsewhere(block("curl one\nscripts/serve\n"))
