"""Where a request comes from, in words."""

from __future__ import annotations

import pytest

from revacnn_lightning.protocol.senders import describe_address


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("localhost:1000:1000:4711", "process 4711"),
        (":1000:1000:4711", "process 4711"),
        ("localhost:1000:1000:42", "its TCP port"),
        ("10.0.0.7", "10.0.0.7"),
        ("fe80::1:2", "fe80::1:2"),
        ("", ""),
    ],
)
def test_addresses(address: str, text: str):
    assert describe_address(address, titles={42: "its TCP port"}) == text
