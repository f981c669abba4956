"""`python -m worker …` is `connectors …`."""

from worker.cli import main

main()
