"""The challenges of a 401: ``WWW-Authenticate``, a list of challenges in one header or several (RFC 9110, 11.6.1)."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# One without an end goes on to the header's: looked for again from each quote, that would take for ever.
_QUOTED = r'"((?:[^"\\]|\\.)*)(?:"|\\?\Z)'
# Up to the next comma that stands in no quotes.
_ELEMENT = re.compile(rf"(?:{_QUOTED}|[^,])+", re.DOTALL)
# A word that no "=" follows: a parameter's name, and a token68 behind its scheme, are none.
_SCHEME = re.compile(rf"({_WORD})(?:\s+(?!=)|$)")
# A value without quotes may also be a URL: no token, and written.
_PARAMETER = re.compile(rf"(?<!\S)({_WORD})\s*=\s*(?:{_QUOTED}|([^\s,=\"][^\s,]*))", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class Challenge(NamedTuple):
    """One way to log in: its scheme and the names of its parameters in lower case.  A token68 is left out."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Every challenge in its order; what belongs to none is passed over."""
    found: list[Challenge] = []
    for element in _ELEMENT.finditer(header):
        text = element[0].strip()
        scheme = _SCHEME.match(text)
        if scheme is not None:
            found.append(Challenge(scheme[1].lower(), {}))
            text = text[scheme.end() :]
        if found:
            found[-1].parameters.update(_parameters(text))
    return found


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    for name, quoted, plain in _PARAMETER.findall(text):
        yield name.lower(), plain or _ESCAPED.sub(r"\1", quoted)
