"""What can be submitted: one folder is one verb, found by looking into this one."""
