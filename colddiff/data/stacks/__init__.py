"""Files that hold many images: arrays, TIFF of several pages, DICOM, NIfTI volumes."""
