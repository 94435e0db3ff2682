"""Makes h2a_batch/fonts, the labels' fonts, from the fonts as they are published. Needed only to change them.

    apt-get download fonts-inter=4.0~beta7+ds-1 fonts-noto-core=20201225-1 fonts-droid-fallback=1:6.0.1r16-1.1
    npm pack @expo-google-fonts/noto-emoji@0.4.7
    (unpack all of them below FOLDER: dpkg-deb -x, tar xf)
    pip install fonttools
    python scripts/make_fonts.py FOLDER

Hinting, alternates and letters that no label needs are left out; the fonts are packed with xz.
"""

from __future__ import annotations

import lzma
import sys
import tempfile
from pathlib import Path

from fontTools import subset

OUT = Path(__file__).resolve().parent.parent / "h2a_batch" / "gallery" / "text" / "fonts"
_EUROPE = (
    "U+20-7E,U+A0-24F,U+259,U+2BC,U+2C6-2DD,U+300-36F,U+370-3FF,U+400-52F,U+1E00-1FFF,U+2000-214F,U+2190-22FF,"
    "U+25A0-25FF,U+2713-2717,U+FFFD"
)
# name here: name there, letters, OpenType features that letters need to be joined and placed
_FONTS = {
    "Inter-Regular.otf": ("Inter-Regular.otf", _EUROPE, "kern,mark,mkmk,ccmp,locl"),
    "Inter-SemiBold.otf": ("Inter-SemiBold.otf", _EUROPE, "kern,mark,mkmk,ccmp,locl"),
    "NotoSansArabic.ttf": ("NotoSansArabic-Regular.ttf", "*", "*"),
    "NotoSansHebrew.ttf": ("NotoSansHebrew-Regular.ttf", "*", "*"),
    "NotoSansDevanagari.ttf": ("NotoSansDevanagari-Regular.ttf", "*", "*"),
    "NotoSansThai.ttf": ("NotoSansThai-Regular.ttf", "*", "*"),
    "DroidSansFallback.ttf": ("DroidSansFallback.ttf", "*", ""),
    "NotoEmoji.ttf": ("NotoEmoji_400Regular.ttf", "*", ""),
}


def main(folder: Path) -> None:
    """Write each font, and say how large it is."""
    OUT.mkdir(exist_ok=True)
    for name, (original, letters, features) in _FONTS.items():
        source = next(folder.rglob(original))
        with tempfile.TemporaryDirectory() as place:
            small = Path(place, name)
            options = [f"--unicodes={letters}", f"--layout-features={features}", "--no-hinting"]
            subset.main([str(source), *options, f"--output-file={small}"])
            packed = lzma.compress(small.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
        (OUT / f"{name}.xz").write_bytes(packed)
        print(f"{name}: {len(packed):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
