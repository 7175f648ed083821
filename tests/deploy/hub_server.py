"""A stand-in for the Hugging Face Hub: as much of its HTTP interface as fetching and pushing need."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40


class Hub:
    """Repositories by name, each with its files, and every request that came."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[str] = []
        self.fetched: list[str] = []
        self.commits: list[str] = []
        self.readonly = False


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Inside, the hub answers at the address that this gives."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _answer(self, code: int, value=None, headers=None, content: bytes | None = None) -> None:
            body = json.dumps(value).encode() if content is None else content
            self.send_response(code)
            for name, text in (headers or {}).items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _missing(self, what: str) -> None:
            self._answer(404, {"error": what}, {"X-Error-Code": what})

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = unquote(urlsplit(self.path).path).strip("/").split("/")
            hub.asked.append(f"{self.command} {'/'.join(path)}")
            if path[:2] == ["api", "models"]:
                files = hub.repositories.get("/".join(path[2:4]))
                if files is None:
                    return self._missing("RepoNotFound")
                if path[4:5] == ["tree"]:
                    tree = [
                        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                        for name, data in files.items()
                    ]
                    return self._answer(200, tree)
                siblings = [{"rfilename": name} for name in files]
                return self._answer(200, {"id": "/".join(path[2:4]), "sha": COMMIT, "siblings": siblings})
            if path[0] == "api":
                return self._missing("EntryNotFound")
            files, revision, name = hub.repositories.get("/".join(path[:2])), path[3], "/".join(path[4:])
            if files is None:
                return self._missing("RepoNotFound")
            if revision not in ("main", COMMIT):
                return self._missing("RevisionNotFound")
            if name not in files:
                return self._missing("EntryNotFound")
            data = files[name]
            if self.command == "GET":
                hub.fetched.append(name)
            etag = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            return self._answer(200, headers=etag, content=data)

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = unquote(urlsplit(self.path).path).strip("/").split("/")
            hub.asked.append(f"POST {'/'.join(path)}")
            if hub.readonly:
                return self._answer(403, {"error": "You may not write here."})
            if path == ["api", "repos", "create"]:
                told = json.loads(body)
                name = f"{told.get('organization') or 'somebody'}/{told['name']}"
                if name in hub.repositories:
                    return self._answer(409, {"error": "exists", "url": f"{address}/{name}"})
                hub.repositories[name], hub.private[name] = {}, bool(told.get("private"))
                return self._answer(200, {"url": f"{address}/{name}", "name": name, "id": name})
            if path == ["api", "validate-yaml"]:
                return self._answer(200, {"errors": [], "warnings": []})
            name, what = "/".join(path[2:4]), path[4]
            if what == "preupload":
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                return self._answer(200, {"files": files})
            assert what == "commit", self.path
            files = hub.repositories[name]
            for line in body.decode().splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "header":
                    hub.commits.append(value["summary"])
                elif entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "deletedFile":
                    del files[value["path"]]
            page = f"{address}/{name}/commit/{COMMIT}"
            return self._answer(200, {"commitUrl": page, "commitOid": COMMIT, "success": True})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
