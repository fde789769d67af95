"""Which project a word on the command line means: one that the engine's config names, or a folder."""

from __future__ import annotations

from pathlib import Path

from engine.home import Home


def folder(home: Home, named: str) -> Path:
    """The folder of a project (or its file). What looks like a path is one; a word is a folder here that has
    a project, else a name of the config. Raises NotFound with the names that there are."""
    from engine.pipeline.project.layout import FILE, is_project

    path = Path(named).expanduser()
    if "/" in named or named in (".", "..") or named == FILE or is_project(path):
        return path
    known = _known(home)
    if named in known:
        return known[named]
    if path.is_dir():
        return path  # which says what is missing there
    import difflib

    from engine.errors import NotFound

    near = difflib.get_close_matches(named, known, 1)
    names = f"opsdeck.yaml names {', '.join(sorted(known))}" if known else "opsdeck.yaml names no projects"
    raise NotFound(f"there is no project {named!r}, neither a folder here nor in the engine's config",
                   where=str(home.config), hint=f"did you mean {near[0]}?" if near else
                   f"{names}; or write a folder that has {FILE}")


def meant(project: str) -> str:
    """A project as the engine finds it: a folder by its whole path, since the engine stands elsewhere."""
    return str(Path(project).expanduser().absolute()) if "/" in project or project in (".", "..") else project


def elsewhere(home: Home, project: str, folder: Path) -> Path | None:
    """The folder that the engine builds a project from, where that is not `folder`; None where it is, or
    where the engine builds none of that name."""
    known = _known(home).get(project)
    if known is None or known.resolve() == folder.resolve():
        return None
    return known


def _known(home: Home) -> dict[str, Path]:
    from engine.config_file import load

    return load(home.config).pipelines.projects
