"""`submit search`: the schedules of a degradation, searched by training jobs as trials."""
