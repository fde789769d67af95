"""Running a project's own code, apart from the engine: its environment, its limits, and its end.

`environments` makes the project's Python from its lock, `process` runs a command in it under `guard`,
`entries` runs what the project file names, a function by way of `runner`.
"""
