"""Buckets in this process's memory, at gs:// for the two ways by which programs reach them.

etils goes through fsspec's file system for gs://, which would be gcsfs; `Files` takes its place, and is like it in that
folders are no more than beginnings of names, and what was listed once is kept unless it is told not to. TensorStore
speaks HTTP, to a server that knows the requests it makes. Neither asks who is there, nor fails unless told to.
"""

import contextlib
import io
import itertools
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from etils.epath import backend
from fsspec.registry import _registry

OBJECTS: dict[str, tuple[int, bytes]] = {}
"""Generation and content by BUCKET/NAME."""
READ_ONLY = threading.Event()
_NUMBERS, _LOCK = itertools.count(1), threading.Lock()


class HttpError(Exception):
    """As gcsfs' own: no OSError."""


def put(name: str, content: bytes) -> int:
    if READ_ONLY.is_set():
        raise HttpError("403: no storage.objects.create access")
    with _LOCK:
        OBJECTS[name] = (next(_NUMBERS), content)
        return OBJECTS[name][0]


class Files(fsspec.AbstractFileSystem):
    protocol = ("gs", "gcs")
    cachable = False

    def __init__(self, *args, use_listings_cache=True, **kwargs):
        super().__init__(*args, **kwargs)
        self._kept = {} if use_listings_cache else None

    def ls(self, path, detail=True, **_):
        path = self._strip_protocol(path).strip("/")
        if self._kept is None:
            return self._listed(path, detail)
        if (path, detail) not in self._kept:
            self._kept[path, detail] = self._listed(path, detail)
        return self._kept[path, detail]

    def put(self, name, content):
        """Writes through this file system: it forgets what it listed above."""
        put(name, content)
        self._kept = self._kept and {k: v for k, v in self._kept.items() if not name.startswith(k[0])}

    def _listed(self, path, detail):
        found = {path: _about(path)} if path in OBJECTS else {}
        for name in [] if found else list(OBJECTS):
            if name.startswith(f"{path}/"):
                child = f"{path}/{name[len(path) + 1 :].split('/')[0]}"
                found[child] = _about(child)
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else sorted(found)

    def info(self, path, **_):
        path = self._strip_protocol(path).strip("/")
        self.ls(path)
        return _about(path)

    def mkdir(self, path, create_parents=True, **_): ...

    def makedirs(self, path, exist_ok=False): ...

    def rm(self, path, recursive=False, maxdepth=None):
        for name in self.find(path) or self.ls(path, detail=False):
            OBJECTS.pop(name)
        self._kept = self._kept and {}

    def cp_file(self, path1, path2, **_):
        path1, path2 = map(self._strip_protocol, (path1, path2))
        if path1 in OBJECTS:
            self.put(path2, OBJECTS[path1][1])

    def _open(self, path, mode="rb", **_):
        path = self._strip_protocol(path)
        return io.BytesIO(OBJECTS[path][1]) if mode == "rb" and self.ls(path) else _Writing(self, path)


class _Writing(io.BytesIO):
    def __init__(self, files, name):
        super().__init__()
        self._files, self._name = files, name

    def close(self):
        if not self.closed:
            content = self.getvalue()
            super().close()
            self._files.put(self._name, content)


def _about(path):
    if path in OBJECTS:
        return {"name": path, "size": len(OBJECTS[path][1]), "type": "file"}
    return {"name": path, "size": 0, "type": "directory"}


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits for the 40 ms after which the other side says it has a part

    def _answer(self, code, content=b"", **headers):
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _asked(self):
        """(bucket, object or "", options)"""
        url = urllib.parse.urlsplit(self.path)
        bucket, _, name = url.path.partition("/b/")[2].partition("/o")
        return bucket, urllib.parse.unquote(name.strip("/")), dict(urllib.parse.parse_qsl(url.query))

    def do_GET(self):
        bucket, name, options = self._asked()
        if not name:
            names = sorted(n for n in OBJECTS if n.startswith(f"{bucket}/{options.get('prefix', '')}"))
            return self._answer(200, _json(items=[_metadata(n) for n in names if n in OBJECTS]))
        generation, content = OBJECTS.get(f"{bucket}/{name}", (0, b""))
        if not generation:
            return self._answer(404)
        if options.get("ifGenerationNotMatch") == str(generation):
            return self._answer(304)
        headers = {"x_goog_generation": str(generation)}
        if "Range" not in self.headers:
            return self._answer(200, content, **headers)
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        size, first, last = len(content), int(first), int(last or len(content) - 1)
        part = content[first : last + 1]
        return self._answer(206, part, Content_Range=f"bytes {first}-{first + len(part) - 1}/{size}", **headers)

    def do_POST(self):
        bucket, _, options = self._asked()
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = f"{bucket}/{options['name']}"
        if options.get("ifGenerationMatch", (now := str(OBJECTS.get(name, (0,))[0]))) != now:
            return self._answer(412)
        try:
            put(name, content)
        except HttpError:
            return self._answer(403)
        return self._answer(200, _json(**_metadata(name)))

    def do_DELETE(self):
        bucket, name, _ = self._asked()
        return self._answer(204 if OBJECTS.pop(f"{bucket}/{name}", None) else 404)

    def log_message(self, *_): ...


def _metadata(name):
    generation, content = OBJECTS[name]
    time = "2020-01-01T00:00:00.000Z"
    about = {"generation": str(generation), "metageneration": "1", "size": str(len(content))}
    bucket, _, inner = name.partition("/")
    return {"name": inner, "bucket": bucket, "timeCreated": time, "updated": time, **about}


def _json(**data):
    return json.dumps(data).encode()


@contextlib.contextmanager
def buckets():
    """Buckets at gs:// while the block runs; every name of a bucket is one, and empty."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Requests)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("GCE_METADATA_ROOT", f"127.0.0.1:{server.server_port}")  # or it looks for Google's machines
        for name in Files.protocol:
            patch.setitem(_registry, name, Files)
        backend.fsspec_backend._get_filesystem.cache_clear()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            OBJECTS.clear()
            READ_ONLY.clear()
            backend.fsspec_backend._get_filesystem.cache_clear()
