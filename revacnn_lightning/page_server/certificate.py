"""Certificates for TLS: the user's, or one that is made here and kept for the next start."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from revacnn_lightning.errors import ConnectionFileError, MissingPackageError, RevacnnError
from revacnn_lightning.protocol import private_files
from revacnn_lightning.protocol.connection_file import runtime_dir

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["certificate_fingerprint", "ensure_self_signed_certificate", "tls_context"]

FILE = "viewer-certificate.pem"  # the key and the certificate
VALID_DAYS = 365
MIN_DAYS_LEFT = 7


def tls_context(certificate_file: Path, key_file: Path | None = None) -> ssl.SSLContext:
    """Return the TLS context of a server with this certificate.

    Args:
        certificate_file: a PEM file.
        key_file: a PEM file with the private key; None if it is in the same file.

    Raises:
        RevacnnError: the files are unusable.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate_file, key_file)
    except (OSError, ssl.SSLError) as error:
        files = certificate_file if key_file is None else f"{certificate_file} with {key_file}"
        raise RevacnnError(
            f"cannot use the certificate {files}: {error}; both are PEM files, and --keyfile is "
            "the private key of --certfile"
        ) from error
    return context


def certificate_fingerprint(certificate_file: Path) -> str:
    """Return the SHA-256 fingerprint of a certificate, as browsers show it."""
    from cryptography.hazmat.primitives import hashes

    digest = _load(certificate_file.read_bytes()).fingerprint(hashes.SHA256())
    return ":".join(f"{byte:02X}" for byte in digest)


def ensure_self_signed_certificate(host_names: Sequence[str]) -> Path:
    """Return a file with a self-signed certificate for these host names, and its key.

    The file is created if there is no usable one. It is kept, so that a browser that trusts the
    certificate does so at the next start.

    Raises:
        MissingPackageError: ``cryptography`` is not installed.
        RevacnnError: the file cannot be written.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "--self-signed requires cryptography: pip install 'revacnn-lightning[tls]'; or use "
            "--certfile and --keyfile"
        ) from error
    path = runtime_dir() / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        private_files.check_not_writable_by_others(path.parent)
        if not _is_usable(path, host_names):
            private_files.write(path, _make(host_names))
    except OSError as error:
        raise RevacnnError(
            f"cannot write the certificate {path}: {error}; set REVACNN_RUNTIME_DIR to a "
            "directory of your own"
        ) from error
    return path


def _is_usable(path: Path, names: Sequence[str]) -> bool:
    """Return whether the kept certificate is private, is for these names and has not expired."""
    from cryptography import x509

    try:
        certificate = _load(private_files.read(path))
        kept = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, ConnectionFileError, x509.ExtensionNotFound):
        return False
    days = datetime.timedelta(days=MIN_DAYS_LEFT)
    is_valid = certificate.not_valid_after_utc - days > datetime.datetime.now(datetime.timezone.utc)
    return is_valid and set(_alternative_names(names)) <= set(kept)


def _load(content: bytes) -> x509.Certificate:
    from cryptography import x509

    return x509.load_pem_x509_certificate(content)


def _make(names: Sequence[str]) -> bytes:
    """Return a new key and its certificate, in PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem + _certificate(key, names).public_bytes(serialization.Encoding.PEM)


def _certificate(key: EllipticCurvePrivateKey, names: Sequence[str]) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ReVACNN viewer")])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )


def _alternative_names(names: Sequence[str]) -> list[x509.GeneralName]:
    from cryptography import x509

    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name.strip("[]"))))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    return alternatives
