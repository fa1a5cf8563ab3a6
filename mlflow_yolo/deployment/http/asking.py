"""Images to a backend and its answers back, without blocking the event loop."""

import asyncio
from collections.abc import Sequence

from mlflow_yolo.deployment.inference.backend import Answer, Backend, Busy, Options, TooLate
from mlflow_yolo.exceptions import MlflowYoloError
from mlflow_yolo.runtime.images import Pixels


async def ask(backend: Backend, image: bytes | Pixels, options: Options, *, timeout_s: float) -> Answer:
    """Return the answer for one image.

    Raises:
        Busy: As much waits as may.
        TooLate: It is not there after `timeout_s` seconds, whatever the backend's own limit; it is given up there, too.
        ArgumentError: The image cannot be read.
        Closed: Nothing is computed any more.
    """
    future = asyncio.wrap_future(backend.submit(image, options))
    try:
        async with asyncio.timeout(timeout_s):
            return await future
    except TimeoutError:
        raise TooLate(f"no answer after {timeout_s:g} s. Come again, or raise the limit.") from None


async def ask_all(
    backend: Backend, images: Sequence[bytes | Pixels], options: Options, *, timeout_s: float
) -> list[Answer | MlflowYoloError]:
    """Return each image's answer or error, in order.

    Where the backend has no room left, the request's own images are waited for before the next is sent: a batch may be
    longer than the line.

    Raises:
        Busy: There was no room for the first one.
    """
    end = asyncio.get_running_loop().time() + timeout_s
    tasks: list[asyncio.Task[Answer]] = []
    results: list[Answer | MlflowYoloError] = []
    try:
        for image in images:
            tasks.append(await _start(backend, image, options, tasks, end))
        for task in tasks:
            results.append(await _outcome(task))
    finally:
        for task in tasks:
            task.cancel()
    if results and all(isinstance(result, Busy) for result in results):
        raise results[0]  # type: ignore[misc]
    return results


async def _start(
    backend: Backend, image: bytes | Pixels, options: Options, tasks: Sequence["asyncio.Task[Answer]"], end: float
) -> "asyncio.Task[Answer]":
    """Send one image; where there is no room, after the others of its request have made some."""
    loop = asyncio.get_running_loop()
    while True:
        task = loop.create_task(ask(backend, image, options, timeout_s=max(end - loop.time(), 0.001)))
        await asyncio.sleep(0)
        refused = task.done() and not task.cancelled() and isinstance(task.exception(), Busy)
        waiting = [one for one in tasks if not one.done()]
        if not refused or not waiting:
            return task
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


async def _outcome(task: "asyncio.Task[Answer]") -> Answer | MlflowYoloError:
    try:
        return await task
    except MlflowYoloError as error:
        return error
