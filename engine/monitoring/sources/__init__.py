"""Where live numbers come from: one protocol (`source`) and its adapters."""
