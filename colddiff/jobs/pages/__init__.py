"""Report pages of jobs: read from STORAGE, written at a job's end or by `colddiff report`."""
