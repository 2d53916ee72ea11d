"""The commands of `python -m skippipe`; the only modules of the package that print."""
