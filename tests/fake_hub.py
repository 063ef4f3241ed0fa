"""A Hub on localhost: as much of the protocol as the real client uses, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
LFS_SUFFIXES = (".zip", ".bin")


@dataclass
class Repo:
    """Files by path of each commit, commits by name of each branch and tag."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], *refs: str) -> str:
        digest = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[digest] = files
        self.refs.update(dict.fromkeys(("main", *refs), digest))
        return digest

    def resolve(self, revision: str) -> str | None:
        revision = self.refs.get(revision, revision)
        return revision if revision in self.commits else None


@dataclass
class FakeHub:
    """What it holds, what was asked of it, and what goes wrong.

    Attributes
    ----------
    requests : list of (method, path, Range header)
    cuts : bytes after which the next answers with a file's content break off
    corrupt : names of files whose content arrives with one flipped bit
    holds : by name of a file, an event to wait for half way through its content
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    holds: dict[str, threading.Event] = field(default_factory=dict)

    def add(self, repo: str, files: dict[str, bytes], *refs: str) -> str:
        return self.repos.setdefault(repo, Repo()).commit(files, *refs)

    def fetched(self, name: str) -> list[str | None]:
        """Range headers of all requests for the content of a file."""
        return [r for method, path, r in self.requests if method == "GET" and path.endswith(name)]


@contextmanager
def serve_hub():
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        for event in hub.holds.values():
            event.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        pass

    def do_GET(self):
        path = self._path()
        for pattern, action in (
            (r"/api/datasets/(.+)/revision/([^/]+)", self._info),
            (r"/api/datasets/(.+)/tree/([^/]+)", self._tree),
            (r"/api/datasets/(.+)/refs", self._refs),
            (r"/datasets/(.+)/resolve/([^/]+)/(.+)", self._resolve),
            (r"/cdn/[0-9a-f]{64}/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", self._content),
        ):
            if match := re.fullmatch(pattern, path):
                return action(*match.groups())
        return self._refuse(404, "RepoNotFound")

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        path = self._path()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, None, "Invalid username or password.")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        for pattern, action in (
            (r"/api/datasets/(.+)/preupload/main", self._preupload),
            (r"/datasets/(.+)\.git/info/lfs/objects/batch", self._lfs_batch),
            (r"/api/datasets/(.+)/commit/main", self._commit),
            (r"/api/datasets/(.+)/tag/([^/]+)", self._tag),
        ):
            if match := re.fullmatch(pattern, path):
                return action(body, *match.groups())
        return self._refuse(404, "RepoNotFound")

    def do_PUT(self):
        oid = self._path().removeprefix("/lfs/")
        self.hub.objects[oid] = self.rfile.read(int(self.headers["Content-Length"]))
        self._json({})

    # Reading

    def _info(self, repo, revision):
        if commit := self._known(repo, revision):
            self._json({"id": repo, "sha": commit, "siblings": [], "tags": []})

    def _tree(self, repo, revision):
        if commit := self._known(repo, revision):
            files = self.hub.repos[repo].commits[commit]
            self._json([_tree_entry(name, content) for name, content in files.items()])

    def _refs(self, repo):
        if repo not in self.hub.repos:
            return self._refuse(404, "RepoNotFound")
        refs = [
            {"name": name, "ref": name, "targetCommit": commit}
            for name, commit in self.hub.repos[repo].refs.items()
        ]
        branches = [ref for ref in refs if ref["name"] == "main"]
        tags = [ref for ref in refs if ref["name"] != "main"]
        return self._json({"branches": branches, "tags": tags, "converts": []})

    def _resolve(self, repo, revision, name):
        if not (commit := self._known(repo, revision)):
            return None
        content = self.hub.repos[repo].commits[commit].get(name)
        if content is None:
            return self._refuse(404, "EntryNotFound", commit=commit)
        if not name.endswith(LFS_SUFFIXES):
            return self._content(repo, commit, name)
        # Large files lie elsewhere, as on the real Hub.
        oid = hashlib.sha256(content).hexdigest()
        self.send_response(302)
        self.send_header("Location", f"{self.hub.url}/cdn/{oid}/{repo}/{commit}/{name}")
        self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Linked-Etag", f'"{oid}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def _content(self, repo, commit, name):
        content = self.hub.repos[repo].commits[commit][name]
        # By its length the client knows a checksum of the content, and keeps a file that has it.
        digest = hashlib.sha256 if name.endswith(LFS_SUFFIXES) else hashlib.sha1
        etag = digest(content).hexdigest()
        start = 0
        if requested := self.headers.get("Range"):
            start = int(re.fullmatch(r"bytes=(\d+)-", requested)[1])
        self.send_response(206 if requested else 200)
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self._send(name, content[start:])

    def _send(self, name, content):
        if name in self.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if cuts := self.hub.cuts.get(name):
            self.wfile.write(content[: cuts.pop(0)])
            self.close_connection = True
            return
        half = len(content) // 2
        self.wfile.write(content[:half])
        if event := self.hub.holds.get(name):
            event.wait(60)
        self.wfile.write(content[half:])

    # Writing

    def _create(self, request):
        repo = f"{request['organization']}/{request['name']}"
        self.hub.add(repo, {".gitattributes": b"*.zip filter=lfs\n"})
        self._json({"url": f"{self.hub.url}/datasets/{repo}"})

    def _preupload(self, body, _repo):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _lfs_batch(self, body, _repo):
        objects = [
            {**entry, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{entry['oid']}"}}}
            for entry in json.loads(body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, body, repo):
        stored = self.hub.repos[repo]
        files = dict(stored.commits[stored.refs["main"]])
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        commit = stored.commit(files)
        url = f"{self.hub.url}/datasets/{repo}/commit/{commit}"
        self._json({"commitUrl": url, "commitOid": commit})

    def _tag(self, body, repo, revision):
        self.hub.repos[repo].refs[json.loads(body)["tag"]] = revision
        self._json({})

    # Common

    def _path(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        return path

    def _known(self, repo, revision):
        if repo not in self.hub.repos:
            return self._refuse(404, "RepoNotFound")
        commit = self.hub.repos[repo].resolve(revision)
        return commit or self._refuse(404, "RevisionNotFound")

    def _refuse(self, status, code, message=None, commit=None):
        self.send_response(status)
        for name, value in (
            ("X-Error-Code", code),
            ("X-Error-Message", message),
            ("X-Repo-Commit", commit),
        ):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _tree_entry(name, content):
    entry = {"type": "file", "path": name, "size": len(content)}
    entry["oid"] = hashlib.sha1(content).hexdigest()
    if name.endswith(LFS_SUFFIXES):
        oid = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
    return entry
