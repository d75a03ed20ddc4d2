"""What a client may send through a TCP port, in bytes per second."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from revacnn_lightning.protocol import forwarder_main
from revacnn_lightning.protocol.forwarder_main import Throttle


def test_what_a_client_sends_too_fast_is_delayed(monkeypatch: pytest.MonkeyPatch):
    """A message of many frames was kept in memory until it was complete, however large."""
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr(forwarder_main.time, "monotonic", lambda: 100.0)
    throttle = Throttle(bytes_per_second=1000.0, burst_bytes=500.0)
    monkeypatch.setattr(forwarder_main.asyncio, "sleep", sleep)

    def send(n: int) -> None:
        with pytest.raises(StopIteration):
            throttle.wait(n).send(None)

    send(400)
    assert delays == []
    send(400)
    assert delays == pytest.approx([0.3])
    send(1000)
    assert delays == pytest.approx([0.3, 1.3])


def test_of_the_connections_without_the_key_the_oldest_gives_way():
    async def fill() -> list[bool]:
        port = forwarder_main.ConnectionForwarder("path", bytes_per_second=1.0, burst_bytes=1.0)
        tasks = [asyncio.ensure_future(asyncio.sleep(60)) for _ in range(20)]
        for task in tasks[:3]:
            port.proven[task] = None  # type: ignore[index]
        for task in tasks[3:]:
            port._admit_unproven(task)  # type: ignore[arg-type]
        assert len(port.proven) + len(port.unproven) == forwarder_main.MAX_CONNECTIONS
        await asyncio.sleep(0)
        cancelled = [task.cancelled() for task in tasks]
        for task in tasks:
            task.cancel()
        return cancelled

    assert asyncio.run(fill()) == [False] * 3 + [True] * 4 + [False] * 13


def test_viewers_with_the_key_never_give_way():
    async def fill() -> None:
        port = forwarder_main.ConnectionForwarder("path", bytes_per_second=1.0, burst_bytes=1.0)
        tasks = [asyncio.ensure_future(asyncio.sleep(60)) for _ in range(17)]
        for task in tasks[:16]:
            port.proven[task] = None  # type: ignore[index]
        with pytest.raises(forwarder_main.HostileClientError):
            port._admit_unproven(tasks[16])  # type: ignore[arg-type]
        for task in tasks:
            task.cancel()

    asyncio.run(fill())


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="an option of Linux")
def test_a_viewer_that_has_vanished_does_not_keep_its_place():
    """Sixteen laptops that had left the network kept all others out until the end of the run."""

    async def options_of_a_connection() -> tuple[int, bool]:
        port = forwarder_main.ConnectionForwarder("/nowhere", bytes_per_second=1.0, burst_bytes=1.0)
        found: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            serving = asyncio.ensure_future(port.serve(reader, writer))
            while not port.silent:
                await asyncio.sleep(0)
            timeout = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            is_checked = bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            found.set_result((timeout, is_checked))
            serving.cancel()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            with socket.create_connection(server.sockets[0].getsockname()):
                return await asyncio.wait_for(found, 60)
        finally:
            server.close()

    expected = forwarder_main.KEEPALIVE["TCP_USER_TIMEOUT"], True
    assert asyncio.run(options_of_a_connection()) == expected


def test_connections_that_the_run_has_not_closed_yet_count(tmp_path: Path):
    """While the run was busy, a flood piled up 93 descriptors in it."""

    async def connect_and_end() -> None:
        is_idle = asyncio.Event()

        async def close_when_idle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await is_idle.wait()
            writer.close()

        path = str(tmp_path / "run")
        run = await asyncio.start_unix_server(close_when_idle, path)
        port = forwarder_main.ConnectionForwarder(path, bytes_per_second=1.0, burst_bytes=1.0)
        open_ones = [await port._connect_to_run() for _ in range(forwarder_main.MAX_CONNECTIONS)]
        endings = [asyncio.ensure_future(port._end(*each)) for each in open_ones]
        await asyncio.sleep(0)  # all of them have begun
        assert port._places.locked()
        is_idle.set()
        await port._end(*await port._connect_to_run())
        await asyncio.gather(*endings)
        assert not port._places.locked()
        run.close()

    asyncio.run(connect_and_end())
