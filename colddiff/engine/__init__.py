"""The loops: training, evaluation, packing and the folder of a job, in plain torch over ports."""
