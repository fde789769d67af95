"""The users that the config tells of. Asks the user database for the members of groups: once for a config."""

from __future__ import annotations

import grp
import os
import pwd

from engine.config import Config


def known_users(config: Config) -> frozenset[str]:
    """Everybody that `roles:` and `people:` name, by a group too, and whose engine it is unless it is a
    system's. Users whose first group is a role's are not among a group's members, and so not told of."""
    found = {*config.people, *(user for members in config.roles.values() for user in members.users)}
    for group in {name for members in config.roles.values() for name in members.groups}:
        try:
            found.update(grp.getgrnam(group).gr_mem)
        except KeyError:
            continue
    if config.engine.steps_user is None:
        try:
            found.add(pwd.getpwuid(os.geteuid()).pw_name)
        except KeyError:
            return frozenset(found)
    return frozenset(found)
