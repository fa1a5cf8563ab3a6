import base64

import pytest

from mlflow_yolo.deployment.http.limits import Limits, Refused
from mlflow_yolo.deployment.http.uploads import Upload, read_uploads
from tests.deployment.serving import form


def test_files_keep_their_order_names_and_bytes() -> None:
    large = bytes(range(256)) * 8000  # larger than what the parser would put on the disk by itself
    body, kind = form(("a.jpg", b"one\r\n--edg"), ("../b.png", large))
    assert read_uploads(kind, body, Limits()) == [Upload("a.jpg", b"one\r\n--edg"), Upload("../b.png", large)]


def test_base64_in_a_form_is_decoded_and_other_fields_are_passed_over() -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        + base64.b64encode(b"bytes!")
        + b"\r\n--x--\r\n"
    )
    assert read_uploads('multipart/form-data; boundary="x"', body, Limits()) == [Upload("a", b"bytes!")]


@pytest.mark.parametrize("kind", ["text/html", "application/json", "video/mp4", "multipart/mixed; boundary=x", "é"])
def test_a_body_that_is_neither_image_nor_form_is_415(kind: str) -> None:
    with pytest.raises(Refused) as refusal:
        read_uploads(kind, b"x", Limits())
    assert refusal.value.status == 415


def test_broken_forms_are_400() -> None:
    body, kind = form(("a", b"x"))
    two = form(("a", b"x"), ("b", b"y"))[0]
    bare = body.replace(b'; filename="a"', b"")
    for content, said in (
        (body[:-6], kind),  # no end
        (two[:-10], kind),  # no end, but one whole file
        (b"", kind),
        (b"nothing of the kind", kind),
        (body, "multipart/form-data"),  # no boundary
        (body, "multipart/form-data; boundary=" + "y" * 300),
        (bare, kind),  # no file
        (body.replace(b'name="file"', b"x=1"), kind),
    ):
        with pytest.raises(Refused) as refusal:
            read_uploads(said, content, Limits())
        assert refusal.value.status == 400, content


def test_more_files_than_allowed_or_a_flood_of_fields_is_413() -> None:
    body, kind = form(*[("a", b"x")] * 4)
    assert len(read_uploads(kind, body, Limits(max_batch=4))) == 4
    flood = b'--edge\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n' * 100 + body
    for content, most in ((body, 3), (flood, 4)):
        with pytest.raises(Refused) as refusal:
            read_uploads(kind, content, Limits(max_batch=most))
        assert refusal.value.status == 413
