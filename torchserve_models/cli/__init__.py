"""The command line `torchserve-models`: one module for each command, imported when the command is used.

The modules import only what their options need, and the rest of the package inside their functions. The help of every
command is therefore available if only the base dependencies are installed.
"""

from torchserve_models.cli.program import main

__all__ = ["main"]
