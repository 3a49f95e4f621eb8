"""One Prefect flow a file: what happens, in order."""
