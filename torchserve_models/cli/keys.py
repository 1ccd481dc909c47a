"""The commands `keys ...`, which change the file of the gateway's API keys."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from torchserve_models.cli.options import JsonOutput, parse_positive
from torchserve_models.cli.typer_helpers import create_app, examples
from torchserve_models.exit_codes import ExitCode
from torchserve_models.gateway.keys.api_key import ApiKey, check_scope

if TYPE_CHECKING:
    from torchserve_models.gateway.keys.key_file import KeyFile

app = create_app()

FileOption = Annotated[Path, typer.Option("--file", metavar="FILE", help="The key file.")]


@app.callback(
    epilog=examples(
        "keys create web-shop --scope inference:resnet-50 --rate 20 --file keys.json",
        "keys create operator --scope management --scope metrics --days 90 --file keys.json",
        "keys list --file keys.json",
        "keys revoke 3f2a9c417be0 --file keys.json",
    )
)
def keys_command() -> None:
    """Create, list and revoke API keys of the gateway.

    A running gateway notices each change with the next request.
    """


@app.command()
def create(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    scope: Annotated[
        list[str],
        typer.Option(
            parser=check_scope,
            metavar="SCOPE",
            help="inference, inference:MODEL, management or metrics. Can be repeated.",
        ),
    ],
    rate: Annotated[
        int | None,
        typer.Option(
            parser=parse_positive,
            metavar="N",
            show_default="not limited",
            help="Requests per second, and requests at once.",
        ),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(
            parser=parse_positive, metavar="N", show_default="never", help="Days after which the key expires."
        ),
    ] = None,
    file: FileOption,
) -> int:
    """Create a key and print it. It cannot be printed again, because the file only contains its digest."""

    def change(key_file: "KeyFile") -> None:
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days) if days else None
        key, text = ApiKey.create(name, tuple(dict.fromkeys(scope)), expires=expires, rate=rate)
        key_file.add(key)
        print(f"created {key_line(key)}", file=sys.stderr)
        print(text)

    return _run(file, change)


@app.command("list")
def list_keys(*, as_json: JsonOutput = False, file: FileOption) -> int:
    """List the keys."""

    def change(key_file: "KeyFile") -> None:
        keys = key_file.read().values()
        if as_json:
            print(json.dumps([key.describe() for key in keys], ensure_ascii=False, indent=2))
        else:
            print(*map(key_line, keys), sep="\n", end="\n" if keys else "")

    return _run(file, change)


@app.command()
def revoke(
    *,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id of a key, as `keys list` shows it.")],
    file: FileOption,
) -> int:
    """Remove a key. The gateway rejects it from the next request on."""

    def change(key_file: "KeyFile") -> None:
        print(f"revoked {key_line(key_file.remove(key_id))}")

    return _run(file, change)


def key_line(key: ApiKey) -> str:
    """Return the description of a key."""
    parts = [key.id, key.name, " ".join(key.scopes), f"created {key.created:%Y-%m-%d}"]
    if key.rate is not None:
        parts.append(f"{key.rate} requests/s")
    if key.expires is not None:
        parts.append(f"{'expired' if key.has_expired() else 'expires'} {key.expires:%Y-%m-%d}")
    return ", ".join(parts)


def _run(path: Path, change: Callable[["KeyFile"], None]) -> int:
    from torchserve_models.gateway.keys.key_file import KeyFile, KeyFileError

    try:
        change(KeyFile(path))
    except (KeyFileError, ValueError, OverflowError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILURE
    except OSError as error:
        print(f"error: cannot write the key file: {error}", file=sys.stderr)
        return ExitCode.FAILURE
    return ExitCode.SUCCESS
