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
_MAX_CHARSETS = 4
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DEFAULTS_OF_LIBRARIES = ("iso8859-1", "cp1252", "iso8859-15")
"""Charsets that libraries declare by default. Text in them is hardly ever valid UTF-8 by chance."""
_SEPARATORS = " \n、。，"
"""In most languages one of these separates words or sentences."""
_IDEOGRAPHIC_SPACE = "\u3000"
"""The digit 0 of the other byte order, so that it counts only where nothing else tells."""


@dataclass(frozen=True)
class ContentType:
    """`mime`: media types in lower case; several where a client or proxy has merged two headers into one.
    `charset`: as the client wrote it, "" if it named none; all of them where it named several.
    """

    mime: tuple[str, ...] = ()
    charset: str = ""

    @classmethod
    def parse(cls, header: str) -> "ContentType":
        """Read a header as it was sent; what is not a media type is left out."""
        parts = [part.strip() for part in header.split(",")]
        mime = tuple(name for part in parts if (name := part.partition(";")[0].strip().lower()))
        charsets = {charset.lower(): charset for part in parts for charset in _charsets(part)}
        return cls(mime, ", ".join(charsets.values()))

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
    except (ValueError, TypeError):  # RFC 2231 numbers of thousands of digits, or only some with a number
        return ""
    return found if isinstance(found, str) else ""


def _charsets(header: str) -> list[str]:
    message = Message()
    message["content-type"] = header.replace("\r", " ").replace("\n", " ")
    try:
        parameters = message.get_params(failobj=[])
    except (ValueError, TypeError):  # RFC 2231 numbers of thousands of digits, or only some with a number
        return []
    values = (value for name, value in parameters if name.lower() == "charset")
    # RFC 2231 writes charset*=utf-8''latin1, which are three parts here.
    charsets = (value if isinstance(value, str) else value[2] for value in values)
    return [name for charset in charsets if (name := charset.strip(" '\""))]


def needs_decoding(content: bytes | bytearray | memoryview, charset: str) -> bool:
    """Whether a text is not UTF-8, by its declared charset or its byte order mark. Raises InvalidRequest."""
    return not is_utf8(charset) or bytes(content[:2]) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_utf8(charset: str) -> bool:
    """Whether a text of this charset is UTF-8, as it is where none is declared. Raises InvalidRequest."""
    return not charset or _codec(charset) in ("utf-8", "utf-8-sig")


def decode_text(content: bytes | bytearray | memoryview, charset: str) -> str:
    """Decode by the byte order mark, or else by the declared charset; the mark is left out.

    Raises InvalidRequest for a charset that is not known, InvalidText where the bytes are not of that charset.
    """
    content = bytes(content)
    codec = next((codec for mark, codec in _BYTE_ORDER_MARKS if content.startswith(mark)), "")
    if codec:
        charset = codec
        if codec == "utf-16" and len(content) > 2 and _is_utf8_text(content[2:]):
            raise InvalidText("the text begins with the byte order mark of UTF-16, and is not UTF-16")
    else:
        codec = _codec(charset)
        _check_not_utf8(content, codec, charset)
        if codec in ("utf-16", "utf-32"):
            codec = _with_byte_order(content, codec, charset)
    try:
        text = content.decode(codec)
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"the text is not in the charset {charset} that is declared: byte {error.start} cannot be read"
        ) from None
    return text.removeprefix("\ufeff")


def _check_not_utf8(content: bytes, codec: str, charset: str) -> None:
    """Raise InvalidText where UTF-8 was sent, and another charset was declared that would read other characters."""
    is_wide = codec.startswith(("utf-16", "utf-32"))
    if not is_wide and (content.isascii() or codec not in _DEFAULTS_OF_LIBRARIES):
        return
    if _is_utf8_text(content):
        raise InvalidText(f"the text is UTF-8, and its Content-Type says {charset}; declare charset=utf-8")


def _is_utf8_text(content: bytes) -> bool:
    """UTF-16 and UTF-32 of almost any text have NULs, or are no valid UTF-8."""
    try:
        return bool(content.decode()) and 0 not in content
    except UnicodeDecodeError:
        return False


def _with_byte_order(content: bytes, codec: str, charset: str) -> str:
    """UTF-16 or UTF-32 without a mark, in the order in which it has more of the commonest characters."""
    ranks: dict[str, tuple[bool, int, int]] = {}
    for order in ("-le", "-be"):
        try:
            text = content.decode(codec + order)
        except UnicodeDecodeError:
            continue
        common = sum(map(text.count, _SEPARATORS))
        ranks[codec + order] = text.isascii(), common, text.count(_IDEOGRAPHIC_SPACE)
    likeliest = max(ranks, key=lambda order: ranks[order], default=codec)
    if likeliest in ranks and list(ranks.values()).count(ranks[likeliest]) > 1:
        raise InvalidText(
            f"the charset {charset} leaves the order of bytes open; declare {codec}le or {codec}be"
        )
    return likeliest


def _codec(charset: str) -> str:
    """The name of Python's codec. Raises InvalidRequest."""
    if "," in charset:
        names = {_codec(part.strip()) for part in charset.split(",")[:_MAX_CHARSETS]}
        if len(names) == 1 and charset.count(",") < _MAX_CHARSETS:
            return names.pop()
        raise InvalidRequest(f"the Content-Type names several charsets ({charset[:80]}); name one")
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
