"""A stand-in for W&B's server on loopback: receives runs, their files and their artifacts.

It answers what W&B's client asks while a run is recorded, and keeps what arrives. A question that
it does not know is kept in ``unknown`` and answered with an error, as the real server does.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

from wandb_store import StoredArtifact, StoredRun

ENTITY = "someone"
KEY = "0123456789abcdef" * 2 + "01234567"
"""A key of the form that W&B's client asks for."""
Answer = tuple[int, Any]
"""A status and a content."""


class WandbServer:
    """Keeps what arrives; ``fault`` may answer a request (path, body) in its place."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: list[StoredArtifact] = []
        self.unknown: list[str] = []
        self.keys: set[str] = set()
        self.fault: Callable[[str, bytes], Answer | None] = lambda path, body: None
        self._lock = threading.Lock()

    @property
    def run(self) -> StoredRun:
        """The only run."""
        (run,) = self.runs.values()
        return run

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a program that is to use this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "no_proxy": "127.0.0.1"}

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        """The status and the content that answer a request."""
        if (answer := self.fault(path, body)) is not None:
            return answer
        with self._lock:
            parts = [unquote(part) for part in path.strip("/").split("/")]
            if path == "/graphql":
                return 200, self._query(**json.loads(body))
            if parts[0] == "files" and parts[-1] == "file_stream":
                self.runs[parts[3]].stream(json.loads(body))
                return 200, {}
            if parts[0] == "upload" and method == "PUT":
                self._upload(parts[1], parts[2], "/".join(parts[3:]), body)
                return 200, ""
            return (200, "") if path == "/healthz" else (404, f"{method} {path}")

    def _query(self, query: str, variables: dict[str, Any] | None = None, **_: Any) -> Any:
        name = query.replace("(", " ").replace("{", " ").split()[1]
        answer = getattr(self, f"_on_{name}", None)
        if answer is None:
            self.unknown.append(query)
            return {"errors": [{"message": f"unknown: {name}"}]}
        return {"data": answer(variables or {})}

    def _upload(self, kind: str, owner: str, name: str, body: bytes) -> None:
        if kind == "run":
            self.runs[owner].files[name] = body
        elif kind == "manifest":
            self.artifacts[int(owner)].manifest = json.loads(body)
        else:
            self.artifacts[int(owner)].files[name] = body

    def _upload_url(self, kind: str, owner: str, name: str) -> dict[str, Any]:
        url = f"{self.url}/upload/{kind}/{quote(owner, safe='')}/{quote(name)}"
        return {"uploadUrl": url, "uploadHeaders": []}

    def _on_ServerFeaturesQuery(self, _: Any) -> Any:
        return {"serverInfo": {"features": []}}

    def _on_Viewer(self, _: Any) -> Any:
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        about = {"id": "user", "entity": ENTITY, "username": ENTITY, "email": "a@example.com"}
        return {"viewer": {**about, "flags": "{}", "teams": teams}}

    def _on_OrganizationCoreWeaveOrganizationID(self, _: Any) -> Any:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def _on_RunResumeStatus(self, asked: Any) -> Any:
        entity = {"id": "entity", "name": ENTITY}
        model = {"id": "project", "name": asked["project"], "entity": entity}
        run = self.runs.get(asked["name"])
        return {"model": {**model, "bucket": None if run is None else self._bucket(run)}}

    def _on_UpsertBucket(self, given: Any) -> Any:
        inserted = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], StoredRun())
        run.about |= {name: value for name, value in given.items() if value is not None}
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def _bucket(self, run: StoredRun) -> dict[str, Any]:
        about, entity = run.about, {"id": "entity", "name": ENTITY}
        history = run.streams.get("wandb-history.jsonl", [])
        events = run.streams.get("wandb-events.jsonl", [])
        return {
            "id": f"id of {about['name']}",
            "name": about["name"],
            "displayName": about.get("displayName"),
            "description": about.get("description"),
            "config": about.get("config") or "{}",
            "sweepName": None,
            "project": {"id": "project", "name": about["project"], "entity": entity},
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": len(run.streams.get("output.log", [])),
            "historyLineCount": len(history),
            "historyTail": json.dumps(history[-1:]),
            "eventsLineCount": len(events),
            "eventsTail": json.dumps(events[-1:]),
            "tags": about.get("tags"),
            "notes": about.get("notes"),
            "wandbConfig": json.dumps({"t": 1}),
        }

    def _on_ArtifactType(self, _: Any) -> Any:
        return {"project": {"artifact": None}}

    def _on_CreateRunFiles(self, given: Any) -> Any:
        files = [
            {"name": name, "uploadUrl": self._upload_url("run", given["run"], name)["uploadUrl"]}
            for name in given["files"]
        ]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _on_CreateArtifact(self, given: Any) -> Any:
        self.artifacts.append(StoredArtifact(given["input"]))
        made = {"id": str(len(self.artifacts) - 1), "state": "PENDING"}
        return {"createArtifact": {"artifact": {**made, "artifactSequence": {}}}}

    def _on_CreateArtifactManifest(self, given: Any) -> Any:
        return {"createArtifactManifest": self._manifest(given["artifactID"])}

    def _on_UpdateArtifactManifest(self, given: Any) -> Any:
        return {"updateArtifactManifest": self._manifest(given["artifactManifestID"])}

    def _manifest(self, artifact: str) -> Any:
        file = {"id": f"file {artifact}", **self._upload_url("manifest", artifact, "manifest")}
        return {"artifactManifest": {"id": artifact, "file": file}}

    def _on_CreateArtifactFiles(self, given: Any) -> Any:
        nodes = [
            {
                **self._upload_url("artifact", file["artifactID"], file["name"]),
                "storagePath": file["name"],
                "artifact": {"id": file["artifactID"]},
            }
            for file in given["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _on_CommitArtifact(self, given: Any) -> Any:
        artifact = self.artifacts[int(given["artifactID"])]
        artifact.committed = True
        digest = artifact.input["digest"]
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": digest}}}


@contextlib.contextmanager
def serving() -> Iterator[WandbServer]:
    """A server on a port of its own until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if (login := self.headers.get("Authorization", "")).startswith("Basic "):
                server.keys.add(base64.b64decode(login[6:]).decode().partition(":")[2])
            status, content = server.handle(self.command, self.path.partition("?")[0], body)
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing of a client that has gone."""
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(*_)

    with Server(("127.0.0.1", 0), Handler) as httpd:
        server = WandbServer(f"http://127.0.0.1:{httpd.server_port}")
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            httpd.shutdown()
            thread.join()
