"""A project to begin with: commented, small, and good as it is."""

from __future__ import annotations

import re
from pathlib import Path

from engine.errors import ActionFailed, Conflict, UsageError
from engine.pipeline.project.layout import FILE
from engine.pipeline.project.model import NAME

TEMPLATE = Path(__file__).with_name("template")
# Where each file of the template goes in a project.
FILES = {FILE: FILE, "data.py": "data.py", "train.py": "train.py", "test_train.py": "tests/test_train.py",
         "gitignore": ".gitignore", "pytest.ini": "pytest.ini", "README.md": "README.md"}
NAMED = "PROJECT"  # stands in the template for the project's name


def write(folder: Path) -> list[Path]:
    """Write it into a folder, which is made; the paths, relative to it, in order. The project has the
    folder's name.

    Raises Conflict where one of its files is there already: then nothing is written; UsageError for a folder
    that is a file; ActionFailed when it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError("this is a file, where a project's folder is wanted", where=str(folder))
    there = [name for name in FILES.values() if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        more = f", and so are {', '.join(there[1:])}" if there[1:] else ""
        raise Conflict(f"there is a file already{more}", where=str(folder / there[0]),
                       hint="nothing was written; name another folder, or `opsdeck check` what is there")
    name = named(folder)
    try:
        for source, target in FILES.items():
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (TEMPLATE / source).read_text(encoding="utf-8").replace(NAMED, name)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except FileExistsError as error:
        raise Conflict(f"{target} came to be meanwhile", where=str(folder / target)) from error
    except OSError as error:
        raise ActionFailed(f"the project cannot be written: {error.strerror}",
                           where=str(error.filename or folder)) from error
    return [Path(target) for target in FILES.values()]


def named(folder: Path) -> str:
    """A name for the project of a folder: the folder's, as far as a project may have it."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-")
    return name if re.fullmatch(NAME, name) else "my-model"
