"""Requests as no client should send them, by number: the same seed makes the same bytes."""

import base64
import contextlib
import io
import json
import random
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

Maker = Callable[[random.Random], bytes]


@dataclass(frozen=True)
class Reply:
    """What a server said, if anything.

    Attributes:
        status: HTTP status of the first answer; None where the server closed the connection without a word.
        body: Everything after its header.
    """

    status: int | None
    body: bytes


def malformed(seed: int) -> bytes:
    """Return the bytes of one request; some of them are in order, most are not."""
    chance = random.Random(seed)
    return chance.choice(_MAKERS)(chance)


def send(port: int, request: bytes, *, patience_s: float = 2.5, timeout_s: float = 20.0) -> Reply:
    """Send bytes to a server on this machine and return its first answer.

    Args:
        port: Its port.
        request: Everything that is sent.
        patience_s: How long to wait for an answer; then the client says that nothing more comes.
        timeout_s: How long to wait after that until the server closes; it must.

    Raises:
        TimeoutError: The server neither answers nor closes.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before it was all sent
            connection.sendall(request)
        answer = b""
        connection.settimeout(patience_s)
        while not _is_whole(answer):
            try:
                chunk = connection.recv(65536)
            except TimeoutError:
                if connection.gettimeout() == timeout_s:
                    raise
                connection.settimeout(timeout_s)
                connection.shutdown(socket.SHUT_WR)
                continue
            except ConnectionResetError:
                break
            if not chunk:
                break
            answer += chunk
    if not answer:
        return Reply(None, b"")
    return Reply(int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2])


def _is_whole(answer: bytes) -> bool:
    """Return whether an answer is there up to the length that it says of itself; one to HEAD has none of it."""
    header, end, body = answer.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in header.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end and lengths) and len(body) >= lengths[0]


def request(
    body: bytes, *, path: str = "/predict", kind: str | None = "image/jpeg", method: str = "POST", extra: str = ""
) -> bytes:
    """Return a request's bytes with a true Content-Length."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"Content-Type: {kind}"] if kind is not None else []
    return ("\r\n".join(lines) + f"\r\n{extra}\r\n").encode("latin-1", "replace") + body


def picture(chance: random.Random, kind: str = "JPEG") -> bytes:
    """Return an intact image file of noise."""
    width, height = chance.randint(1, 90), chance.randint(1, 90)
    pixels = np.random.default_rng(chance.randrange(2**32)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """Return a PNG file that says that it is so large, whatever its data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """Return a JPEG file whose frame header says that it is so large."""
    whole = bytearray(picture(random.Random(0)))
    at = whole.index(b"\xff\xc0")
    whole[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(whole)


def damaged(chance: random.Random, content: bytes) -> bytes:
    """Return bytes cut short, with bits turned over, or with pieces repeated, lost or foreign."""
    content = bytes(content)
    at, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    how = chance.randrange(6)
    if how == 0:
        return content[:at]
    if how == 1:
        turned = bytearray(content)
        for _ in range(chance.choice((1, 3, 30))):
            turned[chance.randrange(len(turned))] ^= 1 << chance.randrange(8)
        return bytes(turned)
    if how == 2:
        return content[:at] + content[end:]
    if how == 3:
        return content[:at] + content[at:end] * chance.randint(2, 5) + content[end:]
    if how == 4:
        return content[:at] + chance.randbytes(chance.randint(1, 400)) + content[at:]
    return content[at:]


def _image(chance: random.Random) -> bytes:
    kind = chance.choice(("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG", "PNG"))
    return request(damaged(chance, picture(chance, kind)), kind=f"image/{kind.lower()}", path=_path(chance))


def _size(chance: random.Random) -> bytes:
    side = chance.choice((0, 1, 16, 65535, 2**20, 2**31 - 1, 2**32 - 1))
    other = chance.choice((0, 1, 16, 65500, 2**31, 2**32 - 1))
    data = chance.choice((b"", b"\0" * 3_000_000, chance.randbytes(100)))
    body = png_of(side, other, data) if chance.random() < 0.6 else jpeg_of(side % 65536, other % 65536)
    return request(body, path=_path(chance))


def _path(chance: random.Random) -> str:
    value = chance.choice(
        (
            "0",
            "1",
            "-1",
            "2",
            "nan",
            "inf",
            "-inf",
            "1e999",
            "",
            "x",
            "0x10",
            "%00",
            "%ff",
            "9" * 400,
            "0.5",
            "1.0.0",
            "٣",
        )
    )
    name = chance.choice(("conf", "iou", "max_det", "annotate", "Conf", "path", "", "conf[]", "%00"))
    tail = chance.choice(("", "", f"?{name}={value}", f"?{name}={value}&{name}=1", "?", "?&&==&", "?conf=%E2%82"))
    return chance.choice(("/predict", "/predict", "/predict", "/predict/batch", "/invocations")) + tail.encode().decode(
        "latin-1"
    )


def _value(chance: random.Random, depth: int = 0) -> object:
    simple: list[Callable[[], object]] = [
        lambda: None,
        lambda: chance.choice((True, False)),
        lambda: chance.choice((0, -1, 255, 256, 2**63, 10**40, 1.5, float("nan"), float("inf"), 1e308)),
        lambda: chance.choice(
            ("", "/etc/passwd", "http://127.0.0.1:1/x.jpg", "file:///etc/passwd", "\ud800", "AAAA", "é")
        ),
        lambda: base64.b64encode(damaged(chance, picture(chance))).decode(),
        lambda: base64.b64encode(picture(chance, "PNG")).decode(),
        lambda: [[[chance.randint(-1, 256) for _ in range(chance.randint(1, 4))] for _ in range(3)] for _ in range(3)],
        lambda: {"b64": base64.b64encode(picture(chance)).decode()},
    ]
    if depth > 3 or chance.random() < 0.5:
        return chance.choice(simple)()
    if chance.random() < 0.5:
        return [_value(chance, depth + 1) for _ in range(chance.choice((0, 1, 2, 40)))]
    names = ("image", "b64", "data", "columns", "index", "conf", "iou", "max_det", "params", "\ud800", "")
    return {chance.choice(names): _value(chance, depth + 1) for _ in range(chance.randint(0, 3))}


def _protocol(chance: random.Random) -> bytes:
    names = ("dataframe_split", "dataframe_records", "instances", "inputs")
    content: dict[str, object] = {name: _value(chance) for name in chance.sample(names, chance.choice((0, 1, 1, 1, 2)))}
    if "dataframe_split" in content and chance.random() < 0.7:
        rows = [[_value(chance, 3)] for _ in range(chance.choice((0, 1, 2, 33)))]
        columns = chance.choice((["image"], ["x"], ["a", "b"], "image", None, [["image"]], [{}]))
        content["dataframe_split"] = {"columns": columns, "data": rows}
    if chance.random() < 0.5:
        content["params"] = _value(chance)
    text = json.dumps(content)
    if chance.random() < 0.2:
        text = chance.choice(("[" * 100_000, "{" * 9, "1" * 5000, "", "null", "[]", '"x"', "\x00", "[" * 50 + "]" * 50))
    body = text.encode("utf-8", "surrogatepass")
    body = damaged(chance, body) if chance.random() < 0.2 and body else body
    kind = chance.choice(("application/json",) * 5 + ("application/json; charset=latin-9", "text/json", "*/*", None))
    return request(body, path=chance.choice(("/invocations",) * 4 + ("/predict",)), kind=kind)


def _csv(chance: random.Random) -> bytes:
    cell = chance.choice(
        ("/etc/passwd", "=1+1", "", base64.b64encode(picture(chance)).decode(), "a,b", '"', "\r", "\0")
    )
    head = chance.choice(("image", "x", "a,image", "a,b", "", '"image', "\ufeffimage"))
    body = f"{head}\n{cell}\n{cell}\n".encode() * chance.choice((1, 1, 50))
    kind = chance.choice(("text/csv", "text/csv; charset=utf-16", "application/vnd.apache.parquet"))
    return request(damaged(chance, body) if chance.random() < 0.4 else body, path="/invocations", kind=kind)


def _form(chance: random.Random) -> bytes:
    boundary = chance.choice(("x", "-" * 40, "a b", "'", "x" * 69, "x" * 300, "é"))
    names = ("file", "", "a" * 300)
    endings = ("; filename=x.jpg", "; filename=", "", "; filename*=utf-8''%ff", "; filename=../../x")
    headers = ("", "Content-Transfer-Encoding: base64\r\n", f"X: {'y' * 5000}\r\n")
    files = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{chance.choice(names)}"{chance.choice(endings)}\r\n'
        f"{chance.choice(headers)}\r\n{picture(chance).decode('latin-1')}\r\n"
        for _ in range(chance.choice((0, 1, 2, 40)))
    )
    body = (files + f"--{boundary}--\r\n").encode("latin-1", "replace")
    body = damaged(chance, body) if chance.random() < 0.6 and body else body
    kind = f"multipart/form-data; boundary={boundary}"
    kind = chance.choice(
        (kind, kind, kind, "multipart/form-data", "multipart/mixed; boundary=x", f'{kind}"', f"{kind};;")
    )
    return request(body, path=chance.choice(("/predict", "/predict/batch", "/predict?annotate=1")), kind=kind)


def _header(chance: random.Random) -> bytes:
    image = picture(chance)
    lines = [
        f"Content-Length: {chance.choice((-1, 0, 3, len(image) * 2, 10**9, 10**30, '0x10', '1,2', ''))}",
        f"Transfer-Encoding: {chance.choice(('chunked', 'gzip', 'chunked, chunked', 'identity'))}",
        f"Content-Type: {chance.choice(('', '/', 'image/' + 'x' * 5000, 'text/html', 'é', chr(0)))}",
        f"Authorization: {chance.choice(('Bearer', 'Basic x', 'é' * 9))}",
        f"Host: {chance.choice(('', '[', 'a b', 'x' * 300))}",
        "Expect: 100-continue",
        "Expect: 200-maybe",
        "Content-Encoding: gzip",
        "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: x",
        "X: " + "y" * chance.choice((10, 70_000)),
        " folded",
        ":",
        "no colon",
    ]
    chosen = "".join(f"{line}\r\n" for line in chance.sample(lines, chance.randint(1, 3)))
    method = chance.choice(("POST", "GET", "PUT", "HEAD", "OPTIONS", "BREW", "post", "P\0"))
    first = f"{method} {_path(chance)} HTTP/{chance.choice(('1.1', '1.0', '2.0', '9'))}\r\n"
    chunks = f"{len(image):x}\r\n".encode() + image + b"\r\n0\r\n\r\n"
    return (
        first.encode("latin-1", "replace")
        + chosen.encode("latin-1", "replace")
        + b"\r\n"
        + chance.choice((image, chunks))
    )


def _noise(chance: random.Random) -> bytes:
    whole = request(picture(chance), path=_path(chance))
    return chance.choice((chance.randbytes(chance.randint(1, 3000)), damaged(chance, whole), b"\x16\x03\x01" + whole))


def _place(chance: random.Random) -> bytes:
    known = ("/", "/docs", "/predict/", "//predict", "/metrics?x=1", "/openapi.json/", "/version?conf=1", "/ping", "*")
    climbing = ("/../../etc/passwd", "/%2e%2e/etc/passwd", "/static/../page.html")
    odd = ("http://x/predict", "/" + "a" * 5000, "/\xff", "/%00", "/predict%0d%0ax")
    path = chance.choice(known + climbing + odd)
    return request(picture(chance), path=path, method=chance.choice(("GET", "POST", "HEAD", "DELETE", "TRACE")))


_MAKERS: tuple[Maker, ...] = (
    _image,
    _image,
    _image,
    _size,
    _protocol,
    _protocol,
    _csv,
    _form,
    _form,
    _header,
    _noise,
    _place,
)
