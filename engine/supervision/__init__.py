"""Long-lived processes that outlive the engine: servers, gateways, traffic."""
