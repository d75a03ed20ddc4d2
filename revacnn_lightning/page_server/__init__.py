"""The server of the viewer's page: who may open it, and by which names. No torch."""
