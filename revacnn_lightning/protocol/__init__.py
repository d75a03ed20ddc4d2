"""What crosses the wire: typed messages, sockets, connection files. Never torch, never pickle."""
