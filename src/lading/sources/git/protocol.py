"""git over HTTP: what a ref stands for, and a pack of the objects that are wanted.

https://git-scm.com/docs/protocol-v2 and https://git-scm.com/docs/gitprotocol-http.  Nothing is
negotiated, since nothing is there yet: each question is one request.

A server that is asked for version 2 may answer with version 0 or 1 (https://git-scm.com/docs/gitprotocol-pack): Azure
Repos does, and any server behind a proxy that drops the header Git-Protocol.  Its greeting lists all refs.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from lading.errors import IntegrityError, LadingError, NotFound, Unavailable, Unsupported
from lading.model.origin import split_url
from lading.model.uri import redact
from lading.network.answer import Answer, status_error
from lading.network.client import USER_AGENT, HttpClient
from lading.network.wire import Head
from lading.settings.limits import Limits
from lading.sources.git.pack import Input, PackReader, Receiver
from lading.text.printable import printable

T = TypeVar("T")

# GitHub serves git to nobody whose name does not begin so (https://github.com/jelmer/dulwich/issues/562).
_GIT = ("User-Agent", f"git/{USER_AGENT}")
_VERSION = ("Git-Protocol", "version=2")
_SERVICE = "git-upload-pack"
_LIMIT_BYTES = 8 << 20
_FLUSH, _DELIMITER = b"0000", b"0001"
_DATA, _FATAL = 1, 3
# Of version 0: how a pack is sent, what follows the name of a tag's target, and what stands in the place of no refs.
_MULTIPLEXED, _PEELED, _NO_REFS = "side-band-64k", "^{}", b" capabilities^{}"


class Refused(Unsupported):
    """The server answers with an error in place of what was asked for."""


class Ref(NamedTuple):
    """A name and the object it stands for; for an annotated tag, what that is about."""

    name: str
    object_id: bytes


class GitServer:
    """One repository at ``url``; ``headers`` authorise the requests."""

    def __init__(self, url: str, headers: Iterable[tuple[str, str]], http: HttpClient, limits: Limits) -> None:
        self._url = url
        self._shown = redact(url)
        self._headers = [*headers, _GIT]
        self._http = http
        self._limits = limits
        # What a server of the older versions listed in its greeting; None for version 2, which is asked.
        self._listed: list[Ref] | None = None
        self.filters = False

    @property
    def is_old(self) -> bool:
        """Whether the server speaks version 0 or 1, by which it may give only what its refs lead to."""
        return self._listed is not None

    def greet(self) -> None:
        """Learn what the server can do."""
        lines = list(_lines(self._greeting()))
        if b"version 2" in map(bytes.strip, lines):
            self._listed = None
            words = [line.decode("utf-8", "replace").strip() for line in lines]
        else:
            self._listed, words = self._old_greeting(lines)
            if not words:
                return
        abilities = dict(word.partition("=")[::2] for word in words)
        if abilities.get("object-format", "sha1") != "sha1":
            raise Unsupported(
                f"{self._shown} names its objects by {printable(abilities['object-format'])}, not by sha1"
            )
        fetches = words if self.is_old else abilities.get("fetch", "").split()
        if "shallow" not in fetches or (self.is_old and _MULTIPLEXED not in fetches):
            raise Unsupported(f"{self._shown} does not give out single commits (shallow fetches)")
        self.filters = "filter" in fetches

    def _old_greeting(self, lines: Iterable[bytes]) -> tuple[list[Ref], list[str]]:
        """The refs that a greeting of version 0 or 1 lists, and the abilities behind the first of them.

        Of a repository without refs, some servers tell neither.
        """
        refs = [line for line in lines if not line.startswith((b"# ", b"version ", b"shallow "))]
        if not refs:
            return [], []
        first, ended, abilities = refs[0].partition(b"\0")
        if not ended:
            raise Unsupported(f"{self._shown} does not answer as a git server does")
        named = [_ref(line) for line in (first, *refs[1:]) if not line.rstrip().endswith(_NO_REFS)]
        # What an annotated tag is about follows it.
        targets = {name.removesuffix(_PEELED): object_id for name, object_id in named}
        return list(map(Ref, targets, targets.values())), abilities.decode("utf-8", "replace").split()

    def _greeting(self) -> bytes:
        tail = f"/info/refs?service={_SERVICE}"
        url = f"{self._url}{tail}"

        def judge(answer: Answer) -> bytes:
            if answer.head.status != 200:
                raise _failed(answer.head, self._shown)
            followed, _ = split_url(answer.url)
            if followed != split_url(url)[0] or not answer.url.endswith(tail):
                # The questions that follow are not sent there, since credentials would not be.
                raise Unsupported(f"{self._shown} has moved to {followed}", hint="use that address")
            # A GET may be redirected where a POST is not, as by GitLab for names without .git.
            self._url = answer.url.removesuffix(tail)
            kind = answer.head.get("content-type").partition(";")[0].strip()
            if kind != f"application/x-{_SERVICE}-advertisement":
                raise NotFound(f"{self._shown} is not a git repository over smart HTTP")
            return answer.read(_LIMIT_BYTES)

        return self._http.ask(partial(self._http.open, "GET", url, [*self._headers, _VERSION]), judge, what=self._shown)

    def refs(self, prefixes: Iterable[str]) -> list[Ref]:
        """The refs whose names begin with one of ``prefixes``."""
        if self._listed is not None:
            return [ref for ref in self._listed if ref.name.startswith(tuple(prefixes))]
        wanted = [b"peel\n", *(f"ref-prefix {prefix}\n".encode() for prefix in prefixes)]
        head, body = self._http.fetch(
            "POST",
            f"{self._url}/{_SERVICE}",
            self._asking,
            body=_command("ls-refs", wanted),
            what=self._shown,
            limit_bytes=_LIMIT_BYTES,
        )
        if head.status != 200:
            raise _failed(head, self._shown)
        return list(map(_ref, _lines(body)))

    def fetch(self, wanted: Iterable[bytes], receiver: Receiver, *, options: Iterable[str] = ()) -> None:
        """Have the objects ``wanted`` sent to ``receiver``; one attempt."""
        with self._fetching(wanted, options) as answer:
            self.receive(answer, receiver)

    def ask(self, wanted: Iterable[bytes], judge: Callable[[Answer], T], *, options: Iterable[str] = ()) -> T:
        """What ``judge`` makes of an answer with the objects ``wanted``, by ``receive``; asked for until it comes."""
        return self._http.ask(partial(self._fetching, wanted, options), judge, what=self._shown)

    def _fetching(self, wanted: Iterable[bytes], options: Iterable[str]) -> Answer:
        command = _old_command if self.is_old else _fetch_command
        body = command([f"want {object_id.hex()}" for object_id in wanted], list(options))
        return self._http.open("POST", f"{self._url}/{_SERVICE}", self._asking, body=body)

    def receive(self, answer: Answer, receiver: Receiver) -> None:
        """Push the objects in an answer to ``receiver``."""
        if answer.head.status != 200:
            raise _failed(answer.head, self._shown)
        reader = PackReader(receiver, self._limits)
        steps = _packfile(reader.feed, self._shown)
        next(steps)

        def feed(piece: memoryview) -> None:
            # A pack may be the whole model: it takes longer than other listings.
            self._http.check(self._shown)
            try:
                steps.send(bytes(piece))
            except StopIteration as end:
                raise IntegrityError(f"{self._shown}: something follows the end of the answer") from end

        answer.read_into(feed)
        reader.finish()

    @property
    def _asking(self) -> list[tuple[str, str]]:
        return [
            *self._headers,
            *([] if self.is_old else [_VERSION]),
            ("Content-Type", f"application/x-{_SERVICE}-request"),
            ("Accept", f"application/x-{_SERVICE}-result"),
        ]


def _command(name: str, arguments: Iterable[bytes]) -> bytes:
    head = _packet(f"command={name}\n".encode()) + _packet(b"object-format=sha1\n")
    return head + _DELIMITER + b"".join(map(_packet, arguments)) + _FLUSH


def _fetch_command(wants: Iterable[str], options: Iterable[str]) -> bytes:
    return _command("fetch", [f"{line}\n".encode() for line in ("ofs-delta", "no-progress", *wants, *options, "done")])


def _old_command(wants: Sequence[str], options: Sequence[str]) -> bytes:
    """The same in version 0: what is wanted of the protocol stands behind the first object that is wanted."""
    filters = ["filter"] if any(option.startswith("filter ") for option in options) else []
    first = " ".join([wants[0], "ofs-delta", "no-progress", _MULTIPLEXED, *filters])
    asked = b"".join(_packet(f"{line}\n".encode()) for line in (first, *wants[1:], *options))
    return asked + _FLUSH + _packet(b"done\n")


def _packet(line: bytes) -> bytes:
    return b"%04x" % (len(line) + 4) + line


def _lines(body: bytes) -> Iterator[bytes]:
    """The lines of a small answer."""
    found: list[bytes] = []
    steps = _each_line(Input(), found.append)
    next(steps)
    steps.send(body)
    for line in found:
        if line.startswith(b"ERR "):
            raise Refused("the server refuses")
        if line:
            yield line


def _each_line(source: Input, take: Callable[[bytes], None]) -> Generator[None, bytes, None]:
    """Hand on every packet; one without content (flush, delimiter) is an empty line."""
    while True:
        length = yield from source.take(4)
        try:
            size = int(length, 16)
        except ValueError as error:
            raise IntegrityError("the server does not answer in git's protocol") from error
        if size == 3 or size > 65520:
            raise IntegrityError("the server does not answer in git's protocol")
        take((yield from source.take(size - 4)) if size > 4 else b"")


def _packfile(take: Callable[[bytes], None], what: str) -> Generator[None, bytes, None]:
    """Hand on the pack that is in the section "packfile" of an answer to "fetch", in version 0 behind "NAK"."""
    section = b""

    def line(text: bytes) -> None:
        nonlocal section
        if section in (b"packfile", b"NAK") and text:
            if text[0] == _DATA:
                take(text[1:])
            elif text[0] == _FATAL:
                raise Unavailable(f"{what}: the server gives up in the middle of a pack")
        elif text.startswith(b"ERR "):
            raise Refused(f"{what} refuses")
        else:
            section = section if text and section else text.strip()

    yield from _each_line(Input(), line)


def _ref(line: bytes) -> Ref:
    """``ID SP NAME [SP peeled:ID]``."""
    object_id, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
    name, *attributes = rest.split(" ")
    for attribute in attributes:
        if attribute.startswith("peeled:"):
            object_id = attribute.removeprefix("peeled:")
    try:
        return Ref(name, bytes.fromhex(object_id))
    except ValueError as error:
        raise IntegrityError("the server lists a ref without an object") from error


def _failed(head: Head, what: str) -> LadingError:
    error = status_error(head, what)
    if isinstance(error, NotFound):
        error.hint = (
            "check the repository's name; a private one looks the same to a login that is not allowed to read it"
        )
    return error
