"""Step of the set-up: read the flights and keep them. `python -m engine.demo.prepare --home H`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from engine.demo import flights
from engine.demo.command import guarded
from engine.demo.layout import Layout


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.demo.prepare", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    layout = Layout(parser.parse_args().home)
    begun = time.monotonic()
    print("reading the flights of 2013 out of New York and their weather", flush=True)
    about, fresh = flights.prepare(layout)
    if not fresh:
        print("they were read before, and the files have not changed since", flush=True)
    print(f"{about.scheduled:,} flights, {about.rows:,} with an arrival, in {about.origin[0]}, "
          f"{about.origin[1]} and {about.origin[2]}, {len(about.carrier)} carriers")
    months = about.late_by_month
    print(f"more than {flights.LATE_MINUTES} min late: {months[0]:.0%} in January, "
          f"{months[3]:.0%} in April, {months[6]:.0%} in July")
    print(f"kept in {layout.flights}, {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    guarded(main)
