"""Image files that are odd but sound, and files that are not, all made here."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, features


def pixels(height, width, channels=3, seed=0):
    """Smooth noise, which a JPEG keeps more or less."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, channels), dtype=np.uint8)
    found = coarse.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return found if channels > 1 else found[..., 0]


def encoded(image, kind, **settings):
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def photo(height=40, width=50, seed=0):
    return Image.fromarray(pixels(height, width, seed=seed))


def header_only_png(width, height, bits=8, colour=2):
    """A PNG whose header claims a size, with next to no pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def with_exif(jpeg, exif):
    body = b"Exif\0\0" + exif
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def scan_bomb():
    """A small progressive JPEG whose last scan stands there again and again."""
    jpeg = encoded(Image.new("RGB", (4000, 4000)), "JPEG", progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * 1200 + jpeg[-2:]


def sound():
    """Name to content; each must become what Pillow's ``convert`` makes of it."""
    palette = photo().quantize(16)
    alpha = Image.fromarray(pixels(40, 50, 4), "RGBA")
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 40) + bytes(range(200))  # says 40 entries, has 16
    found = {
        "photo.jpg": encoded(photo(), "JPEG"),
        "progressive.jpeg": encoded(photo(), "JPEG", progressive=True),
        "cmyk.jpg": encoded(photo().convert("CMYK"), "JPEG"),
        "grey.jpg": encoded(photo().convert("L"), "JPEG"),
        "exif.jpg": with_exif(encoded(photo(), "JPEG"), tiff),
        "preview.jpg": encoded(photo(), "MPO", save_all=True, append_images=[photo(20, 20)]),
        "photo.png": encoded(photo(), "PNG"),
        "palette.png": encoded(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "one_colour.png": encoded(palette, "PNG", transparency=3),
        "la.png": encoded(alpha.convert("LA"), "PNG"),
        "rgba.png": encoded(alpha, "PNG"),
        "bits.png": encoded(photo().convert("1"), "PNG"),
        "deep.png": header_only_png(4, 4, bits=16),  # 16 bits of each of three colours, of which Pillow keeps 8
        "still.gif": encoded(photo(), "GIF"),
        "photo.bmp": encoded(photo(), "BMP"),
        "photo.tif": encoded(photo(), "TIFF", compression="tiff_lzw"),
        "cmyk.tiff": encoded(photo().convert("CMYK"), "TIFF"),
        "png.jpg": encoded(photo(), "PNG"),  # the content says what it is
    }
    if features.check("webp"):
        found["photo.webp"] = encoded(alpha, "WEBP", lossless=True)
    return found


def bad():
    """Name to content and a pattern of the reason why it is refused."""
    jpeg, png = encoded(photo(), "JPEG"), encoded(photo(), "PNG")
    frames = [photo(seed=seed) for seed in (1, 2)]
    lzw = bytearray(encoded(photo(), "TIFF", compression="tiff_lzw"))
    lzw[100:600] = b"\xa5" * 500
    found = {
        "cut.jpg": (jpeg[: len(jpeg) // 2], "JPEG .*truncated"),
        "cut.png": (png[: len(png) // 2], "PNG"),
        "flipped.png": (png[:60] + bytes([png[60] ^ 1]) + png[61:], "PNG"),
        "header.jpg": (jpeg[:4], "JPEG"),
        "header.tif": (b"II*\0", "TIFF"),
        "garbled.tif": (bytes(lzw), "TIFF"),
        "bomb.png": (header_only_png(50_000, 50_000), "50000 x 50000 pixels, but at most 178000000"),
        "empty_size.png": (header_only_png(0, 5), "PNG"),
        "thread.png": (header_only_png(1_000_000, 2), "PNG"),
        "line.png": (encoded(Image.new("1", (400_000, 2)), "PNG"), "too long and thin: resized, it would have"),
        "scans.jpg": (scan_bomb(), "too many scans"),
        "i16.png": (encoded(Image.fromarray(pixels(40, 50, 1).astype(np.uint16) * 257), "PNG"), "mode 'I"),
        "float.tif": (encoded(Image.fromarray(pixels(40, 50, 1).astype(np.float32)), "TIFF"), "mode 'F'"),
        "int32.tif": (encoded(Image.fromarray(pixels(40, 50, 1).astype(np.int32)), "TIFF"), "mode 'I'"),
        "moving.gif": (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "animated"),
        "moving.png": (encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]), "animated"),
        "pages.tiff": (encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]), "several pages"),
        "text.jpg": (b"This is no image.\n", "no JPEG, PNG"),
        "empty.jpg": (b"", "empty"),
        "eps.png": (encoded(photo(), "EPS"), "no JPEG, PNG"),
        "zeros.png": (bytes(1000), "no JPEG, PNG"),
    }
    if features.check("webp"):
        found["moving.webp"] = (encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]), "animated")
        found["cut.webp"] = (encoded(photo(), "WEBP")[:-50], "WebP")
    return found
