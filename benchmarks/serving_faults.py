"""What a server does to its clients when things change or go wrong.

    python benchmarks/serving_faults.py switch   # 64 clients for 60 s, a new version every 5 s: no request may fail
    python benchmarks/serving_faults.py kill     # kill -9 under load: only what was under way may be lost
    python benchmarks/serving_faults.py memory   # 100,000 requests: memory within 5 % of what it was after 10,000

Half of the clients use gRPC, half REST. Every answer is compared with what one of the versions would say. Exits with 1
where the promise is broken.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from results_files import RESULTS, bars, save, versions
from serving import export_line

from pipelines.serving.client.base import Client, connect
from pipelines.serving.process import ServerProcess
from pipelines.serving.status import StatusError

MEGABYTE = 1 << 20
WORKS = {
    "switch": "new versions under load, {} clients",
    "kill": "kill -9 under load, {} clients",
    "memory": "memory in the course of many requests, {} clients",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fault", choices=("switch", "kill", "memory"))
    parser.add_argument("--clients", type=int, default=64, help="requests under way at a time (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="how long to switch versions (%(default)s)")
    parser.add_argument("--every", type=float, default=5, help="seconds between new versions (%(default)s)")
    parser.add_argument("--requests", type=int, default=100_000, help="for memory (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "line")
        export_line(base / "1", 1.0, 0.0)
        faults = {"switch": switch, "kill": kill, "memory": memory}
        rows, facts, kept = asyncio.run(faults[options.fault](options, base))
    for row in rows:
        print(f"{row['system']}: {row['value']:,} {row['unit']}")
    print(json.dumps(facts, indent=2))
    save(f"serving_{options.fault}", rows, options.output, versions("grpcio"), bars(rows), **facts)
    sys.exit(not kept)


def rows_of(fault: str, clients: int, values: Mapping[str, float], unit: str = "requests") -> list[dict]:
    """One row a figure."""
    work = WORKS[fault].format(clients)
    return [
        {"work": work, "system": name, "value": value, "unit": unit, "ratio": None} for name, value in values.items()
    ]


class Load:
    """Clients that ask without pause, and what they were told.

    Args:
        server: to ask.
        clients: how many.
    """

    def __init__(self, server: ServerProcess, clients: int):
        self.answers: collections.Counter = collections.Counter()  # by the slope that they show
        self.errors: collections.Counter = collections.Counter()
        self.under_way = 0
        self._addresses = [("grpc", server.grpc), ("rest", f"http://{server.rest}")]
        self._clients = clients

    @contextlib.asynccontextmanager
    async def running(self, requests: float = float("inf")):
        """Asks until the block ends or so many have been answered."""
        self._most = requests
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connect(api, url, "line", retries=0)) for api, url in self._addresses
            ]
            tasks = [asyncio.ensure_future(self._ask(clients[n % 2], float(n + 1))) for n in range(self._clients)]
            try:
                yield tasks
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, client: Client, x: float) -> None:
        signature = await client.signature()
        request = client.encode(signature, {"x": [x]})
        while self.answers.total() < self._most:
            self.under_way += 1
            try:
                answer = client.decode(signature, await client.send(request))
                self.answers[answer["y"][0] / x] += 1
            except StatusError as error:
                self.errors[f"{error.code.name}: {error.message}"[:100]] += 1
                await asyncio.sleep(0.01)
            finally:
                self.under_way -= 1


async def switch(options: argparse.Namespace, base: Path) -> tuple[list[dict], dict, bool]:
    """A new version every few seconds, the one before the last deleted, under load."""
    version = 1
    with ServerProcess("--model_name=line", f"--model_base_path={base}") as server:
        load = Load(server, options.clients)
        began = time.monotonic()
        async with load.running():
            while time.monotonic() - began < options.seconds:
                await asyncio.sleep(options.every)
                version += 1
                await asyncio.to_thread(export_line, base / str(version), float(version), 0.0)
                if version > 2:
                    shutil.rmtree(base / str(version - 2))
            await asyncio.sleep(2)
        seconds = time.monotonic() - began
    wrong = {slope: n for slope, n in load.answers.items() if slope not in range(1, version + 1)}
    figures = {
        "answered": load.answers.total(),
        "failed": load.errors.total(),
        "answered wrongly": sum(wrong.values()),
    }
    facts = {
        "clients": options.clients,
        "seconds": round(seconds, 1),
        "versions_served": version,
        "errors": dict(load.errors),
        "answers_by_version": {int(slope): n for slope, n in sorted(load.answers.items())},
    }
    kept = not load.errors and not wrong and len(load.answers) == version
    return rows_of("switch", options.clients, figures), facts, kept


async def kill(options: argparse.Namespace, base: Path) -> tuple[list[dict], dict, bool]:
    """kill -9 under load, and a new server on the same ports."""
    server = ServerProcess("--model_name=line", f"--model_base_path={base}")
    load = Load(server, options.clients)
    async with load.running():
        await asyncio.sleep(5)
        under_way, before, failed_before = load.under_way, load.answers.total(), load.errors.total()
        server.kill()
        await asyncio.sleep(0.5)
        lost = _lost(load)
        await asyncio.to_thread(server.start)
        answered = load.answers.total()
        await asyncio.sleep(5)
        after, lost_later = load.answers.total() - answered, _lost(load) - lost
    server.kill()
    figures = {
        "answered before": before,
        "failed before": failed_before,
        "under way at the kill": under_way,
        "lost": lost,
        "lost after the restart": lost_later,
        "answered after the restart": after,
    }
    facts = {"clients": options.clients, "errors": dict(load.errors)}
    kept = not failed_before and lost <= under_way and not lost_later and after > 0
    return rows_of("kill", options.clients, figures), facts, kept


def _lost(load: Load) -> int:
    """Requests that were sent and not answered; the others found nobody to take them."""
    return sum(n for text, n in load.errors.items() if "nothing listens" not in text)


async def memory(options: argparse.Namespace, base: Path) -> tuple[list[dict], dict, bool]:
    """Resident memory in the course of many requests."""
    with ServerProcess("--model_name=line", f"--model_base_path={base}") as server:
        process = psutil.Process(server.process.pid)
        resident = {}
        load = Load(server, options.clients)
        for part in range(1, 11):
            async with load.running(options.requests * part // 10) as tasks:
                await asyncio.gather(*tasks)
            resident[load.answers.total()] = round(process.memory_info().rss / MEGABYTE, 1)
    first, *_, last = resident.values()
    kept = last <= 1.05 * first and not load.errors
    return memory_rows(options.clients, resident), {"clients": options.clients, "failed": load.errors.total()}, kept


def memory_rows(clients: int, resident: Mapping[int, float]) -> list[dict]:
    """Of resident megabytes after so many requests; `ratio` is that to the first."""
    rows = rows_of("memory", clients, {f"after {n:,} requests": held for n, held in resident.items()}, "MB resident")
    return [row | {"ratio": round(row["value"] / rows[0]["value"], 4)} for row in rows]


if __name__ == "__main__":
    main()
