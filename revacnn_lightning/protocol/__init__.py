"""The wire protocol: messages, sockets and connection files. Imports no torch; no pickle."""
