"""``python -m revacnn_lightning`` is the ``revacnn`` command."""

import sys

from revacnn_lightning.cli import main

sys.exit(main())
