"""The image files of a request: its body as it is, or the files of a form."""

from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from mlflow_yolo.deployment.http.limits import Limits, Refused

FORM = "multipart/form-data"
_MOST_FIELDS = 16
# What curl and others say of bytes of which they were told nothing.
_ANY_BYTES = frozenset(("", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"))


@dataclass(frozen=True)
class Upload:
    """One image file.

    Attributes:
        name: What the client calls it; empty for a body that is an image itself. Shown, never opened.
        image: Its bytes.
    """

    name: str
    image: bytes


def media_type(content_type: str) -> str:
    """Return the type alone, in lower case: `image/jpeg`."""
    return content_type.split(";", 1)[0].strip().lower()


def read_uploads(content_type: str, body: bytes, limits: Limits) -> list[Upload]:
    """Return the image files of a request, at least one.

    Raises:
        Refused: 415 for a body that is neither an image nor a form, 400 for a form that is broken or has no file, 413
            for one with too many.
    """
    kind = media_type(content_type)
    if kind.startswith("image/") or kind in _ANY_BYTES:
        return [Upload("", body)]
    if kind != FORM:
        raise Refused(415, f"Content-Type {kind[:80]} is not taken. Send an image, or a form ({FORM}) with a file.")
    uploads = _read_form(content_type, body, limits)
    if not uploads:
        raise Refused(400, "the form has no file. Attach an image, as `curl -F file=@photo.jpg` does.")
    return uploads


def only(uploads: list[Upload]) -> bytes:
    """Return the image of a request that may have one.

    Raises:
        Refused: 400, there are more.
    """
    if len(uploads) > 1:
        raise Refused(400, f"the form has {len(uploads)} files. Send one, or all of them to /predict/batch.")
    return uploads[0].image


def _read_form(content_type: str, body: bytes, limits: Limits) -> list[Upload]:
    uploads: list[Upload] = []
    fields: list[None] = []
    ends: list[None] = []

    def keep(file: File) -> None:
        if len(uploads) == limits.max_batch:
            raise Refused(413, f"the form has more than {limits.max_batch} files. Send them in several requests.")
        file.file_object.seek(0)
        uploads.append(Upload((file.file_name or b"").decode("utf-8", "replace")[:200], file.file_object.read()))
        file.close()

    def skip(_: Field) -> None:
        fields.append(None)
        if len(fields) > _MOST_FIELDS:
            raise Refused(413, f"the form has more than {_MOST_FIELDS} fields without a file. Send the files alone.")

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refused(400, "the form's Content-Type names no boundary. Let your HTTP library write it.")
    try:
        parser = FormParser(
            FORM,
            skip,
            keep,
            lambda: ends.append(None),
            boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": float("inf")},
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Refused(400, f"the form cannot be read: {reason}. Let your HTTP library write it.") from None
    if not ends:
        raise Refused(400, "the form ends before its closing boundary. Send it whole.")
    return uploads
