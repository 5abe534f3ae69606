"""Decryption of encrypted files, after they are received and before anything is published.

A file is encrypted if it is a JSON Web Encryption in the compact serialization (RFC 7516, section 3.1), recognised
as KServe's own storage initializer does: by the suffix ``.jwe``, which is removed, or by its first bytes.  The key comes
from the Confidential Data Hub beside this process.  A file is authenticated as a whole, but never held in memory:
the plaintext is written to the workspace, and used only once the tag was verified.

Needs the extra ``confidential`` (python-cryptography).
"""

import contextlib
import hashlib
import hmac
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from lading.errors import IntegrityError, LadingError, NotAllowed, Unavailable, Unsupported
from lading.events import Decrypted
from lading.model.digest import Digest
from lading.model.manifest import File, Manifest
from lading.network.answer import status_error
from lading.network.client import HttpClient
from lading.session import Session
from lading.settings.confidential import Confidential
from lading.system.disk import as_lading_errors
from lading.text.printable import printable
from lading.unpack.jwe import CIPHERS, MAGIC, WRAPS, Envelope, base64url, decoded, read_envelope, wrong_key

_SUFFIX = ".jwe"
_MOST_KEY_BYTES = 64 << 10
_CONNECT_S = 5.0
_STALL_S = 30.0
_OPENING = "opening"


class Decrypter:
    """Decrypts files with the key of one resource.  The constructor asks for the key, before a byte is fetched."""

    def __init__(self, settings: Confidential, session: Session) -> None:
        try:
            import cryptography  # noqa: F401 - it is only whether it is here
        except ImportError as error:
            raise Unsupported(
                "CONFIDENTIAL_ENABLED is set, but the extra confidential, which decrypts files, is not installed",
                hint="pip install 'lading[confidential]'; nothing was delivered",
            ) from error
        self._resource = settings.resource
        self._run = session.run
        self._key = _key(settings, session.http)

    def open(self, root: Path, manifest: Manifest, unchanged: Collection[str]) -> Manifest:
        """Decrypt the encrypted files in ``root``; returns the manifest with the decrypted files and all others.

        ``unchanged`` are paths that the root lacks.  Raises ``IntegrityError`` where nothing is encrypted.
        """
        here = [file for file in manifest.files if file.path not in unchanged]
        with as_lading_errors(root):
            encrypted = [file for file in here if _is_encrypted(root / file.path)]
            paths = {file.path for file in encrypted}
            others = [file for file in manifest.files if file.path not in paths]
            if not encrypted:
                raise IntegrityError(
                    f"no file of {manifest.resolved} is encrypted, but CONFIDENTIAL_ENABLED is set",
                    hint="unset that variable to have the model delivered as it is",
                )
            # Before anything is opened: two files that would have one name.
            names = Manifest.of([*others, *(file._replace(path=_name(file.path)) for file in encrypted)])
            opened = [self._open(root, file, root.parent / "opened") for file in encrypted]
        example = others[0].path if others else ""
        self._run.listener(Decrypted(self._resource, len(opened), len(others), example))
        by_path = {file.path: file for file in (*others, *opened)}
        # What came out of an archive that was unpacked stands for itself.
        origins = tuple(file for file in encrypted if file.validator is not None)
        return manifest._replace(
            files=tuple(by_path[file.path] for file in names.files), archives=(*manifest.archives, *origins)
        )

    def _open(self, root: Path, file: File, scratch: Path) -> File:
        source, target = root / file.path, root / _name(file.path)
        try:
            # Never through a link, nor into a file that has another name.
            scratch.unlink(missing_ok=True)
            with source.open("rb") as reader, scratch.open("xb") as writer:
                envelope = read_envelope(reader)
                size, digest = self._decrypt(envelope, reader, writer)
            os.replace(scratch, target)
        except LadingError as error:
            raise error.rephrased(message=f"{printable(file.path)}: {error.message}") from error
        finally:
            scratch.unlink(missing_ok=True)
        if target != source:
            source.unlink()
        return File(target.relative_to(root).as_posix(), size, digest)

    def _decrypt(self, envelope: Envelope, reader: IO[bytes], writer: IO[bytes]) -> tuple[int, Digest]:
        size, running = 0, hashlib.sha256()
        for piece in self._plaintext(envelope, reader):
            self._run.check(_OPENING)
            writer.write(piece)
            running.update(piece)
            size += len(piece)
        return size, Digest("sha256", running.hexdigest())

    def _plaintext(self, envelope: Envelope, reader: IO[bytes]) -> Iterator[bytes]:
        """The plaintext, piece by piece; not authenticated before its end is reached without an error."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        from cryptography.hazmat.primitives.padding import PKCS7

        enc = envelope.header.get("enc")
        if enc not in CIPHERS:
            raise Unsupported(f"its encryption {enc!r} is not supported", hint=f"supported: {', '.join(CIPHERS)}")
        key_bytes, mac = CIPHERS[enc]
        key = self._content_key(envelope)
        if len(key) != key_bytes:
            raise wrong_key()
        try:
            if not mac:
                gcm = Cipher(algorithms.AES(key), modes.GCM(envelope.vector, envelope.tag)).decryptor()
                gcm.authenticate_additional_data(envelope.authenticated)
                for piece in decoded(reader, envelope.start, envelope.end):
                    yield gcm.update(piece)
                yield gcm.finalize()
                return
            half = key_bytes // 2
            self._check_mac(envelope, reader, key[:half], mac)
            cbc = Cipher(algorithms.AES(key[half:]), modes.CBC(envelope.vector)).decryptor()
            unpadder = PKCS7(128).unpadder()
            for piece in decoded(reader, envelope.start, envelope.end):
                yield unpadder.update(cbc.update(piece))
            yield unpadder.update(cbc.finalize()) + unpadder.finalize()
        except InvalidTag as error:
            raise wrong_key() from error
        except ValueError as error:
            # A vector, a tag or a padding of another length than the algorithm's.
            raise IntegrityError("it is damaged: its parts do not fit its encryption") from error

    def _check_mac(self, envelope: Envelope, reader: IO[bytes], key: bytes, algorithm: str) -> None:
        """RFC 7518, section 5.2.2.2: the tag, over all that is authenticated."""
        running = hmac.new(key, envelope.authenticated + envelope.vector, algorithm)
        for piece in decoded(reader, envelope.start, envelope.end):
            self._run.check(_OPENING)
            running.update(piece)
        running.update((len(envelope.authenticated) * 8).to_bytes(8, "big"))
        if not hmac.compare_digest(running.digest()[: len(key)], envelope.tag):
            raise wrong_key()

    def _content_key(self, envelope: Envelope) -> bytes:
        """The key of the content (RFC 7518, sections 4.4, 4.5 and 4.7)."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

        header, wrapped = envelope.header, envelope.wrapped_key
        algorithm = header.get("alg")
        for name in ("zip", "crit"):
            if name in header:
                raise Unsupported(
                    f"its header has {name!r}, which is not supported", hint="encrypt the file without it"
                )
        if algorithm == "dir":
            if wrapped:
                raise IntegrityError("it is damaged: its algorithm has no wrapped key, but it contains one")
            return self._key
        if algorithm not in WRAPS:
            raise Unsupported(
                f"its key is wrapped by {algorithm!r}, which is not supported",
                hint=f"supported: dir, {', '.join(WRAPS)}",
            )
        if len(self._key) != WRAPS[algorithm]:
            raise wrong_key()
        try:
            if algorithm.endswith("GCMKW"):
                vector, tag = base64url(str(header.get("iv", ""))), base64url(str(header.get("tag", "")))
                return AESGCM(self._key).decrypt(vector, wrapped + tag, None)
            return aes_key_unwrap(self._key, wrapped)
        except (InvalidUnwrap, InvalidTag) as error:
            raise wrong_key() from error
        except ValueError as error:
            raise IntegrityError("it is damaged: its wrapped key has an impossible length") from error


def _key(settings: Confidential, http: HttpClient) -> bytes:
    """The key itself: a resource is a JSON Web Key (RFC 7517), the same as base64url, or plain bytes."""
    what = f"the Confidential Data Hub at {settings.address}"
    direct = http.direct(connect_s=_CONNECT_S, stall_s=_STALL_S, retry=http.retry)
    try:
        head, body = direct.fetch("GET", settings.url, what=what, limit_bytes=_MOST_KEY_BYTES, redirects=0)
    except Unavailable as error:
        raise error.rephrased(message=f"{what}: {error.message}") from error
    if head.status != 200:
        refusal = status_error(head, f"{what}, asked for {settings.resource},")
        raise refusal.rephrased(hint="does the resource exist, and is this workload allowed to have it?")
    try:
        text = body.decode("ascii").strip()
    except UnicodeDecodeError:
        return body
    try:
        key = json.loads(text)
    except ValueError:
        key = {"kty": "oct", "k": text}
    if not isinstance(key, dict):
        key = {"kty": "oct", "k": text}
    if key.get("kty") != "oct" or not isinstance(key.get("k"), str):
        raise Unsupported(
            f"the key {settings.resource} is not symmetric", hint='a symmetric one has "kty": "oct" and "k"'
        )
    try:
        return base64url(key["k"])
    except IntegrityError as error:
        raise NotAllowed(
            f"the content of {settings.resource} is not a key", hint="a key is base64url text, or a JWK"
        ) from error


def _is_encrypted(path: Path) -> bool:
    """Whether the file is a JWE.  A suffix is enough; a beginning must also go on as a header."""
    if path.suffix.lower() == _SUFFIX:
        return True
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return False
        file.seek(0)
        with contextlib.suppress(IntegrityError):
            header = read_envelope(file).header
            return "alg" in header and "enc" in header
        return False


def _name(path: str) -> str:
    return path[: -len(_SUFFIX)] if path.lower().endswith(_SUFFIX) else path
