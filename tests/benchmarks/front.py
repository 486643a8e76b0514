"""An application with nginx in front, as one process with children: what both use is measured together.

python -m tests.benchmarks.front DIRECTORY SERVER APP offloaded|proxied
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.support import servers, wsgi_servers
from tests.support.front_servers import FRONTS
from zcresponse.bench.servers import FILES

_OURS = "zcresponse.uvicorn:ZeroCopyHttpToolsProtocol"


def main() -> None:
    """Run both until SIGTERM."""
    place, server, app, how = sys.argv[1:]
    directory = Path(place)
    env = {FILES: place}
    if how == "offloaded":
        env |= FRONTS["nginx"].environment(directory)
    # The documentation's configuration: nginx sends the file, or passes on what the application sends.
    if server == "uvicorn":
        application = servers.uvicorn(
            app, "--no-access-log", loop="uvloop", http="httptools" if how == "offloaded" else _OURS, env=env
        )
    else:
        application = wsgi_servers.start(server, app, env=env)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with application as behind, FRONTS["nginx"].start(behind.port, directory) as front:
        print(f"http://127.0.0.1:{front.port}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
