"""A bot: enters a room, prints what it hears as JSON, an event a line, and says the lines of its standard input."""

import asyncio
import json
import sys

import slixmpp

host, user, password, room, nick = sys.argv[1:]


def tell(kind, **what):
    print(json.dumps({"kind": kind, **what}), flush=True)


class Bot(slixmpp.ClientXMPP):
    def __init__(self):
        super().__init__(f"{user}@{host}/slixmpp", password)
        self.register_plugin("xep_0045")
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("groupchat_message", lambda message: tell("line", nick=message["mucnick"], body=message["body"]))
        self.add_event_handler(f"muc::{room}::got_offline", self.somebody_left)
        self.add_event_handler(f"muc::{room}::got_online", lambda presence: self.tell_roster())
        self.add_event_handler(f"muc::{room}::presence-error", lambda presence: tell("error", condition=presence["error"]["condition"]))

    async def start(self, _event):
        self.send_presence()
        self["xep_0045"].join_muc(room, nick)
        lines = asyncio.StreamReader()
        await self.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := (await lines.readline()).decode().strip():
            self.send_message(room, line, mtype="groupchat")
        await self.disconnect()

    def somebody_left(self, presence):
        codes = sorted(status.get("code") for status in presence.xml.iter("{http://jabber.org/protocol/muc#user}status"))
        tell("left", nick=presence["muc"]["nick"], codes=codes)
        self.tell_roster()

    def tell_roster(self):
        tell("roster", nicks=sorted(self["xep_0045"].get_roster(room)))


bot = Bot()
tell("version", version=slixmpp.__version__)
bot.connect((host, 5222), force_starttls=False, disable_starttls=True)
bot.process(forever=False)
