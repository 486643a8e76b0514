"""What a static application answers: which file a URL path means, in which coding, with which fields.

Nothing is looked up here: a `Site` says what to look up and is told what was found, so that the same decisions hold
where an event loop must not wait, where greenlets share a thread, and where everybody may wait.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias, Unpack, cast

from zcresponse.arguments import check_callable, check_switch, check_text
from zcresponse.files import MemoryFile, OpenedFile
from zcresponse.files.rooted import (
    DirectoryEntry,
    FollowSymlinks,
    Found,
    Lookup,
    OpenedDirectory,
    Root,
    check_directory,
)
from zcresponse.files.sidecars import SUFFIXES, find_sidecar
from zcresponse.files.urlpaths import is_reachable, split_path
from zcresponse.http.caching import format_cache_control
from zcresponse.http.disposition import check_disposition
from zcresponse.http.mediatype import guess_media_type
from zcresponse.http.negotiation import negotiate_codings
from zcresponse.http.request import RequestHead
from zcresponse.plan.directory import (
    index_path,
    plan_bad_method,
    plan_error,
    plan_listing,
    plan_not_found,
    plan_redirect,
)
from zcresponse.plan.offload import Offload
from zcresponse.plan.response import (
    Fields,
    FileOptions,
    PlanOptions,
    ResponsePlan,
    check_options,
    plan_file_response,
    values_of,
)

__all__ = [
    "Answer",
    "Directory",
    "FileHeaders",
    "HashedNames",
    "Site",
    "StaticOptions",
    "Step",
    "Steps",
    "is_open",
    "name_of",
    "run_steps",
    "take_step",
]

#: One directory, or several that are looked through in order.
Directory: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"

#: Header fields as a deployer writes them.
GivenFields: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]

#: Told the URL path that a file was found by and the file that is sent; returns further header fields, or None.
FileHeaders: TypeAlias = Callable[[str, OpenedFile], GivenFields | None]

#: Which names hold a hash of the content: True for `HASHED_NAME`, or a pattern to be found in the URL path, or a
#: callable that is told the URL path.
HashedNames: TypeAlias = bool | str | re.Pattern[str] | Callable[[str], bool]


class StaticOptions(PlanOptions, total=False):
    """What a deployer may say about a static application, under these names at every door.

    Keys:
        index: name of the file that stands for a directory, `index.html` by default; None: none does.
        listing: show what is in a directory without an index file; by default it is 404.
        follow_symlinks: follow links beneath a directory as long as they lead inside, or with `"anywhere"` wherever
            they lead. By default they are 404.
        hidden: serve names that begin with a dot, and list them. By default they are 404, but for `/.well-known/`
            (RFC 8615).
        not_found: a file beneath the directory whose content goes with every 404, as `404.html`.
        precompressed: send the `.br`, `.zst` or `.gz` beside a file to clients that take it. True, or content codings
            in order of preference: `br`, `zstd`, `gzip`.
        hashed_names: files of these names are sent with `Cache-Control: public, max-age=31536000, immutable`; see
            `HashedNames`. What is `private` stays so, for as long, and `no_store` stays `no-store`.
        suffix_headers: header fields by the end of the name, as `{".wasm": {"Cross-Origin-Resource-Policy": "..."}}`;
            an empty end means every file.
        file_headers: a callable that gives header fields for a file, see `FileHeaders`.
    """

    index: str | None
    listing: bool
    follow_symlinks: FollowSymlinks
    hidden: bool
    not_found: str | None
    precompressed: bool | Sequence[str]
    hashed_names: HashedNames
    suffix_headers: Mapping[str, GivenFields]
    file_headers: FileHeaders | None


class Answer(NamedTuple):
    """A decided response, and the file that its body lies in, which whoever sends it closes."""

    plan: ResponsePlan
    file: OpenedFile | None = None


#: What has to be done before more can be decided: look something up, or call what takes a while.
Step: TypeAlias = Lookup | Callable[[], Any]
#: Yields steps and is sent their results, or thrown the OSError that they raise; returns what to answer.
Steps: TypeAlias = Generator[Step, Any, Answer]

#: `app.3f9a1c07.js`, `app-3f9a1c07b2d4.min.css`: eight or more hexadecimal digits between a dot or hyphen and a dot. A
#: letter and a digit have to be among them, so that neither a date (`report-20240131.csv`) nor a word is taken for a
#: hash; of real hashes of eight digits one in forty is missed so.
HASHED_NAME: Final = re.compile(r"[.-](?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{8,}\.[^/]*\Z")

#: In seconds: a year, the longest that is of any use.
_FOR_GOOD: Final = 31_536_000
_VARY: Final = ("Vary", "Accept-Encoding")

# RFC 9110 §5.1, §5.5.
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
# They are about the connection, which is the server's (RFC 9110 §7.6.1).
_HOP_BY_HOP: Final = frozenset("connection keep-alive proxy-connection te trailer transfer-encoding upgrade".split())
# What an error page must not have: it is not to be kept in the file's place.
_KEEPING: Final = frozenset(("cache-control", "expires", "etag", "last-modified"))
_COPIES: Final = tuple(SUFFIXES.values())


class _Place(NamedTuple):
    """Where a URL path leads, and the path by which it was found, which may be an index file's."""

    root: Root
    url_path: str
    file: OpenedFile | None
    directory: OpenedDirectory | None


class Site:
    """One or several directories, and all that is decided about them once.

    Args:
        directory: what to serve; see `Directory`. It is looked up again for each request, so that a new tree may be
            renamed into its place.
        check_dir: whether it must exist now.
        options: `StaticOptions`, among them `PlanOptions` for every file.

    Attributes:
        roots: the directories, in order.

    Raises:
        FileNotFoundError, NotADirectoryError: `directory` does not lead to a directory.
        TypeError, ValueError: an argument that cannot be meant; it is named.
    """

    def __init__(self, directory: Directory, *, check_dir: bool = True, **options: Unpack[StaticOptions]) -> None:
        directories = _paths(directory)
        if check_dir:
            for each in directories:
                check_directory(each)
        follow_symlinks = options.pop("follow_symlinks", False)
        self.roots: Final = tuple(Root(each, follow_symlinks=follow_symlinks) for each in directories)
        self._index = options.pop("index", "index.html")
        if self._index is not None:
            check_text("index", self._index)
        if self._index is not None and not is_reachable(self._index):
            raise ValueError(f"index: {self._index!r} is not the name of a file")
        self._listing = options.pop("listing", False)
        check_switch("listing", self._listing)
        self._hidden = options.pop("hidden", False)
        check_switch("hidden", self._hidden)
        self._not_found = _page(options.pop("not_found", None))
        self._codings = _codings(options.pop("precompressed", False))
        self._is_hashed = _matcher(options.pop("hashed_names", False))
        by_suffix = options.pop("suffix_headers", {})
        if not isinstance(by_suffix, Mapping):
            raise TypeError(f"suffix_headers: a mapping is needed, not {type(by_suffix).__name__}")
        for suffix in by_suffix:
            check_text("suffix_headers", suffix)
        # The longest end last: the last word counts.
        self._by_suffix = [
            (suffix.lower(), _checked("suffix_headers", fields))
            for suffix, fields in sorted(by_suffix.items(), key=lambda each: len(each[0]))
        ]
        self._file_headers = options.pop("file_headers", None)
        if self._file_headers is not None:
            check_callable("file_headers", self._file_headers)
        unknown = options.keys() - PlanOptions.__optional_keys__
        if unknown:
            raise TypeError(f"{', '.join(sorted(unknown))}: no such option")
        self._options = cast("PlanOptions", options)
        # What cannot be meant is told now, not to each client.
        of_files = {name: value for name, value in options.items() if name in FileOptions.__optional_keys__}
        check_options(cast("FileOptions", of_files))
        check_disposition("disposition", options.get("disposition", "inline"))
        plan_file_response(RequestHead("GET"), MemoryFile(b""), **self._options)
        self._for_good = _for_good(self._options)
        self._has_fields = bool(self._codings or self._is_hashed or self._by_suffix or self._file_headers)

    def answer(
        self,
        request: RequestHead,
        url_path: str | None,
        *,
        mount: str = "",
        query: bytes = b"",
        offload: Offload | None = None,
    ) -> Steps:
        """Decide what to answer, step by step; see `run_steps` for how to go through them.

        Args:
            request: the method and the fields that matter.
            url_path: the path beneath the directory, decoded; None for one that must not be answered. Empty: the place
                itself was asked for, without a slash.
            mount: the path of the place itself, decoded; only its last name is used, where `url_path` is empty.
            query: the request's query string as it came.
            offload: what a front server sends.
        """
        refusal = plan_bad_method(request)
        if refusal is not None:
            return Answer(refusal)
        place = None
        if url_path is not None and (self._hidden or is_open(url_path)):
            try:
                place = yield from self._find(url_path)
                if place is not None and place.directory is not None:
                    plan = yield from self._plan_directory(request, url_path, place.root, place.directory, mount, query)
                    if plan is not None:
                        return Answer(plan)
            except OSError as error:
                plan = plan_error(request, error)
                if plan is None:
                    raise
                return Answer(plan)
        if place is not None and place.file is not None:
            return (yield from self._answer_file(request, place.root, place.url_path, place.file, offload=offload))
        return (yield from self._answer_nothing(request))

    def answer_whole(self, accept_encoding: str | None, url_path: str | None) -> Steps:
        """As `answer` to a GET, but without conditions and ranges, which are left to whoever sends the file."""
        return self.answer(RequestHead("GET", accept_encoding=accept_encoding), url_path)

    def answer_normal(self, accept_encoding: str | None, url_path: str, own: str, query: bytes = b"") -> Steps:
        """As `answer_whole`, for a framework that has normalised the path, so that its end says nothing.

        Args:
            url_path: the path beneath the directory, decoded, without a slash at the end; `/` is the directory itself.
            own: the request's whole path, decoded. It has to end in a slash where there is an index file or a listing.
            query: the request's query string as it came.
        """
        found = yield from self.answer_whole(accept_encoding, url_path)
        is_directory = url_path == "/"
        if found.file is None and values_of(found.plan.fields, "Location"):
            is_directory = True
            found = yield from self.answer_whole(accept_encoding, url_path + "/")
        if is_directory and found.plan.status == 200 and own and not own.endswith("/"):
            if found.file is not None:
                found.file.close()
            return Answer(plan_redirect(RequestHead("GET"), own, query))
        return found

    def _find(self, url_path: str) -> Generator[Lookup, Found, _Place | None]:
        """Look for a file, also one that stands for a directory, or else for a directory."""
        index = index_path(url_path, self._index)
        for path in (url_path,) if index is None else (index, url_path):
            for root in self.roots:
                try:
                    found = yield Lookup(root, path)
                except FileNotFoundError:
                    continue
                if isinstance(found, OpenedFile):
                    return _Place(root, path, found, None)
                if path is not index:
                    return _Place(root, path, None, found)
                found.close()
        return None

    def _answer_nothing(self, request: RequestHead) -> Generator[Lookup, Found, Answer]:
        if self._not_found is not None:
            for root in self.roots:
                try:
                    found = yield Lookup(root, self._not_found)
                except OSError:
                    continue
                if isinstance(found, OpenedFile):
                    return (yield from self._answer_file(request, root, self._not_found, found, status=404))
                found.close()
        return Answer(plan_not_found(request))

    # --- files -----------------------------------------------------------------------------------------------------

    def _answer_file(
        self,
        request: RequestHead,
        root: Root,
        url_path: str,
        plain: OpenedFile,
        *,
        status: int = 200,
        offload: Offload | None = None,
    ) -> Generator[Lookup, Found, Answer]:
        sent, coding = plain, None
        try:
            if not self._has_fields and status == 200:
                return Answer(plan_file_response(request, plain, offload=offload, **self._options), plain)
            if self._codings and not url_path.endswith(_COPIES):
                # A client that forbids the plain content gets it too where there is no copy: it can make as much of it
                # as of a 406, and hardly any that says so means it.
                wanted = negotiate_codings(request.accept_encoding, self._codings).codings
                copy = yield from find_sidecar(root, url_path, plain, wanted)
                if copy is not None:
                    sent, coding = copy
            options = self._options if status == 200 else _without_caching(self._options)
            if coding is not None and options.get("media_type") is None:
                options = {**options, "media_type": guess_media_type(options.get("filename") or plain.path or "")}
            fields = self._fields(url_path, sent)
            if status != 200:
                fields = [field for field in fields if field[0].lower() not in _KEEPING]
            plan = plan_file_response(
                request, sent, status=status, fields=fields, coding=coding, offload=offload, **options
            )
        except BaseException:
            plain.close()
            sent.close()
            raise
        if sent is not plain:
            plain.close()
        return Answer(plan, sent)

    def _fields(self, url_path: str, file: OpenedFile) -> Fields:
        fields: Fields = []
        if self._is_hashed is not None and self._is_hashed(url_path):
            fields += self._for_good
        name = url_path.lower()
        for suffix, more in self._by_suffix:
            if name.endswith(suffix):
                fields = _joined(fields, more)
        if self._file_headers is not None:
            fields = _joined(fields, _checked("file_headers", self._file_headers(url_path, file)))
        if self._codings:
            # Also where no copy lies: there may be one the next time.
            fields.append(_VARY)
        return fields

    # --- directories -----------------------------------------------------------------------------------------------

    def _plan_directory(
        self, request: RequestHead, url_path: str, root: Root, found: OpenedDirectory, mount: str, query: bytes
    ) -> Generator[Step, Any, ResponsePlan | None]:
        if not self._listing or not url_path.endswith("/"):
            found.close()
            if url_path.endswith("/") or (self._index is None and not self._listing):
                return None
            return plan_redirect(request, url_path or mount, query)
        directories = [found]
        try:
            for other in self.roots[self.roots.index(root) + 1 :]:
                try:
                    further = yield Lookup(other, url_path)
                except FileNotFoundError:
                    continue
                # The path ends in a slash: it means no file.
                directories.append(further)
        except BaseException:
            for each in directories:
                each.close()
            raise
        for each in directories:
            each.hand_over()
        # Thousands of entries take a while to read, to sort and to write.
        plan: ResponsePlan = yield partial(_plan_listing, request, url_path, directories, self._hidden)
        return plan


def name_of(answer: Answer) -> str:
    """Return the name of the file that an answer is for, which is not that of a copy beside it."""
    if answer.file is None:
        return ""
    name = os.path.basename(answer.file.path or "")
    for _, coding in (field for field in answer.plan.fields if field[0].lower() == "content-encoding"):
        name = name.removesuffix(SUFFIXES.get(coding, ""))
    return name


def take_step(step: Step) -> Any:
    """Return a step's result; it may wait for the disk."""
    return step.root.lookup(step.url_path) if isinstance(step, Lookup) else step()


def run_steps(steps: Steps, take: Callable[[Step], Any] = take_step) -> Answer:
    """Go through the steps of `Site.answer` and return what to answer.

    Args:
        steps: what has to be done.
        take: does one step.

    Raises:
        OSError: only the server can answer it.
    """
    try:
        step = next(steps)
        while True:
            try:
                result = take(step)
            except OSError as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    finally:
        steps.close()


def _plan_listing(
    request: RequestHead, url_path: str, directories: Sequence[OpenedDirectory], hidden: bool
) -> ResponsePlan:
    entries: dict[str, DirectoryEntry] = {}
    with ExitStack() as stack:
        for directory in directories:
            stack.enter_context(directory)
        for directory in directories:
            for entry in directory.entries():
                if hidden or not entry.name.startswith("."):
                    # What lies in an earlier directory is what is found.
                    entries.setdefault(entry.name, entry)
    return plan_listing(request, url_path, entries.values())


def is_open(url_path: str) -> bool:
    """Whether no name begins with a dot, but for the `.well-known` of the root (RFC 8615 §3)."""
    if "/." not in url_path and not url_path.startswith("."):
        return True
    first, _, rest = url_path.removeprefix("/").partition("/")
    return first == ".well-known" and "/." not in rest and not rest.startswith(".")


def _paths(directory: Directory) -> list[str | os.PathLike[str]]:
    if isinstance(directory, str | os.PathLike):
        return [directory]
    paths = list(directory) if isinstance(directory, Iterable) else [directory]
    if not paths:
        raise ValueError("directory: at least one is needed")
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"directory: a path or a sequence of them is needed, not {directory!r}")
    return paths


def _page(not_found: str | None) -> str | None:
    if not_found is None:
        return None
    check_text("not_found", not_found)
    try:
        names, asks_for_folder = split_path(not_found)
    except FileNotFoundError:
        names = []
    if not names or asks_for_folder:
        raise ValueError(f"not_found: {not_found!r} is not the path of a file beneath the directory")
    return "/" + "/".join(names)


def _codings(precompressed: bool | Sequence[str]) -> tuple[str, ...]:
    if isinstance(precompressed, bool):
        return tuple(SUFFIXES) if precompressed else ()
    if isinstance(precompressed, str) or not isinstance(precompressed, Iterable):
        raise TypeError(f"precompressed: a bool or a sequence of codings is needed, not {type(precompressed).__name__}")
    for coding in precompressed:
        if coding not in SUFFIXES:
            raise ValueError(f"precompressed: {coding!r} is none of {', '.join(SUFFIXES)}")
    return tuple(precompressed)


def _matcher(hashed_names: HashedNames) -> Callable[[str], object] | None:
    if isinstance(hashed_names, bool):
        return HASHED_NAME.search if hashed_names else None
    if isinstance(hashed_names, str):
        try:
            return re.compile(hashed_names).search
        except re.error as error:
            raise ValueError(f"hashed_names: {hashed_names!r} is no pattern: {error}") from None
    if isinstance(hashed_names, re.Pattern):
        return hashed_names.search
    if not callable(hashed_names):
        raise TypeError(f"hashed_names: a bool, pattern or callable is needed, not {type(hashed_names).__name__}")
    return hashed_names


def _checked(argument: str, given: GivenFields | None) -> Fields:
    """Return a deployer's fields, each of which will stay one.

    Raises:
        TypeError, ValueError: they cannot be sent; `argument` is named.
    """
    if not isinstance(given, Iterable | None) or isinstance(given, str):
        raise TypeError(f"{argument}: header fields are needed, not {type(given).__name__}")
    fields = list(given.items() if isinstance(given, Mapping) else given or ())
    for field in fields:
        if not isinstance(field, tuple | list) or len(field) != 2:
            raise TypeError(f"{argument}: {field!r} is not a pair of name and value")
        name, value = field
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"{argument}: {name!r}: {value!r} is not text")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _HOP_BY_HOP:
            raise ValueError(f"{argument}: {name!r}: {value!r} cannot be a header field of a file")
    return fields


def _joined(fields: Fields, more: Fields) -> Fields:
    """Return both, where a name in `more` takes the place of the same name in `fields`."""
    names = {name.lower() for name, _ in more}
    return [field for field in fields if field[0].lower() not in names] + more


def _for_good(options: PlanOptions) -> Fields:
    """Return what is said of files for good: for how long is ours to say, who may keep them the deployer's."""
    if options.get("no_store"):
        return []
    private = bool(options.get("private"))
    value = format_cache_control(public=not private, private=private, max_age=_FOR_GOOD, immutable=True)
    return [("Cache-Control", value or "")]


def _without_caching(options: PlanOptions) -> PlanOptions:
    """Return what of the options goes with an error: its type, for nobody is to keep or save it."""
    return {"media_type": options.get("media_type"), "etag": False, "last_modified": False}
