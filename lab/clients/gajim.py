"""A plug-in of Gajim: enters the room that the environment names, and prints what its page shows, in JSON."""

import json
import os
import sys

from nbxmpp.protocol import JID
from gi.repository import GLib, Gtk
from gajim.common import app
from gajim.plugins import GajimPlugin


def texts(widget, listed):
    """What a widget shows, from top to bottom. What its lists show is added to `listed`."""
    if not widget.get_mapped():
        return
    if isinstance(widget, Gtk.TextView):
        buffer = widget.get_buffer()
        yield buffer.get_text(buffer.get_start_iter(), buffer.get_end_iter(), False)
    elif isinstance(widget, Gtk.Label):
        yield widget.get_text()
    elif isinstance(widget, Gtk.TreeView):
        if widget.get_model() is not None:
            listed.extend(rows(widget.get_model(), None))
    elif isinstance(widget, Gtk.Container):
        for child in widget.get_children():
            yield from texts(child, listed)


def rows(model, parent):
    row = model.iter_children(parent)
    while row is not None:
        for column in range(model.get_n_columns()):
            value = model.get_value(row, column)
            if isinstance(value, str):
                yield value
        yield from rows(model, row)
        row = model.iter_next(row)


class PingMucLab(GajimPlugin):
    def init(self):
        self.description = "the laboratory of ping-muc"

    def activate(self):
        GLib.timeout_add(200, self.join)
        GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, self.look)

    def deactivate(self):
        pass

    def join(self):
        account = os.environ["LAB_ACCOUNT"]
        if not app.account_is_available(account):
            return True
        room = os.environ["LAB_ROOM"]
        app.window.show_add_join_groupchat(account, room, os.environ["LAB_NICK"])
        GLib.timeout_add(2000, app.window.select_chat, account, JID.from_string(room))
        return False

    def look(self, _stdin, _condition):
        number = sys.stdin.readline()
        if not number:
            return False
        listed = []
        try:
            shown = [text for text in texts(app.window.get_chat_stack(), listed) if text.strip()]
        except Exception as error:  # Gajim would show it
            shown = [f"not to be seen: {error!r}"]
        print(json.dumps({"look": int(number), "shown": shown, "listed": listed}), flush=True)
        return True
