"""The four sockets of the protocol.

====================  ========================  =========================================
training side         viewer side               carries
====================  ========================  =========================================
`Publisher` (XPUB)    `Subscriber` (SUB)        telemetry, to all viewers
`RequestServer`       `Requester` (DEALER)      requests, and each reply to its client
(ROUTER)
====================  ========================  =========================================

No method waits: sending drops the message or fails, receiving returns what has arrived. libzmq's
own queue is used, so the training process needs no thread and no lock.
"""

from __future__ import annotations

from revacnn_lightning.protocol.base_socket import Keys
from revacnn_lightning.protocol.run_sockets import Publisher, RequestServer
from revacnn_lightning.protocol.viewer_sockets import Requester, Subscriber

__all__ = ["Keys", "Publisher", "RequestServer", "Requester", "Subscriber"]
