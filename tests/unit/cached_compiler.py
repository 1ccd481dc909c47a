"""Put a `g++` in front of the real one that keeps what it has compiled, for the many tests that pack a summarizer."""

import os
from pathlib import Path

import pytest

from tests.tools import find_tool

SCRIPT = """#!/usr/bin/env bash
set -euo pipefail
compiler={compiler} cache={cache}
# `-c SOURCE -o OBJECT` at the end, in the current directory: other calls are quick.
if [ $# -lt 4 ] || [ "${{@:(-4):1}}" != -c ]; then exec "$compiler" "$@"; fi
source="${{@:(-3):1}}" object="${{@: -1}}"
key_of() {{
  "$compiler" -dumpfullversion
  printf '%s\\n' "$@"
  "$compiler" "${{@:1:$#-4}}" -E "$source"  # the source with its headers
}}
key="$(key_of "$@" | sha256sum | cut -c1-32)"
if [ ! -e "$cache/$key" ]; then
  "$compiler" "$@"
  cp "$object" "$cache/$key.$$"
  mv "$cache/$key.$$" "$cache/$key"
fi
cp "$cache/$key" "$object"
"""


def create_cached_compiler(config: pytest.Config) -> Path | None:
    """Return a folder for PATH with the caching `g++`; its results are in pytest's cache. None without g++."""
    compiler = find_tool("g++")
    if compiler is None:
        return None
    assert config.cache is not None
    cache = config.cache.mkdir("objects")
    folder = config.cache.mkdir("compiler")
    partial = folder / f"g++.{os.getpid()}"
    partial.write_text(SCRIPT.format(compiler=compiler, cache=cache))
    partial.chmod(0o755)
    partial.replace(folder / "g++")
    return folder
