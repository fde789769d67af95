"""What an engine does for a split with a lease, as a process that a test may kill.

    python leasing_engine.py HOME CONFIG LEASE_S PERCENT

Shifts PERCENT of flights to the challenger under a lease and renews it four times in each lease; a line
on standard output for each.
"""

import asyncio
import sys
from pathlib import Path

from engine.config_file import load
from engine.rollout.traffic.leases import Leases
from engine.rollout.traffic.routers import Routers


async def main() -> None:
    home, lease_s, percent = Path(sys.argv[1]), float(sys.argv[3]), float(sys.argv[4])
    routers = Routers(load(Path(sys.argv[2])), Leases(home))
    seen = await routers.traffic("flights")
    await routers.shift_leased(seen, "flights", {"champion": 100 - percent, "challenger": percent}, lease_s,
                               seen.weights)
    print("shifted", flush=True)
    while True:
        await asyncio.sleep(lease_s / 4)
        await routers.renew("flights", lease_s)
        print("renewed", flush=True)


asyncio.run(main())
