"""Lets Temper and huggingface_hub use the same cache: what one downloads, the other finds, without asking again.

    pip install huggingface_hub==2.4.0
    python hub_cache_check.py --temper target/release/temper --model DIR

A server on this machine speaks the hub's paths and offers DIR, any model directory, as `org/name`; its weights come from
a second address, as large files do. It prints one JSON line and exits with 1 if anything is wrong.
"""

import argparse
import hashlib
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

COMMIT = "fedcba9876543210fedcba9876543210fedcba98"


def git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def send(self, status, body=b"", **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class Store(Handler):
    """Where large files are."""

    def do_GET(self):
        content = self.server.files[self.path.split("/")[-1].split("?")[0]]
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        end = int(last) + 1 if last else len(content)
        if "Range" not in self.headers:
            return self.send(200, content)
        place = f"bytes {first}-{end - 1}/{len(content)}"
        return self.send(206, content[int(first) : end], Content_Range=place)


class Hub(Handler):
    def do_GET(self):
        self.server.n_requests += 1
        path, files = self.path.split("?")[0], self.server.files
        is_large = lambda name: name.endswith(".safetensors")
        if "/tree/" in path:
            rows = [{"type": "file", "path": n, "size": len(c), "oid": git_oid(c)} for n, c in files.items()]
            for row in filter(lambda row: is_large(row["path"]), rows):
                oid = hashlib.sha256(files[row["path"]]).hexdigest()
                row["lfs"] = {"oid": oid, "size": row["size"], "pointerSize": 130}
            return self.send(200, json.dumps(rows).encode(), Content_Type="application/json")
        if path.startswith("/api/models/org/name"):
            info = {"_id": "1", "id": "org/name", "modelId": "org/name", "sha": COMMIT, "private": False, "tags": []}
            info["siblings"] = [{"rfilename": name} for name in files]
            body = json.dumps(info).encode()
            return self.send(200, body, Content_Type="application/json", X_Repo_Commit=COMMIT)
        name = path.split("/")[-1]
        if not path.startswith("/org/name/resolve/") or name not in files:
            return self.send(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        content = files[name]
        if not is_large(name):
            return self.send(200, content, ETag=f'"{git_oid(content)}"', X_Repo_Commit=COMMIT)
        place = f"http://127.0.0.1:{self.server.store.server_port}/{name}?sig=1"
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        size = str(len(content))
        return self.send(302, Location=place, X_Repo_Commit=COMMIT, X_Linked_ETag=etag, X_Linked_Size=size)


def serve(handler, files):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.files, server.n_requests = files, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--temper", default="temper", help="the binary")
    parser.add_argument("--model", required=True, type=Path, help="a model directory")
    args = parser.parse_args()
    files = {path.name: path.read_bytes() for path in args.model.iterdir() if path.is_file()}
    hub = serve(Hub, files)
    hub.store = serve(Store, files)
    address = f"http://127.0.0.1:{hub.server_port}"
    common = {"HF_ENDPOINT": address, "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def run(command, home, offline):
        """What a command prints, and how often it asks the hub."""
        env = {**os.environ, **common, "HF_HOME": home, "HF_HUB_OFFLINE": str(int(offline))}
        before = hub.n_requests
        out = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
        return out, hub.n_requests - before

    temper = [args.temper, "--quiet", "generate", "--model", "org/name", "--prompt", "Hi", "--max-new-tokens", "2", "--greedy"]
    script = "from huggingface_hub import snapshot_download as get; print(get('org/name', local_files_only={}))"
    with tempfile.TemporaryDirectory() as own, tempfile.TemporaryDirectory() as theirs:
        answer, n_own = run(temper, own, False)
        found, n_found = run([sys.executable, "-c", script.format(True)], own, True)
        downloaded = {path.name: path.read_bytes() for path in Path(found.strip()).iterdir()}
        _, n_theirs = run([sys.executable, "-c", script.format(False)], theirs, False)
        again, n_again = run(temper, theirs, True)
        good = {
            "temper_downloads": n_own > 0,
            "huggingface_hub_finds_it": n_found == 0 and all(files[name] == c for name, c in downloaded.items()),
            "huggingface_hub_downloads": n_theirs > 0,
            "temper_finds_it": n_again == 0 and again == answer,
        }
    print(json.dumps(good))
    return 0 if all(good.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
