"""Requests to the Hugging Face Hub, and conversion of their errors.

huggingface_hub reads HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE and the proxy variables.
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
    HubAccessDenied,
    HubError,
    HubNotFound,
    HubOffline,
    HubUnreachable,
    PackingError,
    from_os_error,
)
from torchserve_models.packing.sources.model_files import license_of_card

# Telemetry would send an extra request first, which delays the decision of `--weights auto`.
constants.HF_HUB_DISABLE_TELEMETRY = True

DECISION_TIMEOUT_S = 3.5
"""Timeout for deciding whether the hub is reachable."""

_UNREACHABLE_TTL_S = 60.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_unreachable_errors: dict[
    str, tuple[float, HubUnreachable]
] = {}  # endpoint -> time and error of the last failure


@dataclass(frozen=True)
class HubFile:
    """A file listed by the hub. `oid` is the SHA-256 digest of a large file or the git blob ID of a small file."""

    oid: str
    size: int | None


@dataclass(frozen=True)
class Repository:
    """A commit of a repository on the hub."""

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
    """Return the headers of a file request, which disable compression so that sizes and ranges are exact."""
    return {**build_hf_headers(), "Accept-Encoding": "identity"}


def read_repository(hub_id: str, timeout: float | None = None) -> Repository:
    """Return the latest commit of the default branch, with the digests of its files."""
    with hub_errors(hub_id):
        info = HfApi(endpoint=endpoint()).model_info(
            hub_id, files_metadata=True, timeout=timeout or constants.HF_HUB_DOWNLOAD_TIMEOUT
        )
    if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
        raise HubUnreachable(
            f"Invalid response from {endpoint()}: the commit of {hub_id} is missing. Check HF_ENDPOINT."
        )
    files = {}
    for sibling in info.siblings or []:
        oid = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        if isinstance(oid, str) and _OID.fullmatch(oid):
            files[sibling.rfilename] = HubFile(oid, sibling.lfs.size if sibling.lfs else sibling.size)
    card = {key: getattr(info.card_data, key, None) for key in ("license", "license_name")}
    return Repository(info.sha, license_of_card(card), files)


def check_available(hub_id: str, locked: tuple[str, Collection[str]] | None) -> HubError | None:
    """Return the error that prevents a download of the weights of `hub_id`, or None if a download is possible.

    The check takes at most DECISION_TIMEOUT_S. It requests the commit, unless `locked` contains the commit and file
    names, and the first byte of the weights, because their host differs and may be blocked separately. The requests
    run in a thread that is abandoned at the deadline, because name resolution has no timeout.
    """
    if is_offline():
        return HubOffline("HF_HUB_OFFLINE is set, and the cache does not contain the files")
    failed_at, last_error = _unreachable_errors.get(endpoint(), (0.0, None))
    if last_error is not None and time.monotonic() - failed_at < _UNREACHABLE_TTL_S:
        return last_error
    answers: list[HubError | None] = []
    thread = threading.Thread(target=lambda: answers.append(_request_weights(hub_id, locked)), daemon=True)
    thread.start()
    thread.join(DECISION_TIMEOUT_S)
    timeout_error = HubUnreachable(f"{endpoint()} did not respond within {DECISION_TIMEOUT_S:g} seconds")
    error = answers[0] if answers else timeout_error
    if isinstance(error, HubUnreachable):
        _unreachable_errors[endpoint()] = (time.monotonic(), error)
    return error


def _request_weights(hub_id: str, locked: tuple[str, Collection[str]] | None) -> HubError | None:
    try:
        if locked is None:
            repository = read_repository(hub_id, timeout=DECISION_TIMEOUT_S)
            locked = repository.revision, repository.files
        revision, names = locked
        weights = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
        if weights:
            _request_first_byte(hub_id, revision, weights[0])
    except HubError as error:
        return error
    except Exception as error:  # huggingface_hub raises various errors on invalid responses
        return HubUnreachable(f"Invalid response from {endpoint()}: {_one_line(error)}")
    return None


def _request_first_byte(hub_id: str, revision: str, name: str) -> None:
    with (
        hub_errors(hub_id),
        http_stream_backoff(
            "GET",
            file_url(hub_id, revision, name),
            headers={**headers(), "Range": "bytes=0-0"},
            timeout=DECISION_TIMEOUT_S,
            retry_on_exceptions=(),
            retry_on_status_codes=(),
        ) as response,
    ):
        hf_raise_for_status(response)
        next(response.iter_raw(), b"")


@contextmanager
def hub_errors(hub_id: str) -> Iterator[None]:
    """Convert exceptions of huggingface_hub to HubError or DiskFull, with messages that say what to do."""
    try:
        yield
    except PackingError:
        raise
    except OfflineModeIsEnabled as error:
        raise HubOffline(
            f"HF_HUB_OFFLINE is set, and {hub_id} is not in models/lock.json or not in the cache "
            f"({constants.HF_HUB_CACHE}). Unset HF_HUB_OFFLINE to download the files."
        ) from error
    except HfHubHTTPError as error:
        raise _convert_http_error(hub_id, error) from error
    except httpx2.TimeoutException as error:
        raise _unreachable_error(hub_id, "the request timed out") from error
    except httpx2.HTTPError as error:
        raise _unreachable_error(hub_id, _one_line(error)) from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:  # huggingface_hub cannot parse the response
        raise HubUnreachable(
            f"Invalid response from {endpoint()}: {_one_line(error)}. Check HF_ENDPOINT, and whether a proxy or a "
            f"sign-in page intercepts the requests for {hub_id}."
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise from_os_error(f"downloading {hub_id}", error) from error
        raise _unreachable_error(hub_id, _one_line(error)) from error


def _convert_http_error(hub_id: str, error: HfHubHTTPError) -> HubError:
    status, page = error.response.status_code, f"{endpoint()}/{hub_id}"
    if isinstance(error, GatedRepoError):
        return HubAccessDenied(
            f"{hub_id} is gated: accept its conditions at {page}, then set HF_TOKEN to your token."
        )
    if isinstance(error, RevisionNotFoundError):
        return HubNotFound(
            f"{hub_id} no longer has the commit in models/lock.json. Review the changes at {page}, then use --update."
        )
    if status in (401, 403):
        token = "your token has no access" if _has_token() else "access requires a token"
        return HubAccessDenied(
            f"{endpoint()} denies access to {hub_id} ({status}): the repository does not exist, or {token}. Check "
            f"the "
            "name, and set HF_TOKEN for a private or gated repository."
        )
    if status == 404:
        return HubNotFound(
            f"{endpoint()} has no repository {hub_id}, or a file of it is missing (404). Check the name."
        )
    return _unreachable_error(hub_id, f"HTTP status {status}")


def _unreachable_error(hub_id: str, why: str) -> HubUnreachable:
    """Return an error whose first sentence names no repository, because it is reused for other repositories."""
    return HubUnreachable(
        f"Request to {endpoint()} failed: {why}. To download {hub_id}, run the same command again; an interrupted "
        "download resumes."
    )


def _has_token() -> bool:
    return "authorization" in headers()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def cache_folder(hub_id: str) -> Path:
    """Return the folder of a repository in the hub cache."""
    return Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"
