"""The subcommands of `zcresponse`: one module each, a function with click's decorators, listed in `COMMANDS`.

Only what a command needs is loaded, when it is called: `--help` of one does not pay for another.
"""

from __future__ import annotations

import importlib
from typing import Final

import click

from zcresponse import __version__
from zcresponse.errors import SettingError

__all__ = ["group", "printable", "version_option"]

#: Name, module and the line that `zcresponse --help` shows.
COMMANDS: Final = {
    "bench": ("zcresponse.commands.bench", "Measure what sendfile brings on this machine."),
    "compress": ("zcresponse.commands.compress", "Make .br, .zst and .gz beside the files of a site."),
    "serve": ("zcresponse.commands.serve", "Serve a directory over HTTP."),
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(COMMANDS[cmd_name][0])
        except SettingError as error:
            # Those of the protocol classes are read when they are loaded.
            raise click.ClickException(str(error))
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


#: `--version`, of the group and of each command: all are of one release.
version_option: Final = click.version_option(__version__, prog_name="zcresponse", message="%(prog)s %(version)s")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def group() -> None:
    """Files over HTTP, moved from disk to the network by the kernel.

    \b
    zcresponse bench            ways of sending a file, side by side
    zcresponse compress dist    compressed forms beside the files in dist
    zcresponse serve            the current directory on http://127.0.0.1:8000
    zcresponse COMMAND --help   what a command can do
    """


def printable(text: str) -> str:
    """Return `text` as a terminal can show it, on one line."""
    if not text:
        return "''"
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in click.format_filename(text))
