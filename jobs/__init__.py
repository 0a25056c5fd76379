"""What runs on the cluster: each module composes ``colddiff`` under Ray for one verb."""
