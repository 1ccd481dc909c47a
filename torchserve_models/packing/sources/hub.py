"""The Hugging Face hub as a client sees it: what a repository holds, whether it answers, and its errors in our words.

HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE and the proxy variables are the library's, and are left to it.
"""

import re
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not in an __all__
    build_hf_headers,
    hf_raise_for_status,
    http_stream_backoff,
    validate_repo_id,
)

from torchserve_models.packing.errors import (
    HubError,
    HubNotFound,
    HubOffline,
    HubRefused,
    HubUnreachable,
    PackingError,
    from_os_error,
)
from torchserve_models.packing.sources.model_files import license_of_card

# Telemetry would put a request of its own before the first one that matters, and spend the time `auto` has.
constants.HF_HUB_DISABLE_TELEMETRY = True

DECISION_SECONDS = 3.5
"""How long the hub may take to prove itself, so that `auto` has decided within five seconds."""

_REMEMBERED_SECONDS = 60.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_silent: dict[str, tuple[float, HubUnreachable]] = {}  # endpoint -> when it last gave no answer, and how


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it: `oid` is sha256 of a large file and git's blob id of a small one."""

    oid: str
    size: int | None


@dataclass(frozen=True)
class Repository:
    """One commit of a repository on the hub."""

    revision: str
    license: str | None
    files: Mapping[str, HubFile]


def is_hub_id(text: str) -> bool:
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def is_offline() -> bool:
    return constants.is_offline_mode()


def endpoint() -> str:
    return str(constants.ENDPOINT)


def file_url(hub_id: str, revision: str, name: str) -> str:
    return hf_hub_url(hub_id, name, revision=revision, endpoint=endpoint())


def headers() -> dict[str, str]:
    """For a file's request. Sizes and ranges only mean something for a body that is not compressed on the way."""
    return {**build_hf_headers(), "Accept-Encoding": "identity"}


def resolve(hub_id: str, timeout: float | None = None) -> Repository:
    """The commit that the default branch is at now, with the hub's digest of every file."""
    with hub_errors(hub_id):
        info = HfApi(endpoint=endpoint()).model_info(
            hub_id, files_metadata=True, timeout=timeout or constants.HF_HUB_DOWNLOAD_TIMEOUT
        )
    if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
        raise HubUnreachable(f"{endpoint()} does not answer as a hub does: it gave no commit for {hub_id}.")
    files = {}
    for sibling in info.siblings or []:
        oid = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        if isinstance(oid, str) and _OID.fullmatch(oid):
            files[sibling.rfilename] = HubFile(oid, sibling.lfs.size if sibling.lfs else sibling.size)
    card = {key: getattr(info.card_data, key, None) for key in ("license", "license_name")}
    return Repository(info.sha, license_of_card(card), files)


def probe(hub_id: str, locked: tuple[str, Collection[str]] | None) -> HubError | None:
    """Why the weights of `hub_id` cannot be had now, or None; the answer comes within DECISION_SECONDS.

    Asks what a download would ask: for the commit (unless `locked` gives it, with its file names), and for the first
    byte of the weights, which come from another host than the listing and may be blocked alone. A thread asks, and is
    left behind at the deadline, because a name lookup cannot be given one.
    """
    if is_offline():
        return HubOffline("HF_HUB_OFFLINE is set and the cache does not hold the files")
    since, silence = _silent.get(endpoint(), (0.0, None))
    if silence is not None and time.monotonic() - since < _REMEMBERED_SECONDS:
        return silence
    answers: list[HubError | None] = []
    thread = threading.Thread(target=lambda: answers.append(_ask(hub_id, locked)), daemon=True)
    thread.start()
    thread.join(DECISION_SECONDS)
    late = HubUnreachable(f"{endpoint()} gave no answer within {DECISION_SECONDS:g} seconds")
    error = answers[0] if answers else late
    if isinstance(error, HubUnreachable):
        _silent[endpoint()] = (time.monotonic(), error)
    return error


def _ask(hub_id: str, locked: tuple[str, Collection[str]] | None) -> HubError | None:
    try:
        if locked is None:
            repository = resolve(hub_id, timeout=DECISION_SECONDS)
            locked = repository.revision, repository.files
        revision, names = locked
        weights = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
        if weights:
            _first_byte(hub_id, revision, weights[0])
    except HubError as error:
        return error
    except Exception as error:  # an answer so odd that the library trips over it is not a hub's
        return HubUnreachable(f"{endpoint()} does not answer as a hub does: {_one_line(error)}")
    return None


def _first_byte(hub_id: str, revision: str, name: str) -> None:
    with (
        hub_errors(hub_id),
        http_stream_backoff(
            "GET",
            file_url(hub_id, revision, name),
            headers={**headers(), "Range": "bytes=0-0"},
            timeout=DECISION_SECONDS,
            retry_on_exceptions=(),
            retry_on_status_codes=(),
        ) as response,
    ):
        hf_raise_for_status(response)
        next(response.iter_raw(), b"")


@contextmanager
def hub_errors(hub_id: str) -> Iterator[None]:
    """Turns what the library raises about `hub_id` into HubError (or NoSpace), each saying what to do."""
    try:
        yield
    except PackingError:
        raise
    except OfflineModeIsEnabled as error:
        raise HubOffline(
            f"HF_HUB_OFFLINE is set, and models/lock.json with the cache ({constants.HF_HUB_CACHE}) does not give "
            f"all of {hub_id}. Unset it to download them."
        ) from error
    except HfHubHTTPError as error:
        raise _refusal(hub_id, error) from error
    except httpx2.TimeoutException as error:
        raise _unreachable(hub_id, "no answer in time") from error
    except httpx2.HTTPError as error:
        raise _unreachable(hub_id, _one_line(error)) from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:  # the library met an answer it cannot read
        raise HubUnreachable(
            f"{endpoint()} does not answer as a hub does: {_one_line(error)}. Check HF_ENDPOINT, and whether a proxy "
            f"or a sign-in page stands between you and {hub_id}."
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise from_os_error(f"downloading {hub_id}", error) from error
        raise _unreachable(hub_id, _one_line(error)) from error


def _refusal(hub_id: str, error: HfHubHTTPError) -> HubError:
    status, page = error.response.status_code, f"{endpoint()}/{hub_id}"
    if isinstance(error, GatedRepoError):
        return HubRefused(
            f"{hub_id} is gated: accept its conditions at {page}, then set HF_TOKEN to your token."
        )
    if isinstance(error, RevisionNotFoundError):
        return HubNotFound(
            f"{hub_id} no longer has the commit in models/lock.json. Look at what changed at {page}, then move on "
            "with --update."
        )
    if status in (401, 403):
        token = "the token it was given has no access" if _has_token() else "it wants a token"
        return HubRefused(
            f"{endpoint()} refuses {hub_id} ({status}): it does not exist, or {token}. Check the name, and set "
            "HF_TOKEN for a private or gated one."
        )
    if status == 404:
        return HubNotFound(f"{endpoint()} has no {hub_id}, or not all its files (404). Check the name.")
    return _unreachable(hub_id, f"it answers {status}")


def _unreachable(hub_id: str, why: str) -> HubUnreachable:
    """The first sentence says nothing about one repository: it is remembered for all of them."""
    return HubUnreachable(
        f"{endpoint()} does not answer as it should: {why}. To get {hub_id}, run the same command again (what is "
        "here is kept, and a download goes on where it stopped)."
    )


def _has_token() -> bool:
    return "authorization" in headers()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def cache_folder(hub_id: str) -> Path:
    """The folder of a repository in the hub's cache, laid out as the library documents it."""
    return Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"
