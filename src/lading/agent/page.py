"""The status page: one document without scripts, forms, images or anything from elsewhere.

No name on it is trusted: all text is escaped, and the browser is told to run nothing.
"""

import base64
import hashlib
from collections.abc import Callable
from html import escape
from typing import NamedTuple

from lading import __version__
from lading.agent.metrics import Metrics
from lading.agent.status import State, Status
from lading.errors import LadingError
from lading.settings.store import StoreSettings
from lading.text.printable import printable
from lading.text.units import count, duration, size

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--good:#1a7f37;--bad:#c62828;--soon:#9a6700}
@media(prefers-color-scheme:dark){:root{--good:#4ac26b;--bad:#ff7b72;--soon:#d4a72c}}
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:64rem;padding:1rem}
h1{font-size:1.4rem;margin:.2rem 0 1rem}h2{font-size:1.1rem;margin:0}h3{margin:2rem 0 .5rem;font-size:1.1rem}
article{border:1px solid var(--line);border-left:.4rem solid var(--soon);border-radius:.4rem;margin:0 0 1rem;padding:.8rem}
article.good{border-left-color:var(--good)}article.bad{border-left-color:var(--bad)}
header{display:flex;flex-wrap:wrap;gap:.2rem 1rem;justify-content:space-between}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem .8rem;margin:.5rem 0 0}dt{opacity:.7}
dd{margin:0;overflow-wrap:anywhere}.error{color:var(--bad)}progress{width:100%}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .5rem .3rem 0;border-bottom:1px solid var(--line);
overflow-wrap:anywhere;vertical-align:top}footer{margin-top:2rem;opacity:.7}
@media(max-width:40rem){dl{grid-template-columns:1fr}dt{margin-top:.3rem}}
"""
POLICY = (
    "default-src 'none'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)
_MOST_STORED = 100


class Deliveries(NamedTuple):
    """The data of an agent for the HTTP server."""

    status: Status
    store: Callable[[], StoreSettings]

    @property
    def metrics(self) -> Metrics:
        return self.status.metrics

    def unstarted(self) -> list[str]:
        return [] if self.status.is_started else self.status.unstarted()

    def unready(self) -> list[str]:
        return self.status.unready()

    def page(self, now_s: float) -> tuple[str, str]:
        return render(self.status, in_store(self.store()), now_s), POLICY


class Stored(NamedTuple):
    """One model of the store, in words."""

    uri: str
    size_bytes: int
    used_at_s: float
    held_by: str


class SetAside(NamedTuple):
    """One damaged model in quarantine."""

    uri: str
    since_s: float


class InStore(NamedTuple):
    """The models of the store, the last used first, and those that were set aside."""

    models: list[Stored]
    damaged: list[SetAside]


def in_store(settings: StoreSettings) -> InStore | None:
    """What is in the store; None without a store, or if it cannot be read now."""
    if not settings.path:
        return None
    from lading.store.store import Store

    try:
        store = Store(settings)
        models, damaged = store.models()[:_MOST_STORED], store.damaged()[:_MOST_STORED]
    except (LadingError, OSError):
        return None
    shown = [
        Stored(
            model.requested,
            model.size_bytes,
            model.used_at_s,
            ", ".join(model.references) or ("in use" if model.leased else ""),
        )
        for model in models
    ]
    return InStore(shown, [SetAside(*each) for each in damaged])


def render(status: Status, store: InStore | None, now_s: float) -> str:
    """The page at ``now_s``, Unix time."""
    states = status.states()
    ready = sum(state.ready for state in states)
    parts = []
    if status.configuration_error:
        parts.append(
            f'<p class="error">The configuration on disk is not in use: {text(status.configuration_error)}</p>'
        )
    parts += [_article(state, now_s) for state in states]
    if store is not None:
        parts += [_damaged(each, now_s) for each in store.damaged]
        parts.append(_table(store.models, now_s))
    return document(f"lading: {ready} of {count(len(states), 'model')} in place", "".join(parts))


def document(title: str, body: str) -> str:
    """A whole page, whose ``body`` is HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>lading</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="10"><style>{_STYLE}</style></head><body>'
        f"<h1>{text(title)}</h1>{body}<footer>lading {text(__version__)}</footer></body></html>\n"
    )


def _article(state: State, now_s: float) -> str:
    kind = "good" if state.ready and not state.error else "bad" if state.error else "soon"
    word = "in place" if state.ready else "not yet in place"
    rows = [("model", state.uri), ("folder", state.destination or "none: it is kept in the store")]
    if state.ready:
        files = f"{count(state.files, 'file')}, {size(state.size_bytes)}"
        rows.append(("version", ", ".join(filter(None, (state.version, files, ago(state.since_s, now_s))))))
        rows.append(("pin", state.pin))
        if state.signer:
            rows.append(("signed by", state.signer))
    rows.append(("looked at", ago(state.checked_s, now_s) or "not yet"))
    if state.waits:
        rows.append(("newer", state.waits))
    lines = [f"<dt>{text(name)}</dt><dd>{text(said)}</dd>" for name, said in rows]
    if state.error:
        said = f"error[{state.code}]: {state.error}"
        lines.append(f'<dt>last error</dt><dd class="error">{text(said)}</dd>')
        if state.hint:
            lines.append(f"<dt>hint</dt><dd>{text(state.hint)}</dd>")
    moving = ""
    if state.total_bytes:
        said = f"{size(state.done_bytes)} of {size(state.total_bytes)}"
        moving = f'<progress max="{state.total_bytes}" value="{state.done_bytes}"></progress>{text(said)}'
    head = f"<header><h2>{text(state.name)}</h2><span>{word}, {text(state.doing)}</span></header>"
    return f'<article class="{kind}">{head}{moving}<dl>{"".join(lines)}</dl></article>'


def _damaged(each: SetAside, now_s: float) -> str:
    said = f"{each.uri} was damaged in the store, and set aside {ago(each.since_s, now_s)}"
    return f'<p class="error">{text(said)}</p>'


def _table(models: list[Stored], now_s: float) -> str:
    rows = "".join(
        f"<tr><td>{text(model.uri)}</td><td>{size(model.size_bytes)}</td>"
        f"<td>{text(ago(model.used_at_s, now_s))}</td><td>{text(model.held_by)}</td></tr>"
        for model in models
    )
    head = "<tr><th>model</th><th>size</th><th>last use</th><th>kept by</th></tr>"
    return f"<h3>Store: {count(len(models), 'model')}</h3><table>{head}{rows}</table>"


def ago(then_s: float, now_s: float) -> str:
    """How long ago that was, in words; "" for never."""
    return f"{duration(max(now_s - then_s, 0.0))} ago" if then_s else ""


def text(words: str) -> str:
    """Untrusted text, escaped for HTML."""
    return escape(printable(words))
