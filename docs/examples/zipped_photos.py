"""A data source: photos in a ZIP file with one folder a class."""

from pathlib import PurePosixPath
from zipfile import ZipFile

from ofa.errors import DataError


class ZippedPhotos:
    """Items ``(encoded bytes, class index)`` by their number, as of a ``torch.utils.data.Dataset``.

    Attributes:
        classes: names in the order of the indices.
        targets: the class of each image, so that none is read to know it.
    """

    def __init__(self, path: str) -> None:
        try:
            self._archive = ZipFile(path)
        except OSError as error:
            raise DataError(f"the photos must be in the ZIP file '{path}', but: {error.strerror}; fetch it, or correct the path") from error
        self._names = sorted(name for name in self._archive.namelist() if len(PurePosixPath(name).parts) == 2 and not name.endswith("/"))
        folders = [PurePosixPath(name).parts[0] for name in self._names]
        self.classes = sorted(set(folders))
        self.targets = [self.classes.index(folder) for folder in folders]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> tuple[bytes, int]:
        return self._archive.read(self._names[number]), self.targets[number]


def photos() -> ZippedPhotos:
    """What ``--set data=zipped_photos:photos`` names: a function without arguments, or the dataset itself."""
    return ZippedPhotos("photos.zip")
