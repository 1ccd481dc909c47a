"""Parse Content-Type headers, and decode text from its charset."""

import codecs
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache

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
"""Python's codecs of charsets, without those that transform text, such as rot13 and zip."""
_ALIASES = {"windows-31j": "cp932", "x-sjis": "cp932", "windows-874": "cp874"}
"""Registered charset names that Python does not know, with their codecs."""
_MAX_NAME_LENGTH = 40
_MAX_CHARSETS = 4
_CACHED_HEADERS = 64
_MAX_CACHED_LENGTH = 200
"""Maximum number and length of the headers whose parsed types are kept. Clients send few different ones."""
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LIBRARY_DEFAULTS = ("iso8859-1", "cp1252", "iso8859-15")
"""Charsets that HTTP libraries declare by default. Text in one of them is rarely valid UTF-8 by chance."""
_COMMON_SEPARATORS = " \n、。，"
"""Characters that separate words or sentences in most languages."""
_IDEOGRAPHIC_SPACE = "\u3000"
"""Space of CJK texts. In the other byte order its bytes are the digit 0, so it is only a tie-breaker."""


@dataclass(frozen=True)
class ContentType:
    """A parsed Content-Type header.

    Attributes:
        mime: Media types in lower case. There are several if a client or proxy merged two headers into one.
        charset: The charset in the client's spelling, "" if the header has none. Several are separated by commas.
    """

    mime: tuple[str, ...] = ()
    charset: str = ""

    @staticmethod
    def parse(header: str) -> "ContentType":
        """Parse the value of a header. Parts that are not media types are ignored."""
        return (_parse_and_keep if len(header) <= _MAX_CACHED_LENGTH else _parse)(header)

    @property
    def is_json(self) -> bool:
        """True if a media type is a variant of JSON, such as application/json, text/json or application/x+json."""
        return any("json" in mime for mime in self.mime)


def _parse(header: str) -> ContentType:
    parts = [part.strip() for part in header.split(",")]
    mime = tuple(name for part in parts if (name := part.partition(";")[0].strip().lower()))
    charsets = {charset.lower(): charset for part in parts for charset in _charsets(part)}
    return ContentType(mime, ", ".join(charsets.values()))


_parse_and_keep = lru_cache(_CACHED_HEADERS)(_parse)


def header_parameter(header: str, value: str, name: str) -> str:
    """Return a parameter of a header such as Content-Type, "" if the header does not have it."""
    message = Message()
    message[header] = value.replace("\r", " ").replace("\n", " ")
    try:
        parameter = message.get_param(name, header=header)
    except (ValueError, TypeError):  # invalid section numbers (RFC 2231)
        return ""
    return parameter if isinstance(parameter, str) else ""


def _charsets(header: str) -> list[str]:
    message = Message()
    message["content-type"] = header.replace("\r", " ").replace("\n", " ")
    try:
        parameters = message.get_params(failobj=[])
    except (ValueError, TypeError):  # invalid section numbers (RFC 2231)
        return []
    values = (value for name, value in parameters if name.lower() == "charset")
    # RFC 2231 writes charset*=utf-8''latin1, which are three parts here.
    charsets = (value if isinstance(value, str) else value[2] for value in values)
    return [name for charset in charsets if (name := charset.strip(" '\""))]


def needs_decoding(content: bytes | bytearray | memoryview, charset: str) -> bool:
    """Return True unless the declared charset and the byte order mark indicate UTF-8. Raises InvalidRequest."""
    return not is_utf8(charset) or bytes(content[:2]) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_utf8(charset: str) -> bool:
    """Return True if a charset is UTF-8 or "", for which UTF-8 is the default. Raises InvalidRequest."""
    return not charset or _codec(charset) in ("utf-8", "utf-8-sig")


def decode_text(content: bytes | bytearray | memoryview, charset: str) -> str:
    """Decode a text from the charset of its byte order mark, or else from its declared charset. Removes the mark.

    Raises:
        InvalidRequest: The charset is unknown.
        InvalidText: The bytes are not valid in the charset.
    """
    content = bytes(content)
    codec = next((codec for mark, codec in _BYTE_ORDER_MARKS if content.startswith(mark)), "")
    origin = "the charset of its byte order mark" if codec else "its declared charset"
    if codec:
        charset = codec
        if codec == "utf-16" and len(content) > 2 and _is_utf8_text(content[2:]):
            raise InvalidText(
                "the text begins with the byte order mark of UTF-16 but is UTF-8; remove the mark"
            )
    else:
        codec = _codec(charset)
        _check_not_utf8(content, codec, charset)
        if codec in ("utf-16", "utf-32"):
            codec = _with_byte_order(content, codec, charset)
    try:
        text = content.decode(codec)
    except UnicodeDecodeError as error:
        raise InvalidText(f"the text is not valid {charset}, {origin} (byte {error.start})") from None
    return text.removeprefix("\ufeff")


def _check_not_utf8(content: bytes, codec: str, charset: str) -> None:
    """Raise InvalidText if the text is UTF-8, and decoding it from the declared charset would change it."""
    is_wide = codec.startswith(("utf-16", "utf-32"))
    if not is_wide and (content.isascii() or codec not in _LIBRARY_DEFAULTS):
        return
    if _is_utf8_text(content):
        raise InvalidText(
            f"the text is UTF-8, but its Content-Type declares {charset}; declare charset=utf-8"
        )


def _is_utf8_text(content: bytes) -> bool:
    """Return True if the bytes are UTF-8 without NUL, which UTF-16 and UTF-32 texts almost never are."""
    try:
        return bool(content.decode()) and 0 not in content
    except UnicodeDecodeError:
        return False


def _with_byte_order(content: bytes, codec: str, charset: str) -> str:
    """Append the byte order to a codec: the order in which a text without a mark has more common characters."""
    ranks: dict[str, tuple[bool, int, int]] = {}
    for order in ("-le", "-be"):
        try:
            text = content.decode(codec + order)
        except UnicodeDecodeError:
            continue
        common = sum(map(text.count, _COMMON_SEPARATORS))
        ranks[codec + order] = text.isascii(), common, text.count(_IDEOGRAPHIC_SPACE)
    most_likely = max(ranks, key=lambda order: ranks[order], default=codec)
    if most_likely in ranks and list(ranks.values()).count(ranks[most_likely]) > 1:
        raise InvalidText(
            f"the charset {charset} does not define the byte order; declare {codec}le or {codec}be"
        )
    return most_likely


def _codec(charset: str) -> str:
    """Return the name of the Python codec. Raises InvalidRequest."""
    if "," in charset:
        names = {_codec(part.strip()) for part in charset.split(",")[:_MAX_CHARSETS]}
        if len(names) == 1 and charset.count(",") < _MAX_CHARSETS:
            return names.pop()
        raise InvalidRequest(f"the Content-Type names several charsets ({charset[:80]}); name one")
    try:
        name = (
            codecs.lookup(_ALIASES.get(charset.lower(), charset)).name
            if len(charset) <= _MAX_NAME_LENGTH
            else ""
        )
    except (LookupError, ValueError):
        name = ""
    if name not in _CODECS:
        raise InvalidRequest(
            f"the charset {charset[:_MAX_NAME_LENGTH]!r} is not known; send the text in UTF-8, or in another charset "
            "of the IANA list, such as ISO-8859-1, windows-1252, UTF-16LE or Shift_JIS"
        )
    return name
