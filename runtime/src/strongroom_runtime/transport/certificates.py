"""Certificate files, which may be renewed in place while a process runs.

`docs/decisions/0032-certificates-renewed-in-place.md` says who takes new ones when.
"""

import datetime
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

log = logging.getLogger(__name__)

_DAY_SECONDS = 86_400.0
# Or a sixth of its life: who renews by himself is about it before.
_SOON = datetime.timedelta(days=30)

Check = Callable[[x509.Certificate], None]


@dataclass(frozen=True, slots=True)
class Identity:
    """The files that say who a process is: a CA, its certificate and key; no CA where no peer is asked for one."""

    ca: Path | None
    certificate: Path
    key: Path

    @classmethod
    def of(cls, folder: Path, service: str) -> "Identity":
        """Returns the identity of a service in a folder that `pki.initialise` filled."""
        return cls(folder / "ca.pem", folder / f"{service}.pem", folder / f"{service}.key")

    def read(self) -> "Texts":
        """Returns what stands in the files.

        Raises:
            OSError: one cannot be read.
        """
        ca = self.ca.read_bytes() if self.ca is not None else None
        return Texts(ca, self.certificate.read_bytes(), self.key.read_bytes())


@dataclass(frozen=True, slots=True)
class Texts:
    """What stood in the files of an identity at one moment (PEM)."""

    ca: bytes | None
    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """The key and the certificate, as gRPC takes them."""
        return self.key, self.certificate

    def parsed(self) -> tuple[x509.Certificate, ...]:
        """Returns all certificates, the own one first.

        Raises:
            ValueError: there is something else.
        """
        authorities = x509.load_pem_x509_certificates(self.ca) if self.ca is not None else []
        return (*x509.load_pem_x509_certificates(self.certificate), *authorities)


@dataclass(frozen=True, slots=True)
class Shown:
    """An identity in the forms that servers and clients of asyncio take."""

    texts: Texts
    server: ssl.SSLContext
    client: ssl.SSLContext


class Renewable:
    """An identity as its files said when they were last found to be whole.

    Those who show it ask for `current` with each connection. Connections that are open go on as they began.

    Args:
        identity: the files, which have to fit now.
        check: refuses (ValueError) a certificate that does not name what it has to.

    Raises:
        OSError: a file cannot be read, or the key is not the certificate's (`ssl.SSLError`).
    """

    def __init__(self, identity: Identity, check: Check | None = None) -> None:
        self.identity = identity
        self._check = check
        self._refused = ""
        self._warned = -_DAY_SECONDS
        self.current = _load(identity, identity.read())

    def look(self) -> bool:
        """Takes the files if they have changed and fit each other; returns whether they were taken.

        Files that do not, because they are half-written or not all there yet, change nothing, and the log says so.
        """
        try:
            texts = self.identity.read()
            if texts != self.current.texts:
                return self._take(texts)
            self._refused = ""
        except (OSError, ValueError) as error:
            self._refuse(error)
        self._warn()
        return False

    def _take(self, texts: Texts) -> bool:
        parsed = texts.parsed()
        if parsed[0].not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
            raise ValueError("the certificate has ended")
        if self._check is not None:
            self._check(parsed[0])
        loaded = _load(self.identity, texts)
        if self.identity.read() != texts:
            return False  # somebody is writing; what comes of it is seen by the next look
        self.current, self._refused, self._warned = loaded, "", -_DAY_SECONDS
        log.info(
            "a renewed certificate was taken",
            extra={
                "file": str(self.identity.certificate),
                "ends": parsed[0].not_valid_after_utc.isoformat(),
            },
        )
        return True

    def _refuse(self, error: Exception) -> None:
        reason = str(error)
        if reason != self._refused:  # once, not with each look
            log.warning(
                "changed certificate files were not taken; those before stay in use",
                extra={"file": str(self.identity.certificate), "reason": reason},
            )
        self._refused = reason

    def _warn(self) -> None:
        """Says, once a day, that the end is near."""
        now, at = time.monotonic(), datetime.datetime.now(datetime.UTC)
        if now - self._warned < _DAY_SECONDS:
            return
        near = [
            each.not_valid_after_utc
            for each in self.current.texts.parsed()
            if each.not_valid_after_utc - at
            < min(_SOON, (each.not_valid_after_utc - each.not_valid_before_utc) / 6)
        ]
        if near:
            self._warned = now
            log.warning(
                "a certificate, or one of its CA, ends before long",
                extra={"file": str(self.identity.certificate), "ends": min(near).isoformat()},
            )


def _load(identity: Identity, texts: Texts) -> Shown:
    """Makes contexts of the files, which say what was read before. (OpenSSL's wrapper takes no texts for keys.)

    Raises:
        OSError: they do not fit each other, or are no certificate and key.
    """
    made = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # An empty password: else OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(identity.certificate, identity.key, password="")
        if identity.ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(identity.ca)
        made.append(context)
    return Shown(texts, *made)
