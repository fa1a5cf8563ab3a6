"""Promotes versions, each in a thread and with a client of its own, until each has been champion once.

    python promoting_victim.py URI NAME try 3,4,5       each tries once; prints a line for each that was told it won
    python promoting_victim.py URI NAME once 3,4,5      each goes on until it has won once
    python promoting_victim.py URI NAME for-ever 3,4,5  promotes and rolls back until it is killed

It begins when a line arrives at its standard input, so that many can begin at once.
"""

import contextlib
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.registry.champions import champion, crown, roll_back, settled
from mlflow_yolo.registry.store import open_registry

TARGET = "cpu"


def main(uri: str, name: str, mode: str, versions: str) -> None:
    clients = {version: open_registry(uri) for version in versions.split(",")}
    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(len(clients)) as pool:
        work = {"try": try_once, "once": once, "for-ever": for_ever}[mode]
        for future in [pool.submit(work, client, name, version) for version, client in clients.items()]:
            future.result()


def try_once(client, name: str, version: str) -> None:
    try:
        crown(client, name, version=version, target=TARGET, expected="", by=version)
    except WorkError:
        return
    print(f"won {version}", flush=True)


def once(client, name: str, version: str) -> None:
    while not attempt(client, name, version):
        time.sleep(random.uniform(0, 2))  # else all losers read the whole history again at every win
    print(f"won {version}", flush=True)


def attempt(client, name: str, version: str) -> bool:
    expected = champion(settled(client, name, TARGET, by=version), TARGET)
    try:
        crown(client, name, version=version, target=TARGET, expected=expected, by=version)
    except WorkError:
        return False
    return True


def for_ever(client, name: str, version: str) -> None:
    while True:
        attempt(client, name, version)
        if random.random() < 0.3:
            with contextlib.suppress(ArgumentError):
                roll_back(client, name, target=TARGET, by=version)


if __name__ == "__main__":
    main(*sys.argv[1:])
