"""A bot: enters a room, prints the events that it receives as JSON, and sends the lines of its standard input."""

import asyncio
import json
import sys

import slixmpp

host, user, password, room, nick = sys.argv[1:]


def report(kind, **what):
    print(json.dumps({"kind": kind, **what}), flush=True)


class Bot(slixmpp.ClientXMPP):
    def __init__(self):
        super().__init__(f"{user}@{host}/slixmpp", password)
        self.register_plugin("xep_0045")
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("groupchat_message", self.line_received)
        self.add_event_handler(f"muc::{room}::got_offline", self.occupant_left)
        self.add_event_handler(f"muc::{room}::got_online", lambda presence: self.report_roster())
        self.add_event_handler(f"muc::{room}::presence-error", self.refused)

    async def start(self, _event):
        self.send_presence()
        self["xep_0045"].join_muc(room, nick)
        lines = asyncio.StreamReader()
        await self.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := (await lines.readline()).decode().strip():
            self.send_message(room, line, mtype="groupchat")
        await self.disconnect()

    def line_received(self, message):
        report("line", nick=message["mucnick"], body=message["body"])

    def refused(self, presence):
        report("error", condition=presence["error"]["condition"])

    def occupant_left(self, presence):
        statuses = presence.xml.iter("{http://jabber.org/protocol/muc#user}status")
        codes = sorted(status.get("code") for status in statuses)
        report("left", nick=presence["muc"]["nick"], codes=codes)
        self.report_roster()

    def report_roster(self):
        report("roster", nicks=sorted(self["xep_0045"].get_roster(room)))


bot = Bot()
report("version", version=slixmpp.__version__)
bot.connect((host, 5222), force_starttls=False, disable_starttls=True)
bot.process(forever=False)
