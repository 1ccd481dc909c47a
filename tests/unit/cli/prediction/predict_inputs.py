"""Files for tests of `predict`, and the texts and names in its output."""

PNG = b"\x89PNG\r\n\x1a\n" + bytes(92)
JPEG = b"\xff\xd8\xff\xe0" + bytes(196)


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def texts(records):
    return [record["summaries"][0]["text"].removesuffix(" {}") for record in records]


def names(records):
    return sorted(record["input"] for record in records)
