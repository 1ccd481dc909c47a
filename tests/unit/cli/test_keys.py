"""The commands `keys create`, `keys list` and `keys revoke`, and the options of the gateway and the client."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.cli.parsing import parse_options
from torchserve_models.cli import main
from torchserve_models.cli.options import API_KEY_VARIABLE, Connection
from torchserve_models.gateway.keys.key_file import KeyFile
from torchserve_models.gateway.keys.key_store import KeyStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def run(path, capsys):
    """Return a function that runs a command and returns its exit code, output and error output."""

    def command(*arguments):
        code = main(["keys", *arguments, "--file", str(path)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_created_key_is_printed_once(run, path):
    code, out, err = run("create", "shop", "--scope", "inference:a", "--scope", "metrics", "--rate", "5")
    assert code == 0
    key = KeyStore(path).find(out.strip())
    assert (key.name, key.scopes, key.rate, key.expires) == ("shop", ("inference:a", "metrics"), 5, None)
    assert re.fullmatch(
        rf"created {key.id}, shop, inference:a metrics, created \d{{4}}-\d\d-\d\d, 5 requests/s\n", err
    )
    secret = out.strip().split("_", 2)[2]
    assert secret not in err + path.read_text() + "".join(run("list")[1:]) + "".join(
        run("list", "--json")[1:]
    )


def test_expiry_is_set_in_days(run, path):
    assert run("create", "shop", "--scope", "inference", "--days", "2")[0] == 0
    (key,) = KeyFile(path).read().values()
    assert timedelta(0) <= key.expires - datetime.now(UTC) - timedelta(days=2) + timedelta(minutes=1)
    assert f"expires {key.expires:%Y-%m-%d}" in run("list")[1]


def test_list_shows_each_key_without_its_digest(run, path):
    for name in ("first", "second"):
        run("create", name, "--scope", "inference")
    _, out, _ = run("list")
    assert [line.split(", ")[1] for line in out.splitlines()] == ["first", "second"]
    entries = json.loads(run("list", "--json")[1])
    assert [entry["name"] for entry in entries] == ["first", "second"]
    assert all(key.digest not in out + str(entries) for key in KeyFile(path).read().values())


def test_revoked_key_is_removed(run, path):
    _, out, _ = run("create", "shop", "--scope", "inference")
    (key_id,) = KeyFile(path).read()
    code, message, _ = run("revoke", key_id)
    assert (code, message.startswith(f"revoked {key_id}, shop")) == (0, True)
    assert KeyStore(path).find(out.strip()) is None
    assert run("list")[:2] == (0, "")
    code, _, err = run("revoke", key_id)
    assert (code, "has no key with the id" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("create", "shop", "--scope", "admin"), 2, "is not a scope; use inference"),
        (("create", "shop"), 2, "--scope"),
        (("create", "shop", "--scope", "inference", "--rate", "0"), 2, "above 0"),
        (("create", "", "--scope", "inference"), 1, "is not a name"),
        (("create", "shop", "--scope", "inference", "--days", "9999999"), 1, "error:"),
        (("list",), 1, "cannot read the key file"),
    ],
)
def test_wrong_use_is_explained(run, arguments, code, message):
    assert run(*arguments)[0] == code
    assert message in run(*arguments)[2]


def test_missing_folder_is_reported(capsys, tmp_path):
    path = tmp_path / "absent" / "keys.json"
    assert main(["keys", "create", "shop", "--scope", "inference", "--file", str(path)]) == 1
    assert "cannot write the key file" in capsys.readouterr().err


def test_gateway_needs_an_existing_key_file(capsys, path):
    assert main(["gateway", "--keys", str(path)]) == 2
    assert "cannot read the key file" in capsys.readouterr().err


def test_client_reads_its_key_from_a_file_or_the_environment(tmp_path, monkeypatch):
    def api_key(*arguments):
        return parse_options(Connection, "--host", "h", *arguments).settings().api_key

    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    assert api_key() is None
    monkeypatch.setenv(API_KEY_VARIABLE, "tsm_a")
    assert api_key() == "tsm_a"
    file = tmp_path / "key"
    file.write_text("tsm_b\n")
    assert api_key("--api-key-file", str(file)) == "tsm_b"
    file.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        api_key("--api-key-file", str(file))
    file.write_text("a b")
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        api_key("--api-key-file", str(file))
    assert "a b" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot read"):
        api_key("--api-key-file", str(tmp_path / "absent"))
