"""`python -IS .../cli/__main__.py`: the client from a bare checkout; also `python -m corral.cli`."""

import sys

if not __package__:
    sys.path.insert(0, __file__.removesuffix("/corral/cli/__main__.py"))

from corral.cli.main import main

sys.exit(main())
