"""An application with nginx in front, as one process with children: what both use is measured together.

python -m tests.benchmarks.front DIRECTORY PEER
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.benchmarks.peers import BEHIND
from tests.support.front_servers import FRONTS


def main() -> None:
    """Run both until SIGTERM."""
    directory, name = Path(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with BEHIND[name](directory) as behind, FRONTS["nginx"].start(behind.port, directory) as front:
        print(f"http://127.0.0.1:{front.port}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
