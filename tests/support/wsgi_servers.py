"""Every WSGI server that is worth a test, as a real process, in the same form as those of `servers`.

`SERVERS` names them all, one entry per way of running one: a server's modes differ in what they do with a file. Each
takes an application as `module:name`. Servers without a command line of their own are run by `run`, at the end of this
module. Linux only.

What cannot be had is told by `UNAVAILABLE`, and nothing else is missing: there are no silent gaps in a matrix of
servers.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tests.support import servers
from tests.support.servers import ROOT, Server, ServerFailed, certificate, run_server

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = [
    "APACHE_MODULES",
    "SERVERS",
    "UNAVAILABLE",
    "Kind",
    "a2wsgi",
    "apache",
    "apache_configuration",
    "bjoern",
    "cheroot",
    "django",
    "eventlet",
    "gevent",
    "granian",
    "held_port",
    "hello",
    "mod_wsgi",
    "start",
    "twisted",
    "uwsgi",
    "version",
    "waitress",
    "werkzeug",
    "wsgiref",
]

#: Where Debian keeps Apache's modules.
APACHE_MODULES = Path("/usr/lib/apache2/modules")

_Block = contextlib.AbstractContextManager[Server]


class Start(Protocol):
    """Starts a server around an application."""

    def __call__(self, app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
        """Start it, see `servers.run_server`.

        Args:
            app: The application's import string, `module:name`.
            args: More arguments of its command line; lines of configuration for Apache.
            env: More environment variables.
        """


# --- one small function per server ------------------------------------------------------------------------------------


@contextlib.contextmanager
def uwsgi(
    app: str, *args: str, protocol: str = "http-socket", env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """uWSGI, by the `pyuwsgi` wheel; `Server.pid` is the master.

    Args:
        app: The application's import string.
        args: More options.
        protocol: The option that listens: http-socket (the worker closes every connection), http11-socket (it keeps
            them) or http (a process of its own in front of the worker, told here to keep them).
        env: More environment variables.
    """
    with held_port() as port:
        argv = [sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()", "--master", "--die-on-term", "--need-app"]
        # Without the threads option uWSGI never releases the interpreter's lock.
        argv += ["--enable-threads", "--reuse-port", f"--{protocol}", f"127.0.0.1:{port}", "--module", app]
        if protocol == "http":
            argv.append("--http-keepalive")
        ready = servers.log_has("spawned uWSGI http" if protocol == "http" else "spawned uWSGI worker")
        with run_server([*argv, *args], port=port, ready=ready, env=env) as server:
            yield server


@contextlib.contextmanager
def mod_wsgi(app: str, *args: str, daemon: bool = False, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Debian's Apache with the `mod_wsgi` that pip built for this interpreter; `Server.pid` is Apache's parent process.

    Args:
        app: The application's import string.
        args: More lines of configuration, such as `WSGIEnableSendfile On`: without it Apache maps and writes the file.
        daemon: Whether the application runs in a process of its own, or else within Apache's.
        env: More environment variables.
    """

    def lines(home: Path, port: int) -> list[str]:
        module, _, name = app.partition(":")
        Path(home, "application.wsgi").write_text(f"from {module} import {name} as application\n")
        return [*apache_configuration(home, port), *_mod_wsgi_configuration(home, daemon), *args]

    with apache(lines, env=env) as server:
        yield server


@contextlib.contextmanager
def apache(lines: Callable[[Path, int], list[str]], *, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Debian's Apache; `Server.pid` is its parent process.

    Args:
        lines: Gives the configuration for a directory of the server's own and a port.
        env: More environment variables.
    """
    program = shutil.which("apache2") or shutil.which("apache2", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise ServerFailed("apache2 is not installed")
    # Apache serves nothing as root; an ordinary user, though, could not read what tests that run as root have written.
    user = 65534 if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="apache-") as directory, held_port(user) as port:
        home = Path(directory)
        Path(home, "apache.conf").write_text("\n".join([*lines(home, port), ""]))
        argv = [program, "-D", "FOREGROUND", "-f", str(home / "apache.conf")]
        if user is not None:
            os.chown(home, user, user)
            more = "+dac_override,+dac_read_search"
            as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
            argv = [*as_user, f"--inh-caps={more}", f"--ambient-caps={more}", *argv]
        ready = servers.log_has("resuming normal operations")
        with run_server(argv, port=port, ready=ready, env=env) as server:
            yield server


def apache_configuration(home: Path, port: int) -> list[str]:
    """What every Apache of the tests is told."""
    return [
        f"ServerRoot {home}",
        f"DefaultRuntimeDir {home}",
        f"PidFile {home}/pid",
        "ServerName localhost",
        f"Listen 127.0.0.1:{port}",
        # With any ratio Apache binds with SO_REUSEPORT, and with a large one it still has a single listener.
        "ListenCoresBucketsRatio 1000",
        "ErrorLog /dev/stderr",
        f"LoadModule mpm_event_module {APACHE_MODULES}/mod_mpm_event.so",
        f"LoadModule authz_core_module {APACHE_MODULES}/mod_authz_core.so",
        # One process, so that a trace or a look at memory has one place to look at.
        "ServerLimit 1",
        "StartServers 1",
        "ThreadsPerChild 16",
        "MaxRequestWorkers 16",
        "MaxKeepAliveRequests 0",
        "MinSpareThreads 1",
        "MaxSpareThreads 16",
        "EnableSendfile On",
    ]


def _mod_wsgi_configuration(home: Path, daemon: bool) -> list[str]:
    lines = [
        f"LoadModule wsgi_module {_mod_wsgi_library()}",
        f"WSGIPythonHome {sys.prefix}",
        f"WSGIPythonPath {ROOT}",
        f"WSGIScriptAlias / {home}/application.wsgi",
        "WSGIApplicationGroup %{GLOBAL}",
        f"<Directory {home}>",
        "Require all granted",
        "</Directory>",
    ]
    if daemon:
        lines += [
            f"WSGISocketPrefix {home}/wsgi",
            f"WSGIDaemonProcess application python-home={sys.prefix} python-path={ROOT} home={ROOT} threads=8",
            "WSGIProcessGroup application",
        ]
    return lines


def _mod_wsgi_library() -> Path:
    # The package can tell by itself, but warns that the module which does is on its way out.
    found = importlib.util.find_spec("mod_wsgi")
    for place in found.submodule_search_locations or () if found else ():
        for library in Path(place).rglob("mod_wsgi-py*.so"):
            return library
    raise ServerFailed("mod_wsgi is not installed")


def waitress(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """waitress."""
    argv = [sys.executable, "-m", "waitress", "--listen=127.0.0.1:0", *args, app]
    # It stops cleanly on Ctrl-C only.
    return run_server(argv, env=env, how_to_stop=signal.SIGINT)


def twisted(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """Twisted's web server, which runs WSGI applications in threads."""
    argv = [sys.executable, "-m", "twisted", "web", "--listen", "tcp:0:interface=127.0.0.1"]
    return run_server([*argv, "--wsgi", app.replace(":", "."), *args], announced=r'"Site starting on (\d+)"', env=env)


def a2wsgi(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """a2wsgi's middleware on uvicorn."""
    factory = "tests.support.wsgi_servers:_as_asgi"
    return servers.uvicorn(factory, "--factory", *args, env={**(env or {}), "A2WSGI_APP": app})


def granian(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """granian's WSGI side; `Server.pid` is the master."""
    return servers.granian(app, *args, interface="wsgi", env=env)


def cheroot(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """cheroot, the server of CherryPy."""
    return _run_here("cheroot", app, *args, env=env)


def bjoern(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """bjoern."""
    return _run_here("bjoern", app, *args, env=env)


def wsgiref(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """The standard library's server: HTTP/1.0, one request at a time."""
    return _run_here("wsgiref", app, *args, env=env)


def werkzeug(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """Werkzeug's development server with threads, which is what makes it answer as HTTP/1.1; `flask run` is this."""
    return _run_here("werkzeug", app, *args, env=env)


def django(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """Django's development server, without the reloader."""
    return _run_here("django", app, *args, env=env)


def gevent(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """gevent's own server, with the standard library patched."""
    return _run_here("gevent", app, *args, first="from gevent import monkey; monkey.patch_all()", env=env)


def eventlet(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """eventlet's own server, with the standard library patched."""
    # Its resolver imports dnspython, which imports whatever HTTP client it finds, and trio breaks when it is patched.
    env = {"EVENTLET_NO_GREENDNS": "yes", **(env or {})}
    return _run_here("eventlet", app, *args, first="import eventlet; eventlet.monkey_patch()", env=env)


def _run_here(name: str, app: str, *args: str, first: str = "pass", env: Mapping[str, str] | None = None) -> _Block:
    """Run a server that has no command of its own by `run`.

    Args:
        name: Its name in `_RUNNERS`.
        app: The application's import string.
        args: More arguments; there are none that any of them knows.
        first: A statement that has to run before anything is imported.
        env: More environment variables.
    """
    script = f"{first}; from tests.support.wsgi_servers import run; run()"
    return run_server([sys.executable, "-c", script, name, app, *args], env=env, how_to_stop=signal.SIGINT)


@contextlib.contextmanager
def held_port(user: int | None = None) -> Iterator[int]:
    """A port that nobody else gets: held by a socket bound with SO_REUSEPORT, for a server that binds the same way.

    Args:
        user: The server's user, when it is not this process's: the kernel shares a port among one user's sockets only.
    """
    with socket.socket() as holder:
        if user is not None:
            os.fchown(holder.fileno(), user, -1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


# --- all of them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of running one server.

    Attributes:
        start: Starts it.
        distribution: The distribution that it comes from, or None for the standard library.
        keeps_alive: Whether it takes a second request on a connection.
        tls: Whether it speaks TLS.
    """

    start: Start
    distribution: str | None
    keeps_alive: bool = True
    tls: bool = False


def _gunicorn(app: str, *args: str, worker_class: str, env: Mapping[str, str] | None = None) -> _Block:
    return servers.gunicorn(app, *args, worker_class=worker_class, env=env)


def _gunicorn_tls(app: str, *args: str, http2: bool, env: Mapping[str, str] | None = None) -> _Block:
    # Only threads and greenlets have HTTP/2.
    more = ["--http-protocols", "h2,h1"] if http2 else []
    return servers.gunicorn(app, *more, *args, worker_class="gthread", tls=certificate(), env=env)


def _uwsgi_offload(app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    return uwsgi(app, "--offload-threads", "2", *args, env=env)


SERVERS: dict[str, Kind] = {
    "gunicorn sync": Kind(functools.partial(_gunicorn, worker_class="sync"), "gunicorn", keeps_alive=False),
    "gunicorn gthread": Kind(functools.partial(_gunicorn, worker_class="gthread"), "gunicorn"),
    "gunicorn gevent": Kind(functools.partial(_gunicorn, worker_class="gevent"), "gunicorn"),
    "gunicorn tls": Kind(functools.partial(_gunicorn_tls, http2=False), "gunicorn", tls=True),
    "gunicorn http2": Kind(functools.partial(_gunicorn_tls, http2=True), "gunicorn", tls=True),
    "uwsgi http-socket": Kind(uwsgi, "pyuwsgi", keeps_alive=False),
    "uwsgi http11-socket": Kind(functools.partial(uwsgi, protocol="http11-socket"), "pyuwsgi"),
    "uwsgi router": Kind(functools.partial(uwsgi, protocol="http"), "pyuwsgi"),
    "uwsgi offload": Kind(_uwsgi_offload, "pyuwsgi", keeps_alive=False),
    "mod_wsgi embedded": Kind(mod_wsgi, "mod_wsgi"),
    "mod_wsgi daemon": Kind(functools.partial(mod_wsgi, daemon=True), "mod_wsgi"),
    "waitress": Kind(waitress, "waitress"),
    "cheroot": Kind(cheroot, "cheroot"),
    "bjoern": Kind(bjoern, "bjoern"),
    "wsgiref": Kind(wsgiref, None, keeps_alive=False),
    "werkzeug": Kind(werkzeug, "werkzeug", keeps_alive=False),
    "django": Kind(django, "django"),
    "gevent": Kind(gevent, "gevent"),
    "eventlet": Kind(eventlet, "eventlet"),
    "a2wsgi": Kind(a2wsgi, "a2wsgi"),
    "granian": Kind(granian, "granian"),
    "twisted": Kind(twisted, "twisted"),
}

#: What this interpreter cannot have, and why; every other server is there, or its test fails.
UNAVAILABLE: dict[str, str] = {
    "meinheld": "meinheld 1.0.2, its last release, wants greenlet < 0.5, which compiles on no CPython from 3.11 on",
}


def start(name: str, app: str, *args: str, env: Mapping[str, str] | None = None) -> _Block:
    """Start a server by its name in `SERVERS`."""
    return SERVERS[name].start(app, *args, env=env)


def version(name: str) -> str:
    """The installed release of a server in `SERVERS`; Python's, for the standard library's server.

    Raises:
        ServerFailed: It is not installed.
    """
    distribution = SERVERS[name].distribution
    if distribution is None:
        return platform.python_version()
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise ServerFailed(f"{distribution} is not installed") from None


# --- in the server's process ------------------------------------------------------------------------------------------


def _load(app: str) -> WSGIApplication:
    module, _, name = app.partition(":")
    loaded: WSGIApplication = getattr(importlib.import_module(module), name)
    return loaded


def _as_asgi() -> Any:
    from a2wsgi import WSGIMiddleware

    # It has types of its own for the same protocol.
    application: Any = _load(os.environ["A2WSGI_APP"])
    return WSGIMiddleware(application)


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The smallest application: tells the variable `WSGI_HELLO` and the interpreter that runs it."""
    body = f"{os.environ.get('WSGI_HELLO', 'hello')} from {sys.prefix}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def _announce(port: int) -> None:
    print(f"Running on http://127.0.0.1:{port}", flush=True)


def _run_cheroot(app: str) -> None:
    from cheroot.wsgi import Server as CherootServer

    server = CherootServer(("127.0.0.1", 0), _load(app))
    server.prepare()
    _announce(server.bind_addr[1])
    try:
        server.serve()
    finally:
        server.stop()


def _run_bjoern(app: str) -> None:
    import bjoern

    application = _load(app)
    _announce(bjoern.listen(application, "127.0.0.1", 0).getsockname()[1])
    bjoern.run()


def _run_wsgiref(app: str) -> None:
    from wsgiref.simple_server import make_server

    with make_server("127.0.0.1", 0, _load(app)) as server:
        _announce(server.server_port)
        server.serve_forever()


def _run_werkzeug(app: str) -> None:
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, _load(app), threaded=True)
    _announce(server.port)
    server.serve_forever()


def _run_django(app: str) -> None:
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(DEBUG=True, WSGI_APPLICATION=app.replace(":", "."))
    django.setup()
    call_command("runserver", "127.0.0.1:0", use_reloader=False, skip_checks=True)


def _run_gevent(app: str) -> None:
    from gevent.pywsgi import WSGIServer

    server = WSGIServer(("127.0.0.1", 0), _load(app))
    server.start()
    _announce(server.server_port)
    server.serve_forever()


def _run_eventlet(app: str) -> None:
    import eventlet
    import eventlet.wsgi

    application = _load(app)
    listener = eventlet.listen(("127.0.0.1", 0))
    _announce(listener.getsockname()[1])
    eventlet.wsgi.server(listener, application)


_RUNNERS: dict[str, Callable[[str], None]] = {
    "bjoern": _run_bjoern,
    "cheroot": _run_cheroot,
    "django": _run_django,
    "eventlet": _run_eventlet,
    "gevent": _run_gevent,
    "werkzeug": _run_werkzeug,
    "wsgiref": _run_wsgiref,
}


def run() -> None:
    """Serve, by `sys.argv`: a name in `_RUNNERS` and an application. Ctrl-C ends it."""
    name, app = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        _RUNNERS[name](app)
