"""The one error that damaged or misplaced data raises."""


class DataError(ValueError):
    """A file or folder is not what its dataset promises; the message says which and what to do."""
