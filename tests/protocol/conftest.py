"""Fixtures of both sides of the protocol."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from revacnn_lightning.protocol.sockets import Keys, Publisher, Requester, RequestServer, Subscriber


@pytest.fixture
def keys() -> Keys:
    return Keys.generate()


@pytest.fixture
def publisher(keys: Keys) -> Iterator[Publisher]:
    end = Publisher("tcp://127.0.0.1:0", keys)
    yield end
    end.close()


@pytest.fixture
def server(keys: Keys) -> Iterator[RequestServer]:
    end = RequestServer("tcp://127.0.0.1:0", keys)
    yield end
    end.close()


@pytest.fixture
def subscriber(publisher: Publisher, keys: Keys) -> Iterator[Subscriber]:
    end = Subscriber(publisher.endpoint, keys.public)
    yield end
    end.close()


@pytest.fixture
def requester(server: RequestServer, keys: Keys) -> Iterator[Requester]:
    end = Requester(server.endpoint, keys.public)
    yield end
    end.close()
