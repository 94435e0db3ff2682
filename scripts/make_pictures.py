"""The README's pictures, made by the real commands: scripts/make_pictures [PHOTOS] [--other MODEL.mindir].

PHOTOS are portraits; without it those of people who do not exist in ../shared are taken that no model was trained on.
Writes models/anime-256.jpg, docs/*.jpg and docs/watch.png. Needs Chromium.
"""

from __future__ import annotations

import argparse
import html
import io
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from chromium import Page, browser  # noqa: E402
from composites import AI_FACES, Portrait, put  # noqa: E402

DOCS = ROOT / "docs"
COMMAND = [sys.executable, "-m", "h2a_batch"]
SHEET = [sys.executable, "-c", "import sys; from h2a_batch.__main__ import sheet; sys.exit(sheet())"]
UNSEEN = AI_FACES.parents[1] / "data" / "human2anime" / "testA"  # portraits that were kept out of training
CHOSEN, MANY = 12, 40  # photos at equal intervals: of most pictures, and of the one of the model
WALL = (226, 219, 207)
TERMINAL = """<meta charset="utf-8"><body style="margin:0;background:#16181d;color:#d6dae3;
font:15px/1.55 'DejaVu Sans Mono',monospace"><pre style="margin:20px 24px">{}</pre>"""


def portraits(folder: Path, count: int) -> list[Path]:
    """So many photos at equal intervals, not the best ones; of the default folder none that a model was trained on."""
    unseen = {path.name for path in UNSEEN.iterdir()} if folder == AI_FACES else None
    photos = [path for path in sorted(folder.glob("*.jpg")) if unseen is None or path.name in unseen]
    return [photos[i * len(photos) // count] for i in range(min(count, len(photos)))]


def run(*arguments: object) -> None:
    subprocess.run(list(map(str, arguments)), cwd=ROOT, check=True)


def save(image: Image.Image, path: Path, width: int) -> None:
    """As a JPEG of so many pixels across, small enough for a README."""
    small = image.convert("RGB").resize((width, round(width * image.height / image.width)), Image.Resampling.LANCZOS)
    small.save(path, quality=82, optimize=True)


def screen(tab: Page) -> Image.Image:
    data = Path(tempfile.mkdtemp(), "screen.png")
    tab.picture(data)
    return Image.open(data)


def draw_model(photos: list[Path], folder: Path) -> None:
    """What the shipped model makes of many portraits, as a contact sheet."""
    (folder / "many").mkdir()
    for photo in photos:
        shutil.copy(photo, folder / "many")
    run(*COMMAND, "-q", folder / "many", folder / "made")
    look = ("--columns", 5, "--pairs-per-page", len(photos), "--labels", "none", "--title", "Portraits not seen before")
    run(*SHEET, folder / "many", folder / "made", folder / "many.png", *look)
    save(Image.open(folder / "many.png"), ROOT / "models" / "anime-256.jpg", 1280)


def draw_report(tab: Page, page: Path) -> None:
    """The gallery, and beside it one pair with the line drawn to the middle."""
    tab.screen(1000, 760)
    tab.open(page.as_uri())
    tab.wait("[...document.querySelectorAll('.cell img')].slice(0, 12).every((image) => image.naturalWidth)")
    gallery = screen(tab)
    tab.screen(700, 760)
    tab.evaluate("document.querySelector('.cell button').focus()")
    tab.press("Enter")
    tab.wait("document.getElementById('pair').open")
    time.sleep(1)
    pair = screen(tab)
    both = Image.new("RGB", (gallery.width + pair.width, 760))
    both.paste(gallery, (0, 0))
    both.paste(pair, (gallery.width, 0))
    save(both, DOCS / "report.jpg", 1400)


def draw_watch(tab: Page, photos: list[Path], folder: Path) -> None:
    """What a terminal shows while photos are dropped."""
    (folder / "drop").mkdir()
    command = [*COMMAND, "drop", "made", "--watch", "--on-success", "archive=done", "--max-idle", "4"]
    watch = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    time.sleep(4)
    for photo in photos[:4]:
        shutil.copy(photo, folder / "drop" / photo.name)
        time.sleep(0.5)
    (folder / "drop" / "half.jpg").write_bytes(photos[4].read_bytes()[:20_000])
    _, text = watch.communicate()
    shown = "$ h2a-batch drop/ made/ --watch --on-success archive=done --max-idle 4\n"
    shown += text.replace(f"{folder}/", "")
    (folder / "terminal.html").write_text(TERMINAL.format(html.escape(shown)))
    tab.screen(1000, 60 + 24 * shown.count("\n"), scale=1.4)
    tab.open((folder / "terminal.html").as_uri())
    screen(tab).convert("P", palette=Image.Palette.ADAPTIVE, colors=32).save(DOCS / "watch.png", optimize=True)


def draw_faces(photos: list[Path], folder: Path) -> None:
    """A photo of three people, its faces as pictures of their own, and put back."""
    photo = Image.new("RGB", (1800, 640), WALL)
    for place, path in enumerate((photos[2], photos[9], photos[10])):
        with Image.open(path) as image:
            person = Portrait(image.convert("RGB"), 0, 0, 0)
        put(photo, person, (360 + 540 * place, 320), 430 - 40 * place, (-14, 0, 11)[place])
    (folder / "group").mkdir()
    photo.save(folder / "group" / "group.png")
    run(*COMMAND, "-q", folder / "group", folder / "crop")
    run(*COMMAND, "-q", folder / "group", folder / "paste", "--faces", "paste")
    with Image.open(folder / "paste" / "group.png") as pasted:
        both = Image.new("RGB", (photo.width, 2 * photo.height + 600), "white")
        both.paste(photo, (0, 0))
        both.paste(pasted, (0, photo.height))
    for place, path in enumerate(sorted((folder / "crop").glob("group-*.png"))):
        with Image.open(path) as face:
            both.paste(face.resize((590, 590), Image.Resampling.LANCZOS), (place * 605, 2 * photo.height + 10))
    save(both, DOCS / "faces.jpg", 1000)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make_pictures", description=__doc__)
    parser.add_argument("photos", nargs="?", type=Path, default=AI_FACES)
    parser.add_argument("--other", type=Path, metavar="MODEL", help="to compare the shipped model with")
    given = parser.parse_args()
    if not given.photos.is_dir():
        print(f"{given.photos}: no such folder; name one with a dozen portraits", file=sys.stderr)
        return 2
    DOCS.mkdir(exist_ok=True)
    photos = portraits(given.photos, CHOSEN)
    with tempfile.TemporaryDirectory() as name, browser(Path(name)) as tab:
        folder = Path(name)
        (folder / "portraits").mkdir()
        for photo in photos:
            shutil.copy(photo, folder / "portraits")
        run(*COMMAND, "-q", folder / "portraits", folder / "anime", "--report", folder)
        draw_model(portraits(given.photos, MANY), folder)
        draw_report(tab, folder / "report.html")
        draw_watch(tab, photos, folder)
        draw_faces(photos, folder)
        run(*SHEET, folder / "portraits", folder / "anime", folder / "sheet.png", "--theme", "dark", "--columns", 4)
        save(Image.open(io.BytesIO((folder / "sheet.png").read_bytes())), DOCS / "sheet.jpg", 1200)
        if given.other:
            run(*COMMAND, "-q", folder / "portraits", folder / "other", "--model", given.other)
            outs = folder / "other", folder / "anime"
            run(*SHEET, folder / "portraits", *outs, folder / "compare.png", "--columns", 3, "--limit", 6)
            save(Image.open(io.BytesIO((folder / "compare.png").read_bytes())), DOCS / "compare.jpg", 1200)
    return 0


if __name__ == "__main__":
    sys.exit(main())
