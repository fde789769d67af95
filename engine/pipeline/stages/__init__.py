"""The stages of a pipeline. Each is a process of its own that reads files and writes files.

`contract` is what a stage gets and gives, `table` says what each depends on. A module of a stage's name has
`run(work: Work) -> Done`.
"""
