"""What begins a pipeline by itself: commits, new data, a schedule, drift, a signed request, or a person.

`deciding` says what is built and what is not, from what was recorded; `git`, `data` and `cron` look at the
world; `ingest` is the port for other machines; `watcher` is the part of the engine that puts them together.
"""
