"""What a Content-Type header says: the media types it names, and the charset of a text."""

import codecs
from dataclasses import dataclass
from email.message import Message

from handlers.core.errors import InvalidRequest, InvalidText

_CODECS = frozenset(
    """
    ascii big5 big5hkscs cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 cp437 cp850 cp852 cp855
    cp857 cp858 cp862 cp864 cp866 cp869 cp874 cp932 cp949 cp950 euc_jis_2004 euc_jisx0213 euc_jp euc_kr gb18030 gb2312
    gbk hz iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_jp_3 iso2022_jp_ext iso2022_kr iso8859-1 iso8859-10 iso8859-11
    iso8859-13 iso8859-14 iso8859-15 iso8859-16 iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6 iso8859-7 iso8859-8
    iso8859-9 johab koi8-r koi8-t koi8-u kz1048 mac-cyrillic mac-greek mac-iceland mac-latin2 mac-roman mac-turkish
    ptcp154 shift_jis shift_jis_2004 shift_jisx0213 tis-620 utf-16 utf-16-be utf-16-le utf-32 utf-32-be utf-32-le
    utf-8 utf-8-sig
    """.split()  # noqa: SIM905
)
"""Python's codecs of charsets in which texts are sent; not those that transform text, such as rot13 and zip."""
_ALIASES = {"windows-31j": "cp932", "x-sjis": "cp932", "windows-874": "cp874"}
"""Registered names that Python does not know."""
_MAX_NAME = 40


@dataclass(frozen=True)
class ContentType:
    """`mime`: media types in lower case; several where a client or proxy has merged two headers into one.
    `charset`: as the client wrote it, "" if it named none.
    """

    mime: tuple[str, ...] = ()
    charset: str = ""

    @classmethod
    def parse(cls, header: str) -> "ContentType":
        """Read a header as it was sent; what is not a media type is left out."""
        parts = [part.strip() for part in header.split(",")]
        mime = tuple(name for part in parts if (name := part.partition(";")[0].strip().lower()))
        charsets = (header_parameter("content-type", part, "charset").strip(" '\"") for part in parts)
        return cls(mime, next(filter(None, charsets), ""))

    @property
    def is_json(self) -> bool:
        """Whether it says JSON in one of the ways that clients do: application/json, text/json, .../...+json, ..."""
        return any("json" in mime for mime in self.mime)


def header_parameter(header: str, value: str, name: str) -> str:
    """A parameter of a header such as Content-Type or Content-Disposition, "" where it has none."""
    message = Message()
    message[header] = value.replace("\r", " ").replace("\n", " ")
    try:
        found = message.get_param(name, header=header)
    except ValueError:  # RFC 2231 numbers of thousands of digits
        return ""
    return found if isinstance(found, str) else ""


def is_utf8(charset: str) -> bool:
    """Whether a text of this charset is UTF-8, as it is where none is declared. Raises InvalidRequest."""
    return not charset or _codec(charset) in ("utf-8", "utf-8-sig")


def decode_text(content: bytes | bytearray | memoryview, charset: str) -> str:
    """`content` as the declared charset says, without a byte order mark.

    Raises InvalidRequest for a charset that is not known, InvalidText where the bytes are not of that charset.
    """
    codec = _codec(charset)
    try:
        text = codecs.decode(content, codec)
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"the text is not in the charset {charset} that is declared: byte {error.start} cannot be read"
        ) from None
    return text.removeprefix("\ufeff")


def _codec(charset: str) -> str:
    """The name of Python's codec. Raises InvalidRequest."""
    try:
        name = codecs.lookup(_ALIASES.get(charset.lower(), charset)).name if len(charset) <= _MAX_NAME else ""
    except (LookupError, ValueError):
        name = ""
    if name not in _CODECS:
        raise InvalidRequest(
            f"the charset {charset[:_MAX_NAME]!r} is not known; send the text in UTF-8, or in another charset of the "
            "IANA list, such as ISO-8859-1, windows-1252, UTF-16LE or Shift_JIS"
        )
    return name
