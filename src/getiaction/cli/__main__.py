"""``python -m getiaction.cli``, the same as ``getiaction``."""

import sys

from getiaction.cli import main

sys.exit(main())
