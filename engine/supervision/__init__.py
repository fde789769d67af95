"""Long-lived processes that outlive the engine: servers, gateways, traffic."""

from engine.supervision.supervisor import ProcessSupervisor, processes

__all__ = ["ProcessSupervisor", "processes"]
