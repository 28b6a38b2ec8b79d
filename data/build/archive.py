"""What the build scripts read: Debian packages and package indexes, through apt itself.

Works on Debian 12 (bookworm). Nothing is installed and the system's own lists stay as they are.
"""

import gzip
import subprocess
from collections.abc import Iterator
from pathlib import Path


def unpacked(package: str, version: str, work: Path) -> Path:
    """A new folder below ``work`` with the files of exactly that version of a package.

    Raises:
        subprocess.CalledProcessError: apt has no such version.
    """
    folder = work / package
    folder.mkdir()
    subprocess.run(["apt-get", "download", f"{package}={version}"], cwd=folder, check=True)
    (deb,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    return folder


def indexes(work: Path) -> tuple[str, list[dict[str, str]], list[dict[str, str]]]:
    """Release name and date, the Packages stanzas and the English description stanzas of main."""
    lists = work / "lists"
    (lists / "partial").mkdir(parents=True)
    where = ["-o", f"Dir::State::lists={lists}", "-o", "Acquire::Languages=en"]
    subprocess.run(["apt-get", "update", *where], check=True, stdout=subprocess.DEVNULL)
    release = (next(lists.glob("*_dists_bookworm_InRelease"))).read_text()
    fields = dict(line.split(": ", 1) for line in release.splitlines() if ": " in line)
    packages = _stanzas(next(lists.glob("*_dists_bookworm_main_binary-*_Packages*")))
    english = _stanzas(next(lists.glob("*_dists_bookworm_main_i18n_Translation-en*")))
    stated = f"Debian {fields['Version']} (bookworm) main, index of {fields['Date']}"
    return stated, list(packages), list(english)


def _stanzas(path: Path) -> Iterator[dict[str, str]]:
    """Stanzas of a control file; continuation lines keep their line breaks and first space."""
    command = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
    text = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    for block in text.split("\n\n"):
        stanza: dict[str, str] = {}
        field = ""
        for line in block.splitlines():
            if line.startswith(" "):
                stanza[field] += "\n" + line
            else:
                field, _, value = line.partition(":")
                stanza[field] = value.strip()
        if stanza:
            yield stanza


def open_page(path: Path) -> bytes:
    """Source of a man page, unpacked."""
    return gzip.decompress(path.read_bytes())
