import dataset  # noqa: F401 (says first what the installation lacks)
