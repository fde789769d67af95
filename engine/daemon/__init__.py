"""The engine as a long-lived process: its socket, who is calling, its start and its end."""
