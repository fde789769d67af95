"""The actions that come with Opsdeck, one file per family.

`register` adds them to a registry, as an entry point of the group `opsdeck.actions` does with a
third party's. What an action needs beyond the fields of `Context` it takes from `Context.extra`:

    config     engine.config.Config     public URLs of gateways, webhooks by level
    rollouts   engine.rollout.controller.Rollouts     the watches of the rollouts that run
    start      engine.procedures.children.Children    for `pipeline.release` alone: starting a run
    home       engine.home.Home        where the engine keeps what pipelines make

and a header that is a secret from `Context.secrets`, by the name of the run's parameter.
"""

from __future__ import annotations

from engine.procedures.actions import Registry


def register(registry: Registry) -> None:
    """Add every built-in action."""
    from engine.actions import (
        http,
        metrics,
        notify,
        pipeline,
        pipeline_accept,
        release,
        rollout,
        rollout_watch,
        sagemaker,
        service,
        traffic,
    )

    for family in (http, metrics, notify, pipeline, pipeline_accept, release, rollout, rollout_watch,
                   sagemaker, service, traffic):
        for action in family.ACTIONS:
            registry.add(action)
