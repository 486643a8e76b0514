"""The media type of a file, by the suffix of its name and by nothing else.

The table is this module's own. The machine's tables differ from host to host (and on Windows with what is
installed), so that the same file would be answered differently by two members of one cluster.

How the table was made: a registered type where there is one; else the name that clients know; else
``application/octet-stream``, spelled out for formats that have no type so that nobody looks for them in vain. Source
code is ``text/plain``, which browsers show instead of saving. A compressed file is what its last suffix says:
the coding is part of the file, never a Content-Encoding.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DEFAULT_MEDIA_TYPE", "guess_media_type"]

DEFAULT_MEDIA_TYPE: Final = "application/octet-stream"
"""What a file is of which nothing is known (RFC 9110 §8.3)."""

_SUFFIXES: Final = {
    # text and the web
    "text/html": "html htm shtml",
    "text/css": "css",
    # RFC 9239 §6: text/javascript, for modules too.
    "text/javascript": "js mjs cjs",
    "text/plain": (
        "txt text log conf cfg ini properties list lst diff patch readme asc md5 sha1 sha256 sha512 srt ass lrc cue "
        "py pyi pyx rs go c h cc cpp cxx hh hpp hxx m mm java kt kts swift rb pl pm lua r jl scala hs ml ex exs erl "
        "clj dart zig nim cs fs vb pas f90 asm s sh bash zsh fish ps1 bat cmd sql jsx tsx cts vue svelte scss sass "
        "less styl graphql proto cmake mk gradle tf hcl nix rst adoc org tex bib fasta fastq glsl vert frag"
    ),
    "text/markdown": "md markdown",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/calendar": "ics ifb",
    "text/vcard": "vcf vcard",
    "text/vtt": "vtt",
    "text/turtle": "ttl",
    "text/n3": "n3",
    "text/uri-list": "uri uris",
    "text/wgsl": "wgsl",
    "application/json": "json map har",
    "application/json5": "json5",
    "application/ld+json": "jsonld",
    "application/geo+json": "geojson",
    "application/manifest+json": "webmanifest",
    "application/x-ndjson": "ndjson jsonl",
    "application/x-ipynb+json": "ipynb",
    "application/yaml": "yaml yml",
    "application/toml": "toml",
    "application/wasm": "wasm",
    # Not text/xml: its charset would overrule the encoding that the document itself declares (RFC 7303 §3.2).
    "application/xml": "xml xsl xsd",
    "application/xml-dtd": "dtd",
    "application/xslt+xml": "xslt",
    "application/xhtml+xml": "xhtml xht",
    "application/rss+xml": "rss",
    "application/atom+xml": "atom",
    "application/rdf+xml": "rdf owl",
    "application/mathml+xml": "mathml mml",
    "application/opensearchdescription+xml": "osdx",
    "application/wsdl+xml": "wsdl",
    "application/gpx+xml": "gpx",
    "application/vnd.google-earth.kml+xml": "kml",
    "application/vnd.google-earth.kmz": "kmz",
    # images
    "image/png": "png",
    "image/apng": "apng",
    "image/jpeg": "jpg jpeg jpe jfif",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/jxl": "jxl",
    "image/svg+xml": "svg",
    "image/bmp": "bmp dib",
    "image/vnd.microsoft.icon": "ico",
    "image/x-win-bitmap": "cur",
    "image/tiff": "tif tiff",
    "image/vnd.adobe.photoshop": "psd",
    "image/x-xcf": "xcf",
    "image/jp2": "jp2 jpg2",
    "image/jpx": "jpx jpf",
    "image/x-tga": "tga",
    "image/x-exr": "exr",
    "image/vnd.radiance": "hdr",
    "image/x-portable-pixmap": "ppm",
    "image/x-portable-graymap": "pgm",
    "image/x-portable-bitmap": "pbm",
    "image/x-portable-anymap": "pnm",
    "image/x-xbitmap": "xbm",
    "image/x-xpixmap": "xpm",
    "image/x-adobe-dng": "dng",
    "image/x-canon-cr2": "cr2",
    "image/x-nikon-nef": "nef",
    "image/x-sony-arw": "arw",
    "image/vnd.ms-dds": "dds",
    "image/ktx": "ktx",
    "image/ktx2": "ktx2",
    "image/emf": "emf",
    "image/wmf": "wmf",
    "image/fits": "fits fit fts",
    "image/vnd.djvu": "djvu djv",
    # audio
    "audio/mpeg": "mp3 mpga mp2",
    "audio/mp4": "m4a m4b",
    "audio/aac": "aac",
    "audio/ogg": "ogg oga opus spx",
    "audio/wav": "wav",
    "audio/flac": "flac",
    "audio/webm": "weba",
    "audio/midi": "mid midi",
    "audio/aiff": "aif aiff aifc",
    "audio/amr": "amr",
    "audio/ac3": "ac3",
    "audio/eac3": "eac3",
    "audio/basic": "au snd",
    "audio/x-caf": "caf",
    "audio/x-matroska": "mka",
    "audio/x-ms-wma": "wma",
    "audio/x-ape": "ape",
    "audio/x-mpegurl": "m3u",
    "audio/x-scpls": "pls",
    # video
    "video/mp4": "mp4 m4v mp4v",
    "video/iso.segment": "m4s",
    "video/webm": "webm",
    "video/ogg": "ogv",
    "application/ogg": "ogx",
    "video/quicktime": "mov qt",
    "video/x-matroska": "mkv",
    "video/x-msvideo": "avi",
    "video/x-ms-wmv": "wmv",
    "video/x-ms-asf": "asf asx",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg mpg mpe m1v m2v vob",
    # The suffix is TypeScript's too; over HTTP it is asked for as a segment of a stream.
    "video/mp2t": "ts m2ts mts",
    "video/3gpp": "3gp",
    "video/3gpp2": "3g2",
    "video/mj2": "mj2",
    "application/vnd.apple.mpegurl": "m3u8",
    "application/dash+xml": "mpd",
    "application/ttml+xml": "ttml",
    "application/xspf+xml": "xspf",
    # fonts
    "font/woff": "woff",
    "font/woff2": "woff2",
    "font/ttf": "ttf",
    "font/otf": "otf",
    "font/collection": "ttc",
    "font/sfnt": "sfnt",
    "application/vnd.ms-fontobject": "eot",
    "application/x-font-type1": "pfb",
    # archives, packages, disk images
    "application/zip": "zip",
    # svgz too: as an image it would need a Content-Encoding.
    "application/gzip": "gz tgz svgz",
    "application/x-bzip2": "bz2 tbz tbz2",
    "application/x-xz": "xz txz",
    "application/zstd": "zst tzst",
    "application/x-lz4": "lz4",
    "application/x-lzip": "lz",
    "application/x-lzma": "lzma",
    "application/x-compress": "z",
    "application/x-tar": "tar",
    "application/x-cpio": "cpio",
    "application/x-7z-compressed": "7z",
    "application/vnd.rar": "rar",
    "application/vnd.ms-cab-compressed": "cab",
    "application/java-archive": "jar war ear",
    "application/java-vm": "class",
    "application/vnd.android.package-archive": "apk",
    "application/vnd.debian.binary-package": "deb udeb",
    "application/x-rpm": "rpm",
    "application/vnd.flatpak": "flatpak",
    "application/vnd.flatpak.ref": "flatpakref",
    "application/x-apple-diskimage": "dmg",
    "application/x-iso9660-image": "iso",
    "application/vnd.microsoft.portable-executable": "exe dll",
    "application/x-msi": "msi",
    "application/x-chrome-extension": "crx",
    "application/x-xpinstall": "xpi",
    "application/x-bittorrent": "torrent",
    "application/metalink4+xml": "meta4",
    "application/warc": "warc",
    "application/vnd.tcpdump.pcap": "pcap cap",
    # documents and office
    "application/pdf": "pdf",
    "application/postscript": "ps eps ai",
    "application/rtf": "rtf",
    "application/epub+zip": "epub",
    "application/x-mobipocket-ebook": "mobi",
    "application/vnd.amazon.ebook": "azw",
    "application/vnd.comicbook+zip": "cbz",
    "application/vnd.comicbook-rar": "cbr",
    "application/oxps": "oxps",
    "application/vnd.ms-xpsdocument": "xps",
    "application/msword": "doc dot",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.template": "dotx",
    "application/vnd.ms-word.document.macroenabled.12": "docm",
    "application/vnd.ms-excel": "xls xlt",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.template": "xltx",
    "application/vnd.ms-excel.sheet.macroenabled.12": "xlsm",
    "application/vnd.ms-excel.sheet.binary.macroenabled.12": "xlsb",
    "application/vnd.ms-powerpoint": "ppt pps pot",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.openxmlformats-officedocument.presentationml.slideshow": "ppsx",
    "application/vnd.openxmlformats-officedocument.presentationml.template": "potx",
    "application/vnd.ms-powerpoint.presentation.macroenabled.12": "pptm",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.text-template": "ott",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.spreadsheet-template": "ots",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/vnd.oasis.opendocument.presentation-template": "otp",
    "application/vnd.oasis.opendocument.graphics": "odg",
    "application/vnd.oasis.opendocument.formula": "odf",
    "application/vnd.apple.pages": "pages",
    "application/vnd.apple.numbers": "numbers",
    "application/vnd.visio": "vsd",
    "application/vnd.ms-visio.drawing": "vsdx",
    "application/vnd.ms-project": "mpp",
    "application/onenote": "one",
    "application/vnd.ms-outlook": "msg",
    "application/mbox": "mbox",
    "message/rfc822": "eml",
    "multipart/related": "mht mhtml",
    # keys and signatures
    "application/pgp-signature": "sig",
    "application/pgp-encrypted": "pgp gpg",
    "application/pkix-cert": "cer",
    "application/x-x509-ca-cert": "crt der",
    "application/x-pem-file": "pem",
    "application/pkcs12": "p12 pfx",
    "application/vnd.apple.pkpass": "pkpass",
    # three dimensions and maps
    "model/gltf+json": "gltf",
    "model/gltf-binary": "glb",
    "model/obj": "obj",
    "model/mtl": "mtl",
    "model/stl": "stl",
    "model/3mf": "3mf",
    "model/step": "step stp",
    "model/iges": "iges igs",
    "model/vrml": "wrl vrml",
    "model/x3d+xml": "x3d",
    "model/vnd.collada+xml": "dae",
    "model/vnd.usdz+zip": "usdz",
    "application/vnd.pmtiles": "pmtiles",
    "application/geopackage+sqlite3": "gpkg",
    "application/vnd.shp": "shp",
    "application/vnd.shx": "shx",
    "application/vnd.dbf": "dbf",
    "application/vnd.las": "las",
    "application/vnd.laszip": "laz",
    # data sets and models
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.file": "arrow feather",
    "application/vnd.apache.arrow.stream": "arrows",
    "application/vnd.sqlite3": "sqlite sqlite3",
    "application/x-hdf5": "h5 hdf5",
    "application/x-netcdf": "nc netcdf",
    "application/x-matlab-data": "mat",
    "application/dicom": "dcm",
    DEFAULT_MEDIA_TYPE: (
        "bin dat img safetensors gguf ggml onnx pt pth ckpt npy npz pkl pickle joblib keras tflite mlmodel pb tfrecord "
        "avro orc duckdb br"
    ),
}


def _invert(suffixes: dict[str, str]) -> dict[str, str]:
    """Turn the table round and name the charset of text, which RFC 9110 §8.3.2 leaves to its sender."""
    return {
        suffix: f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type
        for media_type, joined in suffixes.items()
        for suffix in joined.split()
    }


_TYPES: Final = _invert(_SUFFIXES)


def guess_media_type(name: str) -> str:
    """Name the media type of a file, with ``charset=utf-8`` for text (RFC 9110 §8.3).

    Args:
        name: A file's name or path. Only what follows its last dot counts, in any case; a name that is nothing but a
            dot and a suffix, like ``.html``, has no suffix.

    Returns:
        The value for Content-Type; `DEFAULT_MEDIA_TYPE` if the suffix says nothing.
    """
    stem, _, suffix = name.rpartition(".")
    # A dot in a folder's name leaves a separator in the suffix, which no entry has.
    if not stem or stem[-1] in "/\\":
        return DEFAULT_MEDIA_TYPE
    return _TYPES.get(suffix.lower(), DEFAULT_MEDIA_TYPE)
