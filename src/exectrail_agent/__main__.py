"""Makes ``python3 -m exectrail_agent`` and the zipapp the command."""

import sys

from exectrail_agent.cli import main

sys.exit(main())
