"""`python -m caguda VERB`."""

import sys

from caguda.cli import main

sys.exit(main())
