"""`opsdeck pipeline render PROJECT --out DIR`: a Dockerfile and Kubernetes manifests of a project."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "render"
HELP = "a Dockerfile and Kubernetes manifests from the project's settings"
EXAMPLES = """\
The images are named by digest, in the project's file (serving: base, image) or here. Build the image of
--docker first, with the model in DIR/model; the digest that pushing it prints is the --image of --kubernetes.

examples:
  opsdeck pipeline render . --out deploy --docker --base example/python@sha256:…
  opsdeck pipeline render . --out deploy --kubernetes --image example/flights@sha256:…
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("project", type=Path, metavar="PROJECT", help="its folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    parser.add_argument("--docker", action="store_true", help="the Dockerfile and what belongs to it")
    parser.add_argument("--kubernetes", action="store_true", help="the manifests; neither: both")
    parser.add_argument("--base", metavar="IMAGE", help="to build on, by its digest")
    parser.add_argument("--image", metavar="IMAGE", help="that was built, by its digest")


def run(args: argparse.Namespace) -> int:
    """Raises UsageError for an image without a digest, DocumentError for a project that is not right."""
    from engine.pipeline import deployment
    from engine.pipeline.project import reading

    folder = reading.file_of(args.project).parent
    project = reading.read(args.project)
    found = deployment.settings(project, base=args.base, image=args.image)
    both = not (args.docker or args.kubernetes)
    files: dict[str, bytes] = {}
    if both or args.docker:
        files |= deployment.docker(project, folder, found)
    if both or args.kubernetes:
        files |= deployment.cluster(found)
    written = deployment.write(args.out, files)
    for name in written:
        print(args.out / name)
    print(f"{len(written)} of {len(files)} files written" if written else
          f"nothing changed: all {len(files)} files are as they were")
    if found.training is None and "Dockerfile" in files:
        print("the project has no lock (environment: inherit), so no image that trains is described")
    return 0
