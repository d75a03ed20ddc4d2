"""What the tests of the page's server share."""

from __future__ import annotations

import pytest

from revacnn_lightning.page_server.access_token import AccessToken
from tests.viewer.processes import TOKEN


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> AccessToken:
    """The token of this process, which otherwise is made once."""
    monkeypatch.setattr(AccessToken, "of_this_process", lambda: TOKEN)
    return TOKEN
