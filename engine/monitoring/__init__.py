"""What the services do now: scrapes folded into signals, limits into alerts, and their history."""
