"""A whole server process for tests that attack it.

Its argument is a JSON object: the capacity of its engine, and limits.
Every reply begins with "begun " and goes on only when it is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import sys

from llm_api.address import Address
from llm_api.limits import Limits
from llm_api.server.app import App
from llm_api.server.listening import bind
from llm_api.server.loading import Model
from llm_api.server.server import Server

from .scripted import ScriptedEngine
from .serving import PlainTemplate, make_settings


class ForgetfulEngine(ScriptedEngine):
    """Keeps nothing of a request that was cancelled, so that the memory is the server's own."""

    def cancel(self, request_id: int) -> None:
        if request_id in self._by_id:
            super().cancel(request_id)
            del self._by_id[request_id]


async def main() -> None:
    settings = json.loads(sys.argv[1])
    capacity = settings.pop("capacity")
    engine = ForgetfulEngine(lambda job: job.say("begun "), capacity)
    engine.attach(asyncio.get_running_loop())
    sockets = bind(Address("127.0.0.1", 0))
    app = App(make_settings(), Limits(**settings))
    app.use(Model(engine, PlainTemplate()))  # type: ignore[arg-type]
    server = Server(app, sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.close()


if __name__ == "__main__":
    asyncio.run(main())
