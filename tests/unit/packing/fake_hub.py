"""A fake Hugging Face Hub on a loopback port, with the routes that huggingface_hub uses and injected faults."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_LFS = (".safetensors", ".bin")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Repository:
    """Commits of one repository, the last one being the default branch; `served` overrides the content of files."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    license: str = "mit"
    served: dict[str, bytes] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit(self, files: dict[str, bytes]) -> str:
        content = b"".join(name.encode() + data for name, data in sorted(files.items()))
        revision = hashlib.sha1(content).hexdigest()
        self.commits[revision] = files
        return revision


@dataclass
class Fault:
    """A fault on matching paths, at most `times` times: an HTTP `status`, a body cut at `cut_at`, or no response."""

    path: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int = -1
    times: int = 1_000_000
    hang: bool = False
    body: bytes = b""


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None


class FakeHub:
    """A context manager that runs the hub; `url` is the value for HF_ENDPOINT."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.files_from: str | None = None
        self._stop = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> "FakeHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, hub_id: str, files: dict[str, bytes]) -> Repository:
        repository = self.repositories.setdefault(hub_id, Repository())
        repository.commit(files)
        return repository

    def downloads(self, name: str) -> list[Request]:
        return [r for r in self.requests if "/resolve/" in r.path and r.path.endswith(name)]

    def fault_for(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def wait(self) -> None:
        """Block a request until the hub stops."""
        self._stop.wait(60)


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            headers = self.headers.get("Range"), self.headers.get("Authorization")
            hub.requests.append(Request(self.command, path, *headers))
            fault = hub.fault_for(path)
            if fault and fault.hang:
                hub.wait()
                self.close_connection = True
            elif fault and fault.cut_at < 0:
                self._send(fault.status, fault.body, fault.headers)
            elif match := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", path):
                self._info(match[1], match[2])
            elif match := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
                self._file(match[1], match[2], match[3], fault, body)
            else:
                self._send(404, b"")

        def _info(self, hub_id: str, revision: str | None) -> None:
            repository = hub.repositories.get(hub_id)
            if repository is None:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            revision = repository.head if revision in (None, "main") else revision
            siblings = [_sibling(name, data) for name, data in repository.commits[str(revision)].items()]
            info: dict[str, Any] = {"id": hub_id, "modelId": hub_id, "sha": revision, "siblings": siblings}
            info["cardData"] = {"license": repository.license}
            return self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

        def _file(self, hub_id: str, revision: str, name: str, fault: Fault | None, body: bool) -> None:
            repository = hub.repositories.get(hub_id)
            if repository is None:
                return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            revision = repository.head if revision == "main" else revision
            if revision not in repository.commits:
                return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            data = repository.commits[revision].get(name)
            if data is None:
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            headers = {"X-Repo-Commit": revision, "ETag": f'"{oid_of(name, data)}"', "Accept-Ranges": "bytes"}
            if name.endswith(_LFS):
                headers |= {"X-Linked-Etag": f'"{oid_of(name, data)}"', "X-Linked-Size": str(len(data))}
                if hub.files_from:
                    return self._send(302, b"", {**headers, "Location": hub.files_from + self.path})
            return self._bytes(repository.served.get(name, data), headers, fault, body)

        def _bytes(self, data: bytes, headers: dict[str, str], fault: Fault | None, body: bool) -> None:
            status, part = 200, data
            if range_match := _RANGE.fullmatch(self.headers.get("Range", "")):
                start, end = int(range_match[1]), int(range_match[2] or len(data) - 1)
                status, part = 206, data[start : end + 1]
                headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            cut = fault.cut_at if fault and fault.cut_at >= 0 else None
            self._send(status, part if body else b"", headers, len(part), cut)

        def _send(
            self,
            status: int,
            data: bytes,
            headers: dict[str, str] | None = None,
            length: int | None = None,
            cut: int | None = None,
        ) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            self.wfile.write(data[:cut] if cut is not None else data)
            if cut is not None and cut < len(data):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    return Handler


def oid_of(name: str, data: bytes) -> str:
    """Return the digest that the hub lists: SHA-256 for Git LFS files, otherwise the git blob ID."""
    if name.endswith(_LFS):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": oid_of("", data)}
    if name.endswith(_LFS):
        entry["lfs"] = {"size": len(data), "sha256": oid_of(name, data), "pointerSize": 134}
    return entry
