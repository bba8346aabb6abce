"""Real servers for the tests of remote shards: nginx, and Python's own with faults to order."""

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_CONF = """
daemon off; pid {prefix}/pid; error_log {prefix}/error.log; worker_processes 1; {user}
events {{ worker_connections 256; }}
http {{
    access_log {prefix}/access.log;
    client_body_temp_path {prefix}/a; proxy_temp_path {prefix}/b; fastcgi_temp_path {prefix}/c;
    uwsgi_temp_path {prefix}/d; scgi_temp_path {prefix}/e;
    default_type application/octet-stream; gzip on; gzip_types *; gzip_min_length 1;
    server {{
        listen 127.0.0.1:{port}; root {root};
        location /old/ {{ return 301 http://127.0.0.1:{port}/new/$uri; }}
        location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
        location /secret/ {{ return 403; }}
        location /round/ {{ return 302 http://127.0.0.1:{port}$uri; }}
    }}
}}
"""


def _program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def nginx_missing() -> str:
    """Why nginx cannot be run here, or nothing. Under CI=true it must be there."""
    if _program() or os.environ.get("CI") == "true":
        return ""
    return "nginx is missing; on Debian: apt-get install nginx"


@contextmanager
def nginx(root: Path, prefix: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """(The address of `root`, what it was asked for: a line such as "GET /x.tar 206" each)."""
    prefix.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # As root, nginx's workers become nobody, who may not see a test's folder
    user = "user root;" if os.geteuid() == 0 else ""
    (prefix / "nginx.conf").write_text(_CONF.format(prefix=prefix, root=root, port=port, user=user))
    command = [str(_program()), "-c", str(prefix / "nginx.conf"), "-p", str(prefix), "-e", str(prefix / "error.log")]
    with subprocess.Popen(command) as server:
        try:
            _until(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
            yield f"http://127.0.0.1:{port}", lambda: _asked(prefix / "access.log")
        finally:
            server.terminate()


def _asked(log: Path) -> list[str]:
    return [f"{verb} {path} {status}" for verb, path, status in re.findall(r'"(\w+) (\S+) \S+" (\d+)', log.read_text())]


def _until(works: Callable[[], Any]) -> None:
    for _ in range(400):
        try:
            return works()
        except OSError:
            time.sleep(0.02)
    raise TimeoutError


class Plain(SimpleHTTPRequestHandler):
    """A server without ranges, quiet about it. `asked` are the paths; `fault` may answer in its stead: True."""

    asked: list[str]
    fault: Callable[["Plain"], bool]

    def __init__(self, asked: list[str], fault: Callable[["Plain"], bool], *args: Any, **options: Any) -> None:
        self.asked, self.fault = asked, fault
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        with suppress(ConnectionError):  # of one who had enough
            if not self.fault(self):
                super().do_GET()

    def body(self) -> bytes:
        return Path(self.translate_path(self.path)).read_bytes()

    def ranged(self, change: Callable[[int, bytes], bytes] = lambda low, data: data, cut: int | None = None) -> bool:
        """Answers the range that is asked for, changed; after `cut` bytes of it the line goes dead."""
        low, high = map(int, re.findall(r"\d+", self.headers["Range"]))
        data = change(low, self.body()[low : high + 1])
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:cut])
        self.close_connection = True
        return True

    def says(self, status: int, text: bytes = b"", kind: str = "text/plain") -> bool:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        return True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def plain(root: Path, fault: Callable[[Plain], bool] = lambda request: False) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Plain, asked, fault, directory=root)) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
