"""Certificates for TLS."""

from __future__ import annotations

import builtins
import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from revacnn_lightning import ConnectionFileError, MissingPackageError, RevacnnError
from revacnn_lightning.page_server import certificate as certificates
from revacnn_lightning.page_server.certificate import (
    certificate_fingerprint,
    ensure_self_signed_certificate,
    tls_context,
)

NAMES = ["gpu7", "127.0.0.1", "[::1]"]


def test_a_certificate_is_made_once_and_only_its_owner_can_read_it(runtime_dir: Path):
    path = ensure_self_signed_certificate(NAMES)
    first = path.read_bytes()
    assert path.parent == runtime_dir
    assert path.stat().st_mode & 0o777 == 0o600
    assert ensure_self_signed_certificate(NAMES[:2]).read_bytes() == first
    assert isinstance(tls_context(path), ssl.SSLContext)
    assert re.fullmatch(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", certificate_fingerprint(path))


def test_a_certificate_for_other_names_or_of_other_readers_is_replaced(runtime_dir: Path):
    path = ensure_self_signed_certificate(NAMES)
    first = path.read_bytes()
    second = ensure_self_signed_certificate([*NAMES, "gpu8"]).read_bytes()
    assert second != first
    path.chmod(0o644)  # others may know the key
    assert ensure_self_signed_certificate(NAMES).read_bytes() != second
    path.write_bytes(b"no certificate")
    assert b"PRIVATE KEY" in ensure_self_signed_certificate(NAMES).read_bytes()


def test_a_certificate_that_expires_soon_is_replaced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(certificates, "VALID_DAYS", certificates.MIN_DAYS_LEFT)
    first = ensure_self_signed_certificate(NAMES).read_bytes()
    monkeypatch.undo()
    assert ensure_self_signed_certificate(NAMES).read_bytes() != first


def test_no_certificate_is_kept_where_others_can_replace_it(runtime_dir: Path):
    runtime_dir.mkdir()
    runtime_dir.chmod(0o777)
    with pytest.raises(ConnectionFileError, match="chmod 700"):
        ensure_self_signed_certificate(NAMES)


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    original = builtins.__import__

    def without_cryptography(name: str, *others: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return original(name, *others)

    monkeypatch.setattr(builtins, "__import__", without_cryptography)
    with pytest.raises(MissingPackageError, match=r"revacnn-lightning\[tls\]"):
        ensure_self_signed_certificate(NAMES)


def test_an_unusable_certificate_is_an_error_of_the_user(tmp_path: Path):
    with pytest.raises(RevacnnError, match="cannot use the certificate"):
        tls_context(tmp_path / "missing.pem")
    (tmp_path / "empty.pem").write_bytes(b"")
    with pytest.raises(RevacnnError, match="--keyfile is the private key"):
        tls_context(tmp_path / "empty.pem", tmp_path / "empty.pem")
