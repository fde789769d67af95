"""`opsdeck pipeline VERB`: a project of its own, and the versions of what defines it. A module for each verb,
with `configure(parser)` and `run(args)` as a verb of its own has, loaded when it is asked for."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from typing import Any

NAME = "pipeline"
HELP = "begin a project, render it for a cluster, and go back to an earlier definition"
VERBS: Mapping[str, tuple[str, str]] = {
    "init": ("engine.cli.pipeline_init", "write a commented project to begin with"),
    "render": ("engine.cli.pipeline_render", "a Dockerfile and Kubernetes manifests of a project"),
    "evidence": ("engine.cli.pipeline_evidence", "the page that whoever approves a release is shown"),
    "clean": ("engine.cli.pipeline_clean", "remove what nothing refers to any more, or say what would go"),
    "history": ("engine.cli.pipeline_history", "the definitions that runs have used, newest first"),
    "rollback": ("engine.cli.pipeline_rollback", "put an earlier definition back; it is recorded"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = ("examples:\n  opsdeck pipeline init flights\n  opsdeck pipeline history flights\n"
                     "  opsdeck pipeline rollback flights 3 --reason 'the new gates refuse every model'")
    subs = parser.add_subparsers(dest="pipeline", required=True, metavar="VERB", parser_class=_Verb)
    for verb, (module, help) in VERBS.items():
        sub = subs.add_parser(verb, help=help, description=f"{help[0].upper()}{help[1:]}.",
                              allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.module = module


def run(args: argparse.Namespace) -> int:
    code: int = importlib.import_module(VERBS[args.pipeline][0]).run(args)
    return code


class _Verb(argparse.ArgumentParser):
    """A verb's parser, whose options are its module's once it is the one that is asked for."""

    module: str | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.module is not None:
            module, self.module = self.module, None
            importlib.import_module(module).configure(self)
        return super().parse_known_args(args, namespace)
