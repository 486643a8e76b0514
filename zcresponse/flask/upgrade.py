"""A switch for a whole Flask application."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from flask import Flask, Response
from werkzeug.wsgi import FileWrapper

from zcresponse.arguments import check_delivery
from zcresponse.events import OnTransfer
from zcresponse.flask.response import Joined
from zcresponse.flask.static import StaticFolders
from zcresponse.plan.offload import SETTING, offload_of
from zcresponse.plan.static import StaticOptions
from zcresponse.wsgi.wrappers import ShownFileWrapper

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["ZeroCopy"]

_EXTENSION: Final = "zcresponse"


class ZeroCopy:
    """Upgrades an application that calls Flask's own `send_file` and `send_from_directory`, static folders included.

    ```python
    app = Flask(__name__)
    ZeroCopy(app)
    ```

    Its views stay as they are: the responses that Flask makes of files are recognised, get complete conditions and
    ranges, and leave in the best way that the server has. Everything else passes through.

    Args:
        app: the application; None: `init_app` is called later.
        on_transfer: called with a `Transfer` at the end of each file response.
        sendfile: False: read and give blocks, whatever the server offers.
        static: `zcresponse.plan.static.StaticOptions`, but for `index` and `listing`: the static folders of the
            application and of its blueprints are answered as `zcresponse.wsgi.static_app` answers, with
            `precompressed`, `hashed_names` and the like. Names that begin with a dot are then 404 unless `hidden=True`.
            None: they stay as Flask has them.

    Raises:
        TypeError, ValueError: an option that cannot be meant; it is named.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        on_transfer: OnTransfer | None = None,
        sendfile: bool | None = None,
        static: StaticOptions | None = None,
    ) -> None:
        check_delivery(on_transfer, sendfile)
        if not isinstance(static, Mapping | None):
            raise TypeError(f"static: a mapping of options is needed, not {type(static).__name__}")
        self._settings = {
            "__module__": __name__,
            "_upgraded": staticmethod(self.upgraded),
            "_adopts": True,
            "_on_transfer": None if on_transfer is None else staticmethod(on_transfer),
            "_sendfile": sendfile,
        }
        self._folders = None if static is None else StaticFolders(static, on_transfer, sendfile)
        self._made: dict[type[Response], type[Response]] = {}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Upgrade `app`. A second time changes nothing."""
        if _EXTENSION in app.extensions:
            return
        # A mistake in the configuration is told now, not to the first client.
        offload_of(app.config.get(SETTING))
        app.extensions[_EXTENSION] = self
        app.response_class = self.upgraded(app.response_class)
        shown = ShownFileWrapper(app.wsgi_app, FileWrapper)
        folders = self._folders

        def wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if not issubclass(app.response_class, Joined):
                # Set after the upgrade.
                app.response_class = self.upgraded(app.response_class)
            nonlocal folders
            if folders is not None:
                # With the first request every blueprint is known.
                folders.take_over(app)
                folders = None
            return shown(environ, start_response)

        app.wsgi_app = wsgi_app  # type: ignore[method-assign]

    def upgraded(self, kind: type[Response]) -> type[Response]:
        """Return `kind` as a class whose responses send files in our way."""
        if kind not in self._made:
            names = {**self._settings, "__doc__": kind.__doc__, "_original": kind}
            self._made[kind] = type(kind.__name__, (Joined, kind), names)
        return self._made[kind]
