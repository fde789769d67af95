"""What the console and the short commands import: typed messages and the clients that carry them."""
