"""Runs Dino in a room, and prints what its window shows, in JSON. The window is read as a screen reader reads it."""

import functools
import json
import os
import sqlite3
import subprocess
import sys
import time
from typing import NamedTuple

import gi

gi.require_version("Atspi", "2.0")
from gi.repository import Atspi, GLib

GROUPCHAT = 1
TIMEOUT_SECONDS = 15
ATTEMPTS = 5


def configure(jid, password, room, nick):
    """Writes an account and an open conversation into the database, which Dino 0.4 creates."""
    subprocess.run(["dino-im", "--version"], stdout=subprocess.DEVNULL, timeout=TIMEOUT_SECONDS, check=True)
    database = sqlite3.connect(os.path.join(os.environ["XDG_DATA_HOME"], "dino", "dino.db"))
    now = int(time.time())
    account = database.execute(
        "INSERT INTO account (bare_jid, resourcepart, password, alias, enabled) VALUES (?, 'dino', ?, '', 1)",
        (jid, password),
    ).lastrowid
    counterpart = database.execute("INSERT INTO jid (bare_jid) VALUES (?)", (room,)).lastrowid
    database.execute(
        "INSERT INTO conversation (account_id, jid_id, resource, type, active, active_last_changed, last_active,"
        " encryption, notification, send_typing, send_marker) VALUES (?, ?, ?, ?, 1, ?, ?, 0, 0, 0, 0)",
        (account, counterpart, nick, GROUPCHAT, now, now),
    )
    database.commit()
    database.close()


def until(what, probe):
    """Waits for what the probe returns."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < end:
        result = probe()
        if result:
            return result
        time.sleep(0.05)
    raise TimeoutError(f"not within {TIMEOUT_SECONDS} seconds: {what}")


class Part(NamedTuple):
    """A part of the window. A part without a text has the name of its class."""

    node: Atspi.Accessible
    role: Atspi.Role
    name: str
    inside: tuple[str, ...]


def parts(node, inside=()):
    """A part and what is in it, from top to bottom, as they are now."""
    node.clear_cache()
    part = Part(node, node.get_role(), node.get_name(), inside)
    yield part
    for index in range(node.get_child_count()):
        child = node.get_child_at_index(index)
        if child is not None:
            yield from parts(child, (*inside, part.name))


@functools.cache
def found(name):
    """The part with this name or description. It is kept: to read the whole window takes a second."""

    def search():
        window = parts(Atspi.get_desktop(0))
        return next((part.node for part in window if name in (part.name, part.node.get_description())), None)

    return until(f"the window has {name}", search)


def labels(read):
    return [part for part in read if part.role == Atspi.Role.LABEL and part.name != "GtkLabel"]


def open_list():
    """The list that the button "Members" opens and closes; None while it is closed."""
    return next((part.node for part in parts(found("Members")) if part.role == Atspi.Role.LIST), None)


def occupants():
    """The nicks in the list of members, which is opened for that."""
    button = found("Members").get_child_at_index(0)
    if open_list() is None:
        Atspi.Action.do_action(button, 0)
    members = until("the list of members opens", open_list)
    rows = [parts(part.node) for part in parts(members) if part.role == Atspi.Role.LIST_ITEM]
    nicks = [labels(row)[0].name for row in rows]
    Atspi.Action.do_action(button, 0)
    until("the list of members closes", lambda: open_list() is None)
    return nicks


def look(what):
    """What the window shows. Parts may disappear while they are read."""
    for attempt in range(ATTEMPTS):
        try:
            conversation = labels(parts(found("DinoUiConversationView")))
            is_message = ["DinoUiConversationSummaryConversationView" in part.inside for part in conversation]
            return {
                "shown": [part.name for part, is_it in zip(conversation, is_message) if is_it],
                "below": [part.name for part, is_it in zip(conversation, is_message) if not is_it],
                "conversations": [part.name for part in labels(parts(found("DinoUiConversationSelector")))],
                "listed": occupants() if what == "occupants" else [],
            }
        except GLib.Error:
            if attempt == ATTEMPTS - 1:
                raise


Atspi.set_timeout(TIMEOUT_SECONDS * 1000, 0)
configure(*sys.argv[1:])
subprocess.Popen(["dino-im"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
for line in sys.stdin:
    number, *what = line.split()
    print(json.dumps({"look": int(number), **look(" ".join(what))}), flush=True)
