"""`python -m minilumiere`, which torchrun needs."""

import sys

from minilumiere.cli import main

sys.exit(main())
