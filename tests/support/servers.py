"""An S3 server (moto) and a Hugging Face Hub in little, on this machine's loopback."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@contextmanager
def s3():
    """Serve S3; the variables of the environment under which drivers find it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.stop()


@contextmanager
def hub(repository, folder):
    """Serve the files of a folder as a data set of the Hub, without credentials."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            api = f"/api/datasets/{repository}"
            if path.startswith(f"{api}/tree/"):
                self._send(json.dumps(entries(path.split("/tree/")[1].partition("/")[2])))
            elif path.startswith(f"{api}/revision/") or path == api:
                self._send(json.dumps({"id": repository, "sha": "0" * 40}))
            elif path.startswith(f"/datasets/{repository}/resolve/"):
                self._send_file(folder / path.split("/resolve/")[1].partition("/")[2])
            else:
                self.send_error(404)

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def do_POST(self):
            asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
            names = [unquote(part[6:]) for part in asked.split("&") if part.startswith("paths=")]
            names = names or json.loads(asked).get("paths", [])
            self._send(json.dumps([entry for entry in entries() if entry["path"] in names]))

        def _send_file(self, path):
            data = path.read_bytes()
            first, last, status = 0, len(data) - 1, 200
            if asked := self.headers.get("Range"):
                low, high = asked.removeprefix("bytes=").split("-")
                first, last, status = int(low), min(int(high or last), last), 206
            self.send_response(status)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("ETag", '"1"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[first : last + 1])

        def _send(self, text):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    def entries(below=""):
        listed = []
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if name.startswith(below) and name != below:
                kind = "directory" if path.is_dir() else "file"
                size = 0 if path.is_dir() else path.stat().st_size
                listed.append({"type": kind, "oid": "1" * 40, "size": size, "path": name})
        return listed

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}"}
    finally:
        server.shutdown()
        server.server_close()
