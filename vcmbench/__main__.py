"""`python -m vcmbench` is the `vcmbench` command."""

from vcmbench.cli import main

main()
