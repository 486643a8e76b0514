"""Front servers that send what an application names: the documentation's own configurations, on real processes.

Each takes the address of an application and the directory that stands for `/srv/media`. Linux only.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.support import servers
from tests.support.servers import ROOT, Server, ServerFailed, descendants, run_server
from tests.support.wsgi_servers import APACHE_MODULES, apache_configuration, held_port
from tests.support.wsgi_servers import apache as run_apache
from tests.support.wsgi_servers import mod_wsgi as run_mod_wsgi

__all__ = ["FRONTS", "Front", "apache", "caddy", "lighttpd", "mod_wsgi", "nginx", "senders"]

_EXAMPLES = ROOT / "examples/offload"

#: What the documentation has for the application, and for its files.
_APP, _FILES = "127.0.0.1:8000", "/srv/media"


def _configuration(name: str, places: dict[str, str]) -> str:
    """The documentation's text, with other words in some places."""
    text = (_EXAMPLES / name).read_text()
    for old, new in places.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    return text


def _places(app_port: int, directory: Path) -> dict[str, str]:
    return {_APP: f"127.0.0.1:{app_port}", _FILES: str(directory)}


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ServerFailed(f"{name} is not installed")
    return found


@contextlib.contextmanager
def nginx(app_port: int, directory: Path) -> Iterator[Server]:
    """nginx with one worker, on a socket that it inherits."""
    with tempfile.TemporaryDirectory(prefix="nginx-") as home, servers.listening_socket() as listener:
        port = listener.getsockname()[1]
        config = Path(home, "nginx.conf")
        config.write_text(
            servers.nginx_main(home)
            + f"http {{ {servers.nginx_paths(home)} access_log off; default_type application/octet-stream;\n"
            # Another site, which comes first.
            f"server {{ listen 127.0.0.1:{port}; server_name other.example; return 421; }}\n"
            + _configuration("nginx.conf", {**_places(app_port, directory), "listen 80 ": f"listen 127.0.0.1:{port} "})
            + "}\n"
        )
        argv = [_program("nginx"), "-p", home, "-c", str(config)]
        ready = servers.log_has("start worker process ")
        env, fds = {"NGINX": f"{listener.fileno()};"}, [listener.fileno()]
        with run_server(argv, port=port, ready=ready, env=env, pass_fds=fds) as server:
            listener.close()
            yield server


@contextlib.contextmanager
def apache(app_port: int, directory: Path) -> Iterator[Server]:
    """Apache as a proxy, with mod_xsendfile."""

    def lines(home: Path, port: int) -> list[str]:
        modules = [
            f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in ("proxy", "proxy_http", "xsendfile")
        ]
        text = _configuration("apache.conf", {**_places(app_port, directory), "*:80": f"127.0.0.1:{port}"})
        return [*apache_configuration(home, port), *modules, text]

    with run_apache(lines) as server:
        yield server


def mod_wsgi(app: str, site: Path, *, daemon: bool) -> AbstractContextManager[Server]:
    """Apache with an application in it, and the documentation's lines on mod_xsendfile."""
    text = _configuration("apache.conf", {_FILES: f"{site}/media"})
    lines = [line.strip() for line in text.splitlines() if re.match(" *(XSendFile|EnableSendfile|FileETag)", line)]
    modules = [f"LoadModule xsendfile_module {APACHE_MODULES}/mod_xsendfile.so"]
    env = {"OFFLOAD_FILES": str(site), **FRONTS["apache"].environment(site / "media")}
    return run_mod_wsgi(app, *modules, *lines, daemon=daemon, env=env)


@contextlib.contextmanager
def lighttpd(app_port: int, directory: Path) -> Iterator[Server]:
    """lighttpd, on a socket that it inherits as from systemd."""
    with tempfile.TemporaryDirectory(prefix="lighttpd-") as home, servers.listening_socket() as listener:
        port = listener.getsockname()[1]
        places = {'"port" => 8000': f'"port" => {app_port}', _FILES: str(directory), "/var/www/html": home}
        places |= {"0.0.0.0": "127.0.0.1", "server.port = 80": f"server.port = {port}"}
        config = Path(home, "lighttpd.conf")
        text = _configuration("lighttpd.conf", places)
        config.write_text(f'{text}server.systemd-socket-activation = "enable"\nserver.errorlog = "/dev/stderr"\n')
        # The inherited socket has to be number 3, and its process to be told by its number.
        start = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()))"
        argv = [sys.executable, "-c", f"{start}; os.execv(sys.argv[2], sys.argv[2:])", str(listener.fileno())]
        argv += [_program("lighttpd"), "-D", "-f", str(config)]
        env, fds = {"LISTEN_FDS": "1"}, [listener.fileno()]
        with run_server(argv, port=port, ready=servers.log_has("server started"), env=env, pass_fds=fds) as server:
            listener.close()
            yield server


@contextlib.contextmanager
def caddy(app_port: int, directory: Path) -> Iterator[Server]:
    """Caddy, which binds as others may too."""
    with tempfile.TemporaryDirectory(prefix="caddy-") as home, held_port() as port:
        config = Path(home, "Caddyfile")
        config.write_text(
            "{\n\tadmin off\n\tauto_https off\n\tdefault_bind 127.0.0.1\n}\n"
            + _configuration("Caddyfile", {**_places(app_port, directory), ":80 {": f":{port} {{"})
        )
        argv = [_program("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
        with run_server(argv, port=port, env={"HOME": home}) as server:
            yield server


@dataclass(frozen=True, slots=True)
class Front:
    """One front server.

    Attributes:
        start: Starts it in front of the application at a port, for a directory.
        setting: What the application is told, for that directory.
    """

    start: Callable[[int, Path], AbstractContextManager[Server]]
    setting: str

    def environment(self, directory: Path) -> dict[str, str]:
        """What the application is started with."""
        return {"ZCRESPONSE_OFFLOAD": self.setting.replace(_FILES, str(directory))}


FRONTS = {
    "nginx": Front(nginx, "X-Accel-Redirect /srv/media=/_media"),
    "apache": Front(apache, "X-Sendfile /srv/media"),
    "lighttpd": Front(lighttpd, "X-Sendfile /srv/media"),
    "caddy": Front(caddy, "X-Sendfile /srv/media"),
}


def senders(server: Server) -> set[int]:
    """The processes of a server that talk to clients."""
    return descendants(server.pid) or {server.pid}
