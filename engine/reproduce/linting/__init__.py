"""The rules of `opsdeck reproduce lint`: each reads one file of a project and yields findings."""
