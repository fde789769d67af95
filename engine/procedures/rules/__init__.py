"""What `check` knows to be wrong with a procedure, one subject a module.

Each module has `problems(draft) -> Iterator[Problem]`, pure and never raising.
"""
