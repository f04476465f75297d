"""TLS to databases whose clients take Python's contexts."""

import ssl
import tempfile
from pathlib import Path

from strongroom_dbcreds.drivers.details import Details
from strongroom_runtime.errors import invalid
from strongroom_runtime.tools import base64_text


def context(
    details: Details, *, on: bool, verify: bool = True, ca: str = "tls_ca"
) -> ssl.SSLContext | None:
    """Returns how TLS is spoken; None for not at all.

    Args:
        details: may have a CA and a client certificate with its key.
        on: TLS is asked for; a CA or a certificate asks for it as well.
        verify: the database's certificate is checked.
        ca: the name of the detail with the CA.

    Raises:
        ServiceError: INVALID where a certificate or key cannot be read.
    """
    authority, certificate = _pem(details.text(ca)), details.text("tls_certificate_key")
    if not (on or authority or certificate or details.flag("tls_skip_verify")):
        return None
    try:
        made = ssl.create_default_context(cadata=authority or None)
    except ssl.SSLError:
        raise invalid(f"{ca}: must be certificates, PEM") from None
    if not verify or details.flag("tls_skip_verify"):
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if certificate:
        with tempfile.TemporaryDirectory(prefix="strongroom-") as folder:
            path = Path(folder) / "certificate"
            path.touch(mode=0o600)
            path.write_text(certificate)
            try:
                made.load_cert_chain(path)
            except ssl.SSLError:
                raise invalid(
                    "tls_certificate_key: must be a certificate and its key, PEM"
                ) from None
    name = details.text("tls_server_name")
    return _named(made, name) if name else made


def _named(made: ssl.SSLContext, name: str) -> ssl.SSLContext:
    """Returns a context that expects another name than the host's."""

    class Named(ssl.SSLObject):
        """A TLS session for that name."""

        @classmethod
        def _create(cls, *args: object, **fields: object) -> ssl.SSLObject:
            fields["server_hostname"] = name
            return super()._create(*args, **fields)  # type: ignore[misc,no-any-return]

    made.sslobject_class = Named
    return made


def _pem(text: str) -> str:
    if not text or "-----BEGIN" in text:
        return text
    found = base64_text(text)
    return text if found is None else found
